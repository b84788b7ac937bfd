"""The figures' data as tables: for the terminal, for Markdown, and as the page's alternative to each figure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftknow.mastery.buckets import BUCKETS
from sftknow.report.figures import GROUPS
from sftknow.report.results import DOMAINS, Results, Run, Score, Sweep, results_of
from sftknow.report.statistics import binomial_stderr, spread
from sftknow.report.verdicts import nats

NOTHING = "–"
STRATEGY_NAMES = {"top": "largest first", "bottom": "smallest first", "random": "random"}

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of strings: the first ``labels`` columns are names, the others numbers set to the right."""

    name: str
    title: str
    header: Row
    rows: tuple[Row, ...]
    labels: int = 1

    def text(self) -> str:
        """Return the table set in columns for a terminal."""
        widths = [max(len(row[i]) for row in (self.header, *self.rows)) for i in range(len(self.header))]
        lines = [self._line(row, widths) for row in (self.header, *self.rows)]
        return "\n".join([self.title, "", lines[0], "  ".join("-" * width for width in widths), *lines[1:]])

    def markdown(self) -> str:
        """Return the table as Markdown."""
        rule = [":--" if i < self.labels else "--:" for i in range(len(self.header))]
        rows = [self.header, tuple(rule), *self.rows]
        return "\n".join("| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in rows)

    def _line(self, row: Row, widths: Sequence[int]) -> str:
        cells = [
            cell.ljust(width) if i < self.labels else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()


def histogram_table(record: Results | Mapping[str, Any]) -> str:
    """Return the mastery histogram as a terminal table."""
    return _as_text(mastery, record)


def runs_table(record: Results | Mapping[str, Any]) -> str:
    """Return accuracy and KL of the base and of every fine-tuning so far, as a terminal table."""
    return _as_text(accuracy, record)


def sweep_table(record: Results | Mapping[str, Any]) -> str:
    """Return accuracy, change undone and KL at each step of the restoration sweeps, as a terminal table."""
    return _as_text(restoration, record)


def tables(results: Results) -> dict[str, Table]:
    """Return the tables that have rows, each under the name of the figure it stands beside."""
    found = {
        "mastery": mastery(results),
        "accuracy": accuracy(results),
        "divergence": divergence(results),
        "concentration": concentration(results),
        "restoration": restoration(results),
        "equal-change": control(results),
    }
    return {name: table for name, table in found.items() if table.rows}


def mastery(results: Results) -> Table:
    """Tabulate facts by mastery bucket."""
    rows = []
    for group, title in GROUPS.items():
        counts = results.histogram.get(group, ())
        if sum(counts):
            shares = (f"{count:,} ({100 * count / sum(counts):.0f}%)" for count in counts)
            rows.append((title, *shares, f"{sum(counts):,}"))
    header = ("Facts", *(f"bucket {bucket}" for bucket in BUCKETS), "all")
    return Table("mastery", "Facts by mastery bucket", header, tuple(rows))


def accuracy(results: Results) -> Table:
    """Tabulate accuracy by training bucket and size: mean over seeds with sd, each test bucket, and KL."""
    header = ("Tuned on", "samples", "seeds", "in domain", "out of domain", *(f"test {b}" for b in BUCKETS), "KL")
    rows = []
    if results.base is not None:
        sides = tuple(_with_error(one.accuracy, binomial_stderr(one)) for one in map(results.base.domain, DOMAINS))
        rows.append(("base", NOTHING, NOTHING, *sides, *_by_bucket([results.base]), NOTHING))
    for bucket in results.buckets:
        for n in results.sizes:
            cell = results.cell(bucket, n)
            if cell:
                scores = [run.score for run in cell if run.score is not None]
                found = (_score(scores, "in_domain"), _score(scores, "out_of_domain"))
                rows.append((f"bucket {bucket}", f"{n:,}", str(len(cell)), *found, *_by_bucket(scores), _kl(cell)))
    title = "Accuracy, % (± sd over seeds; base ± error from the test facts); by test bucket in domain; KL in nats"
    return Table("accuracy", title, header, tuple(rows))


def divergence(results: Results) -> Table:
    """Tabulate KL and accuracy on test bucket 4, one row for each fine-tuning."""
    rows = []
    for run in sorted(results.runs, key=lambda run: (run.bucket, run.n, run.seed)):
        if run.kl is not None:
            known = run.score.in_domain.buckets.get(4) if run.score is not None else None
            interval = f"{nats(run.kl.low)} to {nats(run.kl.high)}"
            accuracy_known = _percent(known.accuracy) if known is not None else NOTHING
            numbers = (f"{run.n:,}", str(run.seed), nats(run.kl.mean), interval, f"{run.kl.facts:,}", accuracy_known)
            rows.append((f"bucket {run.bucket}", *numbers))
    header = ("Tuned on", "samples", "seed", "KL, nats", "95% interval", "facts", "accuracy on test 4, %")
    return Table("divergence", "KL from the base, by fine-tuning", header, tuple(rows))


def concentration(results: Results) -> Table:
    """Tabulate the share of r in the top percents, mean over seeds."""
    percents = sorted({percent for found in results.concentration for percent in found.share_of_r})
    cells = sorted({(found.bucket, found.n) for found in results.concentration})
    rows = []
    for bucket, n in cells:
        found = [one.share_of_r for one in results.concentration if (one.bucket, one.n) == (bucket, n)]
        shares = [[one[percent] for one in found if percent in one] for percent in percents]
        numbers = (_percent(spread(values).mean) if values else NOTHING for values in shares)
        rows.append((f"bucket {bucket}", f"{n:,}", *numbers))
    header = ("Tuned on", "samples", *(f"top {percent:g}%" for percent in percents))
    return Table("concentration", "Share of all relative change r in the top percents, %", header, tuple(rows))


def restoration(results: Results) -> Table:
    """Tabulate every step of the sweeps, mean over seeds."""
    rows = []
    for sweeps in _sweep_groups(results):
        first = sweeps[0]
        for percent in sorted({step.percent for sweep in sweeps for step in sweep.steps}):
            steps = [step for sweep in sweeps if (step := sweep.at(percent)) is not None]
            scores = [step.score for step in steps]
            sides = (_score(scores, "in_domain"), _score(scores, "out_of_domain"))
            undone = _mean([s.change_undone for s in steps], _percent)
            numbers = (f"{percent:g}", str(len(steps)), undone, *sides, _mean([s.kl for s in steps], nats))
            rows.append((f"bucket {first.bucket}, {first.n:,}", STRATEGY_NAMES[first.strategy], *numbers))
    header = (
        "Tuned on, samples",
        "strategy",
        "restored, %",
        "seeds",
        "change undone, %",
        "in domain",
        "out of domain",
        "KL",
    )
    title = "Restoration: accuracy, % (± sd over seeds); KL in nats"
    return Table("restoration", title, header, tuple(rows), labels=2)


def control(results: Results) -> Table:
    """Tabulate accuracy by share of change undone, both strategies in one order, to compare along a column."""
    rows: list[Row] = []
    for bucket in results.buckets:
        points = []
        for strategy in ("top", "random"):
            sweeps = results.sweeps_of(bucket, strategy)
            for percent in sorted({step.percent for sweep in sweeps for step in sweep.steps}):
                steps = [step for sweep in sweeps if (step := sweep.at(percent)) is not None]
                undone = [step.change_undone for step in steps if step.change_undone is not None]
                if undone and len(undone) == len(steps):
                    scores = [step.score for step in steps]
                    sides = (_score(scores, "in_domain"), _score(scores, "out_of_domain"))
                    share = spread(undone).mean
                    row = (f"bucket {bucket}", STRATEGY_NAMES[strategy], _percent(share), f"{percent:g}", *sides)
                    points.append((share, strategy, row))
        rows.extend(row for _, _, row in sorted(points))
    header = ("Tuned on", "strategy", "change undone, %", "restored, %", "in domain", "out of domain")
    return Table("equal-change", "Accuracy, %, by share of all change undone", header, tuple(rows), labels=2)


def _as_text(build: Callable[[Results], Table], record: Results | Mapping[str, Any]) -> str:
    table = build(record if isinstance(record, Results) else results_of(record))
    return table.text() if table.rows else f"{table.title}: not yet"


def _sweep_groups(results: Results) -> Iterable[tuple[Sweep, ...]]:
    for bucket in results.buckets:
        for strategy in STRATEGY_NAMES:
            if sweeps := results.sweeps_of(bucket, strategy):
                yield sweeps


def _score(scores: Sequence[Score], domain: str) -> str:
    over = spread(score.domain(domain).accuracy for score in scores)
    return _with_error(over.mean, over.sd)


def _with_error(value: float, error: float | None) -> str:
    return _percent(value) if error is None else f"{_percent(value)} ± {_percent(error)}"


def _by_bucket(scores: Sequence[Score]) -> Iterable[str]:
    for bucket in BUCKETS:
        found = [score.in_domain.buckets[bucket].accuracy for score in scores if bucket in score.in_domain.buckets]
        yield _percent(spread(found).mean) if found else NOTHING


def _kl(runs: Sequence[Run]) -> str:
    return _mean([run.kl.mean if run.kl is not None else None for run in runs], nats)


def _mean(values: Sequence[float | None], form: Callable[[float], str]) -> str:
    there = [value for value in values if value is not None]
    return form(spread(there).mean) if there else NOTHING


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _markdown_cell(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return escaped.replace("<", "&lt;").replace(">", "&gt;")
