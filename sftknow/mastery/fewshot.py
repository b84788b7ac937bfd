"""Mastery without completion templates: SliCK's few-shot protocol and its four categories.

Each question is asked behind 10 random sets of 4 answered questions of the same relation; once greedily and 16 times
at temperature 0.5 among the 40 most probable tokens. An answer counts when it equals a gold answer as a whole.

=============  =============================================
HighlyKnown    every greedy answer is right
MaybeKnown     some greedy answers are right
WeaklyKnown    no greedy answer is right, some sampled one is
Unknown        no answer is right
=============  =============================================

Source: Gekhman et al. 2024, "Does Fine-Tuning LLMs on New Knowledge Encourage Hallucinations?", section on SliCK.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sftknow.errors import DataError
from sftknow.facts.fact import Fact
from sftknow.facts.matching import exact_match
from sftknow.mastery.cost import Cost
from sftknow.mastery.sample import Request, Sampler
from sftknow.mastery.streams import stream_key
from sftknow.mastery.window import Item, Window

CATEGORIES = ("HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown")
PROMPTS = 10
SHOTS = 4
SAMPLES = 16
TEMPERATURE = 0.5
TOP_K = 40


def category(greedy_hits: int, prompts: int, sampled_hits: int) -> str:
    """Return SliCK's category of a fact.

    Args:
        greedy_hits: greedy answers that were right.
        prompts: greedy answers given, one a prompt.
        sampled_hits: sampled answers that were right.
    """
    if greedy_hits == prompts:
        return "HighlyKnown"
    if greedy_hits:
        return "MaybeKnown"
    return "WeaklyKnown" if sampled_hits else "Unknown"


def fewshot_items(facts: Sequence[Fact], names: Sequence[Sequence[str]], seed: int, prompts: int) -> list[Item]:
    """Return every fact's prompts, with exemplars drawn at random from the same relation's train facts.

    Args:
        facts: the facts to probe; they are each other's exemplars. A relation without train facts lends others.
        names: of each fact, all names that count as right.
        seed: of the draw; a fact's exemplars depend on it, on the fact and on the relation's facts.
        prompts: prompts a fact.

    Raises:
        DataError: a relation has too few facts to draw exemplars from.
    """
    pools: dict[str, list[Fact]] = {}
    for fact in facts:
        pools.setdefault(fact.relation, []).append(fact)
    for relation, pool in pools.items():
        pools[relation] = sorted([f for f in pool if f.split == "train"] or pool, key=lambda fact: fact.id)
    return [_item(fact, answers, pools, seed, prompts) for fact, answers in zip(facts, names, strict=True)]


def _item(fact: Fact, answers: Sequence[str], pools: Mapping[str, list[Fact]], seed: int, prompts: int) -> Item:
    pool = [other for other in pools[fact.relation] if other.question != fact.question]
    if len(pool) < SHOTS:
        raise DataError(
            f"relation {fact.relation} has {len(pool)} other facts, and a {SHOTS}-shot prompt needs {SHOTS}; "
            "add train facts of this relation."
        )
    keys = [stream_key(seed, f"{fact.id}\nfew-shot {number}") for number in range(prompts)]
    texts = []
    for key in keys:
        chosen = np.random.default_rng(key).choice(len(pool), SHOTS, replace=False)
        shots = [f"Q: {pool[n].question}\nA: {pool[n].answers[0]}\n\n" for n in chosen]
        texts.append(f"{''.join(shots)}Q: {fact.question}\nA:")
    return Item(tuple(texts), tuple(keys), tuple(answers))


class ExactJudge:
    """Counts an answer that equals one of the names as a whole, once it has ended.

    Args:
        names: of each prompt, all names that count as right.
    """

    def __init__(self, names: Sequence[Sequence[str]]) -> None:
        self._names = names

    def right(self, prompts: Sequence[int], texts: Sequence[str], ended: Sequence[bool]) -> list[bool]:
        """Say of each ended text whether it is right; one that goes on may still become anything."""
        return [
            end and exact_match(text.strip(), self._names[prompt])
            for prompt, text, end in zip(prompts, texts, ended, strict=True)
        ]


def fewshot_window(make_sampler: Callable[..., Sampler], window: Window) -> dict[str, Any]:
    """Return for each fact of a window its sampled hits, trials and greedy hits per prompt.

    Args:
        make_sampler: called with the settings, and temperature and top_k where they differ.
        window: facts with few-shot prompts.
    """
    settings = window.settings
    greedy = make_sampler(settings, temperature=0.0, top_k=0)
    random = make_sampler(settings, temperature=settings.temperature, top_k=settings.top_k)
    judge = ExactJudge([item.answers for item in window.items for _ in item.prompts])
    once = _hits(greedy, window, 1, judge)
    often = _hits(random, window, settings.samples, judge)
    cost = Cost(**{name: value + asdict(random.cost)[name] for name, value in asdict(greedy.cost).items()})
    trials = [[settings.samples] * len(item.prompts) for item in window.items]
    return {"hits": often, "trials": trials, "greedy": once, "cost": asdict(cost)}


def _hits(sampler: Sampler, window: Window, count: int, judge: ExactJudge) -> list[list[int]]:
    requests = [
        Request(prompt, key, 0, count)
        for item in window.items
        for prompt, key in zip(item.prompts, item.keys, strict=True)
    ]
    found = iter(sampler.outcomes(requests, judge))
    return [[int(next(found).sum()) for _ in item.prompts] for item in window.items]
