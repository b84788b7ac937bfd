"""The order of equals: seeded, the same for a tensor whatever stands beside it, and without a single clash."""

import numpy as np
import oracle

from sftknow.restoration import ties
from sftknow.restoration.ties import mix_all, tensor_starts


def test_hashes_are_those_of_the_published_mixer():
    (start,) = tensor_starts(["a"], [10_000], 7)
    found = mix_all(np.uint64(start), np.arange(10_000))
    assert np.array_equal(found, oracle.hashes("a", 10_000, 7))


def test_a_tensor_s_place_depends_on_seed_and_name_alone():
    alone = tensor_starts(["b"], [5], 1)
    beside = tensor_starts(["a", "b"], [9, 5], 1)
    assert beside[1] == alone[0]
    assert tensor_starts(["b"], [5], 2) != alone
    assert tensor_starts(["c"], [5], 1) != alone


def test_tensors_whose_counters_would_overlap_are_placed_again(monkeypatch):
    places = {("a", 0): 10, ("b", 0): 15, ("a", 1): 10, ("b", 1): 20}
    monkeypatch.setattr(ties, "_start", lambda name, seed, salt: places[name, salt])
    assert tensor_starts(["a", "b"], [5, 5], 0) == [10, 15]
    assert tensor_starts(["a", "b"], [6, 5], 0) == [10, 20]
    monkeypatch.setattr(ties, "_start", lambda name, seed, salt: (1 << 64) - 3 if salt == 0 else 4)
    assert tensor_starts(["a"], [5], 0) == [4], "counters do not wrap around"


def test_hashes_of_neighbours_are_spread_evenly():
    found = mix_all(np.uint64(0), np.arange(1 << 18))
    assert np.unique(found).size == found.size
    for shift in (0, 24, 48, 56):
        counts = np.bincount(((found >> np.uint64(shift)) & np.uint64(255)).astype(int), minlength=256)
        expected = found.size / 256
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert abs(statistic - 255) < 6 * (2 * 255) ** 0.5, "a chi-squared sum of 255 degrees of freedom"
