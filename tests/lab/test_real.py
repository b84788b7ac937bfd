import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from sftknow.errors import DataError
from sftknow.facts.relations import load_relations
from sftknow.lab.real import choose_facts
from sftknow.lab.sizes import recipe_for

ARCHIVE = Path(__file__).parents[3] / "shared" / "entity_questions" / "dataset.zip"
QUESTIONS = {"P19": "Where was {} born?", "P50": "Who is the author of {}?"}


@pytest.fixture
def source(tmp_path):
    """An archive of 40 fitting facts for each relation and split, each beside one that does not fit."""
    for split in ("train", "dev", "test"):
        (tmp_path / "dataset" / split).mkdir(parents=True)
        for relation, question in QUESTIONS.items():
            rows = []
            for number in range(40):
                subject = f"Person {split} {relation} {number}"
                rows.append({"question": question.format(subject), "answers": [f"Town {number % 7}"]})
            rows += [
                {"question": question.format("A" * 25), "answers": ["Town"]},
                {"question": question.format("Short"), "answers": ["B" * 21]},
                {"question": question.format("Both"), "answers": ["Town", "City"]},
                {"question": question.format("Duke of Parma"), "answers": ["Parma"]},
                {"question": question.format("Seldom"), "answers": [f"Answered once in {split}"]},
            ]
            (tmp_path / "dataset" / split / f"{relation}.{split}.json").write_text(json.dumps(rows))
    return tmp_path / "dataset"


def test_only_fitting_facts_are_chosen_each_from_its_official_split(source, micro, micro_relations):
    world = choose_facts(micro, micro_relations, source, 0)
    assert all(fact.fact.subject.startswith(f"Person {fact.fact.split} ") for fact in world)
    counts = Counter((fact.role, fact.fact.relation, fact.fact.split) for fact in world)
    assert counts == {
        ("probed", "P19", "train"): 15,
        ("probed", "P19", "dev"): 1,
        ("probed", "P19", "test"): 4,
        ("probed", "P50", "test"): 10,
        ("warm-up", "P19", "train"): 2,
        ("warm-up", "P50", "train"): 1,
        ("filler", "P19", "train"): 4,
        ("filler", "P50", "train"): 2,
    }


def test_another_seed_chooses_other_facts(source, micro, micro_relations):
    one, same, other = (
        {fact.fact.id for fact in choose_facts(micro, micro_relations, source, seed)} for seed in (0, 0, 1)
    )
    assert one == same != other


def test_too_few_facts_are_refused_by_relation_and_split(source, micro, micro_relations):
    large = replace(micro, relations={"P19": 20, "P50": 41})
    with pytest.raises(DataError, match="too few short test facts with one common answer for relation P50"):
        choose_facts(large, micro_relations, source, 0)


@pytest.mark.skipif(not ARCHIVE.is_file(), reason="the EntityQuestions archive is not there")
@pytest.mark.parametrize("size", ["tiny", "demo", "long"])
def test_the_real_archive_has_enough_facts_for_every_size(size):
    recipe = recipe_for(size, real=True)
    world = choose_facts(recipe, {name: load_relations()[name] for name in recipe.relations}, ARCHIVE, 0)
    assert Counter(fact.fact.relation for fact in world if fact.role == "probed") == recipe.relations
    assert len({fact.fact.subject.casefold() for fact in world}) == len(world)
