"""The parts of findings that compare steps of restoration sweeps: gains, losses, shape, and the random control."""

from collections.abc import Sequence

from sftknow.report.results import Results, Step, Sweep
from sftknow.report.statistics import Arm, contrast, interpolate, pooled_sd, spread
from sftknow.report.verdicts import (
    FAILS,
    HOLDS,
    IN_WORDS,
    OPEN,
    SMALLEST_POINTS,
    Measured,
    Part,
    difference,
    judge,
    measure,
    percent,
)

PERCENT = 20.0


def common_percent(sweeps: Sequence[Sweep]) -> float | None:
    """Return the percent nearest to ``PERCENT`` that every sweep has; None where one lacks its unrestored step."""
    common = _common_percents(sweeps)
    if 0.0 not in common:
        return None
    return min((value for value in common if value > 0), key=lambda value: (abs(value - PERCENT), value), default=None)


def gain_part(results: Results, bucket: int, at: float, domain: str) -> Part:
    """Judge the gain in accuracy from undoing the top ``at`` percent."""
    measured = _gain(results, bucket, at, domain)
    before = spread(_step(sweep, 0.0).score.domain(domain).accuracy for sweep in results.sweeps_of(bucket, "top")).mean
    text = f"{percent(before)} to {percent(before + measured.effect)} {IN_WORDS[domain]} ({difference(measured)})"
    label = f"gain at {at:g}% {IN_WORDS[domain]}"
    return Part(label, judge(measured), text, measured, decides=domain == "in_domain")


def loss_part(results: Results, bucket: int) -> Part:
    """Judge whether undoing the top 20 percent loses no more than the smallest difference worth telling."""
    label = f"undone without loss, bucket {bucket}"
    at = common_percent(results.sweeps_of(bucket, "top"))
    if at is None:
        return Part(label, OPEN, f"the sweep on bucket {bucket} is not there yet")
    measured = _gain(results, bucket, at, "in_domain")
    verdict = OPEN
    if measured.margin is not None and measured.effect - measured.margin > -SMALLEST_POINTS:
        verdict = HOLDS
    elif measured.margin is not None and measured.effect + measured.margin < -SMALLEST_POINTS:
        verdict = FAILS
    return Part(label, verdict, f"{difference(measured)} after tuning on bucket {bucket}", measured)


def more_part(results: Results, low: int, high: int, at: float) -> Part | None:
    """Judge whether the gain after tuning on the lowest bucket exceeds that on the highest."""
    lows, highs = results.sweeps_of(low, "top"), results.sweeps_of(high, "top")
    if not highs or not {0.0, at} <= _common_percents(highs):
        return None
    arms = _averaged(_gains(lows, at, "in_domain")) + _averaged(_gains(highs, at, "in_domain"), -1.0)
    measured = measure(arms, (len(lows), len(highs)), *_gain_spread(results, at, "in_domain"))
    gain = _gain(results, high, at, "in_domain")
    text = f"after bucket {high} the change is {difference(gain)} in domain, {difference(measured)} apart"
    return Part("more than on the highest bucket", judge(measured), text, measured)


def shape_part(results: Results, bucket: int) -> Part | None:
    """Judge the rise to the best percent and the fall from it to the last, their margin widened for that choice."""
    sweeps = results.sweeps_of(bucket, "top")
    percents = sorted(_common_percents(sweeps))
    if len(percents) < 3:
        return None
    first, *inner, last = percents
    means = {at: spread(_step(sweep, at).score.in_domain.accuracy for sweep in sweeps).mean for at in percents}
    best = max(inner, key=lambda at: means[at])
    limbs = [_limb(results, bucket, best, end, looks=len(inner)) for end in (first, last)]
    smaller = min(limbs, key=lambda limb: limb.effect)
    numbers = ", ".join(f"{percent(means[at])} at {at:g}%" for at in (first, best, last))
    shape = (
        "rises and falls"
        if smaller.effect > 0
        else "does not rise"
        if means[best] <= means[first]
        else "has not turned"
    )
    return Part("rises, then falls", judge(smaller), f"accuracy in domain {shape}: {numbers}", smaller, decides=False)


def _limb(results: Results, bucket: int, best: float, end: float, *, looks: int) -> Measured:
    sweeps = results.sweeps_of(bucket, "top")
    arms = _averaged(_gains(sweeps, best, "in_domain", since=end))
    sd, freedom = _gain_spread(results, best, "in_domain", since=end)
    return measure(arms, (len(sweeps),), sd, freedom, looks=looks)


def control_part(results: Results, bucket: int, domain: str, *, decides: bool) -> Part | None:
    """Judge largest-first against the random control at equal change undone; None where either sweep is missing."""
    found = {one: _control_pairs(results, one, domain) for one in results.buckets}
    if not found[bucket]:
        return None
    sd, freedom = pooled_sd([[contrast(arms).effect for arms in pairs] for pairs in found.values()])
    measured = measure(_averaged(found[bucket]), (len(found[bucket]),), sd, freedom)
    text = f"{difference(measured)} {IN_WORDS[domain]}"
    return Part(f"bucket {bucket} {IN_WORDS[domain]}", judge(measured), text, measured, decides=decides)


def _control_pairs(results: Results, bucket: int, domain: str) -> list[list[Arm]]:
    """Return, for each tuned model swept both ways, the arms of largest-first minus random."""
    pairs = [
        _control_arms(top, random, domain)
        for top in results.sweeps_of(bucket, "top")
        for random in results.sweeps_of(bucket, "random")
        if (top.n, top.seed) == (random.n, random.seed)
    ]
    return [arms for arms in pairs if arms]


def _control_arms(top: Sweep, random: Sweep, domain: str) -> list[Arm]:
    """Return largest-first at ``PERCENT`` minus the random curve at the same change undone, for one tuned model."""
    at = common_percent([top])
    whole = top.at(0.0)
    if at is None or whole is None:
        return []
    step = _step(top, at)
    steps = random.steps if random.at(0.0) is not None else (whole, *random.steps)
    curve = sorted((one.change_undone, one.percent, one) for one in steps if one.change_undone is not None)
    place = (
        interpolate(step.change_undone, [share for share, _, _ in curve]) if step.change_undone is not None else None
    )
    if place is None:
        return []
    index, weight = place
    left, right = curve[index][2].score.domain(domain), curve[index + 1][2].score.domain(domain)
    return [[(1.0, step.score.domain(domain))], [(weight - 1.0, left), (-weight, right)]]


def _gain(results: Results, bucket: int, at: float, domain: str) -> Measured:
    sweeps = results.sweeps_of(bucket, "top")
    arms = _averaged(_gains(sweeps, at, domain))
    return measure(arms, (len(sweeps),), *_gain_spread(results, at, domain))


def _gains(sweeps: Sequence[Sweep], at: float, domain: str, since: float = 0.0) -> list[list[Arm]]:
    return [
        [[(1.0, _step(sweep, at).score.domain(domain))], [(-1.0, _step(sweep, since).score.domain(domain))]]
        for sweep in sweeps
    ]


def _gain_spread(results: Results, at: float, domain: str, since: float = 0.0) -> tuple[float, int]:
    """Pool the spread over seeds of the gain between two percents, over all buckets and strategies swept."""
    groups = []
    for bucket in results.buckets:
        for strategy in ("top", "random"):
            whole = [sweep for sweep in results.sweeps_of(bucket, strategy) if sweep.at(at) and sweep.at(since)]
            groups.append([contrast(arms).effect for arms in _gains(whole, at, domain, since)])
    return pooled_sd(groups)


def _averaged(per_seed: Sequence[Sequence[Arm]], sign: float = 1.0) -> list[Arm]:
    """Average contrasts over seeds: the same arm of each seed becomes one arm."""
    return [
        [(sign * weight / len(per_seed), score) for arm in arms for weight, score in arm]
        for arms in zip(*per_seed, strict=True)
    ]


def _common_percents(sweeps: Sequence[Sweep]) -> set[float]:
    swept = [{step.percent for step in sweep.steps} for sweep in sweeps]
    return set.intersection(*swept) if swept else set()


def _step(sweep: Sweep, at: float) -> Step:
    step = sweep.at(at)
    assert step is not None
    return step
