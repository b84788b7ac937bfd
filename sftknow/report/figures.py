"""The figures of a report, each built from results as small multiples; a figure without data is left out."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sftknow.mastery.buckets import BUCKETS
from sftknow.report.results import DOMAINS, Results, Sweep
from sftknow.report.statistics import spread
from sftknow.report.style import BUCKET_COLOURS, INK, MUTED, RANDOM, Figure, Panel
from sftknow.report.verdicts import IN_WORDS

GROUPS = {
    "train/in_domain": "Training facts, in domain",
    "test/in_domain": "Test facts, in domain",
    "test/out_of_domain": "Test facts, out of domain",
}
MEANING = {0: "unknown", 4: "mastered"}
LABEL_GAP = 0.075
_MARKED: Mapping[str, Any] = {"marker": "o", "markersize": 4, "markeredgewidth": 0, "clip_on": False, "zorder": 3}

Point = tuple[float, float, float, float]


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
        Panel(f"mastery-{i}", _mastery_alt(title, results.histogram[group]), _bars(title, results.histogram[group]))
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
            _by_size(
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
            _by_size(results, kls, ("KL from the base, nats", "mean over well-mastered test facts"), 1.0),
        ),
        Panel(
            "divergence-accuracy",
            "Accuracy on well-mastered test facts against KL, one point for each fine-tuning.",
            _against_kl(results),
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
            _shares(results, bucket),
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


def _bars(title: str, counts: Sequence[int]) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        total = sum(counts)
        shares = [100 * count / total for count in counts]
        axes.bar(BUCKETS, shares, width=0.72, color=BUCKET_COLOURS)
        for bucket, share in zip(BUCKETS, shares, strict=True):
            axes.annotate(f"{share:.0f}%", (bucket, share), (0, 4), textcoords="offset points", ha="center", color=INK)
        _head(axes, title, f"share of {total:,} facts")
        axes.set_xticks(BUCKETS, [f"{bucket}\n{MEANING.get(bucket, '')}" for bucket in BUCKETS])
        axes.tick_params(axis="x", length=0)
        axes.set_yticks([])
        axes.set_ylim(0, max(shares) * 1.12)

    return draw


def _by_size(
    results: Results,
    lines: dict[int, list[tuple[int, list[float]]]],
    titles: tuple[str, str],
    scale: float,
    *,
    base: float | None = None,
    ceiling: float | None = None,
) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        labels = []
        for bucket, points in lines.items():
            if not points:
                continue
            colour = BUCKET_COLOURS[bucket]
            means = [scale * spread(values).mean for _, values in points]
            axes.plot([x for x, _ in points], means, color=colour, zorder=3)
            for x, values in points:
                axes.plot([x] * len(values), [scale * v for v in values], **_dots(colour))
            labels.append((points[-1][0], means[-1], _bucket_label(bucket), colour))
        last = len(results.sizes) - 1
        axes.set_xlim(-0.15, last + 0.15)
        if base is not None:
            axes.axhline(scale * base, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
            labels.append((last, scale * base, "base", MUTED))
        axes.set_xticks(range(last + 1), [f"{n:,}" for n in results.sizes])
        axes.set_xlabel("training samples")
        axes.set_ylim(0, scale * ceiling * 1.08 if ceiling else axes.get_ylim()[1] * 1.05)
        _head(axes, *titles)
        _end_labels(axes, labels)

    return draw


def _base_line(results: Results, domain: str) -> float | None:
    return results.base.domain(domain).accuracy if results.base is not None else None


def _against_kl(results: Results) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        for bucket in results.buckets:
            groups = [
                [
                    (run.kl.mean, 100 * run.score.in_domain.buckets[4].accuracy)
                    for run in results.cell(bucket, n)
                    if run.kl is not None and run.score is not None and 4 in run.score.in_domain.buckets
                ]
                for n in results.sizes
            ]
            groups = [group for group in groups if group]
            colour = BUCKET_COLOURS[bucket]
            for group in groups:
                axes.plot([x for x, _ in group], [y for _, y in group], **_dots(colour))
            middles = [(spread(x for x, _ in group).mean, spread(y for _, y in group).mean) for group in groups]
            for start, end in itertools.pairwise(middles):
                arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 2}
                axes.annotate("", end, start, arrowprops=arrow, zorder=2)
            if middles:
                above = middles[-1][1] >= spread(y for _, y in middles).mean
                offset = (0, 9 if above else -9)
                axes.annotate(
                    _bucket_label(bucket), middles[-1], offset, textcoords="offset points", ha="center",
                    va="bottom" if above else "top", color=colour, fontweight="bold",
                )  # fmt: skip
        axes.margins(x=0.18, y=0.25)
        axes.set_xlabel("KL from the base, nats")
        _head(axes, "Accuracy on test bucket 4, %", "well-mastered facts, in domain")

    return draw


def _shares(results: Results, bucket: int) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        found = [one.share_of_r for one in results.concentration if one.bucket == bucket]
        percents = sorted(set.intersection(*(set(shares) for shares in found)))
        relative = [(p, 100 * spread(shares[p] for shares in found).mean) for p in percents]
        _curve(axes, [(0.0, 0.0), *relative], INK)
        _note(axes, "relative change r", _beside(relative, 0.35), INK, below=True)
        steps = [step for sweep in results.sweeps_of(bucket, "top") for step in sweep.steps]
        swept = sorted({step.percent for step in steps if step.change_undone is not None})
        absolute = [
            (p, 100 * spread(s.change_undone for s in steps if s.percent == p and s.change_undone is not None).mean)
            for p in swept
        ]
        if absolute:
            _curve(axes, absolute, BUCKET_COLOURS[bucket])
            _note(axes, "absolute change", _beside(absolute, 0.7), BUCKET_COLOURS[bucket], below=False)
        end = max(percents)
        axes.plot([0, end], [0, end], color=MUTED, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1)
        axes.annotate("if spread evenly", (end, 0.6 * end), color=MUTED, ha="right", va="top")
        axes.set_xlabel("top percent of parameters, ranked by r")
        axes.set_xlim(0, end)
        axes.set_ylim(0, 104)
        axes.set_yticks([0, 25, 50, 75, 100])
        _head(axes, f"Tuned on bucket {bucket}", "share of all change in the top percents, %")

    return draw


def _curve(axes: Any, points: Sequence[tuple[float, float]], colour: str) -> None:
    axes.plot([x for x, _ in points], [y for _, y in points], color=colour, **_MARKED)


def _beside(points: Sequence[tuple[float, float]], along: float) -> tuple[float, float]:
    """Return the point of a curve nearest to a fraction of the way along, to write its label at."""
    return min(points, key=lambda point: abs(point[0] - along * points[-1][0]))


def _note(axes: Any, text: str, point: tuple[float, float], colour: str, *, below: bool) -> None:
    axes.annotate(
        text, point, (6, -8) if below else (-4, 6), textcoords="offset points", color=colour, fontweight="bold",
        ha="left" if below else "right", va="top" if below else "bottom",
    )  # fmt: skip


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
                panels.append(
                    Panel(f"{name}-{bucket}-{domain}", alt, _sweep_drawing(results, bucket, domain, lines, by_change))
                )
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


def _sweep_drawing(
    results: Results, bucket: int, domain: str, lines: dict[str, list[Point]], by_change: bool
) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        colour = BUCKET_COLOURS[bucket]
        labels = []
        for strategy, hue, dashes in (("random", RANDOM, (0, (3, 2))), ("top", colour, "solid")):
            points = lines[strategy]
            if not points:
                continue
            xs = [point[0] for point in points]
            axes.fill_between(xs, [p[2] for p in points], [p[3] for p in points], color=hue, alpha=0.16, linewidth=0)
            axes.plot(xs, [p[1] for p in points], color=hue, linestyle=dashes, **_MARKED)
            labels.append((xs[-1], points[-1][1], "largest first" if strategy == "top" else "random", hue))
        whole = next((points[0][1] for points in lines.values() if points and points[0][0] == 0), None)
        if whole is not None:
            axes.axhline(whole, color=MUTED, linewidth=1.0, linestyle=(0, (1, 2)), zorder=1)
        last = max(point[0] for points in lines.values() for point in points)
        if by_change:
            axes.set_xlim(-1, last * 1.02)
            axes.set_xlabel("share of all change undone, %")
        else:
            axes.set_xscale("function", functions=(_root, _square))
            axes.set_xlim(0, last * 1.02)
            ticks = [tick for tick in (0, 1, 5, 10, 20, 40, 60, 80, 100) if tick <= last]
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            axes.set_xlabel("parameters restored, %")
        axes.set_ylim(*_shared_limits(results))
        samples = next(sweep.n for strategy in lines for sweep in results.sweeps_of(bucket, strategy))
        _head(
            axes,
            f"Tuned on bucket {bucket}, {samples:,} samples",
            f"accuracy {IN_WORDS[domain]}, %; dotted: unrestored",
        )
        _end_labels(axes, labels)

    return draw


def _root(values: Any) -> Any:
    import numpy as np

    return np.sqrt(np.maximum(values, 0.0))


def _square(values: Any) -> Any:
    import numpy as np

    return np.square(values)


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


def _head(axes: Any, title: str, subtitle: str) -> None:
    axes.set_title(title)
    axes.annotate(subtitle, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", color=MUTED)


def _dots(colour: str) -> dict[str, Any]:
    return {
        "color": colour,
        "marker": "o",
        "markersize": 5,
        "linestyle": "none",
        "alpha": 0.75,
        "zorder": 4,
        "markeredgewidth": 0,
    }


def _bucket_label(bucket: int) -> str:
    return f"bucket {bucket}"


def _end_labels(axes: Any, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write labels beside line ends, right of the axes, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = LABEL_GAP * (high - low)
    placed: list[float] = []
    for _, y, text, colour in sorted(labels, key=lambda label: label[1]):
        place = max(y, placed[-1] + gap) if placed else y
        placed.append(place)
        weight = "normal" if colour == MUTED else "bold"
        axes.annotate(
            text, (1, place), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
            color=colour, fontweight=weight, annotation_clip=False,
        )  # fmt: skip
