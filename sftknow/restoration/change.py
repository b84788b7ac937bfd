"""The kernel: how far each parameter moved, and what follows from it for one chunk of one tensor.

The measures follow section "Parameter level" of the method: relative r = |s - p| / (|p| + 1e-8) and absolute
|s - p|, in float32 and bit for bit as NumPy computes them. The order of non-negative float32 numbers is the order of
their bit patterns, so ranks are integers. Values are decoded block by block in cache; no tensor is held in float32.
"""

import numpy as np
import numpy.typing as npt

from sftknow.restoration.compiled import compiled, compiled_sum
from sftknow.restoration.ties import mix
from sftknow.restoration.values import Bytes, Floats, decode

BIN_SHIFT = 14
"""Values that share all but their lowest 14 bits fall into one bin."""
BINS = 1 << (31 - BIN_SHIFT)
ZERO_SLOTS = 16
"""Unchanged parameters are counted over 16 slots in turn, so that no slot waits for its own last update."""
SLOTS = ZERO_SLOTS + BINS
COUNT_SHIFT = 40
"""A slot packs a count (upper 24 bits) and the sum of the counted values' low 14 bits (lower 40 bits)."""
FLUSH_AFTER = 15 << 20
"""Elements after which slots are emptied, before either half can overflow."""
TIE_BINS = 1 << 16
TIE_SHIFT = 48

BLOCK = 1024
TIES_LISTED, TIES_ALL, TIES_CHANGED, TIES_UNCHANGED = 0, 1, 2, 3
TOP, BOTTOM, RANDOM = 0, 1, 2
OUTSIDE = -2
"""Rank of a parameter that cannot be selected."""
NO_TIE = -3
"""Rank that no parameter has."""
INFINITE = 0x7F800000

Ints = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint32]
Longs = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]


@compiled
def measure(base: Floats, tuned: Floats, absolute: Floats, relative: Floats) -> None:
    """Fill |s - p| and |s - p| / (|p| + 1e-8) for float32 values p (base) and s (tuned)."""
    for i in range(base.size):
        change = abs(tuned[i] - base[i])
        absolute[i] = change
        relative[i] = change / (abs(base[i]) + np.float32(1e-8))


@compiled
def ranks(base_raw: Bytes, base_kind: int, tuned_raw: Bytes, tuned_kind: int, by_absolute: bool, out: Words) -> None:
    """Fill the bit patterns of the measure of one chunk."""
    size = tuned_raw.size // (4 if tuned_kind == 2 else 2)
    base, tuned = np.empty(size, np.float32), np.empty(size, np.float32)
    other = np.empty(size, np.float32)
    decode(base_raw, base_kind, base)
    decode(tuned_raw, tuned_kind, tuned)
    if by_absolute:
        measure(base, tuned, out.view(np.float32), other)
    else:
        measure(base, tuned, other, out.view(np.float32))


@compiled
def scan(
    base_raw: Bytes,
    base_kind: int,
    tuned_raw: Bytes,
    tuned_kind: int,
    by_absolute: bool,
    slots: Longs,
    lows: Words,
    widths: Words,
    places: Ints,
    fine: Counts,
    tie_rows: npt.NDArray[np.int16],
    tie_mode: int,
    tie_counts: Words,
    start: np.uint64,
) -> tuple[int, float, float, int, float]:
    """Count one chunk into histograms of its measure and of the hashes of parameters that may tie.

    Args:
        base_raw: bytes of p, of ``base_kind``.
        base_kind: BF16, F16 or F32.
        tuned_raw: bytes of s, as many elements.
        tuned_kind: BF16, F16 or F32.
        by_absolute: rank by |s - p| instead of r.
        slots: [SLOTS] packed counts and low sums, added to.
        lows: [runs] first bit pattern of each run of values that are counted one by one.
        widths: [runs] how many values each run has.
        places: [BINS] number of each bin among those whose values are counted one by one.
        fine: [such bins * values of a bin] counts of those values, added to.
        tie_rows: [such bins * values of a bin] row of ``tie_counts`` in which a value's hashes are counted, or -1.
        tie_mode: TIES_LISTED: count the hashes of values with a row. Otherwise those of all parameters, of all that
            changed or of all that did not, in row 0.
        tie_counts: [ties, TIE_BINS] counts by the top 16 bits of the hash, added to.
        start: hash counter of the chunk's first element.

    Returns:
        How many changed, sum of |s - p|, sum of r, the largest bit pattern of r, and the largest |p|.
    """
    base_item = 4 if base_kind == 2 else 2
    tuned_item = 4 if tuned_kind == 2 else 2
    size = tuned_raw.size // tuned_item
    base, tuned = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    absolute, relative = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    slot, marks, member = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint8), np.empty(BLOCK, np.int32)
    all_bits = absolute.view(np.uint32) if by_absolute else relative.view(np.uint32)
    changed, sum_absolute, sum_relative, worst, largest = 0, 0.0, 0.0, np.uint32(0), np.float32(0)
    for at in range(0, size, BLOCK):
        n = min(BLOCK, size - at)
        decode(base_raw[at * base_item : (at + n) * base_item], base_kind, base[:n])
        decode(tuned_raw[at * tuned_item : (at + n) * tuned_item], tuned_kind, tuned[:n])
        measure(base[:n], tuned[:n], absolute[:n], relative[:n])
        changed += count_positive(absolute[:n])
        sum_absolute += total(absolute[:n])
        sum_relative += total(relative[:n])
        block_worst = largest_bits(relative.view(np.uint32)[:n])
        worst = max(worst, block_worst)
        if base_kind != tuned_kind:
            largest = max(largest, largest_magnitude(base[:n]))
        if block_worst > np.uint32(INFINITE):
            continue  # NaN, which the caller refuses; its bit pattern has no slot
        bits = all_bits[:n]
        count_bits(bits, slot[:n], slots)
        if lows.size > 0:
            mark_runs(bits, lows, widths, marks)
            members = member[: gather(marks, n, member)]
            count_members(bits, members, places, fine, tie_rows, tie_counts, start + np.uint64(at))
        if tie_mode != TIES_LISTED:
            mark_population(bits, tie_mode, marks)
            members = member[: gather(marks, n, member)]
            count_hashes(members, tie_counts[0], start + np.uint64(at))
    return changed, sum_absolute, sum_relative, np.int64(worst), np.float64(largest)  # type: ignore[return-value]


@compiled
def count_bits(bits: Words, slot: Words, slots: Longs) -> None:
    """Add a block's bit patterns to the slots; ``slot`` is room for as many numbers."""
    for i in range(bits.size):
        value = bits[i]
        here = np.uint32((value >> np.uint32(BIN_SHIFT)) + np.uint32(ZERO_SLOTS))
        slot[i] = np.uint32(i & (ZERO_SLOTS - 1)) if value == 0 else here
    for i in range(bits.size):
        slots[slot[i]] += np.uint64(1 << COUNT_SHIFT) + np.uint64(bits[i] & np.uint32((1 << BIN_SHIFT) - 1))


@compiled
def mark_runs(bits: Words, lows: Words, widths: Words, marks: Bytes) -> None:
    """Mark the values of a block that lie in a run."""
    marks[:] = 0
    for run in range(lows.size):
        low, width = lows[run], widths[run]
        for i in range(bits.size):
            marks[i] |= np.uint8(np.uint32(bits[i] - low) < width)


@compiled
def count_members(
    bits: Words,
    members: Ints,
    places: Ints,
    fine: Counts,
    tie_rows: npt.NDArray[np.int16],
    tie_counts: Words,
    start: np.uint64,
) -> None:
    """Count the listed values of a block one by one, and the hashes of those that may tie."""
    for i in members:
        low = np.int64(bits[i] & np.uint32((1 << BIN_SHIFT) - 1))
        at = (np.int64(places[bits[i] >> np.uint32(BIN_SHIFT)]) << BIN_SHIFT) + low
        fine[at] += 1
        row = tie_rows[at]
        if row >= 0:
            tie_counts[row, mix(start + np.uint64(i)) >> np.uint64(TIE_SHIFT)] += np.uint32(1)


@compiled
def gather(marks: Bytes, size: int, out: Ints) -> int:
    """List where the first ``size`` bytes of a block are marked, and return how many there are."""
    marked = 0
    for i in range(size):
        marked += marks[i]
    found = 0
    if marked > size // 16:  # many: branching on each would be mispredicted
        for i in range(size):
            out[found] = i
            found += marks[i]
        return found
    eights = marks.view(np.uint64)
    for eight in range((size + 7) // 8):
        if eights[eight] != 0:
            for i in range(8 * eight, min(8 * eight + 8, size)):
                out[found] = i
                found += marks[i]
    return found


@compiled
def mark_population(bits: Words, tie_mode: int, marks: Bytes) -> None:
    """Mark all parameters of a block, those that changed, or those that did not."""
    for i in range(bits.size):
        marks[i] = np.uint8(tie_mode == TIES_ALL or (bits[i] != 0) == (tie_mode == TIES_CHANGED))


@compiled
def count_hashes(members: Ints, counts: Words, start: np.uint64) -> None:
    """Count the hashes of the listed parameters of a block by their top 16 bits."""
    for i in members:
        counts[mix(start + np.uint64(i)) >> np.uint64(TIE_SHIFT)] += np.uint32(1)


@compiled_sum
def total(values: Floats) -> float:
    """Return the float64 sum of a block."""
    result = 0.0
    for i in range(values.size):
        result += np.float64(values[i])
    return result


@compiled
def count_positive(values: Floats) -> int:
    """Return how many values of a block are above zero."""
    result = 0
    for i in range(values.size):
        result += values[i] > 0
    return result


@compiled
def largest_bits(bits: Words) -> np.uint32:
    """Return the largest bit pattern; NaN and infinity have the largest, whatever their sign."""
    result = np.uint32(0)
    for i in range(bits.size):
        result = max(result, bits[i])
    return result


@compiled_sum
def largest_magnitude(values: Floats) -> np.float32:
    """Return the largest |value| of a block."""
    result = np.float32(0)
    for i in range(values.size):
        result = max(result, abs(values[i]))
    return result


@compiled
def unpack(slots: Longs, counts: Counts, lows: Counts) -> None:
    """Add packed slots to counts and sums of low bits, the ZERO_SLOTS as one entry, and empty them."""
    for i in range(slots.size):
        packed = slots[i]
        if packed != 0:
            at = max(0, i - ZERO_SLOTS + 1)
            counts[at] += np.int64(packed >> np.uint64(COUNT_SHIFT))
            lows[at] += np.int64(packed & np.uint64((1 << COUNT_SHIFT) - 1))
            slots[i] = 0
