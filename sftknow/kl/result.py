"""What a comparison of two models found: means with bootstrap intervals, per relation and per fact."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over facts, its 95% bootstrap interval, and the number of facts."""

    mean: float
    low: float
    high: float
    facts: int


@dataclass(frozen=True, slots=True)
class FactDivergence:
    """The divergence at one fact, in nats, averaged over its positions."""

    id: str
    relation: str
    value: float


@dataclass(frozen=True)
class Divergence:
    """The divergence between two models.

    Attributes:
        mean: over facts, in nats.
        low: lower end of the 95% bootstrap interval over facts.
        high: upper end.
        per_relation: relation -> the same for its facts alone.
        per_fact: one entry a fact, in the order of the prompts.
        measure: direction, support and positions, in words.
        notes: what else a reader of the numbers should know.
        moved: the facts that moved most, each with the tokens that gained and lost probability.
    """

    mean: float
    low: float
    high: float
    per_relation: Mapping[str, Interval]
    per_fact: tuple[FactDivergence, ...]
    measure: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    moved: tuple[Mapping[str, Any], ...] = ()


def summarise(
    ids: Sequence[str],
    relations: Sequence[str],
    values: NDArray[np.float64],
    *,
    seed: int = 0,
    measure: Mapping[str, Any] | None = None,
) -> Divergence:
    """Average per-fact divergences, over all facts and per relation, with bootstrap intervals over facts.

    Args:
        ids: fact ids.
        relations: their relations.
        values: their divergences in nats, shape ``(facts,)``.
        seed: of the bootstrap.
        measure: direction, support and positions.
    """
    whole = interval(values, f"{seed} all")
    groups = {
        relation: interval(values[[name == relation for name in relations]], f"{seed} {relation}")
        for relation in sorted(set(relations))
    }
    facts = tuple(FactDivergence(*row) for row in zip(ids, relations, map(float, values), strict=True))
    return Divergence(whole.mean, whole.low, whole.high, groups, facts, dict(measure or {}))


def interval(values: NDArray[np.float64], seed: str) -> Interval:
    """Return the mean of values with its percentile bootstrap interval."""
    generator = np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()[:16]))
    rows = max(1, min(RESAMPLES, 4_000_000 // len(values)))
    means: list[NDArray[np.float64]] = []
    while sum(map(len, means)) < RESAMPLES:
        means.append(values[generator.integers(0, len(values), (rows, len(values)))].mean(axis=1))
    low, high = np.quantile(np.concatenate(means)[:RESAMPLES], [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(values))
