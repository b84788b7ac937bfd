import json
import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict

import pytest

from sftknow.facts.fact import fact_id
from sftknow.facts.relations import load_relations
from sftknow.lab.corpus import write_corpus
from sftknow.lab.sizes import SIZES
from sftknow.lab.world import invent_world
from sftknow.records import digest

WORLD_DIGEST = "856f3b9233c4e876"
CORPUS_DIGEST = "168521923997b685"
PROGRAM = """
from dataclasses import asdict
from sftknow.facts.relations import load_relations
from sftknow.lab.corpus import write_corpus
from sftknow.lab.sizes import SIZES
from sftknow.lab.world import invent_world
from sftknow.records import digest
world = invent_world(SIZES["tiny"], load_relations(), 0)
corpus = write_corpus(world, load_relations(), SIZES["tiny"], 0)
print(digest([asdict(fact) for fact in world]), digest([corpus.warm_up, corpus.main]))
"""


@pytest.fixture(scope="module")
def demo_world():
    return invent_world(SIZES["demo"], load_relations(), 0)


def test_the_world_and_its_corpus_are_the_same_bytes_under_any_hash_seed():
    digests = set()
    for seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        digests.add(subprocess.check_output([sys.executable, "-c", PROGRAM], env=environment, text=True))
    assert len(digests) == 1


def test_the_world_and_its_corpus_are_the_pinned_ones():
    # Where this fails on purpose, raise RECIPE_VERSION so that cached laboratories are built again.
    world = invent_world(SIZES["tiny"], load_relations(), 0)
    corpus = write_corpus(world, load_relations(), SIZES["tiny"], 0)
    assert digest([asdict(fact) for fact in world]) == WORLD_DIGEST
    assert digest([corpus.warm_up, corpus.main]) == CORPUS_DIGEST


def test_another_seed_is_another_world():
    subjects = [{f.fact.subject for f in invent_world(SIZES["tiny"], load_relations(), seed)} for seed in (0, 1)]
    assert len(subjects[0] & subjects[1]) < 3


def test_every_subject_is_new_and_none_gives_its_answer_away(demo_world):
    subjects = [fact.fact.subject for fact in demo_world]
    assert len(set(subjects)) == len(subjects)
    assert not any(fact.fact.answers[0].lower() in fact.fact.subject.lower() for fact in demo_world)


def test_names_are_as_diverse_as_real_ones(demo_world):
    words = {word for fact in demo_world for word in fact.fact.subject.split()}
    assert len(words) / len(demo_world) > 1.1
    for relation in ("P19", "P159", "P17", "P36", "P69", "P740"):
        counts = Counter(fact.fact.answers[0] for fact in demo_world if fact.fact.relation == relation)
        entropy = -sum(n / counts.total() * math.log2(n / counts.total()) for n in counts.values())
        assert 5.5 < entropy < 8.5, relation


def test_probed_facts_are_split_and_the_others_stay_apart(demo_world):
    roles = Counter(fact.role for fact in demo_world)
    assert roles == {"probed": 6 * 560 + 4 * 200, "warm-up": 6 * 28 + 4 * 10, "filler": 6 * 79 + 4 * 28}
    splits = Counter((f.fact.domain, f.fact.split) for f in demo_world if f.role == "probed")
    assert splits == {
        ("in_domain", "train"): 6 * 426,
        ("in_domain", "dev"): 6 * 22,
        ("in_domain", "test"): 6 * 112,
        ("out_of_domain", "test"): 800,
    }
    assert not {f.fact.id for f in demo_world if f.role == "probed"} & {
        f.fact.id for f in demo_world if f.role != "probed"
    }


def test_exposures_follow_the_weights_within_each_relation(demo_world):
    for relation in ("P19", "P50"):
        counts = Counter(f.exposures for f in demo_world if f.role == "probed" and f.fact.relation == relation)
        total = counts.total()
        assert counts == {
            times: pytest.approx(total * weight / sum(w for _, w in SIZES["demo"].exposures), abs=1)
            for times, weight in SIZES["demo"].exposures
        }


def test_questions_and_ids_are_those_of_the_relations_file(demo_world):
    fact = demo_world[0].fact
    assert fact.question == f"Where was {fact.subject} born?"
    assert fact.id == fact_id("P19", fact.split, fact.question)
    json.dumps(asdict(fact))
