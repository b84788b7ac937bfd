import numpy as np
import pytest
import torch

from sftknow.errors import DataError
from sftknow.kl import divergence, kl_prompts
from sftknow.kl.prompts import encode
from sftknow.models import load_model, load_tokenizer
from sftknow.tuning.lora import Lora
from sftknow.tuning.mastered import mastered_prompts
from sftknow.tuning.regularise import Preservation
from sftknow.tuning.selection import select_facts
from sftknow.tuning.train import train

OPTIONS = {"bucket": 0, "n": 16, "seed": 0, "learning_rate": 1e-2, "epochs": 4}


@pytest.fixture
def prompts(table):
    return mastered_prompts(table, select_facts(table, 0, 16, 0), 12, 0)


def test_the_penalty_is_the_full_kl_at_the_first_token(base, table, prompts, tmp_path):
    tuned = train(base, table, tmp_path / "tuned", **OPTIONS).folder
    tokenizer = load_tokenizer(base)
    penalty = Preservation(1.0, encode(tokenizer, prompts), batch=8, seed=0)
    penalty.keep_base(load_model(base))
    chosen = penalty.prompts_of(3)
    expected = divergence(base, tuned, prompts=[prompts[number] for number in chosen], support="full").mean
    model = load_model(tuned)
    assert float(penalty.term(model, update=3, part=0, parts=1).detach()) == pytest.approx(expected, rel=1e-4)
    halves = [penalty.term(model, update=3, part=part, parts=2) for part in (0, 1)]
    assert float(sum(halves).detach() / 2) == pytest.approx(expected, rel=1e-4)


def test_prompts_take_turns_whatever_was_asked_before(prompts, base):
    encoded = encode(load_tokenizer(base), prompts)
    penalty, other = (Preservation(1.0, encoded, batch=5, seed=3) for _ in range(2))
    seen = [number for update in range(12) for number in penalty.prompts_of(update)]
    assert np.bincount(seen).tolist() == [5] * 12
    assert sorted(seen[:12]) == list(range(12))
    assert other.prompts_of(7) == penalty.prompts_of(7)


def test_preserving_keeps_the_model_nearer_the_base(base, table, tmp_path):
    free = train(base, table, tmp_path / "free", **OPTIONS)
    held = train(base, table, tmp_path / "held", **OPTIONS, kl_weight=5.0)
    assert held.record["preservation"]["direction"] == "KL(tuned || base)"
    assert held.record["preservation"]["support"] == "full vocabulary"
    assert held.record["preservation"]["kl"][0][1] == pytest.approx(0, abs=1e-6)
    assert "preservation" not in free.record
    kls = [divergence(base, result.folder, table, support="full").mean for result in (free, held)]
    assert kls[1] < 0.7 * kls[0]
    assert held.losses[-1][1] < held.losses[0][1]


def test_under_lora_the_base_is_the_model_without_its_adapter(base, table, tmp_path):
    pytest.importorskip("peft")
    lora = Lora(rank=4, merge=True)
    free = train(base, table, tmp_path / "free", **OPTIONS, lora=lora)
    held = train(base, table, tmp_path / "held", **OPTIONS, lora=lora, kl_weight=5.0)
    assert held.record["preservation"]["kl"][0][1] == pytest.approx(0, abs=1e-6)
    kls = [divergence(base, result.folder, table, support="full").mean for result in (free, held)]
    assert kls[1] < 0.9 * kls[0]


def test_watched_facts_are_mastered_untrained_and_untested(table):
    selection = select_facts(table, "mixed", 60, 0)
    prompts = mastered_prompts(table, selection, 100, 0)
    rows = {row.fact.id: row for row in table.rows}
    chosen = [rows[prompt.id] for prompt in prompts]
    assert {(row.bucket, row.fact.split, row.fact.domain) for row in chosen} == {(4, "train", "in_domain")}
    assert not {prompt.id for prompt in prompts} & {fact.id for fact in selection.facts}
    assert not {prompt.text for prompt in prompts} & {prompt.text for prompt in kl_prompts(table)}
    assert mastered_prompts(table, selection, 2, 0) == prompts[:2]


def test_no_fact_left_to_preserve_is_said(base, table, tmp_path):
    with pytest.raises(DataError, match="no train facts in bucket 4 left"):
        train(base, table, tmp_path / "out", bucket=4, n="all", seed=0, kl_weight=1.0)


def test_the_penalty_has_a_gradient_only_away_from_the_base(base, prompts):
    model = load_model(base)
    penalty = Preservation(1.0, encode(load_tokenizer(base), prompts), batch=4, seed=0)
    penalty.keep_base(model)
    penalty.term(model, update=0, part=0, parts=1).backward()
    still = max(float(value.grad.abs().max()) for value in model.parameters() if value.grad is not None)
    model.zero_grad()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
    penalty.term(model, update=0, part=0, parts=1).backward()
    moved = max(float(value.grad.abs().max()) for value in model.parameters() if value.grad is not None)
    assert still < 1e-4 * moved
