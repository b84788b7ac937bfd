"""The figures of a report, each built from results as small multiples; a figure without data is left out."""

from collections.abc import Sequence

from sftknow.mastery.buckets import BUCKETS
from sftknow.report.drawings import (
    Point,
    accuracy_against_kl,
    bars,
    lines_by_size,
    shares_of_change,
    sweep_curves,
)
from sftknow.report.results import DOMAINS, Results, Sweep
from sftknow.report.statistics import spread
from sftknow.report.style import Figure, Panel
from sftknow.report.verdicts import IN_WORDS

GROUPS = {
    "train/in_domain": "Training facts, in domain",
    "test/in_domain": "Test facts, in domain",
    "test/out_of_domain": "Test facts, out of domain",
}


def figures(results: Results) -> tuple[Figure, ...]:
    """Return all figures for which the results hold data, in reading order."""
    built = (
        mastery_figure(results),
        accuracy_figure(results),
        divergence_figure(results),
        concentration_figure(results),
        restoration_figure(results),
        equal_change_figure(results),
    )
    return tuple(figure for figure in built if figure is not None)


def mastery_figure(results: Results) -> Figure | None:
    """Draw how many facts fall into each mastery bucket (the paper's Table 1)."""
    panels = [
        Panel(f"mastery-{i}", _mastery_alt(title, results.histogram[group]), bars(title, results.histogram[group]))
        for i, (group, title) in enumerate(GROUPS.items())
        if sum(results.histogram.get(group, ())) > 0
    ]
    caption = (
        "Share of facts by how often the base model completes them correctly: bucket 0 never, bucket 4 more than three "
        "times in four."
    )
    return _figure("mastery", "What the base model knows", caption, panels, columns=3)


def accuracy_figure(results: Results) -> Figure | None:
    """Draw accuracy by training bucket and size, the base as a line (the paper's Figure 2)."""
    lines = {
        domain: {
            bucket: [
                (results.sizes.index(n), [run.score.domain(domain).accuracy for run in cell if run.score is not None])
                for n in results.sizes
                if (cell := results.cell(bucket, n))
            ]
            for bucket in results.buckets
        }
        for domain in DOMAINS
    }
    if not any(points for points in lines["in_domain"].values()):
        return None
    means = [
        value for domain in DOMAINS for points in lines[domain].values() for _, values in points for value in values
    ]
    ceiling = max([*means, *(base for domain in DOMAINS if (base := _base_line(results, domain)) is not None)])
    panels = [
        Panel(
            f"accuracy-{domain}",
            f"Accuracy {IN_WORDS[domain]} against number of training samples, one line for each training bucket.",
            lines_by_size(
                results,
                lines[domain],
                (f"Accuracy {IN_WORDS[domain]}, %", "mean over test buckets"),
                100.0,
                base=_base_line(results, domain),
                ceiling=ceiling,
            ),
        )
        for domain in DOMAINS
    ]
    caption = (
        "Mean over the five test buckets, each counted alike. Dots are seeds, lines their means. The dashed line is "
        "the base model before fine-tuning."
    )
    return _figure("accuracy", "What fine-tuning does to accuracy", caption, panels)


def divergence_figure(results: Results) -> Figure | None:
    """Draw KL by size, and accuracy on well-mastered test facts against KL (the paper's Figures 4 and 5)."""
    kls = {
        bucket: [
            (index, values)
            for index, n in enumerate(results.sizes)
            if (values := [run.kl.mean for run in results.runs if (run.bucket, run.n) == (bucket, n) and run.kl])
        ]
        for bucket in results.buckets
    }
    if not any(kls.values()):
        return None
    panels = [
        Panel(
            "divergence-size",
            "KL of the tuned model from the base against number of training samples, a line for each training bucket.",
            lines_by_size(results, kls, ("KL from the base, nats", "mean over well-mastered test facts"), 1.0),
        ),
        Panel(
            "divergence-accuracy",
            "Accuracy on well-mastered test facts against KL, one point for each fine-tuning.",
            accuracy_against_kl(results),
        ),
    ]
    caption = (
        "KL over the ten likeliest first tokens of well-mastered test facts. In the second panel each dot is one "
        "fine-tuning; arrows lead from smaller to larger training sets."
    )
    return _figure("divergence", "How far the model drifts", caption, panels)


def concentration_figure(results: Results) -> Figure | None:
    """Draw the share of relative and absolute change that lies in the top percents (the paper's Table 3)."""
    panels = [
        Panel(
            f"concentration-{bucket}",
            f"Share of relative and of absolute change in the top percents after tuning on bucket {bucket}.",
            shares_of_change(results, bucket),
        )
        for bucket in results.buckets
        if any(found.bucket == bucket for found in results.concentration)
    ]
    caption = (
        "Parameters ranked by relative change r. Where the few at the top carry most of all r but little of the "
        "absolute change, they are chiefly parameters whose values before fine-tuning were near zero."
    )
    return _figure("concentration", "Where the change lies", caption, panels)


def restoration_figure(results: Results) -> Figure | None:
    """Draw accuracy against the percent of parameters restored (the paper's Table 4), with the random control."""
    caption = (
        "Restored parameters return to their values before fine-tuning. Shading: range over seeds. Percent on a "
        "square-root scale. At an equal percent largest-first undoes more change than random; the next figure allows "
        "for that."
    )
    panels = _sweep_panels(results, "restoration", by_change=False)
    return _figure("restoration", "What restoring parameters does", caption, panels)


def equal_change_figure(results: Results) -> Figure | None:
    """Draw accuracy against the share of all change undone, where largest-first and random can be compared."""
    caption = (
        "The same models placed by the share of all absolute change undone. Only a gap between the two curves at the "
        "same share is owed to choosing the largest relative changes."
    )
    panels = _sweep_panels(results, "equal-change", by_change=True)
    return _figure("equal-change", "Largest-first against random at equal change undone", caption, panels)


def _figure(name: str, title: str, caption: str, panels: Sequence[Panel], *, columns: int = 2) -> Figure | None:
    return Figure(name, title, caption, tuple(panels), columns) if panels else None


def _mastery_alt(title: str, counts: Sequence[int]) -> str:
    shares = ", ".join(
        f"bucket {bucket} {100 * n / sum(counts):.0f}%" for bucket, n in zip(BUCKETS, counts, strict=True)
    )
    return f"{title}: {shares}."


def _base_line(results: Results, domain: str) -> float | None:
    return results.base.domain(domain).accuracy if results.base is not None else None


def _sweep_panels(results: Results, name: str, *, by_change: bool) -> list[Panel]:
    panels = []
    for bucket in results.buckets:
        for domain in DOMAINS:
            lines = {
                strategy: _sweep_points(results.sweeps_of(bucket, strategy), domain, by_change=by_change)
                for strategy in ("top", "random")
            }
            if any(len(points) > 1 for points in lines.values()):
                against = "share of all change undone" if by_change else "percent of parameters restored"
                alt = f"Accuracy {IN_WORDS[domain]} against {against}, after tuning on bucket {bucket}."
                samples = max(sweep.n for strategy in lines for sweep in results.sweeps_of(bucket, strategy))
                draw = sweep_curves(bucket, samples, domain, lines, _shared_limits(results), by_change=by_change)
                panels.append(Panel(f"{name}-{bucket}-{domain}", alt, draw))
    return panels


def _sweep_points(sweeps: Sequence[Sweep], domain: str, *, by_change: bool) -> list[Point]:
    """Return (x, mean, lowest, highest) accuracy in percent at each percent that all sweeps have."""
    if not sweeps:
        return []
    points = []
    for percent in sorted(set.intersection(*({step.percent for step in sweep.steps} for sweep in sweeps))):
        steps = [step for sweep in sweeps if (step := sweep.at(percent)) is not None]
        undone = [step.change_undone for step in steps if step.change_undone is not None]
        if by_change and len(undone) < len(steps):
            continue
        accuracy = spread(100 * step.score.domain(domain).accuracy for step in steps)
        x = 100 * spread(undone).mean if by_change else percent
        points.append((x, accuracy.mean, accuracy.low, accuracy.high))
    return points


def _shared_limits(results: Results) -> tuple[float, float]:
    """Return one range of accuracy for all sweep panels, so that their heights compare."""
    scores = [
        100 * step.score.domain(domain).accuracy
        for sweep in results.sweeps
        if sweep.strategy in ("top", "random")
        for step in sweep.steps
        for domain in DOMAINS
    ]
    room = max(max(scores) - min(scores), 1.0) * 0.08
    return max(min(scores) - room, 0.0), max(scores) + room
