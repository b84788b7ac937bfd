"""Exact global selection from histograms: which value of the measure each fraction reaches down to.

A bin holds all values that share their upper 17 bits. A bin into which a threshold falls is counted value by
value; a sample foresees these bins, and where it was wrong the caller counts once more. Memory depends on the number
of such bins alone, never on the model.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sftknow.restoration.change import BIN_SHIFT, BINS, BOTTOM, TIE_SHIFT, Counts, Words

MAX_FINE_BINS = 128
MAX_TIE_VALUES = 32


def target_count(population: int, percent: float) -> int:
    """Return how many of a population a percent restores: int(n * percent / 100)."""
    return min(population, int(population * percent / 100))


@dataclass(frozen=True)
class Threshold:
    """Where one fraction ends in the order of restoration.

    Attributes:
        target: how many parameters it restores.
        bits: bit pattern of the measure at the end, 0 for random, None where nothing is restored.
        beyond: how many stand strictly before that value; all are restored.
        tied: how many have exactly that value.
        taken: how many of those are restored.
    """

    target: int
    bits: int | None
    beyond: int
    tied: int
    taken: int

    @property
    def splits(self) -> bool:
        """Whether the fraction takes some, not all, of a group of equals."""
        return 0 < self.taken < self.tied

    @property
    def value(self) -> float | None:
        """The measure at the threshold."""
        return None if self.bits is None else float(np.uint32(self.bits).view(np.float32))


@dataclass(frozen=True)
class Layout:
    """Which values are counted one by one: those of the fine bins, joined to runs; zero is always counted apart.

    Attributes:
        fine: the bins, rising.
        lows: [runs] first bit pattern of each run.
        widths: [runs] how many values it has.
        places: [BINS] number of each bin among the fine ones, -1 for others.
        tie_rows: [fine bins * values of a bin] number of each value among those whose hashes are counted, else -1.
    """

    fine: tuple[int, ...]
    lows: Words
    widths: Words
    places: npt.NDArray[np.int32]
    tie_rows: npt.NDArray[np.int16]


def make_layout(fine: Iterable[int], tie_values: Sequence[int] = ()) -> Layout:
    """Join fine bins to runs of values.

    Args:
        fine: the bins.
        tie_values: bit patterns whose hashes are to be counted, in the order of their rows; all but zero in fine bins.
    """
    bins = np.array(sorted(set(fine)), np.int64)
    starts = np.flatnonzero(np.diff(bins, prepend=-2) != 1)
    lengths = np.diff(np.append(starts, bins.size)) << BIN_SHIFT
    lows = bins[starts] << BIN_SHIFT
    if bins.size and bins[0] == 0:
        lows[0], lengths[0] = 1, lengths[0] - 1
    places = np.full(BINS, -1, np.int32)
    places[bins] = np.arange(bins.size)
    rows = np.full(bins.size << BIN_SHIFT, -1, np.int16)
    for row, value in enumerate(tie_values):
        if value == 0:
            continue
        rows[(int(places[value >> BIN_SHIFT]) << BIN_SHIFT) + (value & ((1 << BIN_SHIFT) - 1))] = row
    return Layout(tuple(bins.tolist()), lows.astype(np.uint32), lengths.astype(np.uint32), places, rows)


@dataclass
class Histogram:
    """Counts of the measure over a population, and exact sums of its values.

    Attributes:
        layout: which values are counted one by one.
        counts: [1 + BINS] how many: the unchanged, then each bin.
        lows: [1 + BINS] sums of the counted values' low bits.
        fine: [fine bins, values of a bin] how many.
    """

    layout: Layout
    counts: Counts = field(init=False)
    lows: Counts = field(init=False)
    fine: Counts = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros(1 + BINS, np.int64)
        self.lows = np.zeros(1 + BINS, np.int64)
        self.fine = np.zeros((len(self.layout.fine), 1 << BIN_SHIFT), np.int64)

    def find(self, target: int, *, from_bottom: bool = False, only_changed: bool = False) -> Threshold | int:
        """Return the threshold of a number of parameters, or the bin to count value by value first.

        Args:
            target: how many to restore, at most the population.
            from_bottom: take the smallest changes first.
            only_changed: leave the unchanged out of the population.
        """
        if target == 0:
            return Threshold(0, None, 0, 0, 0)
        skipped = int(self.counts[0]) if only_changed and from_bottom else 0
        at, before = _locate(self.counts, target + skipped, from_bottom)
        if at == 0:
            return Threshold(target, 0, before - skipped, int(self.counts[0]), target - (before - skipped))
        if at - 1 not in self.layout.fine:
            return at - 1
        values = self.fine[self.layout.fine.index(at - 1)]
        inside, more = _locate(values, target + skipped - before, from_bottom)
        beyond = before + more - skipped
        return Threshold(target, ((at - 1) << BIN_SHIFT) + inside, beyond, int(values[inside]), target - beyond)

    def sum_of_top(self, target: int) -> float:
        """Return the sum of the ``target`` largest values; in a bin that is not fine, all count as its mean."""
        if target == 0:
            return 0.0
        at, before = _locate(self.counts, target, False)
        above = float(self.sums[at + 1 :].sum())
        if at - 1 not in self.layout.fine:
            return above + float(self.sums[at] / self.counts[at]) * (target - before)
        values = self.fine[self.layout.fine.index(at - 1)]
        inside, more = _locate(values, target - before, False)
        bits = np.arange(inside, values.size) + ((at - 1) << BIN_SHIFT)
        counts = np.concatenate([[target - before - more], values[inside + 1 :]])
        return above + float((bits.astype(np.uint32).view(np.float32).astype(np.float64) * counts).sum())

    @cached_property
    def sums(self) -> npt.NDArray[np.float64]:
        """The sum of each entry's values, exact before rounding: inside a bin a value is linear in its low bits."""
        bins = np.arange(BINS, dtype=np.int64)
        with np.errstate(invalid="ignore"):  # the bins of infinity and NaN; the latter stay empty
            low_end = (bins << BIN_SHIFT).astype(np.uint32).view(np.float32).astype(np.float64)
            unit = np.ldexp(1.0, np.maximum(bins >> (23 - BIN_SHIFT), 1) - 150)
            sums = self.counts[1:] * low_end + self.lows[1:] * unit
        sums[self.counts[1:] == 0] = 0.0
        return np.concatenate([[0.0], sums])


def _locate(counts: Counts, target: int, from_bottom: bool) -> tuple[int, int]:
    """Return the entry in which a running count reaches a target, and the count before it."""
    reached = np.cumsum(counts if from_bottom else counts[::-1])
    at = int(np.searchsorted(reached, target))
    slot = at if from_bottom else counts.size - 1 - at
    return slot, int(reached[at]) - int(counts[slot])


@dataclass(frozen=True)
class Cut:
    """A threshold as the second reading applies it; ranks are what ``levels.order`` makes of bit patterns.

    Attributes:
        above: ranks above this are restored.
        tie: the rank that is split by hash; NO_TIE where none is.
        below: hashes under this are restored.
        last: hashes above this are not; those between are open.
        open_taken: how many of the open ones are restored, smallest hash first.
    """

    above: int
    tie: int
    below: int = 0
    last: int = 0
    open_taken: int = 0


def split_by_hash(counts: npt.NDArray[np.uint64] | None, taken: int) -> tuple[int, int, int]:
    """Return (below, last, how many open ones are taken) so that exactly ``taken`` of a tie group are restored.

    Args:
        counts: [TIE_BINS] the group's hashes by their top 16 bits; None leaves the whole group open.
        taken: how many of the group to restore, fewer than it holds.
    """
    if counts is None:
        return 0, (1 << 64) - 1, taken
    reached = np.cumsum(counts.astype(np.int64))
    at = int(np.searchsorted(reached, taken, side="right"))
    sure = int(reached[at - 1]) if at else 0
    return at << TIE_SHIFT, ((at + 1) << TIE_SHIFT) - 1, taken - sure


@dataclass(frozen=True)
class Forecast:
    """What a sample foresees: bins to count value by value, and values whose ties will be split."""

    fine: frozenset[int]
    tie_values: tuple[int, ...]


def foresee(
    sample: Words, whole: bool, percents: Sequence[float], shown: Sequence[float], strategy: int, only_changed: bool
) -> Forecast:
    """Foresee from a sample where thresholds will fall.

    Args:
        sample: bit patterns of the measure of a spread of parameters; ``whole``: of all of them.
        whole: the sample is the population, so the forecast is exact.
        percents: the fractions to restore, by ``strategy``.
        shown: percents at which the concentration is shown, always from the top; exact where that costs nothing.
        strategy: TOP, BOTTOM or RANDOM.
        only_changed: percents are of the changed parameters.
    """
    population = np.sort(sample[sample > 0] if only_changed else sample)[::-1]
    upward = population[::-1]
    restored = [] if strategy == 2 else [(upward if strategy == BOTTOM else population, p) for p in percents]
    fine: set[int] = set()
    ties: dict[int, None] = {}
    for ordered, percent in restored:
        values, counts = np.unique(_around(ordered, percent, whole), return_counts=True)
        heaviest = values[np.argsort(-counts, kind="stable")[: 1 if whole else 4]]
        ties.update(dict.fromkeys(int(value) for value in heaviest))
        fine |= _bins(values, fine)
    for percent in shown if whole else ():
        fine |= _bins(_around(population, percent, whole), fine)
    return Forecast(frozenset(fine), tuple(ties)[:MAX_TIE_VALUES])


def _around(ordered: Words, percent: float, whole: bool) -> Words:
    size = ordered.size
    target = target_count(size, percent)
    if whole:
        return ordered[target - 1 : target] if target else ordered[:0]
    share = percent / 100
    # Five standard errors of a sample of singles; one of blocks errs somewhat further, since neighbours are alike.
    margin = 5 * math.sqrt(max(size * share * (1 - share), 1.0)) + 8
    return ordered[max(0, int(target - margin)) : int(target + margin) + 1]


def _bins(values: Words, known: set[int]) -> set[int]:
    found = {int(value) for value in np.unique(values[values > 0] >> np.uint32(BIN_SHIFT))} - known
    return found if len(known) + len(found) <= MAX_FINE_BINS else set()
