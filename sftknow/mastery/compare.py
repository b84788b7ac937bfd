"""Agreement of two mastery tables: two estimators, two models, two seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sftknow.errors import DataError
from sftknow.mastery.buckets import BUCKETS
from sftknow.mastery.table import MasteryTable

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two tables agree on the facts that both hold.

    Attributes:
        facts: facts in both.
        only_first: facts in the first table only.
        only_second: facts in the second table only.
        exact: share of facts in the same bucket.
        within_one: share of facts in the same or a neighbouring bucket.
        rank_correlation: Spearman's, of mastery; None where a table holds a single value.
        mean_first: mean mastery in the first table.
        mean_second: mean mastery in the second table.
        confusion: ``confusion[i][j]`` facts in bucket i of the first and j of the second.
    """

    facts: int
    only_first: int
    only_second: int
    exact: float
    within_one: float
    rank_correlation: float | None
    mean_first: float
    mean_second: float
    confusion: tuple[tuple[int, ...], ...]

    def lines(self, first: str = "A", second: str = "B") -> list[str]:
        """Return the agreement as lines to print."""
        rank = "undefined" if self.rank_correlation is None else f"{self.rank_correlation:.3f}"
        return [
            f"{self.facts:,} facts in both, {self.only_first:,} only in {first}, {self.only_second:,} only in {second}",
            f"same bucket            {100 * self.exact:5.1f}%",
            f"within one bucket      {100 * self.within_one:5.1f}%",
            f"rank correlation of R  {rank}",
            f"mean R                 {self.mean_first:.3f} in {first}, {self.mean_second:.3f} in {second}",
            f"{f'bucket in {first} below, in {second} across':<38}" + "".join(f"{bucket:>8}" for bucket in BUCKETS),
            *(f"{bucket:>38}" + "".join(f"{count:>8,}" for count in self.confusion[bucket]) for bucket in BUCKETS),
        ]


def compare(first: MasteryTable, second: MasteryTable) -> Agreement:
    """Compare two mastery tables fact by fact, matched by their ids.

    Raises:
        DataError: the tables share no fact.
    """
    ours = {row.fact.id: row for row in first.rows}
    theirs = {row.fact.id: row for row in second.rows}
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise DataError("the two mastery tables share no fact; compare tables made from the same facts.")
    confusion = np.zeros((len(BUCKETS), len(BUCKETS)), dtype=int)
    for name in shared:
        confusion[ours[name].bucket, theirs[name].bucket] += 1
    steps = np.abs(np.subtract.outer(np.array(BUCKETS), np.array(BUCKETS)))
    a = np.array([ours[name].mastery for name in shared])
    b = np.array([theirs[name].mastery for name in shared])
    return Agreement(
        facts=len(shared),
        only_first=len(ours) - len(shared),
        only_second=len(theirs) - len(shared),
        exact=float(confusion[steps == 0].sum() / len(shared)),
        within_one=float(confusion[steps <= 1].sum() / len(shared)),
        rank_correlation=rank_correlation(a, b),
        mean_first=float(a.mean()),
        mean_second=float(b.mean()),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def rank_correlation(first: Sequence[float] | Array, second: Sequence[float] | Array) -> float | None:
    """Return Spearman's correlation, ties given their mean rank; None where all values of a side are equal."""
    a, b = _ranks(np.asarray(first, dtype=float)), _ranks(np.asarray(second, dtype=float))
    if not (np.ptp(a) and np.ptp(b)):
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: Array) -> Array:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: Array = last - (counts - 1) / 2
    return np.asarray(means[place])
