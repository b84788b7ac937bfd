"""What draws each kind of panel onto matplotlib axes: labels beside the lines, no legends, no frames."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sftknow.mastery.buckets import BUCKETS
from sftknow.report.results import Results
from sftknow.report.statistics import spread
from sftknow.report.style import BUCKET_COLOURS, INK, MUTED, RANDOM
from sftknow.report.verdicts import IN_WORDS

MEANING = {0: "unknown", 4: "mastered"}
LABEL_GAP = 0.075
_MARKED: Mapping[str, Any] = {"marker": "o", "markersize": 4, "markeredgewidth": 0, "clip_on": False, "zorder": 3}

Point = tuple[float, float, float, float]
Draw = Callable[[Any], None]


def bars(title: str, counts: Sequence[int]) -> Draw:
    """Draw the share of facts in each bucket, labelled."""

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


def lines_by_size(
    results: Results,
    lines: dict[int, list[tuple[int, list[float]]]],
    titles: tuple[str, str],
    scale: float,
    *,
    base: float | None = None,
    ceiling: float | None = None,
) -> Draw:
    """Draw one line for each training bucket over the training sizes, with its seeds as dots."""

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
        _round_ticks(axes.yaxis)
        _head(axes, *titles)
        _end_labels(axes, labels)

    return draw


def accuracy_against_kl(results: Results) -> Draw:
    """Draw each fine-tuning as a dot and, for each bucket, arrows from smaller to larger training sets."""

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
        _round_ticks(axes.xaxis, 5)
        _round_ticks(axes.yaxis)
        axes.set_xlabel("KL from the base, nats")
        _head(axes, "Accuracy on test bucket 4, %", "well-mastered facts, in domain")

    return draw


def shares_of_change(results: Results, bucket: int) -> Draw:
    """Draw the share of relative and of absolute change in the top percents, after tuning on one bucket."""

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


def sweep_curves(
    bucket: int,
    samples: int,
    domain: str,
    lines: Mapping[str, Sequence[Point]],
    limits: tuple[float, float],
    *,
    by_change: bool,
) -> Draw:
    """Draw accuracy along a sweep, largest-first and random, with the range over seeds."""

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
        axes.set_ylim(*limits)
        _round_ticks(axes.yaxis)
        _head(
            axes,
            f"Tuned on bucket {bucket}, {samples:,} samples",
            f"accuracy {IN_WORDS[domain]}, %; dotted: unrestored",
        )
        _end_labels(axes, labels)

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


def _head(axes: Any, title: str, subtitle: str) -> None:
    axes.set_title(title)
    axes.annotate(subtitle, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", color=MUTED)


def _round_ticks(axis: Any, most: int = 7) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))


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


def _root(values: Any) -> Any:
    import numpy as np

    return np.sqrt(np.maximum(values, 0.0))


def _square(values: Any) -> Any:
    import numpy as np

    return np.square(values)
