import pytest
from probe_worlds import make_fact

from sftknow.errors import DataError
from sftknow.mastery.compare import compare, rank_correlation
from sftknow.mastery.table import MasteryTable, ProbedFact

FACTS = [make_fact(f"S{n}", "Rome") for n in range(6)]


def table_of(hits, facts=FACTS):
    return MasteryTable(tuple(ProbedFact.from_counts(fact, (h,), (8,)) for fact, h in zip(facts, hits, strict=True)))


def test_agreement_by_hand():
    # Buckets of h of 8: 0 -> 0; 1, 2 -> 1; 3, 4 -> 2; 5, 6 -> 3; 7, 8 -> 4.
    found = compare(table_of([0, 1, 3, 5, 8, 8]), table_of([0, 3, 4, 8, 2, 7]))
    assert found.facts == 6 and (found.only_first, found.only_second) == (0, 0)
    assert found.exact == pytest.approx(3 / 6)  # buckets 0 1 2 3 4 4 against 0 2 2 4 1 4
    assert found.within_one == pytest.approx(5 / 6)
    assert found.confusion[1][2] == 1 and found.confusion[4][1] == 1 and found.confusion[4][4] == 1
    assert sum(map(sum, found.confusion)) == 6
    assert found.mean_first == pytest.approx(25 / 48)
    # Ranks 1 2 3 4 5.5 5.5 and 1 3 4 6 2 5.
    a, b = [1, 2, 3, 4, 5.5, 5.5], [1, 3, 4, 6, 2, 5]
    top = sum((x - 3.5) * (y - 3.5) for x, y in zip(a, b, strict=True))
    below = (sum((x - 3.5) ** 2 for x in a) * sum((y - 3.5) ** 2 for y in b)) ** 0.5
    assert found.rank_correlation == pytest.approx(top / below)
    assert any("50.0%" in line for line in found.lines())


def test_only_shared_facts_are_compared():
    found = compare(table_of([1, 2, 3], FACTS[:3]), table_of([3, 2, 1, 1], FACTS[2:]))
    assert (found.facts, found.only_first, found.only_second) == (1, 2, 3)
    assert found.exact == 1.0
    assert found.rank_correlation is None
    assert "rank correlation of R  undefined" in found.lines()


def test_tables_without_a_shared_fact_are_refused():
    with pytest.raises(DataError, match="share no fact"):
        compare(table_of([1, 2, 3], FACTS[:3]), table_of([1, 2, 3], FACTS[3:]))


def test_rank_correlation_knows_order_only():
    assert rank_correlation([1, 2, 3, 9], [0.1, 0.2, 0.4, 7]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3, 9], [4, 3, 2, 1]) == pytest.approx(-1.0)
