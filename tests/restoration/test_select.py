"""Thresholds from histograms are those of a sorted list, and sums above them are exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sftknow.restoration.change import BIN_SHIFT, BOTTOM, RANDOM, TOP
from sftknow.restoration.select import (
    MAX_FINE_BINS,
    Histogram,
    Threshold,
    foresee,
    make_layout,
    split_by_hash,
    target_count,
)

MEASURES = arrays.arrays(
    np.uint32,
    st.integers(1, 200),
    elements=st.sampled_from([0, 1, 0x3C000001, 0x3C000002]) | st.integers(0, 0x7F000000),
)


def histogram_of(bits, fine):
    """Return a histogram filled with NumPy."""
    histogram = Histogram(make_layout(fine))
    bins, values = (bits >> BIN_SHIFT).astype(np.int64), (bits & ((1 << BIN_SHIFT) - 1)).astype(np.int64)
    np.add.at(histogram.counts, np.where(bits == 0, 0, 1 + bins), 1)
    np.add.at(histogram.lows, np.where(bits == 0, 0, 1 + bins), values)
    for number, one in enumerate(histogram.layout.fine):
        np.add.at(histogram.fine[number], values[(bins == one) & (bits > 0)], 1)
    return histogram


@given(MEASURES, st.booleans(), st.booleans(), st.floats(0, 100))
def test_refining_the_bins_asked_for_finds_the_threshold_of_a_sorted_list(bits, from_bottom, only_changed, percent):
    population = bits[bits > 0] if only_changed else bits
    target = target_count(population.size, percent)
    fine = set()
    while isinstance(
        found := histogram_of(bits, fine).find(target, from_bottom=from_bottom, only_changed=only_changed), int
    ):
        assert found not in fine, "a bin is asked for once"
        fine.add(found)
    ordered = np.sort(population) if from_bottom else np.sort(population)[::-1]
    if target == 0:
        assert found == Threshold(0, None, 0, 0, 0)
        return
    last = ordered[target - 1]
    tied = int((population == last).sum())
    beyond = int((population < last).sum() if from_bottom else (population > last).sum())
    assert found == Threshold(target, int(last), beyond, tied, target - beyond)


@given(MEASURES, st.floats(0, 100), st.booleans())
def test_the_sum_of_the_largest_is_exact_in_fine_bins_and_near_in_others(bits, percent, refined):
    target = target_count(bits.size, percent)
    ordered = np.sort(bits)[::-1]
    fine = {int(ordered[target - 1]) >> BIN_SHIFT} if refined and target else ()
    expected = ordered[:target].view(np.float32).astype(np.float64).sum()
    assert histogram_of(bits, fine).sum_of_top(target) == pytest.approx(expected, rel=1e-12 if refined else 2**-8)


def test_neighbouring_fine_bins_make_one_run():
    layout = make_layout([7, 3, 4, 5, 9])
    assert layout.fine == (3, 4, 5, 7, 9)
    assert layout.lows.tolist() == [3 << BIN_SHIFT, 7 << BIN_SHIFT, 9 << BIN_SHIFT]
    assert layout.widths.tolist() == [3 << BIN_SHIFT, 1 << BIN_SHIFT, 1 << BIN_SHIFT]
    assert [layout.places[one] for one in (3, 4, 5, 6, 7, 9)] == [0, 1, 2, -1, 3, 4]
    assert make_layout([]).lows.size == 0


def test_zero_is_in_no_run_and_values_that_may_tie_have_rows():
    layout = make_layout([0, 1], [0, 5, 1 << BIN_SHIFT])
    assert layout.lows.tolist() == [1]
    assert layout.widths.tolist() == [(2 << BIN_SHIFT) - 1]
    assert np.flatnonzero(layout.tie_rows >= 0).tolist() == [5, 1 << BIN_SHIFT]
    assert layout.tie_rows[[5, 1 << BIN_SHIFT]].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("population", "percent", "count"),
    [
        (1000, 0, 0),
        (1000, 0.01, 0),
        (10_000, 0.01, 1),
        (7, 33, 2),
        (1000, 99.9, 999),
        (3, 100, 3),
        (10**11, 60, 6 * 10**10),
    ],
)
def test_a_percent_is_rounded_down_to_whole_parameters(population, percent, count):
    assert target_count(population, percent) == count


@given(st.integers(1, 3000), st.data())
def test_a_tie_group_is_split_by_the_smallest_hashes(size, data):
    generator = np.random.default_rng(size)
    hashes = generator.integers(0, 1 << 64, size, dtype=np.uint64)
    taken = data.draw(st.integers(1, size - 1)) if size > 1 else 0
    counts = np.bincount((hashes >> np.uint64(48)).astype(int), minlength=1 << 16).astype(np.uint64)
    for known in (counts, None):
        below, last, open_taken = split_by_hash(known, taken)
        sure = hashes < np.uint64(below)
        left_open = (hashes >= np.uint64(below)) & (hashes <= np.uint64(last))
        assert sure.sum() + open_taken == taken
        assert 0 <= open_taken <= left_open.sum()


def test_a_whole_population_foresees_exactly_the_bins_where_thresholds_fall():
    bits = np.arange(0x3C000000, 0x3C000000 + 100_000, dtype=np.uint32)
    forecast = foresee(bits, True, [10], [40], TOP, False)
    assert forecast.fine == {int(bits[90_000]) >> BIN_SHIFT, int(bits[60_000]) >> BIN_SHIFT}
    assert forecast.tie_values == (int(bits[90_000]),)
    forecast = foresee(bits, True, [10], [], BOTTOM, False)
    assert forecast.tie_values == (int(bits[9_999]),)
    assert foresee(bits, True, [10], [], RANDOM, False).tie_values == ()


def test_a_sample_foresees_the_bin_of_the_true_threshold():
    generator = np.random.default_rng(0)
    everything = np.abs(generator.standard_normal(1 << 22, np.float32)).view(np.uint32)
    sample = everything[::4]
    for percent in (1, 20, 60, 90):
        true = int(np.sort(everything)[::-1][int(everything.size * percent / 100) - 1])
        assert true >> BIN_SHIFT in foresee(sample, False, [percent], [], TOP, False).fine


def test_a_forecast_never_takes_more_bins_than_fit():
    bits = np.random.default_rng(0).integers(1, 0x7F000000, 1 << 12).astype(np.uint32)
    forecast = foresee(bits, False, list(range(1, 100)), [5, 50], TOP, False)
    assert len(forecast.fine) <= MAX_FINE_BINS
