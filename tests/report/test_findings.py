"""Findings on records small enough that effect and margin are worked out by hand."""

import math
import random

import pytest
import worlds

from sftknow.report.findings import findings
from sftknow.report.results import results_of
from sftknow.report.verdicts import FAILS, HOLDS, OPEN, Measured, Part, combine, judge, nats

T4 = 2.776445  # Student's t, 0.975, four degrees of freedom
T2 = 4.302653
Z = 1.959964


def score(inside, outside=None, facts=1000):
    """Two buckets of equal accuracy, so that the mean and its error are plain."""

    def domain(accuracy):
        cell = {"accuracy": accuracy, "stderr": 0.0, "facts": facts}
        return {"accuracy": accuracy, "stderr": 0.0, "facts": 2 * facts, "buckets": {"0": cell, "4": dict(cell)}}

    return {"in_domain": domain(inside), "out_of_domain": domain(inside if outside is None else outside)}


def run(bucket, n, seed, accuracy, kl=None, outside=None):
    kl = None if kl is None else {"mean": kl, "low": kl - 0.02, "high": kl + 0.02, "facts": 100}
    return {"bucket": bucket, "n": n, "seed": seed, "score": score(accuracy, outside), "kl": kl, "changed": 1.0}


def sweep(bucket, seed, strategy, points):
    steps = [
        {"percent": p, "restored": p, "change_undone": u, "r_undone": None, "score": score(a), "kl": None}
        for p, u, a in points
    ]
    return {"bucket": bucket, "n": 480, "seed": seed, "strategy": strategy, "region": "transformer", "steps": steps}


def judged(key, **record):
    return next(finding for finding in findings(results_of(record)) if finding.key == key)


def grid(low_small, low_large, high_small, high_large):
    cells = {(0, 60): low_small, (0, 480): low_large, (4, 60): high_small, (4, 480): high_large}
    return [run(b, n, seed, accuracy) for (b, n), pair in cells.items() for seed, accuracy in enumerate(pair, 1)]


def test_low_mastery_against_high_at_the_large_size():
    runs = grid((0.40, 0.42), (0.29, 0.31), (0.40, 0.42), (0.49, 0.51))
    finding = judged("low-mastery", runs=runs)
    measured = finding.parts[0].measured
    # spread: each cell is two seeds 0.02 apart, variance 0.0002, pooled over four cells
    sd = math.sqrt(0.0002)
    error = math.sqrt(2 * 0.25 / 1000) / 2, math.sqrt(2 * 0.21 / 1000) / 2  # at .5 and, for .29 and .31, close to .3
    assert measured is not None and measured.margin is not None
    assert measured.effect == pytest.approx(0.2)
    assert measured.sd == pytest.approx(sd)
    assert measured.margin == pytest.approx(math.hypot(Z * math.hypot(*error), T4 * sd), abs=2e-5)
    assert finding.verdict == HOLDS
    assert "30.0% and 50.0% in domain (+20.0 ± " in finding.text
    assert "2 seeds with sd 1.4 points, 2,000 test facts" in finding.text


def test_more_samples_that_do_not_harm_are_reported_as_not_harming():
    finding = judged("more-harms", runs=grid((0.30, 0.31), (0.45, 0.46), (0.40, 0.41), (0.50, 0.51)))
    assert finding.verdict == FAILS
    assert "the opposite shows" in finding.text


def test_a_fall_within_the_margin_cannot_be_told():
    finding = judged("more-harms", runs=grid((0.33, 0.37), (0.31, 0.35), (0.40, 0.44), (0.50, 0.54)))
    assert finding.verdict == OPEN
    assert finding.text.endswith("too close to tell.")


def test_one_seed_never_decides():
    runs = [one for one in grid((0.5, 0), (0.1, 0), (0.5, 0), (0.9, 0)) if one["seed"] == 1]
    finding = judged("low-mastery", runs=runs)
    assert finding.verdict == OPEN
    assert finding.parts[0].measured is not None and finding.parts[0].measured.margin is None
    assert finding.text.endswith("one seed cannot tell.")


def test_an_opposite_out_of_domain_takes_the_certainty_away():
    cells = {(0, 480): (0.3, 0.5), (4, 480): (0.5, 0.3)}
    runs = [run(b, n, s, i + 0.005 * s, outside=o + 0.005 * s) for (b, n), (i, o) in cells.items() for s in (1, 2, 3)]
    finding = judged("low-mastery", runs=runs)
    assert [part.verdict for part in finding.parts] == [HOLDS, FAILS]
    assert finding.verdict == OPEN
    assert "the opposite shows (out of domain)" in finding.text


def test_divergence_grows_most_on_low_mastery_and_accuracy_falls_with_it():
    runs = [
        run(0, 60, 1, 0.50, 0.20), run(0, 60, 2, 0.50, 0.22), run(0, 480, 1, 0.30, 1.20), run(0, 480, 2, 0.29, 1.22),
        run(4, 60, 1, 0.50, 0.30), run(4, 60, 2, 0.50, 0.32), run(4, 480, 1, 0.44, 0.60), run(4, 480, 2, 0.43, 0.62),
    ]  # fmt: skip
    finding = judged("divergence", runs=runs)
    growth, most, slope = finding.parts
    sd, error = math.sqrt(0.0002), 0.02 / 1.96
    assert growth.measured is not None and most.measured is not None
    assert growth.measured.effect == pytest.approx(1.0)
    assert growth.measured.margin == pytest.approx(math.hypot(Z * error * math.sqrt(2), T4 * sd), rel=1e-4)
    assert most.measured.effect == pytest.approx(0.7)
    assert most.measured.margin == pytest.approx(math.hypot(Z * error * 2, T4 * sd * math.sqrt(2)), rel=1e-4)
    assert slope.verdict == HOLDS
    # within buckets: sums of products -.2051 and -.0196, of squares 1.0004 and .0904; KL runs from .20 to 1.22
    assert slope.measured is not None
    assert slope.measured.effect == pytest.approx((0.2051 + 0.0196) / (1.0004 + 0.0904) * 1.02)
    assert "along the KL seen (0.20 to 1.22), accuracy on test bucket 4 changes by −21.0 ± " in slope.text
    assert finding.verdict == HOLDS


def test_accuracy_that_rises_with_kl_fails_the_divergence_finding():
    runs = [
        run(b, n, s, (0.3 if n == 60 else 0.6) + 0.01 * s, (0.2 if n == 60 else 1.0 + (b == 0)) + 0.01 * s)
        for b in (0, 4)
        for n in (60, 480)
        for s in (1, 2)
    ]
    finding = judged("divergence", runs=runs)
    assert [part.verdict for part in finding.parts] == [HOLDS, HOLDS, FAILS]
    assert finding.verdict == FAILS
    assert finding.text.endswith("the opposite shows (accuracy on test bucket 4 falls as KL rises).")


def concentrated(share, gain):
    points = [(0, 0.0, 0.40), (5, 0.1, 0.40), (20, 0.3, 0.40 + gain)]
    shares = [{"bucket": 0, "n": 480, "seed": s, "share_of_r": {"5": share, "20": 0.9}} for s in (1, 2)]
    return judged("concentration", concentration=shares, sweeps=[sweep(0, s, "top", points) for s in (1, 2)])


def test_concentration_needs_half_of_r_and_no_loss():
    assert concentrated(0.82, 0.08).verdict == HOLDS
    assert concentrated(0.49, 0.08).verdict == FAILS
    assert concentrated(0.82, -0.30).verdict == FAILS
    assert concentrated(0.82, -0.02).verdict == OPEN
    assert (
        "carry 82.0% of all r in 2 fine-tunings (but 10.0% of the sum of absolute changes)"
        in concentrated(0.82, 0).text
    )


def sweeps(low, high, random_low=(0.30, 0.32, 0.36, 0.40)):
    """Top curves of accuracy at 0, 10, 20 and 60 percent, random ones at 0, 20, 40 and 60, seeds 0.02 apart."""
    found = []
    for bucket, curve in ((0, low), (4, high)):
        for seed, shift in ((1, 0.0), (2, 0.02)):
            undone = (0.0, 0.15, 0.3, 0.8)
            found.append(
                sweep(
                    bucket,
                    seed,
                    "top",
                    [(p, u, a + shift) for p, u, a in zip((0, 10, 20, 60), undone, curve, strict=True)],
                )
            )
    for seed, shift in ((1, 0.0), (2, 0.02)):
        points = zip((0, 20, 40, 60), random_low, strict=True)
        found.append(sweep(0, seed, "random", [(p, p / 100, a + shift) for p, a in points]))
    return found


def test_restoration_gains_more_after_low_mastery_and_turns():
    finding = judged("restoration", sweeps=sweeps((0.30, 0.40, 0.50, 0.20), (0.60, 0.60, 0.60, 0.30)))
    inside, outside, more, shape = finding.parts
    assert inside.measured is not None and more.measured is not None and shape.measured is not None
    assert inside.measured.effect == pytest.approx(0.2)
    assert inside.measured.sd == pytest.approx(0.0)  # both seeds gain alike
    assert more.measured.effect == pytest.approx(0.2)
    assert shape.measured.effect == pytest.approx(0.2)  # the rise; the fall is 0.3
    assert [part.verdict for part in (inside, outside, more, shape)] == [HOLDS] * 4
    assert not shape.decides
    assert finding.verdict == HOLDS
    assert "moves accuracy from 31.0% to 51.0% in domain" in finding.text


def test_restoration_that_never_turns_says_so_without_losing_its_gain():
    finding = judged("restoration", sweeps=sweeps((0.30, 0.40, 0.50, 0.60), (0.60, 0.60, 0.60, 0.30)))
    assert finding.parts[3].verdict == FAILS
    assert "accuracy in domain has not turned: 31.0% at 0%, 51.0% at 20%, 61.0% at 60%" in finding.text


def test_restoration_that_only_harms_is_no_inverted_u():
    finding = judged("restoration", sweeps=sweeps((0.50, 0.40, 0.30, 0.20), (0.60, 0.60, 0.60, 0.30)))
    assert "accuracy in domain does not rise: 51.0% at 0%, 41.0% at 10%, 21.0% at 60%" in finding.text
    assert finding.parts[3].verdict == finding.verdict == FAILS


def test_restoration_that_helps_high_mastery_as_much_does_not_hold():
    finding = judged("restoration", sweeps=sweeps((0.30, 0.40, 0.50, 0.20), (0.40, 0.60, 0.75, 0.30)))
    assert finding.parts[2].verdict in (FAILS, OPEN)
    assert finding.verdict != HOLDS


def test_largest_first_is_set_against_random_at_equal_change():
    finding = judged("largest-first", sweeps=sweeps((0.30, 0.40, 0.50, 0.20), (0.6, 0.6, 0.6, 0.3)))
    measured = finding.parts[0].measured
    assert measured is not None
    # 20% largest-first undoes 0.3; random there lies half-way between 20% (.32) and 40% (.36): .34
    assert measured.effect == pytest.approx(0.50 - 0.34)
    assert finding.verdict == HOLDS


def test_largest_first_no_better_than_random_is_reported():
    finding = judged(
        "largest-first", sweeps=sweeps((0.30, 0.30, 0.30, 0.20), (0.6, 0.6, 0.6, 0.3), (0.30, 0.38, 0.42, 0.4))
    )
    assert finding.verdict == FAILS
    assert finding.text.endswith("the opposite shows (bucket 0 in domain, bucket 0 out of domain).")


def test_random_that_undoes_too_little_to_compare_is_not_extrapolated():
    found = sweeps((0.30, 0.40, 0.50, 0.20), (0.6, 0.6, 0.6, 0.3))
    for one in found:
        if one["strategy"] == "random":
            one["steps"] = one["steps"][:2]  # undoes 0.2 at most, largest-first 0.3
    assert judged("largest-first", sweeps=found).text.startswith("Not yet")


def test_spread_of_the_advantage_enters_its_margin():
    found = sweeps((0.30, 0.40, 0.50, 0.20), (0.6, 0.6, 0.6, 0.3))
    for step in found[1]["steps"][2:3]:  # seed 2, largest-first, 20%: 0.52 -> 0.62
        step["score"] = score(0.62)
    measured = judged("largest-first", sweeps=found).parts[0].measured
    assert measured is not None and measured.margin is not None
    # advantages .16 and .26: sd .0707, one degree of freedom, t = 12.706
    assert measured.effect == pytest.approx(0.21)
    assert measured.sd == pytest.approx(math.sqrt(0.005))
    assert measured.margin == pytest.approx(12.706 * 0.05, rel=0.01)


def test_paired_outcomes_narrow_the_margin():
    wide = judged("restoration", **worlds.record()).parts[0].measured
    narrow = judged("restoration", **worlds.record(paired=True)).parts[0].measured
    assert wide is not None and narrow is not None and wide.margin is not None and narrow.margin is not None
    assert narrow.effect == pytest.approx(wide.effect)
    assert narrow.margin < 0.7 * wide.margin


@pytest.mark.parametrize(
    ("effect", "half", "verdict"),
    [
        (0.05, 0.04, HOLDS),
        (0.05, 0.06, OPEN),
        (0.0, 0.01, FAILS),
        (-0.1, 0.05, FAILS),
        (0.01, 0.015, OPEN),
        (0.9, None, OPEN),
    ],
)
def test_the_rule_at_its_edges(effect, half, verdict):
    assert judge(Measured(effect, half, 2, 0.01, 100)) == verdict


def test_small_divergences_keep_their_digits():
    assert [nats(value) for value in (1.234, 0.1, 0.01234, 0.00056, 0.0)] == [
        "1.23",
        "0.10",
        "0.012",
        "0.00056",
        "0.00",
    ]


def test_findings_combine_their_deciding_parts():
    def parts(*verdicts):
        return [Part("", verdict, "") for verdict in verdicts]

    assert combine(parts(HOLDS, HOLDS)) == HOLDS
    assert combine(parts(HOLDS, OPEN)) == OPEN
    assert combine(parts(OPEN, FAILS)) == FAILS
    assert combine([*parts(HOLDS), Part("", FAILS, "", decides=False)]) == HOLDS
    assert combine([]) == OPEN


def test_nothing_yet_says_what_is_needed():
    for finding in findings(results_of({})):
        assert finding.verdict == OPEN
        assert finding.text.startswith("Not yet: this needs ")


def test_any_part_of_a_record_can_be_missing():
    draw = random.Random(3)
    for _ in range(40):
        record = worlds.record(seeds=draw.choice([(1,), (1, 2), (1, 2, 3)]), facts=10)
        for key in ("runs", "sweeps", "concentration"):
            record[key] = draw.sample(record[key], draw.randint(0, len(record[key])))
        for one in record["sweeps"]:
            one["steps"] = draw.sample(one["steps"], draw.randint(0, len(one["steps"])))
        for one in record["runs"]:
            if draw.random() < 0.3:
                one[draw.choice(["score", "kl"])] = None
        assert len(findings(results_of(record))) == 6
