import numpy as np
import pytest

from sftknow.paired import bootstrap_interval, mcnemar


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [
        (0, 0, 1.0),
        (3, 3, 1.0),
        (0, 5, 2 / 32),  # the two all-one-way outcomes of 2^5
        (1, 5, 2 * (1 + 6) / 64),
        (6, 2, 2 * (1 + 8 + 28) / 256),
    ],
)
def test_mcnemar_counts_the_tails_by_hand(lost, gained, p):
    assert mcnemar(lost, gained) == pytest.approx(p)
    assert mcnemar(gained, lost) == pytest.approx(p)


def test_many_differences_do_not_overflow():
    assert 0.0 < mcnemar(4000, 4400) < 1e-4


def test_the_interval_of_a_mean_is_near_the_normal_one():
    values = np.array([1.0] * 60 + [0.0] * 100 + [-1.0] * 40)
    low, high = bootstrap_interval([values], [1.0], seed=1, draws=8000)
    half = 1.96 * values.std() / np.sqrt(values.size)
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)


def test_strata_are_weighted_and_drawn_within():
    strata = [np.ones(5), np.zeros(500)]
    assert bootstrap_interval(strata, [0.5, 0.5]) == (0.5, 0.5)
    assert bootstrap_interval(strata, [5 / 505, 500 / 505]) == pytest.approx((5 / 505, 5 / 505))


def test_the_same_seed_gives_the_same_interval():
    values = np.arange(30.0)
    assert bootstrap_interval([values], [1.0], seed=4) == bootstrap_interval([values], [1.0], seed=4)
    assert bootstrap_interval([values], [1.0], seed=4) != bootstrap_interval([values], [1.0], seed=5)


def test_large_tasks_are_drawn_in_pieces_without_a_change_of_law():
    values = np.tile([1.0, 0.0, 0.0, 0.0], 25_000)
    low, high = bootstrap_interval([values], [1.0], draws=100)  # five pieces of twenty draws
    half = 1.96 * np.sqrt(0.25 * 0.75 / 100_000)
    assert low == pytest.approx(0.25 - half, abs=half / 2)
    assert high == pytest.approx(0.25 + half, abs=half / 2)
