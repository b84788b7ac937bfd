"""The parts of findings that compare fine-tunings: accuracy between cells, KL between cells, one against the other.

A cell is all runs of one bucket and size; its runs differ in seed only.
"""

import math
from collections.abc import Sequence

from sftknow.report.results import DomainScore, Results, Run
from sftknow.report.statistics import fit_slope, pooled_sd, spread, student_quantile
from sftknow.report.verdicts import (
    OPEN,
    SMALLEST_NATS,
    Measured,
    Part,
    difference,
    judge,
    measure,
    nats,
    seed_margin,
)

NORMAL = 1.96
MASTERED = 4


def runs_part(results: Results, domain: str, more: Sequence[Run], less: Sequence[Run], label: str) -> Part:
    """Compare two cells of fine-tunings: mean accuracy of ``more`` minus that of ``less``."""
    cells = [results.cell(bucket, n) for bucket in results.buckets for n in results.sizes]
    sd, freedom = pooled_sd([[score.accuracy for score in _scores(cell, domain)] for cell in cells])
    arms = [
        [(1 / len(more), score) for score in _scores(more, domain)],
        [(-1 / len(less), score) for score in _scores(less, domain)],
    ]
    measured = measure(arms, (len(more), len(less)), sd, freedom)
    return Part(label, judge(measured), difference(measured), measured, decides=domain == "in_domain")


def divergence_part(
    results: Results, label: str, more: Sequence[tuple[int, int]], less: Sequence[tuple[int, int]]
) -> Part:
    """Compare sums of mean KL over cells (bucket, n); the facts' error is read from each run's own interval."""
    cells = [*more, *less]
    effect = sum(spread(divergences(results, *cell)).mean for cell in more)
    effect -= sum(spread(divergences(results, *cell)).mean for cell in less)
    sd, freedom = pooled_sd([divergences(results, bucket, n) for bucket in results.buckets for n in results.sizes])
    found = [[run.kl for run in results.runs if (run.bucket, run.n) == cell and run.kl is not None] for cell in cells]
    stderr = math.hypot(*(spread((kl.high - kl.low) / 2 / NORMAL for kl in cell).mean for cell in found))
    seeds = [len(cell) for cell in found]
    facts = max(kl.facts for cell in found for kl in cell)
    measured = Measured(effect, seed_margin(stderr, seeds, sd, freedom), min(seeds), sd if freedom else None, facts)
    return Part(label, judge(measured, SMALLEST_NATS), difference(measured, "nats"), measured)


def slope_part(results: Results) -> Part:
    """Judge the slope of accuracy on the well-mastered test bucket against KL, within training buckets."""
    label = f"accuracy on test bucket {MASTERED} falls as KL rises"
    groups: dict[int, list[tuple[float, float]]] = {}
    for run in results.runs:
        if run.kl is not None and run.score is not None and MASTERED in run.score.in_domain.buckets:
            point = (run.kl.mean, run.score.in_domain.buckets[MASTERED].accuracy)
            groups.setdefault(run.bucket, []).append(point)
    line = fit_slope(groups.values())
    if line is None:
        return Part(label, OPEN, f"too few runs to set accuracy on test bucket {MASTERED} against KL")
    kls = [kl for group in groups.values() for kl, _ in group]
    reach = max(kls) - min(kls)
    seeds = len({run.seed for run in results.runs})
    half = student_quantile(0.975, line.freedom) * line.stderr * reach if seeds > 1 else None
    measured = Measured(-line.slope * reach, half, seeds, None, len(kls))
    text = (
        f"along the KL seen ({nats(min(kls))} to {nats(max(kls))}), accuracy on test bucket {MASTERED} changes by "
        f"{difference(measured, sign=-1)} within training buckets (r = {line.correlation:+.2f}, {line.count} runs)"
    )
    return Part(label, judge(measured), text.replace("= -", "= −"), measured)


def mean_accuracy(runs: Sequence[Run], domain: str) -> float:
    """Return the mean accuracy of a cell over its seeds."""
    return spread(score.accuracy for score in _scores(runs, domain)).mean


def divergences(results: Results, bucket: int, n: int) -> list[float]:
    """Return the KL of each run of one cell, in nats."""
    return [run.kl.mean for run in results.runs if (run.bucket, run.n) == (bucket, n) and run.kl is not None]


def _scores(runs: Sequence[Run], domain: str) -> list[DomainScore]:
    return [run.score.domain(domain) for run in runs if run.score is not None]
