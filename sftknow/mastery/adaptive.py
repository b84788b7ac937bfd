"""Adaptive probing: stop sampling a fact once the bucket of the full protocol is all but certain.

Samples are drawn in rounds of one for each template, so that no template is favoured. After each round the hits that
the full protocol would end with have a beta-binomial distribution, with a prior fitted to some facts that were probed
in full; a fact is settled when the bucket it stands in has at least the stated probability of being the final one.
"""

import functools
import math
from collections.abc import Iterator, Sequence

from sftknow.mastery.buckets import bucket_of
from sftknow.mastery.sample import Sampler, draw_hits
from sftknow.mastery.window import Window

PILOT_FACTS = 30
_FIRST_ROUND = 2


def adaptive_window(sampler: Sampler, window: Window) -> tuple[list[list[int]], list[list[int]]]:
    """Return for each fact of a window its hits and its trials per template."""
    settings = window.settings
    assert settings.confidence is not None and settings.prior is not None
    hits = [[0] * len(item.prompts) for item in window.items]
    trials = [[0] * len(item.prompts) for item in window.items]
    open_facts = list(range(len(window.items)))
    for first, count in rounds(settings.samples):
        found = draw_hits(sampler, window, open_facts, first, count)
        for fact, more in zip(open_facts, found, strict=True):
            hits[fact] = [old + new for old, new in zip(hits[fact], more, strict=True)]
            trials[fact] = [old + count for old in trials[fact]]
        open_facts = [
            fact
            for fact in open_facts
            if confidence(sum(hits[fact]), sum(trials[fact]), settings.samples * len(hits[fact]), settings.prior)
            < settings.confidence
        ]
        if not open_facts:
            break
    return hits, trials


def rounds(samples: int) -> Iterator[tuple[int, int]]:
    """Yield (first sample, samples per template) of each round; nothing is ever settled on the first sample alone."""
    start = min(_FIRST_ROUND, samples)
    yield 0, start
    for first in range(start, samples):
        yield first, 1


@functools.lru_cache(maxsize=65536)
def confidence(hits: int, trials: int, total: int, prior: tuple[float, float]) -> float:
    """Return the probability that the bucket of ``hits`` of ``trials`` is that of all ``total`` completions.

    Args:
        hits: completions that were right so far.
        trials: completions drawn so far.
        total: completions of the full protocol.
        prior: (a, b) of the beta distribution that mastery has over facts.
    """
    left = total - trials
    if left <= 0:
        return 1.0
    a, b = prior[0] + hits, prior[1] + trials - hits
    here = bucket_of(hits, trials)
    return math.fsum(
        math.exp(_log_choose(left, more) + _log_beta(a + more, b + left - more) - _log_beta(a, b))
        for more in range(left + 1)
        if bucket_of(hits + more, total) == here
    )


def fit_prior(hits: Sequence[int], totals: Sequence[int]) -> tuple[float, float]:
    """Return the (a, b) under which the hits of some facts probed in full are most likely, from a fixed grid.

    The grid spans means of 0.02 to 0.98 and spreads from nearly all facts at 0 or 1 to nearly all alike.
    """
    means = [0.02 + 0.04 * step for step in range(25)]
    sizes = [0.1 * 1.5**step for step in range(15)]
    pairs = [(mean * size, (1 - mean) * size) for mean in means for size in sizes]
    return max(pairs, key=lambda pair: _log_likelihood(hits, totals, pair))


def _log_likelihood(hits: Sequence[int], totals: Sequence[int], prior: tuple[float, float]) -> float:
    a, b = prior
    return math.fsum(
        _log_beta(a + hit, b + total - hit) - _log_beta(a, b) for hit, total in zip(hits, totals, strict=True)
    )


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
