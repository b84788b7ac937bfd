"""The plan of a probe: every fact's prompts, in windows, the same for the same arguments."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sftknow.errors import ConfigError, DataError
from sftknow.facts.fact import Fact
from sftknow.facts.relations import Relation
from sftknow.mastery import fewshot
from sftknow.mastery.adaptive import PILOT_FACTS
from sftknow.mastery.window import Expander, Item, Settings, make_item
from sftknow.records import digest

ESTIMATORS = ("sample", "likelihood", "fewshot")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be probed.

    Attributes:
        facts: in the order of the table.
        items: every fact's prompts and answers.
        settings: of the probe.
        templates: relation -> completion templates, or labels of its few-shot prompts.
        pilot: positions of the facts probed in full to fit the prior of adaptive probing; empty without it.
        windows: positions of the facts of each window; the first one is the pilot's, where there is one.
    """

    facts: tuple[Fact, ...]
    items: tuple[Item, ...]
    settings: Settings
    templates: Mapping[str, tuple[str, ...]]
    pilot: tuple[int, ...]
    windows: tuple[tuple[int, ...], ...]

    def options(self) -> dict[str, Any]:
        """Return everything of the plan that fixes the numbers, for the journal to hold on to."""
        named = {"facts": [fact.id for fact in self.facts], "items": [asdict(item) for item in self.items]}
        return {**asdict(self.settings), "facts": digest(named), "window": len(self.windows[-1])}


def make_plan(
    facts: Sequence[Fact],
    relations: Mapping[str, Relation],
    settings: Settings,
    templates: int | None,
    aliases: Expander,
    window_facts: int,
) -> Plan:
    """Return the plan of a probe; raise DataError or ConfigError where facts and relations do not allow one."""
    check_facts(facts)
    names = [aliases.expand(fact.relation, fact.answers) for fact in facts]
    if settings.estimator == "fewshot":
        prompts = templates or fewshot.PROMPTS
        labels = tuple(f"few-shot prompt {number + 1}" for number in range(prompts))
        used = {fact.relation: labels for fact in facts}
        items = fewshot.fewshot_items(facts, names, settings.seed, prompts)
    else:
        used = used_templates(facts, relations, templates)
        items = [
            make_item(fact, used[fact.relation], answers, settings.seed)
            for fact, answers in zip(facts, names, strict=True)
        ]
    pilot = pilot_facts(len(facts), settings.seed) if settings.confidence is not None else ()
    return Plan(tuple(facts), tuple(items), settings, used, pilot, tuple(_windows(len(facts), pilot, window_facts)))


def check_settings(settings: Settings) -> None:
    """Raise ConfigError for numbers that no probe can be made with; all problems at once."""
    least = (("samples", 1), ("temperature", 0), ("max_new_tokens", 1), ("batch_size", 1))
    problems = [
        f"{name} must be at least {low}, not {getattr(settings, name)}"
        for name, low in least
        if not getattr(settings, name) >= low
    ]
    if settings.estimator not in ESTIMATORS:
        problems.append(f"estimator must be one of {', '.join(ESTIMATORS)}, not {settings.estimator!r}")
    if settings.match not in ("words", "substring"):
        problems.append(f"match must be words or substring, not {settings.match!r}")
    if settings.estimator == "likelihood" and not settings.temperature > 0:
        problems.append("the likelihood estimator needs a temperature above 0")
    if settings.confidence is not None:
        if not 0.5 < settings.confidence < 1:
            problems.append(f"confidence must lie between 0.5 and 1, not {settings.confidence}")
        if settings.estimator != "sample":
            problems.append(f"adaptive probing is for the estimator sample, not {settings.estimator}")
    if problems:
        raise ConfigError(f"the probe's options cannot be carried out: {'; '.join(problems)}.")


def check_facts(facts: Sequence[Fact]) -> None:
    """Raise DataError where there are no facts, or one is given twice."""
    if not facts:
        raise DataError("there are no facts to probe; check the facts file and the chosen relations and splits.")
    twice = [name for name, times in Counter(fact.id for fact in facts).items() if times > 1]
    if twice:
        raise DataError(f"{len(twice)} facts are given more than once, the first is {twice[0]}; give each once.")


def used_templates(
    facts: Sequence[Fact], relations: Mapping[str, Relation], count: int | None = None
) -> dict[str, tuple[str, ...]]:
    """Return relation -> completion templates for the relations that the facts have.

    Raises:
        DataError: a relation that is unknown or without templates.
        ConfigError: a relation with fewer templates than asked for.
    """
    used = {}
    for name in dict.fromkeys(fact.relation for fact in facts):
        if name not in relations or not relations[name].templates:
            raise DataError(
                f"relation {name} has no completion templates; add them to a relations file (--relations), "
                "or use --protocol fewshot, which needs none."
            )
        known = relations[name].templates
        if count is not None and not 1 <= count <= len(known):
            raise ConfigError(f"{count} templates are asked for, relation {name} has {len(known)}.")
        used[name] = tuple(known[:count])
    return used


def pilot_facts(count: int, seed: int) -> tuple[int, ...]:
    """Return the positions of the facts that the prior of adaptive probing is fitted on."""
    drawn = np.random.default_rng(seed).permutation(count)[: min(PILOT_FACTS, count)]
    return tuple(sorted(int(position) for position in drawn))


def packaged_aliases() -> Expander:
    """Return the aliases that come with sftknow."""
    from sftknow.facts.aliases import load_aliases

    packaged: Expander = load_aliases()
    return packaged


def _windows(count: int, pilot: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    rest = [position for position in range(count) if position not in set(pilot)]
    cut = [tuple(rest[start : start + size]) for start in range(0, len(rest), size)]
    return [pilot, *cut] if pilot else cut
