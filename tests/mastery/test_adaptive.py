import random
from math import comb

import numpy as np
import pytest
from probe_worlds import FACTS, RELATIONS, SCRIPT, NoAliases, make_fact
from scripted import write_scripted

from sftknow.mastery.adaptive import adaptive_window, confidence, fit_prior, rounds
from sftknow.mastery.buckets import bucket_of
from sftknow.mastery.cost import Cost
from sftknow.mastery.probe import probe
from sftknow.mastery.window import Item, Settings, Window


class Recorded:
    """A sampler that reads its samples off a matrix (facts, templates, samples) of outcomes."""

    def __init__(self, matrix):
        self.matrix = matrix
        self.cost = Cost()
        self.asked = []

    def outcomes(self, requests, judge):
        self.asked.append(sorted((request.key, request.first, request.count) for request in requests))
        self.cost.completions += sum(request.count for request in requests)
        rows = self.matrix.reshape(-1, self.matrix.shape[2])
        return [rows[request.key, request.first : request.first + request.count] for request in requests]


def outcome_matrix(facts=400, templates=21, samples=10, seed=0):
    draw = np.random.default_rng(seed)
    mastery = draw.beta(0.25, 0.5, facts)
    by_template = np.clip(draw.normal(mastery[:, None], 0.15, (facts, templates)), 0, 1) * (mastery[:, None] > 0.01)
    return draw.random((facts, templates, samples)) < by_template[:, :, None]


def window_of(matrix, level=0.9):
    full = matrix.sum((1, 2))
    prior = fit_prior(full[:30].tolist(), [matrix[0].size] * 30)
    facts, templates, samples = matrix.shape
    items = tuple(
        Item(("x",) * templates, tuple(range(fact * templates, (fact + 1) * templates)), ("Rome",))
        for fact in range(facts)
    )
    return Window(Settings(samples=samples, confidence=level, prior=prior), items)


def test_most_facts_keep_their_bucket_at_less_than_half_the_completions():
    matrix = outcome_matrix()
    sampler = Recorded(matrix)
    hits, trials = adaptive_window(sampler, window_of(matrix))
    same = [
        bucket_of(sum(h), sum(t)) == bucket_of(int(full), matrix[0].size)
        for h, t, full in zip(hits, trials, matrix.sum((1, 2)), strict=True)
    ]
    assert np.mean(same) >= 0.93
    assert sum(map(sum, trials)) == sampler.cost.completions <= 0.45 * matrix.size


def test_counts_are_those_of_the_first_samples_of_every_template():
    matrix = outcome_matrix(60)
    hits, trials = adaptive_window(Recorded(matrix), window_of(matrix))
    for fact, (h, t) in enumerate(zip(hits, trials, strict=True)):
        assert len(set(t)) == 1
        assert h == matrix[fact, :, : t[0]].sum(1).tolist()


def test_an_unsettled_fact_gets_the_full_protocol():
    matrix = np.zeros((30, 4, 10), dtype=bool)
    matrix[:, :, ::2] = True  # every fact at the edge of buckets 2 and 3
    hits, trials = adaptive_window(Recorded(matrix), window_of(matrix, level=0.999))
    assert trials == [[10] * 4] * 30
    assert hits == [[5] * 4] * 30


def test_settled_facts_are_asked_no_more():
    matrix = outcome_matrix(40)
    sampler = Recorded(matrix)
    _, trials = adaptive_window(sampler, window_of(matrix))
    for number, (first, count) in enumerate(rounds(10)):
        if number < len(sampler.asked):
            facts = {key // 21 for key, _, _ in sampler.asked[number]}
            assert facts == {fact for fact in range(40) if trials[fact][0] >= first + count}


@pytest.mark.parametrize("samples", [1, 2, 3, 10])
def test_rounds_cover_each_sample_once(samples):
    assert [n for first, count in rounds(samples) for n in range(first, first + count)] == list(range(samples))


def test_confidence_is_the_posterior_probability_of_the_final_bucket():
    prior, hits, trials, total = (0.5, 0.7), 9, 42, 210
    draw = np.random.default_rng(0)
    mastery = draw.beta(prior[0] + hits, prior[1] + trials - hits, 200_000)
    final = hits + draw.binomial(total - trials, mastery)
    share = np.mean([bucket_of(int(n), total) == bucket_of(hits, trials) for n in final])
    assert confidence(hits, trials, total, prior) == pytest.approx(share, abs=0.005)


def test_confidence_of_a_uniform_prior_by_counting():
    # With Beta(1, 1) and no sample drawn every count of hits is equally likely; one hit of one sample makes count k
    # of 4 weigh k.
    assert confidence(1, 1, 4, (1.0, 1.0)) == pytest.approx(4 / 10)
    assert confidence(0, 1, 4, (1.0, 1.0)) == pytest.approx(4 / 10)
    assert confidence(2, 2, 4, (1.0, 1.0)) == pytest.approx(comb(4, 2) / sum(comb(k, 2) for k in range(5)))
    assert confidence(3, 4, 4, (1.0, 1.0)) == 1.0


def test_the_prior_finds_the_shape_that_made_the_hits():
    draw = random.Random(0)
    for a, b in [(0.2, 0.4), (2.0, 2.0)]:
        hits = [np.random.default_rng(n).binomial(210, draw.betavariate(a, b)) for n in range(400)]
        found = fit_prior(hits, [210] * 400)
        assert found[0] / sum(found) == pytest.approx(a / (a + b), abs=0.06)
        assert 0.6 < sum(found) / (a + b) < 1.6


def test_a_probe_reports_what_it_spared_and_draws_the_same_samples(tmp_path):
    folder = write_scripted(tmp_path, SCRIPT)
    facts = [
        *FACTS,
        *(make_fact(name, answer) for name in ("Rome", "Paris", "Bern", "x y") for answer in ("Rome", "Bern")),
    ]
    facts = [*facts, *(make_fact(f"Anna {n}", "Rome") for n in range(20))]
    full = probe(folder, facts, RELATIONS, samples=20, aliases=NoAliases(), device="cpu")
    spared = probe(folder, facts, RELATIONS, samples=20, confidence=0.9, aliases=NoAliases(), device="cpu")
    early = [row for row in spared.rows if row.trials < 60]
    assert early
    for row, whole in zip(spared.rows, full.rows, strict=True):
        assert len(set(row.template_trials)) == 1
        if row.trials == 60:
            assert row == whole
    told = spared.protocol["adaptive"]
    assert told["confidence"] == 0.9 and told["pilot_facts"] == 30
    assert told["settled_early"] == pytest.approx(len(early) / len(facts))
    assert told["completions_share"] == pytest.approx(sum(row.trials for row in spared.rows) / (60 * len(facts)))
    assert spared.protocol["cost"]["completions"] == sum(row.trials for row in spared.rows)
