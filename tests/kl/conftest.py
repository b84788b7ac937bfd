"""A toy base model and mastery table, built once."""

import pytest
from toy_world import toy_facts, toy_table, write_toy_model


@pytest.fixture(scope="session")
def facts():
    return toy_facts()


@pytest.fixture(scope="session")
def table(facts):
    return toy_table(facts)


@pytest.fixture(scope="session")
def base(facts, tmp_path_factory):
    return write_toy_model(tmp_path_factory.mktemp("toy") / "base", facts)
