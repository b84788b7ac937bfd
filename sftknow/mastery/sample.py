"""Sampled mastery of one window on a local model: hits of every template of every fact."""

from typing import Any

from sftknow.mastery.judge import AnswerJudge
from sftknow.mastery.tree import Request, TreeSampler
from sftknow.mastery.window import Settings, Window


def make_sampler(model: Any, tokenizer: Any, settings: Settings) -> TreeSampler:
    """Return the tree sampler that the settings of a probe describe."""
    return TreeSampler(
        model,
        tokenizer,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        stop_newline=settings.stop_newline,
        batch_size=settings.batch_size,
    )


def sample_window(sampler: TreeSampler, window: Window) -> list[list[int]]:
    """Return for each fact its hits per template.

    Source: the paper's section on knowledge mastery (21 templates, 10 samples each, temperature 0.7).
    """
    requests = [
        Request(prompt, key, count=window.settings.samples)
        for item in window.items
        for prompt, key in zip(item.prompts, item.keys, strict=True)
    ]
    facts = [position for position, item in enumerate(window.items) for _ in item.prompts]
    judge = AnswerJudge(facts, [item.answers for item in window.items], window.settings.match)
    hits: list[list[int]] = [[] for _ in window.items]
    for fact, right in zip(facts, sampler.outcomes(requests, judge), strict=True):
        hits[fact].append(int(right.sum()))
    return hits
