"""Statistics of two models scored on the same documents: McNemar's exact test, paired bootstrap intervals."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def mcnemar(lost: int, gained: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    Under the null hypothesis each document on which the two models differ is as likely to be lost as gained.

    Args:
        lost: documents right with the first model only.
        gained: documents right with the second model only.
    """
    differ = lost + gained
    tail, ways = 0, 1  # ways: how many of the 2^differ outcomes lose exactly `count`
    for count in range(min(lost, gained) + 1):
        tail += ways
        ways = ways * (differ - count) // (count + 1)
    chance: float = 2 * tail / 2**differ
    return min(1.0, chance)


def bootstrap_interval(
    strata: Sequence[Floats], weights: Sequence[float], *, seed: int = 0, draws: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Return a percentile interval of a weighted sum of stratum means, documents drawn anew within each stratum.

    Args:
        strata: for each task, the difference of the two models on each document; each array of shape (documents,).
        weights: weight of each task's mean, 1 / tasks for an unweighted mean over tasks.
        seed: of the draws.
        draws: how many samples are drawn.
        level: share of them that the interval holds.
    """
    rng = np.random.default_rng(seed)
    totals = np.zeros(draws)
    for values, weight in zip(strata, weights, strict=True):
        totals += weight * _means(values, draws, rng)
    low, high = np.quantile(totals, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _means(values: Floats, draws: int, rng: np.random.Generator) -> Floats:
    means = np.empty(draws)
    rows = max(1, 2_000_000 // max(1, values.size))  # at most some 16 MB at once
    for first in range(0, draws, rows):
        last = min(first + rows, draws)
        means[first:last] = values[rng.integers(values.size, size=(last - first, values.size))].mean(axis=1)
    return means
