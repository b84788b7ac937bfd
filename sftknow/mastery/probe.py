"""Probing: base model + facts -> mastery table."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sftknow.errors import ConfigError, DataError
from sftknow.facts.fact import Fact
from sftknow.facts.relations import Relation
from sftknow.mastery.engine import Engine, InProcess, LocalModel, ManyProcesses
from sftknow.mastery.journal import Journal
from sftknow.mastery.table import MasteryTable, ProbedFact
from sftknow.mastery.window import Expander, Settings, Window, make_item
from sftknow.progress import counter
from sftknow.records import digest

WINDOW_FACTS = 256
log = logging.getLogger(__name__)


def probe(
    model_ref: str | Path,
    facts: Sequence[Fact],
    relations: Mapping[str, Relation],
    *,
    samples: int = 10,
    templates: int | None = None,
    temperature: float = 0.7,
    max_new_tokens: int = 32,
    seed: int = 0,
    match: str = "words",
    aliases: Expander | None = None,
    stop_newline: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int = 2048,
    workers: int = 1,
    journal: Path | None = None,
) -> MasteryTable:
    """Measure how well a base model knows each fact, by sampling its completions.

    The numbers depend on the model, the facts and the options, not on how often the probe was interrupted: a journal
    that is gone on with ends in the same table. Another batch size, number of threads or device changes the last bits
    of the model's arithmetic, and so about one sample in 100,000.

    Args:
        model_ref: a model folder or a Hub id ``org/name@revision``.
        facts: the facts to probe, each id once.
        relations: relation id -> relation with its completion templates.
        samples: completions drawn for each template.
        templates: use only the first so many templates of each relation; None for all (21 in the paper).
        temperature: of the sampling; 0 is greedy.
        max_new_tokens: tokens of a completion at most.
        seed: of the sampling.
        match: ``words``, or ``substring`` for the paper's rule.
        aliases: equivalent names of answers; by default the packaged ones.
        stop_newline: end a completion at its first newline.
        device: a torch device; by default a GPU if there is one.
        dtype: of the weights; by default float32 on a CPU and the checkpoint's own elsewhere.
        batch_size: rows of a forward pass at most.
        workers: processes to probe with on a CPU, one thread each.
        journal: a file to append finished windows to, and to go on from.

    Returns:
        The mastery table, rows in the order of the facts.

    Raises:
        DataError: no facts, a fact given twice, or a fact whose relation has no templates.
        ConfigError: an option that cannot be carried out, or a journal begun with other options.
        CheckpointError: the model cannot be loaded.

    Source: the paper's section on knowledge mastery.
    """
    from sftknow.models import resolve_model

    settings = Settings(samples, temperature, max_new_tokens, seed, match, stop_newline, batch_size)
    check_settings(settings)
    used = used_templates(facts, relations, templates)
    windows = list(plan(facts, used, aliases or _packaged_aliases(), settings))
    folder, identity = resolve_model(model_ref)
    source = _source(folder, device, dtype, workers)
    options = {**asdict(settings), "model": identity["digest"], "dtype": source.dtype, "device": source.device}
    results = _run(windows, options, lambda: _engine(source, workers), journal)
    return MasteryTable(
        rows=_rows(facts, results),
        protocol=_protocol(settings, used, source, results),
        made_from={"model": identity, "facts": {"facts": len(facts), "digest": facts_digest(facts)}},
        seeds={"probe": seed},
        templates=used,
    )


def check_settings(settings: Settings) -> None:
    """Raise ConfigError for numbers that no probe can be made with."""
    problems = [
        f"{name} must be at least {least}, not {value}"
        for name, value, least in (
            ("samples", settings.samples, 1),
            ("temperature", settings.temperature, 0),
            ("max_new_tokens", settings.max_new_tokens, 1),
            ("batch_size", settings.batch_size, 1),
        )
        if not value >= least
    ]
    if settings.match not in ("words", "substring"):
        problems.append(f"match must be words or substring, not {settings.match!r}")
    if problems:
        raise ConfigError(f"the probe's options cannot be carried out: {'; '.join(problems)}.")


def used_templates(
    facts: Sequence[Fact], relations: Mapping[str, Relation], count: int | None = None
) -> dict[str, tuple[str, ...]]:
    """Return relation -> completion templates for the relations that the facts have.

    Raises:
        DataError: no facts, a fact given twice, or a relation that is unknown, without templates or with too few.
    """
    if not facts:
        raise DataError("there are no facts to probe; check the facts file and the chosen relations and splits.")
    twice = [name for name, times in Counter(fact.id for fact in facts).items() if times > 1]
    if twice:
        raise DataError(f"{len(twice)} facts are given more than once, the first is {twice[0]}; give each once.")
    used = {}
    for name in dict.fromkeys(fact.relation for fact in facts):
        if name not in relations or not relations[name].templates:
            raise DataError(f"relation {name} has no completion templates; add them to a relations file (--relations).")
        known = relations[name].templates
        if count is not None and not 1 <= count <= len(known):
            raise ConfigError(f"{count} templates are asked for, relation {name} has {len(known)}.")
        used[name] = tuple(known[:count])
    return used


def plan(
    facts: Sequence[Fact], used: Mapping[str, Sequence[str]], aliases: Expander, settings: Settings
) -> Iterator[Window]:
    """Yield the windows that the facts are probed in, the same for the same arguments."""
    for start in range(0, len(facts), WINDOW_FACTS):
        items = (
            make_item(fact, used[fact.relation], aliases.expand(fact.relation, fact.answers), settings.seed)
            for fact in facts[start : start + WINDOW_FACTS]
        )
        yield Window(settings, tuple(items))


def _packaged_aliases() -> Expander:
    from sftknow.facts.aliases import load_aliases

    packaged: Expander = load_aliases()
    return packaged


def facts_digest(facts: Sequence[Fact]) -> str:
    """Name a list of facts by all that is in them."""
    return digest([[*(getattr(fact, name) for name in Fact.__slots__)] for fact in facts])


def _source(folder: Path, device: str | None, dtype: str | None, workers: int) -> LocalModel:
    from sftknow.models import check_device, default_device

    device = device or default_device()
    check_device(device)
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}.")
    if workers > 1 and device != "cpu":
        raise ConfigError(f"several workers share a CPU, not {device}; leave --workers out.")
    dtype = dtype or ("float32" if device == "cpu" else "auto")
    return LocalModel(str(folder), device, dtype, threads=1 if workers > 1 else None)


def _engine(source: LocalModel, workers: int) -> Engine:
    return ManyProcesses(source, workers) if workers > 1 else InProcess(source)


def _run(windows: Sequence[Window], options: Mapping[str, Any], make_engine: Any, path: Path | None) -> list[Any]:
    """Return every window's result in order, from the journal where it has it."""
    if path is None:
        return _missing(windows, {}, make_engine, None)
    options = {**options, "facts": digest([window.to_json() for window in windows])}
    with Journal(path, options) as journal:
        return _missing(windows, journal.done, make_engine, journal)


def _missing(windows: Sequence[Window], done: dict[int, Any], make_engine: Any, journal: Journal | None) -> list[Any]:
    todo = [(number, window) for number, window in enumerate(windows) if number not in done]
    if done:
        log.info("going on after %d of %d windows", len(done), len(windows))
    if todo:
        engine: Engine = make_engine()
        try:
            with counter(label="probe", total=sum(len(window.items) for _, window in todo), unit="facts") as progress:
                for number, result in engine.results(todo):
                    if journal is not None:
                        journal.append(number, result)
                    done[number] = result
                    progress.update(len(windows[number].items))
        finally:
            engine.close()
    return [done[number] for number in range(len(windows))]


def _rows(facts: Sequence[Fact], results: Sequence[Any]) -> tuple[ProbedFact, ...]:
    counts = [pair for result in results for pair in zip(result["hits"], result["trials"], strict=True)]
    return tuple(ProbedFact.from_counts(fact, hits, trials) for fact, (hits, trials) in zip(facts, counts, strict=True))


def _protocol(
    settings: Settings, used: Mapping[str, Sequence[str]], source: LocalModel, results: Sequence[Any]
) -> dict[str, Any]:
    cost = Counter[str]()
    for result in results:
        cost.update(result["cost"])
    return {
        "estimator": "sample",
        "templates": max(len(texts) for texts in used.values()),
        "samples": settings.samples,
        "temperature": settings.temperature,
        "max_new_tokens": settings.max_new_tokens,
        "match": settings.match,
        "stop_newline": settings.stop_newline,
        "sampler": "tree",
        "dtype": source.dtype,
        "completions": sum(sum(map(sum, result["trials"])) for result in results),
        "cost": dict(cost),
    }
