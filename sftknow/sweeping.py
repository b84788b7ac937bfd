"""Restoration at several fractions, scored in memory with any lm-eval tasks: no checkpoint is written on the way."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sftknow.errors import ConfigError
from sftknow.harness import evaluate, language_model, load_tasks
from sftknow.models import load_model, load_tokenizer, resolve_model
from sftknow.paired import Floats, bootstrap_interval
from sftknow.progress import bar

MASTERY_TASKS = "cbqa_"


@dataclass(frozen=True, slots=True)
class Figure:
    """One task's or group's score at one fraction.

    Attributes:
        metric: the task's first metric, with its filter, as lm-eval writes it (``contains,none``).
        value: the score.
        stderr: its standard error, where lm-eval gives one.
        change: the score less that of the unrestored model; None for the unrestored model itself.
        low: lower end of the change's 95% interval, from a paired bootstrap over documents; None where the score is no
            mean over documents.
        high: upper end of that interval.
    """

    metric: str
    value: float
    stderr: float | None
    change: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class ScoredStep:
    """One fraction of a sweep.

    Attributes:
        percent: of the region's parameters that were restored; 0 is the unrestored model.
        restored: how many parameters that is.
        share_of_change_undone: their share of the sum of |s - p|, in 0..1.
        figures: task or group -> its score.
        selection: the score by which the best fraction is chosen; None where none is to be chosen.
        seconds: time that restoring and scoring took.
    """

    percent: float
    restored: int
    share_of_change_undone: float | None
    figures: Mapping[str, Figure]
    selection: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """A finished sweep: its steps, rising, and the percent chosen where one was to be chosen."""

    steps: tuple[ScoredStep, ...]
    chosen: float | None

    def to_record(self) -> dict[str, Any]:
        """Return the sweep as JSON values."""
        return asdict(self)


def sweep(
    base: str | Path,
    tuned: str | Path,
    tops: Sequence[float],
    tasks: Sequence[str],
    *,
    metadata: Mapping[str, Any] | None = None,
    select_on: str | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 64,
    dtype: str = "auto",
    device: str = "cpu",
    seed: int = 0,
    **recipe: Any,
) -> Sweep:
    """Score a tuned model and its restorations at several fractions, all in one loaded model.

    Args:
        base: folder or Hub id of the model before fine-tuning.
        tuned: folder or Hub id of the model after it.
        tops: percents of the region's parameters to restore, 0 to 100.
        tasks: names of lm-eval tasks, groups or tags.
        metadata: options of the tasks; the mastery tasks need ``mastery``.
        select_on: a task or group by whose first metric the best fraction is chosen; a mastery task is scored on the
            table's dev facts for this.
        num_fewshot: examples in front of each question; None leaves it to each task.
        limit: score only the first so many documents of each task.
        batch_size: prompts processed at once.
        dtype: see :func:`sftknow.models.load_model`.
        device: a torch device.
        seed: of random choices, of few-shot examples and of the bootstrap.
        recipe: ``strategy``, ``region``, ``layers``, ``rank_by``, ``of`` as for
            :func:`sftknow.restoration.restore.restore`.

    Returns:
        The unrestored model first, then each fraction, rising.

    Raises:
        ConfigError: there is no such task, or an option makes no sense.
        DataError: the mastery table cannot be read.
        CheckpointError: the models are missing, damaged or do not fit together.

    Source: the paper's section on parameter-level restoration.
    """
    from sftknow.restoration.inplace import Restoration

    options = dict(metadata or {})
    scored = load_tasks(tasks, options, num_fewshot=num_fewshot)
    chooser = _chooser(select_on, options, num_fewshot)
    folder, _ = resolve_model(tuned)
    model = load_model(folder, dtype=dtype, device=device)
    lm = language_model(model, load_tokenizer(folder), batch_size=batch_size)
    percents = sorted({percent for percent in tops if percent != 0})
    plan = Restoration.plan(base, model, percents, tuned=folder, seed=seed, **recipe)
    runner = _Runner(lm, scored, chooser, seed, limit)
    steps = [runner.step(0.0, 0, 0.0)]
    for step in bar(plan, label="fractions", total=len(percents)):
        steps.append(runner.step(step.percent, step.restored, step.share_of_change_undone))
    plan.reset()
    return Sweep(tuple(steps), _best(steps) if chooser else None)


def _chooser(name: str | None, options: Mapping[str, Any], num_fewshot: int | None) -> dict[str, Any] | None:
    if name is None:
        return None
    split = {"split": "dev"} if name.startswith(MASTERY_TASKS) else {}
    return load_tasks([name], {**options, **split}, num_fewshot=num_fewshot)


def _best(steps: Sequence[ScoredStep]) -> float:
    """Return the percent with the best selection score; of equals the smallest, which stays closest to the tuned."""
    return max(steps, key=lambda step: (step.selection, -step.percent)).percent


class _Runner:
    """Scores the model as it stands, and sets each score beside that of the first call: the unrestored model."""

    def __init__(self, lm: Any, tasks: dict[str, Any], chooser: dict[str, Any] | None, seed: int, limit: int | None):
        self.lm, self.tasks, self.chooser, self.seed, self.limit = lm, tasks, chooser, seed, limit
        self.first: dict[str, Any] | None = None
        self.clock = time.perf_counter()

    def step(self, percent: float, restored: int, undone: float | None) -> ScoredStep:
        results = evaluate(self.lm, self.tasks, seed=self.seed, limit=self.limit)
        figures = {name: self._figure(name, results) for name in headings(self.tasks)}
        selection = self._selection()
        self.first = self.first or results
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        return ScoredStep(percent, restored, undone, figures, selection, round(seconds, 3))

    def _selection(self) -> float | None:
        if self.chooser is None:
            return None
        results = evaluate(self.lm, self.chooser, seed=self.seed, limit=self.limit)
        values = []
        for name in headings(self.chooser):
            metric = _first_metric(name, results)
            better = results["higher_is_better"].get(name, {}).get(metric.partition(",")[0], True)
            values.append(results["results"][name][metric] * (1 if better is not False else -1))
        return float(np.mean(values))

    def _figure(self, name: str, results: Mapping[str, Any]) -> Figure:
        metric = _first_metric(name, results)
        value = float(results["results"][name][metric])
        stderr = results["results"][name].get(metric.replace(",", "_stderr,"))
        error = float(stderr) if isinstance(stderr, int | float) else None
        if self.first is None:
            return Figure(metric, value, error)
        change = value - float(self.first["results"][name][metric])
        strata = self._differences(name, metric, results)
        if strata is None:
            return Figure(metric, value, error, change)
        return Figure(metric, value, error, change, *bootstrap_interval(*strata, seed=self.seed))

    def _differences(
        self, name: str, metric: str, results: Mapping[str, Any]
    ) -> tuple[list[Floats], list[float]] | None:
        """Return each leaf task's differences by document, and the weight of its mean; None where no mean is taken."""
        assert self.first is not None
        group = self.tasks["groups"].get(name)
        leaves = group.get_all_tasks() if group is not None else [self.tasks["tasks"][name]]
        strata = []
        for task in leaves:
            if metric not in results["results"][task.task_name]:
                continue
            aggregation = task.aggregation().get(metric.partition(",")[0])
            before = _values(self.first["samples"][task.task_name], metric)
            after = _values(results["samples"][task.task_name], metric)
            if getattr(aggregation, "__name__", "") != "mean" or before is None or after is None:
                return None
            strata.append(after - before)
        weights = [1.0] * len(strata)
        if group is not None and _by_size(group, metric):
            weights = [float(values.size) for values in strata]
        return strata, [weight / sum(weights) for weight in weights]


def headings(loaded: Mapping[str, Any]) -> list[str]:
    """Return what gets a score of its own: groups with an aggregate, and tasks outside of such groups."""
    names: list[str] = []
    inner = {child for children in loaded["group_map"].values() for child in children}

    def visit(name: str) -> None:
        group = loaded["groups"].get(name)
        if group is None or group.has_aggregation:
            names.append(name)
        else:
            for child in group.child_names:
                visit(child)

    for name in (*loaded["groups"], *loaded["tasks"]):
        if name not in inner:
            visit(name)
    return names


def _first_metric(name: str, results: Mapping[str, Any]) -> str:
    figures = results["results"][name]
    for key in figures:
        if "," in key and "_stderr," not in key:
            return str(key)
    raise ConfigError(f"{name} has no score: none of its documents yields a metric; leave it out of --tasks.")


def _values(samples: Sequence[Mapping[str, Any]], metric: str) -> Floats | None:
    name, _, chosen = metric.partition(",")
    values = [sample[name] for sample in samples if sample["filter"] == chosen and name in sample]
    if not all(isinstance(value, int | float) for value in values):
        return None
    return np.array(values, dtype=np.float64)


def _by_size(group: Any, metric: str) -> bool:
    name = metric.partition(",")[0]
    return any(entry.metric == name and entry.weight_by_size for entry in group.aggregate_metric_list)
