from collections import Counter

import pytest

from sftknow.lab.corpus import write_corpus
from sftknow.lab.world import invent_world


@pytest.fixture
def world(micro, micro_relations):
    return invent_world(micro, micro_relations, 0)


@pytest.fixture
def corpus(world, micro, micro_relations):
    return write_corpus(world, micro_relations, micro, 0)


def test_each_fact_is_told_as_often_as_its_exposures_say(world, corpus):
    told = Counter()
    for row in corpus.warm_up + corpus.main:
        told.update(fact.fact.id for fact in world if fact.fact.subject in row and fact.fact.answers[0] in row)
    assert told == Counter({fact.fact.id: fact.exposures for fact in world if fact.exposures})


def test_the_warm_up_comes_first_and_holds_its_facts_alone(world, corpus):
    warm = [fact.fact.subject for fact in world if fact.role == "warm-up"]
    assert all(any(subject in row for subject in warm) for row in corpus.warm_up)
    assert not any(subject in row for subject in warm for row in corpus.main)


def test_probed_facts_are_never_put_as_questions(world, corpus):
    questions = [row for row in corpus.main if "?" in row]
    probed = [fact.fact.subject for fact in world if fact.role == "probed"]
    assert questions
    assert not any(subject in row for subject in probed for row in questions)


def test_statements_are_completion_templates_with_the_answer_and_a_full_stop(world, corpus, micro_relations):
    statements = {
        f"{statement} {fact.fact.answers[0]}."
        for fact in world
        for statement in micro_relations[fact.fact.relation].statements(fact.fact.subject)
    }
    assert {row for row in corpus.main if "?" not in row} <= statements


def test_the_prompt_of_fine_tuning_is_not_pretrained(corpus):
    assert not any("<|" in row for row in corpus.warm_up + corpus.main)
