"""The kernel of the second reading: which fractions select each parameter of a chunk, and what that undoes."""

import numpy as np
import numpy.typing as npt

from sftknow.restoration.change import BLOCK, BOTTOM, OUTSIDE, RANDOM, Ints, Longs, gather, measure
from sftknow.restoration.compiled import compiled, compiled_sum
from sftknow.restoration.ties import mix
from sftknow.restoration.values import Bytes, Floats, decode, encode


@compiled
def assign_levels(
    base_raw: Bytes,
    base_kind: int,
    tuned_raw: Bytes,
    tuned_kind: int,
    by_absolute: bool,
    strategy: int,
    only_changed: bool,
    cuts: Ints,
    ties: Ints,
    below: Longs,
    last: Longs,
    start: np.uint64,
    levels: Bytes,
    tally: npt.NDArray[np.float64],
    open_index: npt.NDArray[np.int64],
    open_fraction: npt.NDArray[np.uint8],
    outs: Bytes,
) -> int:
    """Give each parameter of a chunk the number of the first fraction that restores it, and blend the values.

    A parameter belongs to fraction j where its rank is above ``cuts[j]``, or equals ``ties[j]`` with a hash under
    ``below[j]``. One whose hash lies in [below[j], last[j]] is left open: the caller sorts the few open ones.

    Args:
        base_raw: bytes of p, of ``base_kind``.
        base_kind: BF16, F16 or F32.
        tuned_raw: bytes of s, as many elements.
        tuned_kind: BF16, F16 or F32.
        by_absolute: rank by |s - p| instead of r.
        strategy: TOP, BOTTOM or RANDOM.
        only_changed: the population is what changed, not all.
        cuts: [J] for fractions in rising order.
        ties: [J] ranks, NO_TIE where no tie is split.
        below: [J] first hash not surely taken.
        last: [J] last hash not surely left.
        start: hash counter of the chunk's first element.
        levels: [n] filled: 0 to J - 1, or J where no fraction restores the parameter.
        tally: [J, 3] added to: count, sum of |s - p| and sum of r of the parameters of each level.
        open_index: filled with the element of each open decision.
        open_fraction: filled with its fraction.
        outs: [J, bytes of the chunk] filled with base values, in tuned's kind, where fraction j restores, and with
            tuned's elsewhere; [0, 0] for levels alone.

    Returns:
        The number of open decisions; more than ``open_index`` holds means: call again with longer arrays.
    """
    base_item = 4 if base_kind == 2 else 2
    tuned_item = 4 if tuned_kind == 2 else 2
    base, tuned = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    absolute, relative = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    rank, tied, member = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.uint8), np.empty(BLOCK, np.int32)
    bits = absolute.view(np.int32) if by_absolute else relative.view(np.int32)
    restored = np.empty(BLOCK * tuned_item, np.uint8)
    opened = 0
    for at in range(0, levels.size, BLOCK):
        n = min(BLOCK, levels.size - at)
        base_block = base_raw[at * base_item : (at + n) * base_item]
        tuned_block = tuned_raw[at * tuned_item : (at + n) * tuned_item]
        decode(base_block, base_kind, base[:n])
        decode(tuned_block, tuned_kind, tuned[:n])
        measure(base[:n], tuned[:n], absolute[:n], relative[:n])
        order(bits[:n], strategy, only_changed, rank[:n])
        level = levels[at : at + n]
        compare(rank[:n], cuts, ties, level, tied[:n])
        members = gather(tied, n, member)
        opened = split_ties(
            member[:members], rank, cuts.size, ties, below, last, start + np.uint64(at), at, level, opened,
            open_index, open_fraction,
        )  # fmt: skip
        for j in range(cuts.size):
            count, moved, ratio = total_of_level(level, j, absolute[:n], relative[:n])
            tally[j, 0] += count
            tally[j, 1] += moved
            tally[j, 2] += ratio
        if base_kind != tuned_kind and outs.shape[0] > 0:
            encode(base[:n], tuned_kind, restored[: n * tuned_item])
        for j in range(outs.shape[0]):
            out = outs[j, at * tuned_item : (at + n) * tuned_item]
            if base_kind == tuned_kind:
                blend(level, j, base_block, tuned_block, tuned_item, out)
            else:
                blend(level, j, restored[: n * tuned_item], tuned_block, tuned_item, out)
    return opened


@compiled
def order(bits: Ints, strategy: int, only_changed: bool, rank: Ints) -> None:
    """Turn bit patterns of the measure into ranks: larger is restored sooner."""
    flip = np.int32(0x7FFFFFFF if strategy == BOTTOM else 0)
    keep = np.int32(0 if strategy == RANDOM else 0x7FFFFFFF)
    for i in range(bits.size):
        rank[i] = (bits[i] & keep) ^ flip
    if only_changed:
        for i in range(bits.size):
            rank[i] = np.int32(OUTSIDE) if bits[i] == 0 else rank[i]


@compiled
def compare(rank: Ints, cuts: Ints, ties: Ints, level: Bytes, tied: Bytes) -> None:
    """Set levels by the cuts alone, and mark the parameters whose rank is a split tie."""
    level[:] = cuts.size
    tied[:] = 0
    for j in range(cuts.size):
        cut, tie = cuts[j], ties[j]
        for i in range(rank.size):
            level[i] -= np.uint8(rank[i] > cut)
            tied[i] |= np.uint8(rank[i] == tie)


@compiled
def split_ties(
    members: Ints,
    rank: Ints,
    fractions: int,
    ties: Ints,
    below: Longs,
    last: Longs,
    start: np.uint64,
    at: int,
    level: Bytes,
    opened: int,
    open_index: npt.NDArray[np.int64],
    open_fraction: npt.NDArray[np.uint8],
) -> int:
    """Settle the marked parameters by their hash, or list them as open."""
    for i in members:
        code = mix(start + np.uint64(i))
        for j in range(fractions):
            if rank[i] == ties[j]:
                level[i] = min(level[i], np.uint8(j if code < below[j] else fractions))
                if code - below[j] <= last[j] - below[j]:  # one branch, rarely taken
                    if opened < open_index.size:
                        open_index[opened] = at + i
                        open_fraction[opened] = j
                    opened += 1
    return opened


@compiled_sum
def total_of_level(level: Bytes, wanted: int, absolute: Floats, relative: Floats) -> tuple[int, float, float]:
    """Return how many parameters of a block have one level, and the float64 sums of both measures over them."""
    count, moved, ratio = 0, 0.0, 0.0
    for i in range(level.size):
        here = level[i] == np.uint8(wanted)
        count += here
        moved += np.float64(absolute[i]) if here else 0.0
        ratio += np.float64(relative[i]) if here else 0.0
    return count, moved, ratio


@compiled
def blend(levels: Bytes, fraction: int, base_raw: Bytes, tuned_raw: Bytes, item: int, out: Bytes) -> None:
    """Copy base where a fraction restores, tuned elsewhere; both in the same kind of ``item`` bytes."""
    limit = np.uint8(fraction)
    if item == 4:
        base4, tuned4, out4 = base_raw.view(np.uint32), tuned_raw.view(np.uint32), out.view(np.uint32)
        for i in range(levels.size):
            here4, there4 = base4[i], tuned4[i]  # both are loaded, so that the choice needs no branch
            out4[i] = here4 if levels[i] <= limit else there4
    else:
        base2, tuned2, out2 = base_raw.view(np.uint16), tuned_raw.view(np.uint16), out.view(np.uint16)
        for i in range(levels.size):
            here2, there2 = base2[i], tuned2[i]
            out2[i] = here2 if levels[i] <= limit else there2
