"""The demo's choices are fixed beforehand and fit what the laboratory has."""

import pytest

from sftknow.demo.settings import DemoSettings
from sftknow.errors import DataError
from sftknow.facts.fact import Fact
from sftknow.mastery.table import MasteryTable, ProbedFact


def table(counts: dict[int, int]) -> MasteryTable:
    """Return a table with so many in-domain training facts in each bucket; 4 trials put h hits in bucket h."""
    rows = [
        ProbedFact.from_counts(
            Fact(f"P19-{bucket}-{i}", "P19", "in_domain", "train", "s", f"q{bucket}{i}", ("a",)), [bucket], [4]
        )
        for bucket, count in counts.items()
        for i in range(count)
    ]
    return MasteryTable(tuple(rows))


@pytest.mark.parametrize(("low", "high", "large"), [(700, 500, 480), (700, 431, 420), (80, 300, 80)])
def test_the_large_size_is_480_or_what_the_scarcer_bucket_has(low: int, high: int, large: int) -> None:
    assert DemoSettings().large(table({0: low, 4: high})) == large


def test_too_few_facts_are_said_with_their_number() -> None:
    with pytest.raises(DataError, match=r"bucket 4 has only 61 training facts, the demo needs more than 60"):
        DemoSettings().large(table({0: 300, 4: 61}))


def test_the_record_names_the_settings_and_no_facts_file_unless_given() -> None:
    record = DemoSettings().record(table({0: 500, 4: 500}))
    assert record["sizes"] == [60, 480]
    assert record["percents"] == [0, 1, 3, 5, 10, 20, 40, 60]
    assert record["facts"] == "invented world"
    assert not record["quick"]
