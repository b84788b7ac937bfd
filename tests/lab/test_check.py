import pytest
import torch

from sftknow.lab.check import Estimate, _bucket, _chances, estimate_histogram
from sftknow.lab.network import Network
from sftknow.models import load_model, load_tokenizer


def test_a_bucket_under_eight_percent_is_a_stall():
    assert Estimate((8, 8, 8, 8, 68), 100).stalled is False
    assert Estimate((7, 9, 8, 8, 68), 100).stalled is True


def test_an_estimate_reads_as_percentages():
    assert str(Estimate((20, 30, 10, 20, 20), 100)) == "20 30 10 20 20 percent of 100 in-domain facts in buckets 0 to 4"


def test_bucket_0_is_what_210_samples_would_more_likely_than_not_miss():
    # 0.9967 ** 210 = 0.4995 and 0.9968 ** 210 = 0.5102
    assert _bucket(0.0032) == 0
    assert _bucket(0.0033) == 1
    assert [_bucket(mastery) for mastery in (0.25, 0.2501, 0.75, 1.0)] == [1, 2, 3, 4]


def test_the_chance_of_an_answer_is_that_of_transformers_at_the_temperature_of_the_probe(tiny_lab):
    tokenizer, model = load_tokenizer(tiny_lab.folder), load_model(tiny_lab.folder)
    rows = []
    for fact in (tiny_lab.facts[0], tiny_lab.facts[100], tiny_lab.facts[200]):
        rows += [
            (statement, fact.answers[0]) for statement in tiny_lab.relations[fact.relation].statements(fact.subject)
        ]
    found = _chances(Network(model), tokenizer, rows)
    for (statement, answer), chance in list(zip(rows, found, strict=True))[::5]:
        start = tokenizer(statement)["input_ids"]
        ids = tokenizer(f"{statement} {answer}")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0].double() / 0.7
        expected = 1.0
        for place in range(len(start), len(ids)):
            expected *= logits[place - 1].softmax(-1)[ids[place]].item()
        assert chance == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_the_estimate_covers_in_domain_facts_and_is_the_one_on_record(tiny_lab):
    tokenizer, model = load_tokenizer(tiny_lab.folder), load_model(tiny_lab.folder)
    network = Network(model)
    estimate = estimate_histogram(network, tokenizer, tiny_lab.facts, tiny_lab.relations, seed=tiny_lab.record["seed"])
    assert estimate.facts == sum(fact.domain == "in_domain" for fact in tiny_lab.facts) == sum(estimate.histogram)
    assert list(estimate.histogram) == tiny_lab.record["histogram"]
    assert not estimate.stalled
