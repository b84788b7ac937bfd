"""Sampled mastery of a window of facts: hits of every template of every fact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sftknow.mastery.cost import Cost
from sftknow.mastery.judge import AnswerJudge
from sftknow.mastery.window import Window

Array = np.ndarray[Any, Any]


class Judge(Protocol):
    """Says of completions whether they count as right."""

    def right(self, prompts: Sequence[int], texts: Sequence[str], ended: Sequence[bool]) -> Sequence[bool]:
        """Say of each text whether it is right: as it is where it has ended, however it goes on where it has not."""


@dataclass(frozen=True, slots=True)
class Request:
    """Samples wanted of one prompt.

    Attributes:
        text: the prompt; special tokens are added as the tokenizer does by default.
        key: the prompt's random streams, see :mod:`sftknow.mastery.streams`.
        first: index of the first sample wanted.
        count: number of samples wanted.
    """

    text: str
    key: int
    first: int = 0
    count: int = 10


class Sampler(Protocol):
    """Draws samples of prompts and says which are right."""

    cost: Cost

    def outcomes(self, requests: Sequence[Request], judge: Judge) -> list[Array]:
        """Return for each request which of its samples are right: (count,) bool."""


def sample_window(sampler: Sampler, window: Window) -> tuple[list[list[int]], list[list[int]]]:
    """Return for each fact of a window its hits and its trials per template.

    Source: the paper's section on knowledge mastery (21 templates, 10 samples each, temperature 0.7).
    """
    samples = window.settings.samples
    hits = draw_hits(sampler, window, range(len(window.items)), 0, samples)
    return hits, [[samples] * len(item.prompts) for item in window.items]


def draw_hits(sampler: Sampler, window: Window, chosen: Sequence[int], first: int, count: int) -> list[list[int]]:
    """Return the hits per template of some facts of a window, of ``count`` samples from the ``first`` one on."""
    items = [window.items[position] for position in chosen]
    requests = [
        Request(prompt, key, first, count)
        for item in items
        for prompt, key in zip(item.prompts, item.keys, strict=True)
    ]
    facts = [position for position, item in enumerate(items) for _ in item.prompts]
    judge = AnswerJudge(facts, [item.answers for item in items], window.settings.match)
    hits: list[list[int]] = [[] for _ in items]
    for fact, right in zip(facts, sampler.outcomes(requests, judge), strict=True):
        hits[fact].append(int(right.sum()))
    return hits
