"""KL and fine-tuning on the real laboratory model, where facts are known or not."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftknow.kl import divergence
from sftknow.mastery.table import MasteryTable, ProbedFact
from sftknow.tuning.train import train


@pytest.mark.slow
def test_kl_on_a_tuned_laboratory_model_matches_a_loop_and_grows_with_the_learning_rate(tiny_lab, tmp_path):
    """Mastery is dealt by hand: which bucket a fact lands in plays no part in whether the KL is computed right."""
    templates = {name: list(relation.templates) for name, relation in tiny_lab.relations.items()}
    rows = []
    for number, fact in enumerate(tiny_lab.facts):
        hits = [number % 2 * 4] * len(templates[fact.relation])
        rows.append(ProbedFact.from_counts(fact, hits, [4] * len(hits)))
    table = MasteryTable(tuple(rows), templates=templates)
    means = []
    for name, rate in (("mild", 1e-4), ("strong", 5e-3)):
        tuned = train(tiny_lab.folder, table, tmp_path / name, bucket=0, n=24, seed=0, learning_rate=rate)
        assert tuned.losses[0][1] > 0
        result = divergence(tiny_lab.folder, tuned.folder, table)
        means.append(result.mean)
    assert means[0] < means[1]
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in (tiny_lab.folder, tuned.folder)]
    tokenizer, expected = AutoTokenizer.from_pretrained(tiny_lab.folder), []
    by_id = {fact.id: fact for fact in tiny_lab.facts}
    for entry in result.per_fact:
        fact = by_id[entry.id]
        assert (fact.split, fact.domain) == ("test", "in_domain")
        ids = torch.tensor([tokenizer(templates[fact.relation][0].format(subject=fact.subject))["input_ids"]])
        with torch.no_grad():
            before, after = (model(ids).logits[0, -1].numpy().astype(np.float64) for model in models)
        top = np.argsort(-after, kind="stable")[:10]
        p, q = (np.exp(row[top] - row[top].max()) for row in (after, before))
        p, q = p / p.sum(), q / q.sum()
        expected.append(float((p * np.log(p / q)).sum()))
    np.testing.assert_allclose([entry.value for entry in result.per_fact], expected, atol=1e-5)
