"""A laboratory small enough to be pretrained inside a test."""

import pytest

from sftknow.facts.relations import load_relations
from sftknow.lab import sizes
from sftknow.lab.corpus import write_corpus
from sftknow.lab.sizes import Recipe
from sftknow.lab.tokenizer import encode_rows, train_tokenizer
from sftknow.lab.world import invent_world

MICRO = Recipe(
    size="micro",
    relations={"P19": 20, "P50": 10},
    splits=(20, 5, 75),
    exposures=((0, 1), (4, 1), (8, 1)),
    warm_up=(10, 12),
    filler=(20, 6),
    question_percent=40,
    vocabulary=600,
    hidden=16,
    layers=2,
    heads=2,
    feed_forward=32,
    batch=4,
    learning_rate=5e-3,
)


@pytest.fixture
def micro(monkeypatch):
    """The recipe of a laboratory that trains within a second, registered as size ``micro``."""
    monkeypatch.setitem(sizes.SIZES, "micro", MICRO)
    return MICRO


@pytest.fixture(scope="session")
def micro_relations():
    return {name: load_relations()[name] for name in MICRO.relations}


@pytest.fixture(scope="session")
def micro_rows(micro_relations):
    """A tokenizer, and the token rows of both phases, of the micro laboratory."""
    corpus = write_corpus(invent_world(MICRO, micro_relations, 0), micro_relations, MICRO, 0)
    tokenizer = train_tokenizer(corpus.warm_up + corpus.main, MICRO.vocabulary)
    return tokenizer, [encode_rows(tokenizer, list(rows)) for rows in (corpus.warm_up, corpus.main)]
