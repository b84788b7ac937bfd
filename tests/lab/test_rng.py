from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sftknow.lab.rng import Rng, Weighted, shares


def test_the_stream_is_splitmix64():
    rng = Rng(0)
    rng._state = 1234567
    # the published first outputs of SplitMix64 for this state
    assert [rng.bits() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_streams_of_different_names_differ():
    assert Rng(0, "names").bits() != Rng(0, "world").bits()
    assert Rng(1, "names").bits() != Rng(0, "names").bits()


def test_shuffling_keeps_every_item_and_leaves_the_input_alone():
    items = list(range(100))
    mixed = Rng(3).shuffled(items)
    assert mixed != items == sorted(mixed)


def test_weights_are_followed():
    rng, dealer = Rng(5), Weighted("abc", [1, 0, 3])
    counts = Counter(dealer.draw(rng) for _ in range(4000))
    assert counts["b"] == 0
    assert 900 < counts["a"] < 1100


def test_shares_by_hand():
    assert shares(10, (1, 1, 1)) == [4, 3, 3]
    assert shares(60, (40, 5, 55)) == [24, 3, 33]
    assert shares(7, (0, 5)) == [0, 7]


@given(st.integers(0, 1000), st.lists(st.integers(0, 50), min_size=1).filter(sum))
def test_shares_sum_to_the_total_and_stay_within_one_of_the_exact_share(total, weights):
    counts = shares(total, weights)
    assert sum(counts) == total
    assert all(abs(count - total * weight / sum(weights)) < 1 for count, weight in zip(counts, weights, strict=True))
