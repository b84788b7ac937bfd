import math

import pytest

from sftknow.report.results import BucketScore, DomainScore
from sftknow.report.statistics import (
    binomial_stderr,
    contrast,
    fit_slope,
    interpolate,
    margin,
    pooled_sd,
    spread,
    student_quantile,
)


def scored(*accuracies: float, facts: int = 100) -> DomainScore:
    buckets = {i: BucketScore(accuracy, facts) for i, accuracy in enumerate(accuracies)}
    return DomainScore(sum(accuracies) / len(accuracies), facts * len(accuracies), buckets)


def answered(*outcomes: str) -> DomainScore:
    buckets = {
        i: BucketScore(text.count("1") / len(text), len(text), tuple(float(c) for c in text))
        for i, text in enumerate(outcomes)
    }
    mean = sum(bucket.accuracy for bucket in buckets.values()) / len(buckets)
    return DomainScore(mean, sum(len(text) for text in outcomes), buckets)


def test_spread_is_the_sample_standard_deviation():
    found = spread([0.1, 0.2, 0.6])
    # mean .3; squares .04 + .01 + .09 = .14, over 2 = .07
    assert found.mean == pytest.approx(0.3)
    assert found.sd == pytest.approx(math.sqrt(0.07))
    assert (found.low, found.high, found.count) == (0.1, 0.6, 3)


def test_spread_of_one_seed_is_unknown_not_zero():
    assert spread([0.4]).sd is None


def test_spread_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_pooled_sd_takes_each_group_about_its_own_mean():
    # (1, 3): squares 1 + 1, one degree; (10, 10, 13): mean 11, squares 1 + 1 + 4, two degrees; (7,) adds nothing
    sd, freedom = pooled_sd([[1, 3], [10, 10, 13], [7]])
    assert freedom == 3
    assert sd == pytest.approx(math.sqrt(8 / 3))
    assert pooled_sd([[1.0], []]) == (0.0, 0)


def test_binomial_error_of_an_unweighted_mean_over_buckets():
    score = scored(0.5, 0.2, facts=100)
    # sqrt(.25/100 + .16/100) / 2
    assert binomial_stderr(score) == pytest.approx(math.sqrt(0.0041) / 2)


def test_unpaired_contrast_shares_error_within_an_arm_and_adds_arms_in_quadrature():
    after, before = scored(0.5, 0.5), scored(0.2, 0.2)
    found = contrast([[(0.5, after), (0.5, after)], [(-1.0, before)]])
    error_after, error_before = math.sqrt(2 * 0.25 / 100) / 2, math.sqrt(2 * 0.16 / 100) / 2
    assert found.effect == pytest.approx(0.3)
    assert found.stderr == pytest.approx(math.hypot(error_after, error_before))
    assert not found.paired


def test_paired_contrast_counts_only_the_facts_that_changed():
    found = contrast([[(1.0, answered("1110"))], [(-1.0, answered("1010"))]])
    # differences 0 1 0 0: mean .25, variance (3 * .0625 + .5625) / 3 = .25, over 4 facts
    assert found.paired
    assert found.effect == pytest.approx(0.25)
    assert found.stderr == pytest.approx(math.sqrt(0.25 / 4))


def test_paired_contrast_of_two_buckets_averages_their_variances():
    found = contrast([[(1.0, answered("1100", "11"))], [(-1.0, answered("0000", "10"))]])
    # bucket 0: differences 1 1 0 0, variance 1/3 over 4; bucket 1: 0 1, variance 1/2 over 2
    assert found.effect == pytest.approx(0.5)
    assert found.stderr == pytest.approx(math.sqrt(1 / 12 + 1 / 4) / 2)


def test_scores_of_different_test_sets_are_not_compared():
    with pytest.raises(ValueError, match="different test sets"):
        contrast([[(1.0, scored(0.5, facts=100))], [(-1.0, scored(0.5, facts=99))]])


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (7, 2.3646), (30, 2.0423)]
)
def test_student_quantiles_match_the_printed_tables(freedom, quantile):
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, abs=1e-4)


def test_margin_adds_test_and_seed_error_in_quadrature():
    assert margin(0.01, 0.0, 4) == pytest.approx(0.0195996, abs=1e-6)
    assert margin(0.0, 0.01, 4) == pytest.approx(0.0277645, abs=1e-6)
    assert margin(0.01, 0.01, 4) == pytest.approx(math.hypot(0.0195996, 0.0277645), abs=1e-6)


def test_margin_widens_when_the_best_of_several_was_picked():
    # 0.05 / 2 / 5 = 0.005 in each tail: the normal quantile is 2.5758
    assert margin(0.01, 0.0, 4, looks=5) == pytest.approx(0.025758, abs=1e-6)


def test_interpolation_reads_between_points_and_refuses_to_go_beyond():
    assert interpolate(0.25, [0.0, 0.2, 0.4]) == (1, pytest.approx(0.25))
    assert interpolate(0.0, [0.0, 0.2]) == (0, 0.0)
    assert interpolate(0.2, [0.2, 0.2]) == (0, 0.0)
    assert interpolate(0.5, [0.0, 0.4]) is None


def test_slope_is_fitted_within_groups():
    # two parallel falls of 2 per unit, far apart: between groups y rises, within them it falls
    line = fit_slope([[(0, 4), (1, 2), (2, 0)], [(10, 24), (11, 22), (12, 20)]])
    assert line is not None
    assert line.slope == pytest.approx(-2)
    assert line.correlation == pytest.approx(-1)
    assert (line.freedom, line.count) == (3, 6)
    assert line.stderr == pytest.approx(0, abs=1e-9)


def test_slope_error_by_hand():
    # x -1 0 1, y 0 1 -1 about their means: slope -1/2, residuals -.5 1 -.5, 1.5 over 1 degree, sxx 2
    line = fit_slope([[(1, 5), (2, 6), (3, 4)]])
    assert line is not None
    assert line.slope == pytest.approx(-0.5)
    assert line.stderr == pytest.approx(math.sqrt(1.5 / 2))


def test_slope_needs_points_to_spare_and_a_spread_of_x():
    assert fit_slope([[(0, 1), (1, 2)]]) is None
    assert fit_slope([[(1, 1), (1, 2), (1, 3)]]) is None
