"""Exact global selection from histograms: which value of the measure each fraction reaches down to.

A coarse bin holds all values that share their upper 17 bits. A bin into which a threshold falls is counted value by
value; a sample foresees these bins, and where it was wrong the caller counts once more. Memory depends on the number
of such bins alone, never on the model.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sftknow.restoration.change import (
    BIN_SHIFT,
    BINS,
    BOTTOM,
    HAS_TIES,
    TIE_SHIFT,
    ZERO_SLOTS,
    Words,
)

_WIDE = 1 << BIN_SHIFT
MAX_FINE_BINS = 128
MAX_TIE_VALUES = 32
Counts = npt.NDArray[np.int64]


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
    """Which slot of a histogram counts which value: one for each coarse bin, one for each value in a fine bin.

    Attributes:
        fine: coarse bins counted value by value, sorted.
        table: [BINS] entries for the kernel: slot << 6 | HAS_TIES | shift.
        firsts: [BINS] first slot of each bin.
        size: number of slots, the ZERO_SLOTS before the first bin included.
    """

    fine: tuple[int, ...]
    table: Words
    firsts: Counts
    size: int


def make_layout(fine: Iterable[int], tie_values: Iterable[int] = ()) -> Layout:
    """Lay out the slots for a set of fine bins, and flag the bins that hold values whose ties are counted."""
    chosen = sorted(set(fine))
    widths = np.ones(BINS, np.int64)
    widths[chosen] = _WIDE
    firsts = ZERO_SLOTS + np.cumsum(widths) - widths
    shifts = np.full(BINS, BIN_SHIFT, np.int64)
    shifts[chosen] = 0
    flags = np.zeros(BINS, np.int64)
    flags[[value >> BIN_SHIFT for value in tie_values]] = HAS_TIES
    table = (firsts << 6 | flags | shifts).astype(np.uint32)
    return Layout(tuple(chosen), table, firsts, int(firsts[-1] + widths[-1]))


@dataclass
class Histogram:
    """Counts of the measure over a population, and exact sums of its values.

    Attributes:
        layout: the slots.
        counts: [slots - ZERO_SLOTS + 1] how many; entry 0 counts the unchanged.
        lows: the same shape, sums of the counted values' low bits.
    """

    layout: Layout
    counts: Counts = field(init=False)
    lows: Counts = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.layout.size - ZERO_SLOTS + 1, np.int64)
        self.lows = np.zeros_like(self.counts)

    def find(self, target: int, *, from_bottom: bool = False, only_changed: bool = False) -> Threshold | int:
        """Return the threshold of a number of parameters, or the coarse bin to count value by value first.

        Args:
            target: how many to restore, at most the population.
            from_bottom: take the smallest changes first.
            only_changed: leave the unchanged out of the population.
        """
        if target == 0:
            return Threshold(0, None, 0, 0, 0)
        reached = self._reached[from_bottom]
        skipped = int(self.counts[0]) if only_changed and from_bottom else 0
        at = int(np.searchsorted(reached, target + skipped))
        slot = at if from_bottom else reached.size - 1 - at
        tied = int(self.counts[slot])
        beyond = int(reached[at]) - tied - skipped
        coarse, bits = self._bits_of(slot)
        if coarse is not None:
            return coarse
        return Threshold(target, bits, beyond, tied, target - beyond)

    def sum_above(self, threshold: Threshold) -> float:
        """Return the sum of the measure over the parameters that a top threshold restores."""
        if threshold.bits is None:
            return 0.0
        slot = 0 if threshold.bits == 0 else self._slot_of(threshold.bits)
        return float(self.sums[slot + 1 :].sum()) + threshold.taken * (threshold.value or 0.0)

    @cached_property
    def _reached(self) -> tuple[Counts, Counts]:
        """Counts added up from the top, and from the bottom."""
        return np.cumsum(self.counts[::-1]), np.cumsum(self.counts)

    @cached_property
    def sums(self) -> npt.NDArray[np.float64]:
        """The sum of each entry's values, exact before rounding: inside a bin a value is linear in its low bits."""
        coarse = np.repeat(np.arange(BINS, dtype=np.int64), np.diff(np.append(self.layout.firsts, self.layout.size)))
        with np.errstate(invalid="ignore"):  # the bins of infinity and NaN; the latter stay empty
            low_end = (coarse << BIN_SHIFT).astype(np.uint32).view(np.float32).astype(np.float64)
            unit = np.ldexp(1.0, np.maximum(coarse >> (23 - BIN_SHIFT), 1) - 150)
            sums = self.counts[1:] * low_end + self.lows[1:] * unit
        sums[self.counts[1:] == 0] = 0.0
        return np.concatenate([[0.0], sums])

    def _slot_of(self, bits: int) -> int:
        coarse = bits >> BIN_SHIFT
        inside = bits & (_WIDE - 1) if coarse in self.layout.fine else 0
        return int(self.layout.firsts[coarse]) - ZERO_SLOTS + 1 + inside

    def _bits_of(self, slot: int) -> tuple[int | None, int]:
        """Return (None, exact bits) of a slot, or (coarse bin, 0) where it holds many values."""
        if slot == 0:
            return None, 0
        first = slot - 1 + ZERO_SLOTS
        coarse = int(np.searchsorted(self.layout.firsts, first, side="right")) - 1
        if coarse not in self.layout.fine:
            return coarse, 0
        return None, (coarse << BIN_SHIFT) + first - int(self.layout.firsts[coarse])


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
        shown: percents at which the concentration is shown, always from the top.
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
    for percent in shown:
        fine |= _bins(_around(population, percent, whole), fine)
    return Forecast(frozenset(fine), tuple(ties)[:MAX_TIE_VALUES])


def _around(ordered: Words, percent: float, whole: bool) -> Words:
    size = ordered.size
    target = target_count(size, percent)
    if whole:
        return ordered[target - 1 : target] if target else ordered[:0]
    share = percent / 100
    # Neighbouring parameters resemble each other, so that a sample of blocks errs about twice as far as one of singles.
    margin = 8 * math.sqrt(max(size * share * (1 - share), 1.0)) + 8
    return ordered[max(0, int(target - margin)) : int(target + margin) + 1]


def _bins(values: Words, known: set[int]) -> set[int]:
    found = {int(value) for value in np.unique(values >> np.uint32(BIN_SHIFT))} - known
    return found if len(known) + len(found) <= MAX_FINE_BINS else set()
