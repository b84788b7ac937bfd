"""Mastery buckets: how often the base model completes a fact correctly, cut into five classes."""

import math
from collections.abc import Sequence

BUCKETS = (0, 1, 2, 3, 4)


def bucket_of(hits: int, trials: int) -> int:
    """Return the bucket of a fact from its sampled completions.

    Bucket 0 holds R = 0; bucket i in 1..4 holds R in ((i-1)/4, i/4], with R = hits / trials. Integer arithmetic keeps
    the edges exact.

    Args:
        hits: completions that contain the object or one of its aliases.
        trials: completions drawn (210 in the paper: 21 templates x 10 samples).

    Raises:
        ValueError: trials is not positive, or hits lies outside 0..trials.

    Source: the paper's section on knowledge mastery.
    """
    if trials < 1 or not 0 <= hits <= trials:
        raise ValueError(f"hits {hits} of {trials} trials is not a count of successes")
    return -(-4 * hits // trials)


def bucket_of_mastery(mastery: float) -> int:
    """Return the bucket of a mastery given as a probability in 0..1 rather than as counts."""
    if not 0.0 <= mastery <= 1.0:
        raise ValueError(f"mastery {mastery} lies outside 0..1")
    return next(bucket for bucket in BUCKETS if mastery <= bucket / 4)


def all_wrong(probabilities: Sequence[float], samples: int) -> float:
    """Return the probability that no completion is right, with some samples of each template.

    Args:
        probabilities: of each template, that a completion is right.
        samples: completions drawn for each template.
    """
    if any(probability >= 1.0 for probability in probabilities):
        return 0.0
    return math.exp(samples * math.fsum(math.log1p(-probability) for probability in probabilities))
