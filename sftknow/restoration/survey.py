"""The first reading: every threshold at once, exactly, and how far each tensor moved."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sftknow.errors import CheckpointError
from sftknow.restoration import change
from sftknow.restoration.change import (
    BIN_SHIFT,
    BOTTOM,
    FLUSH_AFTER,
    INFINITE,
    NO_TIE,
    RANDOM,
    SLOTS,
    TIE_BINS,
    TIES_ALL,
    TIES_CHANGED,
    TIES_LISTED,
    TIES_UNCHANGED,
    TOP,
    Counts,
    Longs,
    Words,
)
from sftknow.restoration.finite import check_chunk
from sftknow.restoration.pairs import Pair
from sftknow.restoration.parallel import run_tasks
from sftknow.restoration.recipe import Recipe
from sftknow.restoration.select import (
    Cut,
    Histogram,
    Layout,
    Threshold,
    foresee,
    make_layout,
    split_by_hash,
    target_count,
)
from sftknow.restoration.ties import tensor_starts
from sftknow.restoration.values import BF16, F16

CHUNK = 1 << 20
"""Parameters of one task; fixed, so that sums do not depend on the number of threads."""
SAMPLE = 1 << 21
SAMPLE_BLOCK = 256
OPEN_LIMIT = 1 << 16
"""A tie group up to this size is sorted after the second reading, without counting its hashes first."""
SHOWN: tuple[float, ...] = (1, 3, 5, 10, 20, 40, 60)
"""Percents of the paper's Table 3."""
STRATEGY_CODES = {"top": TOP, "bottom": BOTTOM, "random": RANDOM}
_LARGEST = {BF16: 3.3961775e38, F16: 65520.0}
"""From here on, float32 rounds to infinity."""


@dataclass(frozen=True)
class Moved:
    """How far one tensor moved: how many of its parameters changed, sums of |s - p| and of r."""

    changed: int
    absolute: float
    relative: float


@dataclass(frozen=True)
class Survey:
    """What the first reading finds.

    Attributes:
        considered: parameters of the region.
        changed: those that differ from base.
        population: of what the percents are taken.
        moved: for each pair.
        thresholds: for each percent of the recipe.
        cuts: the same, as the second reading applies them.
        starts: hash counter of each pair's first parameter.
        concentration: percent -> share of the sum of the measure within the largest; None where the sum overflows.
    """

    considered: int
    changed: int
    population: int
    moved: tuple[Moved, ...]
    thresholds: tuple[Threshold, ...]
    cuts: tuple[Cut, ...]
    starts: tuple[int, ...]
    concentration: dict[float, float | None]


@dataclass(frozen=True)
class Chunk:
    """A run of parameters of one pair."""

    pair: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.last - self.first


def chunks_of(pairs: Sequence[Pair]) -> list[Chunk]:
    """Cut pairs into chunks that do not depend on the number of threads."""
    return [
        Chunk(number, first, min(first + CHUNK, pair.size))
        for number, pair in enumerate(pairs)
        for first in range(0, pair.size, CHUNK)
    ]


def survey(pairs: Sequence[Pair], recipe: Recipe, *, threads: int) -> Survey:
    """Find the threshold of every fraction over all pairs together, exactly.

    Args:
        pairs: the tensors of the region.
        recipe: percents, strategy, measure, population and seed.
        threads: how many work at once; the result does not depend on it.

    Raises:
        CheckpointError: NaN or infinity in a tensor, base values that tuned's dtype cannot hold, or nothing changed.
    """
    starts = tensor_starts([pair.name for pair in pairs], [pair.size for pair in pairs], recipe.seed)
    strategy = STRATEGY_CODES[recipe.strategy]
    sample, whole = _sample(pairs, recipe.by_absolute)
    forecast = foresee(sample, whole, recipe.percents, SHOWN, strategy, recipe.only_changed)
    fine, tie_values = set(forecast.fine), forecast.tie_values
    while True:
        tie_values = tuple(sorted(tie_values))  # zero, if it is among them, in row 0
        fine |= {value >> BIN_SHIFT for value in tie_values if value}  # values are looked at closely in fine bins only
        reading = _read(pairs, starts, recipe, make_layout(fine, tie_values), tie_values, threads)
        changed = sum(part.changed for part in reading.moved)
        if changed == 0:
            raise CheckpointError(
                f"base and tuned are equal in region {recipe.region.name}: there is no update to undo; "
                "check the two models."
            )
        considered = int(reading.histogram.counts.sum())
        population = changed if recipe.only_changed else considered
        found = [_threshold(reading.histogram, population, percent, recipe) for percent in recipe.percents]
        missing = {one for one in found if isinstance(one, int)}
        thresholds = tuple(one for one in found if isinstance(one, Threshold))
        unknown = _ties_to_count(thresholds, reading, strategy)
        if not missing and not unknown:
            break
        fine |= missing
        tie_values = tuple({*tie_values, *unknown})
    cuts = tuple(_cut(one, reading, strategy) for one in thresholds)
    concentration = _concentration(reading.histogram, population)
    return Survey(considered, changed, population, reading.moved, thresholds, cuts, tuple(starts), concentration)


@dataclass
class _Reading:
    """What one pass over all values counts."""

    histogram: Histogram
    tie_values: tuple[int, ...]
    tie_counts: Longs
    moved: tuple[Moved, ...] = ()

    def hashes_of(self, bits: int, strategy: int) -> Longs | None:
        """Return the counted hashes of one tie group, None where they were not counted."""
        if strategy == RANDOM:
            return np.asarray(self.tie_counts[0])
        return np.asarray(self.tie_counts[self.tie_values.index(bits)]) if bits in self.tie_values else None


@dataclass
class _Counter:
    """What one thread counts."""

    reading: _Reading
    lock: threading.Lock
    seen: int = 0
    slots: Longs = field(init=False)
    fine: Counts = field(init=False)
    tie_counts: Words = field(init=False)

    def __post_init__(self) -> None:
        self.slots = np.zeros(SLOTS, np.uint64)
        self.fine = np.zeros(self.reading.histogram.fine.size, np.int64)
        self.tie_counts = np.zeros(self.reading.tie_counts.shape, np.uint32)

    def flush(self) -> None:
        """Hand the slots to the reading before they overflow."""
        with self.lock:
            change.unpack(self.slots, self.reading.histogram.counts, self.reading.histogram.lows)
        self.seen = 0

    def finish(self) -> None:
        """Hand over everything."""
        self.flush()
        self.reading.histogram.fine += self.fine.reshape(self.reading.histogram.fine.shape)
        self.reading.tie_counts += self.tie_counts


def _read(
    pairs: Sequence[Pair],
    starts: Sequence[int],
    recipe: Recipe,
    layout: Layout,
    tie_values: tuple[int, ...],
    threads: int,
) -> _Reading:
    mode = _tie_mode(recipe, tie_values)
    ties = max(1, len(tie_values))
    reading = _Reading(Histogram(layout), tie_values, np.zeros((ties, TIE_BINS), np.uint64))
    counters: list[_Counter] = []
    lock = threading.Lock()

    def make_counter() -> _Counter:
        counter = _Counter(reading, lock)
        counters.append(counter)
        return counter

    def count(counter: _Counter, chunk: Chunk) -> Moved:
        pair = pairs[chunk.pair]
        base_raw, tuned_raw = pair.base.read(chunk.first, chunk.last), pair.tuned.read(chunk.first, chunk.last)
        start = np.uint64((starts[chunk.pair] + chunk.first) % (1 << 64))
        changed, absolute, relative, worst, largest = change.scan(
            base_raw, pair.base.kind, tuned_raw, pair.tuned.kind, recipe.by_absolute, counter.slots, layout.lows,
            layout.widths, layout.places, counter.fine, layout.tie_rows, mode, counter.tie_counts, start,
        )  # fmt: skip
        if worst >= INFINITE:
            check_chunk(pair, chunk.first, chunk.last)
        if pair.base.kind != pair.tuned.kind and largest >= _LARGEST.get(pair.tuned.kind, np.inf):
            raise CheckpointError(
                f"tensor {pair.name} of base has values up to {largest:g}, too large for the dtype of tuned; "
                "save tuned in bfloat16 or float32."
            )
        counter.seen += chunk.size
        if counter.seen + CHUNK > FLUSH_AFTER:
            counter.flush()
        return Moved(changed, absolute, relative)

    chunks = chunks_of(pairs)
    parts = run_tasks(
        chunks, count, threads=threads, make_state=make_counter, weigh=lambda chunk: chunk.size, label="comparing"
    )
    for counter in counters:
        counter.finish()
    reading.moved = _by_pair(chunks, parts, len(pairs))
    return reading


def _tie_mode(recipe: Recipe, tie_values: tuple[int, ...]) -> int:
    if recipe.strategy == "random":
        return TIES_CHANGED if recipe.only_changed else TIES_ALL
    return TIES_UNCHANGED if 0 in tie_values else TIES_LISTED


def _by_pair(chunks: Sequence[Chunk], parts: Sequence[Moved], count: int) -> tuple[Moved, ...]:
    sums = [[0, 0.0, 0.0] for _ in range(count)]
    for chunk, part in zip(chunks, parts, strict=True):
        row = sums[chunk.pair]
        row[0] += part.changed
        row[1] += part.absolute
        row[2] += part.relative
    return tuple(Moved(int(changed), absolute, relative) for changed, absolute, relative in sums)


def _threshold(histogram: Histogram, population: int, percent: float, recipe: Recipe) -> Threshold | int:
    """Return one threshold, or the bin that hides it."""
    target = target_count(population, percent)
    if recipe.strategy == "random":
        return Threshold(target, 0, 0, population, target) if target else Threshold(0, None, 0, 0, 0)
    return histogram.find(target, from_bottom=recipe.strategy == "bottom", only_changed=recipe.only_changed)


def _ties_to_count(thresholds: Sequence[Threshold], reading: _Reading, strategy: int) -> list[int]:
    return [
        one.bits
        for one in thresholds
        if one.bits is not None
        and one.splits
        and one.tied > OPEN_LIMIT
        and reading.hashes_of(one.bits, strategy) is None
    ]


def _cut(one: Threshold, reading: _Reading, strategy: int) -> Cut:
    if one.bits is None:
        return Cut(0x7FFFFFFF, NO_TIE)
    rank = one.bits ^ 0x7FFFFFFF if strategy == BOTTOM else one.bits
    if not one.splits:
        return Cut(rank - 1, NO_TIE)
    below, last, open_taken = split_by_hash(reading.hashes_of(one.bits, strategy), one.taken)
    return Cut(rank, rank, below, last, open_taken)


def _concentration(histogram: Histogram, population: int) -> dict[float, float | None]:
    whole = float(histogram.sums.sum())
    if not np.isfinite(whole) or whole == 0:
        return dict.fromkeys(SHOWN)
    return {percent: min(1.0, histogram.sum_of_top(target_count(population, percent)) / whole) for percent in SHOWN}


def _sample(pairs: Sequence[Pair], by_absolute: bool) -> tuple[Words, bool]:
    """Return bit patterns of the measure of evenly spread blocks, and whether they are all there is."""
    total = sum(pair.size for pair in pairs)
    whole = total <= SAMPLE
    step = 1 if whole else total // (SAMPLE // SAMPLE_BLOCK)
    blocks: list[Words] = []
    offset = 0
    for pair in pairs:
        first = -offset % step
        positions = [(0, pair.size)] if whole else [
            (at, min(at + SAMPLE_BLOCK, pair.size)) for at in range(first, pair.size, step)
        ]  # fmt: skip
        for at, last in positions:
            bits = np.empty(last - at, np.uint32)
            change.ranks(
                pair.base.read(at, last), pair.base.kind, pair.tuned.read(at, last), pair.tuned.kind, by_absolute, bits
            )
            blocks.append(bits)
        offset += pair.size
    everything = np.concatenate(blocks) if blocks else np.empty(0, np.uint32)
    return np.minimum(everything, np.uint32(INFINITE)), whole  # NaN is found, and refused, by the reading
