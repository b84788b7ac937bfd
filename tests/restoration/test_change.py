"""The kernel measures bit for bit what NumPy measures, and counts without losing one."""

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sftknow.restoration import change
from sftknow.restoration.change import ranks, scan, unpack
from sftknow.restoration.select import Histogram, make_layout
from sftknow.restoration.values import KINDS

DTYPES = ["BF16", "F16", "F32"]


def finite_words(dtype, size, seed):
    """Return random bit patterns, the non-finite ones replaced by zero."""
    generator = np.random.default_rng(seed)
    words = generator.integers(0, 1 << (32 if dtype == "F32" else 16), size, dtype=np.uint64)
    words = words.astype(np.uint32 if dtype == "F32" else np.uint16)
    words[~np.isfinite(oracle.to_floats(words, dtype))] = 0
    return words


def raw(words):
    view = words.view(np.uint8)
    view.flags.writeable = False
    return view


@pytest.mark.parametrize("by_absolute", [False, True])
@pytest.mark.parametrize("tuned_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_measure_of_any_bit_pattern_is_numpy_s(dtype, tuned_dtype, by_absolute):
    before, after = finite_words(dtype, 100_003, 1), finite_words(tuned_dtype, 100_003, 2)
    found = np.empty(before.size, np.uint32)
    ranks(raw(before), KINDS[dtype], raw(after), KINDS[tuned_dtype], by_absolute, found)
    absolute, relative = oracle.changes(oracle.to_floats(before, dtype), oracle.to_floats(after, tuned_dtype))
    expected = absolute if by_absolute else relative
    assert np.array_equal(found, expected.view(np.uint32))


def scanned(before, after, fine=(), ties=(), mode=change.TIES_LISTED, start=5):
    """Return scan's figures, the histogram and the tie counts of one bf16 chunk."""
    layout = make_layout({*fine, *(value >> change.BIN_SHIFT for value in ties if value)}, ties)
    histogram = Histogram(layout)
    slots, ones = np.zeros(change.SLOTS, np.uint64), np.zeros(histogram.fine.size, np.int64)
    counts = np.zeros((max(1, len(ties)), change.TIE_BINS), np.uint32)
    figures = scan(
        raw(before), 0, raw(after), 0, False, slots, layout.lows, layout.widths, layout.places, ones,
        layout.tie_rows, mode, counts, np.uint64(start),
    )  # fmt: skip
    unpack(slots, histogram.counts, histogram.lows)
    histogram.fine += ones.reshape(histogram.fine.shape)
    assert not slots.any()
    return figures, histogram, counts


def bf16_chunk(size, seed, share=0.5):
    generator = np.random.default_rng(seed)
    before = oracle.from_floats(generator.standard_normal(size, np.float32) * np.float32(0.02), "BF16")
    after = before + (generator.random(size) < share)
    return before, after.astype(np.uint16)


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 2049, 50_000])
def test_one_chunk_is_counted_and_summed(size):
    before, after = bf16_chunk(size, 3)
    (changed, absolute_sum, relative_sum, worst, _), histogram, _ = scanned(before, after)
    absolute, relative = oracle.changes(oracle.to_floats(before, "BF16"), oracle.to_floats(after, "BF16"))
    assert changed == (before != after).sum()
    assert absolute_sum == pytest.approx(absolute.astype(np.float64).sum(), rel=1e-12)
    assert relative_sum == pytest.approx(relative.astype(np.float64).sum(), rel=1e-12)
    assert worst == (relative.view(np.uint32).max() if size else 0)
    assert histogram.counts.sum() == size
    assert histogram.counts[0] == size - changed
    assert histogram.sums.sum() == pytest.approx(relative.astype(np.float64).sum(), rel=1e-12)


@given(arrays.arrays(np.uint32, st.integers(1, 500), elements=st.integers(0, 0x7F800000 - 1)), st.data())
def test_bins_count_all_and_fine_bins_each_value(bits, data):
    bins = bits >> change.BIN_SHIFT
    fine = data.draw(st.sets(st.sampled_from(sorted(set(bins.tolist()))), min_size=1))
    layout = make_layout(fine)
    histogram = Histogram(layout)
    slots, marks, ones = (
        np.zeros(change.SLOTS, np.uint64),
        np.empty(504, np.uint8),
        np.zeros(histogram.fine.size, np.int64),
    )
    change.count_bits(bits, np.empty(bits.size, np.uint32), slots)
    change.mark_runs(bits, layout.lows, layout.widths, marks)
    members = np.empty(bits.size, np.int32)
    members = members[: change.gather(marks, bits.size, members)]
    counts = np.zeros((1, 1), np.uint32)
    change.count_members(bits, members, layout.places, ones, layout.tie_rows, counts, np.uint64(0))
    unpack(slots, histogram.counts, histogram.lows)
    expected = np.zeros(1 + change.BINS, np.int64)
    np.add.at(expected, np.where(bits == 0, 0, 1 + bins.astype(np.int64)), 1)
    assert np.array_equal(histogram.counts, expected)
    assert histogram.sums.sum() == pytest.approx(bits.view(np.float32).astype(np.float64).sum(), rel=1e-12)
    for number, one in enumerate(layout.fine):
        inside = np.bincount(
            bits[(bins == one) & (bits > 0)].astype(np.int64) - (one << change.BIN_SHIFT),
            minlength=1 << change.BIN_SHIFT,
        )
        assert np.array_equal(ones.reshape(histogram.fine.shape)[number], inside)


def test_hashes_of_listed_ties_are_counted_by_their_top_bits():
    before, after = bf16_chunk(30_000, 4)
    _, relative = oracle.changes(oracle.to_floats(before, "BF16"), oracle.to_floats(after, "BF16"))
    bits = relative.view(np.uint32)
    common = [int(value) for value in np.unique(bits)[1:4]]
    _, _, counts = scanned(before, after, ties=common)
    codes = splitmix(5, bits.size)
    for row, value in zip(counts, common, strict=True):
        expected = np.bincount((codes[bits == value] >> np.uint64(48)).astype(int), minlength=1 << 16)
        assert np.array_equal(row, expected)
    modes = {change.TIES_ALL: bits >= 0, change.TIES_CHANGED: bits != 0, change.TIES_UNCHANGED: bits == 0}
    for mode, chosen in modes.items():
        _, _, counts = scanned(before, after, mode=mode)
        expected = np.bincount((codes[chosen] >> np.uint64(48)).astype(int), minlength=1 << 16)
        assert np.array_equal(counts[0], expected)


def splitmix(start, size):
    """Return splitmix64 of counters, in Python's own integers."""
    codes = []
    for counter in range(start, start + size):
        x = counter * 0x9E3779B97F4A7C15 & oracle.MASK
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & oracle.MASK
        x = (x ^ x >> 27) * 0x94D049BB133111EB & oracle.MASK
        codes.append(x ^ x >> 31)
    return np.array(codes, np.uint64)


def test_slots_survive_as_many_elements_as_may_come_before_they_are_emptied():
    """All elements in one slot, each with the largest low bits: neither half of the slot may overflow."""
    slots, room = np.zeros(change.SLOTS, np.uint64), np.empty(1 << 20, np.uint32)
    bits = np.full(room.size, 0x3C003FFF, np.uint32)
    for _ in range(change.FLUSH_AFTER // bits.size):
        change.count_bits(bits, room, slots)
    histogram = Histogram(make_layout(()))
    unpack(slots, histogram.counts, histogram.lows)
    assert histogram.counts.max() == histogram.counts.sum() == change.FLUSH_AFTER
    assert histogram.lows.max() == histogram.lows.sum() == change.FLUSH_AFTER * 0x3FFF
