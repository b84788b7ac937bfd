"""From a measured difference to a verdict: the one rule by which every finding is judged, and its wording."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sftknow.report.statistics import Arm, contrast, margin

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told"
VERDICTS = (HOLDS, FAILS, OPEN)
SMALLEST_POINTS = 0.02
SMALLEST_NATS = 0.05
IN_WORDS = {"in_domain": "in domain", "out_of_domain": "out of domain"}

RULE = (
    "Every difference is set against a 95% margin: the sampling error of the test facts and the spread over seeds "
    "(standard deviation within equal settings, pooled over the settings, Student's t), added in quadrature. A "
    "finding holds where the difference exceeds its margin; it does not hold where even the difference plus its margin "
    "stays below 2 points of accuracy (0.05 nats of KL); otherwise it cannot be told. One seed alone never decides."
)


@dataclass(frozen=True)
class Measured:
    """A difference in the direction the paper found, its 95% margin (None: one seed), and what they rest on."""

    effect: float
    margin: float | None
    seeds: int
    sd: float | None
    facts: int
    paired: bool = False


@dataclass(frozen=True)
class Part:
    """One question within a finding; parts that do not decide can only cast doubt."""

    label: str
    verdict: str
    text: str
    measured: Measured | None = None
    decides: bool = True


@dataclass(frozen=True)
class Finding:
    """One finding with the rule that judges it, its verdict, a sentence with the numbers, and its parts."""

    key: str
    title: str
    rule: str
    verdict: str
    text: str
    parts: tuple[Part, ...] = ()
    paper: str | None = None


def measure(arms: Sequence[Arm], seeds: Sequence[int], sd: float, freedom: int, *, looks: int = 1) -> Measured:
    """Measure a contrast of accuracies with its margin.

    Args:
        arms: lists of (weight, score), see :func:`sftknow.report.statistics.contrast`.
        seeds: number of seeds behind each independent mean in the contrast.
        sd: spread over seeds of one such mean's values, pooled over settings.
        freedom: degrees of freedom behind ``sd``.
        looks: how many comparisons this one was picked from.
    """
    found = contrast(arms)
    half = seed_margin(found.stderr, seeds, sd, freedom, looks=looks)
    return Measured(found.effect, half, min(seeds), sd if freedom else None, found.facts, found.paired)


def seed_margin(stderr: float, seeds: Sequence[int], sd: float, freedom: int, *, looks: int = 1) -> float | None:
    """Return the 95% margin of a difference of means over seeds, or None where one of them has one seed only."""
    if freedom == 0 or min(seeds) < 2:
        return None
    return margin(stderr, sd * math.sqrt(sum(1 / number for number in seeds)), freedom, looks=looks)


def judge(measured: Measured, smallest: float = SMALLEST_POINTS) -> str:
    """Return the verdict on one difference: see ``RULE``."""
    if measured.margin is None:
        return OPEN
    if measured.effect > measured.margin:
        return HOLDS
    return FAILS if measured.effect + measured.margin < smallest else OPEN


def contradicts(part: Part) -> bool:
    """Tell whether a part shows, beyond its margin, the opposite of what the paper found."""
    found = part.measured
    return found is not None and found.margin is not None and found.effect < -found.margin


def combine(parts: Sequence[Part]) -> str:
    """Return the verdict of a finding: its deciding parts must all hold, and no other part may say the opposite."""
    deciding = [part.verdict for part in parts if part.decides]
    if not deciding:
        return OPEN
    if FAILS in deciding:
        return FAILS
    doubted = any(contradicts(part) for part in parts)
    return HOLDS if set(deciding) == {HOLDS} and not doubted else OPEN


def percent(value: float) -> str:
    """Write a fraction as percent with one decimal."""
    return f"{100 * value:.1f}%"


def count(number: int, noun: str) -> str:
    """Write a count with its noun, in the plural where it takes one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def nats(value: float) -> str:
    """Write a KL with two decimals, or with two significant digits where that would hide it."""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def difference(measured: Measured, unit: str = "points", *, sign: int = 1) -> str:
    """Write a difference with its margin, in points of accuracy or in nats."""
    effect = sign * measured.effect
    mark = "+" if effect >= 0 else "−"
    half = f" ± {_amount(measured.margin, unit)}" if measured.margin is not None else ""
    return f"{mark}{_amount(abs(effect), unit)}{half} {unit}"


def basis(measured: Measured, unit: str = "points", facts: str = "test fact") -> str:
    """Write what a difference rests on: seeds, spread over them, and facts."""
    known = measured.sd is not None and measured.margin is not None
    over = f" with sd {_amount(measured.sd or 0.0, unit)} {unit}" if known else ""
    return f"{count(measured.seeds, 'seed')}{over}, {count(measured.facts, facts)}"


def _amount(value: float, unit: str) -> str:
    return f"{100 * value:.1f}" if unit == "points" else nats(value)
