"""A plan carried out: its windows run, resumed from the journal, and their results made into the table."""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftknow.mastery.adaptive import fit_prior
from sftknow.mastery.engine import Engine
from sftknow.mastery.fewshot import CATEGORIES, category
from sftknow.mastery.journal import Journal
from sftknow.mastery.plan import Plan
from sftknow.mastery.source import Source
from sftknow.mastery.table import MasteryTable, ProbedFact
from sftknow.mastery.window import Window
from sftknow.progress import counter
from sftknow.records import digest

FACT_FIELDS = ("id", "relation", "domain", "split", "subject", "question", "answers")
Results = Mapping[int, Any]
log = logging.getLogger(__name__)


def run_plan(plan: Plan, source: Source, path: Path | None) -> Results:
    """Return the result of every window by its number, taking from the journal at ``path`` what it has."""
    if path is None:
        return _run(plan, source, {}, None)
    with Journal(path, {**plan.options(), **source.options()}) as journal:
        return _run(plan, source, journal.done, journal)


def _run(plan: Plan, source: Source, done: dict[int, Any], journal: Journal | None) -> Results:
    todo = [number for number in range(len(plan.windows)) if number not in done]
    if done:
        log.info("going on after %d of %d windows", len(done), len(plan.windows))
    if not todo:
        return done
    facts = sum(len(plan.windows[number]) for number in todo)
    engine = source.engine()
    with contextlib.closing(engine), counter(label="probe", total=facts, unit="facts") as progress:
        for number, result in _results(plan, engine, todo, done):
            if journal is not None:
                journal.append(number, result)
            done[number] = result
            progress.update(len(plan.windows[number]))
    return done


def _results(plan: Plan, engine: Engine, todo: Sequence[int], done: Results) -> Iterator[tuple[int, Any]]:
    """Yield the results of windows; the pilot's comes first, and the prior fitted to it goes to the others."""
    prior = None
    if plan.pilot:
        if 0 in todo:
            yield from engine.results([(0, _window(plan, 0, None))])
        prior = pilot_prior(plan, done[0])
    rest = [number for number in todo if not (plan.pilot and number == 0)]
    yield from engine.results([(number, _window(plan, number, prior)) for number in rest])


def _window(plan: Plan, number: int, prior: tuple[float, float] | None) -> Window:
    items = tuple(plan.items[position] for position in plan.windows[number])
    return Window(replace(plan.settings, prior=prior), items)


def pilot_prior(plan: Plan, result: Mapping[str, Any]) -> tuple[float, float]:
    """Return the prior of mastery that fits the pilot's hits."""
    return fit_prior([sum(hits) for hits in result["hits"]], [sum(trials) for trials in result["trials"]])


def make_table(plan: Plan, results: Results, source: Source) -> MasteryTable:
    """Return the mastery table of a plan that was carried out."""
    rows: dict[int, ProbedFact] = {}
    for number, positions in enumerate(plan.windows):
        for offset, position in enumerate(positions):
            rows[position] = _row(plan, position, results[number], offset)
    ordered = tuple(rows[position] for position in range(len(plan.facts)))
    return MasteryTable(
        rows=ordered,
        protocol=_protocol(plan, ordered, results, source),
        made_from={"model": source.identity, "facts": {"facts": len(plan.facts), "digest": _facts_digest(plan)}},
        seeds={"probe": plan.settings.seed},
        templates=plan.templates,
    )


def _row(plan: Plan, position: int, result: Mapping[str, Any], offset: int) -> ProbedFact:
    fact = plan.facts[position]
    if "probabilities" in result:
        return ProbedFact.from_probabilities(fact, result["probabilities"][offset], plan.settings.samples)
    hits, trials = result["hits"][offset], result["trials"][offset]
    kind = None
    if "greedy" in result:
        greedy = result["greedy"][offset]
        kind = category(sum(greedy), len(greedy), sum(hits))
    return ProbedFact.from_counts(fact, hits, trials, kind)


def _protocol(plan: Plan, rows: Sequence[ProbedFact], results: Results, source: Source) -> dict[str, Any]:
    settings = plan.settings
    cost = Counter[str]()
    for result in results.values():
        cost.update(result["cost"])
    protocol: dict[str, Any] = {
        "estimator": settings.estimator,
        "templates": max(len(texts) for texts in plan.templates.values()),
        "samples": settings.samples,
        "temperature": settings.temperature,
        "max_new_tokens": settings.max_new_tokens,
        "match": settings.match,
        "stop_newline": settings.stop_newline,
        "sampler": "tree" if source.local else source.options()["backend"],
        **({"dtype": source.options()["dtype"], "device": source.options()["device"]} if source.local else {}),
        "cost": dict(cost),
    }
    if settings.estimator == "fewshot":
        kinds = Counter(row.category for row in rows)
        protocol["categories"] = {kind: kinds[kind] for kind in CATEGORIES}
    if plan.pilot:
        protocol["adaptive"] = _adaptive(plan, rows, results)
    return protocol


def _adaptive(plan: Plan, rows: Sequence[ProbedFact], results: Results) -> dict[str, Any]:
    full = sum(plan.settings.samples * len(item.prompts) for item in plan.items)
    early = sum(row.trials != plan.settings.samples * len(row.template_hits) for row in rows)
    return {
        "confidence": plan.settings.confidence,
        "prior": list(pilot_prior(plan, results[0])),
        "pilot_facts": len(plan.pilot),
        "completions_share": sum(row.trials or 0 for row in rows) / full,
        "settled_early": early / len(rows),
    }


def _facts_digest(plan: Plan) -> str:
    return digest([[getattr(fact, name) for name in FACT_FIELDS] for fact in plan.facts])
