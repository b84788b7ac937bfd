"""Means with their spread, margins of error and curves: pure functions on numbers and scores."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from sftknow.report.results import DomainScore

CONFIDENCE = 0.95

Term = tuple[float, DomainScore]
Arm = Sequence[Term]


@dataclass(frozen=True)
class Spread:
    """Mean over seeds with sample standard deviation (None for one seed) and range."""

    mean: float
    sd: float | None
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of accuracies with the standard error that comes from the test facts alone.

    ``paired`` says whether per-fact outcomes were there, so that facts answered alike cancel.
    """

    effect: float
    stderr: float
    facts: int
    paired: bool


def spread(values: Iterable[float]) -> Spread:
    """Return mean, sample standard deviation (divisor count - 1) and range of one or more values.

    Raises:
        ValueError: there are no values.
    """
    numbers = list(values)
    if not numbers:
        raise ValueError("no values to take the mean of")
    mean = fmean(numbers)
    sd = math.sqrt(sum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1)) if len(numbers) > 1 else None
    return Spread(mean=mean, sd=sd, low=min(numbers), high=max(numbers), count=len(numbers))


def pooled_sd(groups: Iterable[Sequence[float]]) -> tuple[float, int]:
    """Return the standard deviation within groups, pooled, and its degrees of freedom.

    Two seeds say little about a spread; several groups of two, each about its own mean, say more. Groups of fewer
    than two values add nothing; with no degree of freedom the result is (0.0, 0).
    """
    total, freedom = 0.0, 0
    for group in groups:
        if len(group) > 1:
            mean = fmean(group)
            total += sum((x - mean) ** 2 for x in group)
            freedom += len(group) - 1
    return (math.sqrt(total / freedom), freedom) if freedom else (0.0, 0)


def binomial_stderr(score: DomainScore) -> float:
    """Return the standard error of an unweighted mean over buckets: sqrt(sum of p (1 - p) / n) / buckets."""
    terms = [bucket.accuracy * (1 - bucket.accuracy) / bucket.facts for bucket in score.buckets.values()]
    return math.sqrt(sum(terms)) / len(terms)


def contrast(arms: Sequence[Arm]) -> Contrast:
    """Return a weighted sum of accuracies, such as after minus before, and its error from the test facts.

    Where every score carries its per-fact outcomes, each fact is its own pair: the error is that of the mean, within
    each bucket, of the facts' weighted sums. Otherwise the scores of one arm (the same setting under several seeds)
    share all of their error, as they were taken on the same facts, and those of different arms none, which errs on
    the side of too wide.

    Args:
        arms: each a list of (weight, score) pairs; all on one test set.

    Raises:
        ValueError: the scores were taken on different buckets, or on different numbers of facts.
    """
    terms = [term for arm in arms for term in arm]
    shapes = {tuple((bucket, score.facts) for bucket, score in one.buckets.items()) for _, one in terms}
    if len(shapes) != 1:
        raise ValueError("scores of different test sets cannot be compared")
    effect = sum(weight * score.accuracy for weight, score in terms)
    facts = terms[0][1].facts
    paired = _paired_stderr(terms)
    if paired is not None:
        return Contrast(effect=effect, stderr=paired, facts=facts, paired=True)
    errors = [sum(abs(weight) * binomial_stderr(score) for weight, score in arm) for arm in arms]
    return Contrast(effect=effect, stderr=math.hypot(*errors), facts=facts, paired=False)


def _paired_stderr(terms: Sequence[Term]) -> float | None:
    total = 0.0
    buckets = list(terms[0][1].buckets)
    for bucket in buckets:
        outcomes = [(weight, score.buckets[bucket].outcomes) for weight, score in terms]
        rows = [[weight * value for value in values] for weight, values in outcomes if values is not None]
        if len(rows) != len(terms):
            return None
        sums = [math.fsum(column) for column in zip(*rows, strict=True)]
        sd = spread(sums).sd
        total += (sd if sd is not None else 0.5) ** 2 / len(sums)
    return math.sqrt(total) / len(buckets)


def margin(test_stderr: float, seed_stderr: float, freedom: int, *, looks: int = 1) -> float:
    """Return half the width of a 95% interval from test-set error and spread over seeds, added in quadrature.

    Args:
        test_stderr: standard error from the test facts (normal quantile).
        seed_stderr: standard error from the spread over seeds (Student quantile).
        freedom: degrees of freedom behind ``seed_stderr``, at least 1.
        looks: how many comparisons the best was picked from (Bonferroni).
    """
    tail = (1 - CONFIDENCE) / 2 / looks
    normal = NormalDist().inv_cdf(1 - tail)
    return math.hypot(normal * test_stderr, student_quantile(1 - tail, freedom) * seed_stderr)


def student_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t with whole degrees of freedom; ValueError where there are none."""
    from scipy.stats import t

    if freedom < 1:
        raise ValueError(f"Student's t needs one degree of freedom or more, not {freedom}")
    return float(t.ppf(probability, freedom))


def interpolate(x: float, xs: Sequence[float]) -> tuple[int, float] | None:
    """Return (i, w) such that x = (1 - w) xs[i] + w xs[i + 1], or None where x lies outside the rising ``xs``.

    Used to read an accuracy-against-change-undone curve at another curve's share: accuracy is then
    (1 - w) a[i] + w a[i + 1].
    """
    for i, (left, right) in enumerate(itertools.pairwise(xs)):
        if left <= x <= right:
            return i, (x - left) / (right - left) if right > left else 0.0
    return None


@dataclass(frozen=True)
class Line:
    """A common least-squares slope within groups, its standard error and degrees of freedom, and Pearson's r within."""

    slope: float
    stderr: float
    freedom: int
    correlation: float
    count: int


def fit_slope(groups: Iterable[Sequence[tuple[float, float]]]) -> Line | None:
    """Fit y = a_group + slope x to (x, y) points; None with fewer than two points to spare or where x never varies."""
    xs: list[float] = []
    ys: list[float] = []
    intercepts = 0
    for group in groups:
        intercepts += 1
        mean_x, mean_y = fmean(x for x, _ in group), fmean(y for _, y in group)
        xs += [x - mean_x for x, _ in group]
        ys += [y - mean_y for _, y in group]
    freedom = len(xs) - intercepts - 1
    sxx, syy = math.fsum(x * x for x in xs), math.fsum(y * y for y in ys)
    if freedom < 1 or sxx == 0:
        return None
    sxy = math.fsum(x * y for x, y in zip(xs, ys, strict=True))
    residual = max(syy - sxy**2 / sxx, 0.0)
    correlation = sxy / math.sqrt(sxx * syy) if syy > 0 else 0.0
    return Line(sxy / sxx, math.sqrt(residual / freedom / sxx), freedom, correlation, len(xs))
