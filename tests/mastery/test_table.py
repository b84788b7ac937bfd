"""The mastery table: buckets by hand, best templates by hand, and a round trip through its folder."""

from fractions import Fraction
from pathlib import Path

import pytest

from sftknow.errors import ConfigError, DataError
from sftknow.facts.fact import Fact, fact_id
from sftknow.mastery.buckets import bucket_of, bucket_of_mastery
from sftknow.mastery.table import MasteryTable, ProbedFact, read_mastery

EDGES_OF_210 = [(0, 0), (1, 1), (52, 1), (53, 2), (105, 2), (106, 3), (157, 3), (158, 4), (210, 4)]


@pytest.mark.parametrize(("hits", "bucket"), EDGES_OF_210)
def test_edges_of_the_paper_protocol(hits: int, bucket: int) -> None:
    assert bucket_of(hits, 210) == bucket


@pytest.mark.parametrize("trials", [1, 3, 4, 7, 210])
def test_buckets_follow_the_definition_for_every_count(trials: int) -> None:
    for hits in range(trials + 1):
        rate = Fraction(hits, trials)
        expected = [i for i in range(1, 5) if Fraction(i - 1, 4) < rate <= Fraction(i, 4)] or [0]
        assert [bucket_of(hits, trials)] == expected


@pytest.mark.parametrize(("mastery", "bucket"), [(0.0, 0), (1e-9, 1), (0.25, 1), (0.2500001, 2), (0.75, 3), (1.0, 4)])
def test_buckets_of_probabilities(mastery: float, bucket: int) -> None:
    assert bucket_of_mastery(mastery) == bucket


@pytest.mark.parametrize(("hits", "trials"), [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_refused(hits: int, trials: int) -> None:
    with pytest.raises(ValueError, match="not a count of successes"):
        bucket_of(hits, trials)


def fact(relation: str, split: str, number: int) -> Fact:
    question = f"Where is thing {number}?"
    domain = "in_domain" if relation == "P19" else "out_of_domain"
    return Fact(fact_id(relation, split, question), relation, domain, split, f"thing {number}", question, ("here", "é"))  # type: ignore[arg-type]


@pytest.fixture
def table() -> MasteryTable:
    rows = (
        ProbedFact.from_counts(fact("P19", "train", 1), (0, 2), (2, 2)),
        ProbedFact.from_counts(fact("P19", "test", 2), (0, 0), (2, 2)),
        ProbedFact.from_counts(fact("P50", "test", 3), (2, 1), (2, 2)),
        ProbedFact.from_probabilities(fact("P50", "test", 4), (0.9, 0.7)),
    )
    return MasteryTable(
        rows,
        {"estimator": "sample"},
        {"model": {"digest": "x"}},
        {"sampling": 5},
        {"P19": ["a {subject}", "b {subject}"], "P50": ["c {subject}", "d {subject}"]},
    )


def test_selection_and_histogram_by_hand(table: MasteryTable) -> None:
    assert [row.bucket for row in table.rows] == [2, 0, 3, 4]
    assert table.histogram(split="test") == (1, 0, 0, 1, 1)
    assert table.histogram(domain="in_domain") == (1, 0, 1, 0, 0)
    assert [row.fact.subject for row in table.select(buckets={0, 2})] == ["thing 1", "thing 2"]


def test_the_best_template_has_the_highest_success_rate(table: MasteryTable) -> None:
    assert table.best_templates() == {"P19": "b {subject}", "P50": "c {subject}"}


def test_a_table_survives_its_folder(table: MasteryTable, tmp_path: Path) -> None:
    table.write(tmp_path / "mastery")
    assert read_mastery(tmp_path / "mastery") == table


def test_an_existing_table_is_not_overwritten_unasked(table: MasteryTable, tmp_path: Path) -> None:
    table.write(tmp_path / "mastery")
    with pytest.raises(ConfigError, match="--overwrite"):
        table.write(tmp_path / "mastery")
    table.write(tmp_path / "mastery", overwrite=True)


def test_missing_and_damaged_tables_are_named(table: MasteryTable, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sftknow probe"):
        read_mastery(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"mastery\.json does not exist"):
        read_mastery(tmp_path / "empty")
    table.write(tmp_path / "mastery")
    parquet = tmp_path / "mastery" / "facts.parquet"
    parquet.write_bytes(parquet.read_bytes()[:-7])
    with pytest.raises(DataError, match="is not the file"):
        read_mastery(tmp_path / "mastery")
    parquet.unlink()
    with pytest.raises(DataError, match="is missing"):
        read_mastery(tmp_path / "mastery")
