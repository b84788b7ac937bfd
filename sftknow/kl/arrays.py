"""Divergences between rows of logits, in float64 NumPy, whatever the dtype the logits came in."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def log_softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Return the log-probabilities of each row of logits, shape ``(rows, tokens)``."""
    values = np.asarray(logits, dtype=np.float64)
    values = values - values.max(axis=-1, keepdims=True)
    return np.asarray(values - np.log(np.exp(values).sum(axis=-1, keepdims=True)))


def kl_rows(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return KL(first || second) of each row, in nats; both are softmaxed over the tokens given.

    Args:
        first: logits, shape ``(rows, tokens)``.
        second: logits at the same tokens, same shape.

    Returns:
        One divergence a row; exactly 0 where the rows are equal.
    """
    log_first, log_second = log_softmax(first), log_softmax(second)
    gap = np.where(np.exp(log_first) > 0, log_first - log_second, 0.0)
    return np.asarray(np.maximum((np.exp(log_first) * gap).sum(axis=-1), 0.0))


def jensen_shannon(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return the Jensen-Shannon divergence of each row, in nats: symmetric, at most log 2."""
    sides = log_softmax(first), log_softmax(second)
    halves = [
        np.exp(one) * np.where(np.exp(one) > 0, np.log(2) - np.logaddexp(0, other - one), 0.0)
        for one, other in (sides, sides[::-1])
    ]
    return np.asarray(np.maximum((halves[0] + halves[1]).sum(axis=-1) / 2, 0.0))


def top_ids(logits: ArrayLike, k: int) -> NDArray[np.int64]:
    """Return the ids of the k highest logits of each row, highest first; ties go to the lower id.

    Args:
        logits: shape ``(rows, tokens)``.
        k: from 1 to the number of tokens.
    """
    values = np.asarray(logits)
    threshold = -np.partition(-values, k - 1, axis=-1)[:, k - 1 : k]
    above, equal = values > threshold, values == threshold
    room = k - above.sum(axis=-1, keepdims=True)
    chosen = above | (equal & (equal.cumsum(axis=-1) <= room))
    ids = chosen.nonzero()[1].reshape(len(values), k)
    order = np.argsort(-np.take_along_axis(values, ids, -1), axis=-1, kind="stable")
    return np.take_along_axis(ids, order, -1)


def kl_top_k(tuned: ArrayLike, base: ArrayLike, k: int = 10) -> NDArray[np.float64]:
    """Return the paper's KL of each row: over the k highest logits of the tuned model, KL(tuned || base).

    Args:
        tuned: the tuned model's logits over the vocabulary, shape ``(rows, vocabulary)``.
        base: the base model's, same shape.
        k: tokens kept; both sides are softmaxed over those k alone.

    Source: the paper's section on token-level analysis.
    """
    tuned, base = np.asarray(tuned), np.asarray(base)
    ids = top_ids(tuned, k)
    return kl_rows(np.take_along_axis(tuned, ids, -1), np.take_along_axis(base, ids, -1))
