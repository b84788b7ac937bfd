"""A loaded model restored in place holds at each fraction exactly what the written checkpoint holds."""

import pytest
import torch
from checkpoints import read
from transformers import LlamaConfig, LlamaForCausalLM

import sftknow
from sftknow.errors import CheckpointError, ConfigError
from sftknow.restoration.inplace import Restoration

PERCENTS = [0, 1, 5, 20, 60, 100]


def llama(seed=0, tied=False):
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=3,
                         num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=tied)  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module", params=["untied", "tied"])
def folders(request, tmp_path_factory):
    """Base and tuned folders in bfloat16."""
    folder = tmp_path_factory.mktemp(request.param)
    model = llama(tied=request.param == "tied").to(torch.bfloat16)
    model.save_pretrained(folder / "base")
    torch.manual_seed(1)
    with torch.no_grad():
        for values in model.parameters():
            values.copy_(values.float() * (1 + 5e-3 * torch.randn(values.shape)))
    model.save_pretrained(folder / "tuned")
    return folder / "base", folder / "tuned"


def load(folder, dtype=torch.bfloat16):
    return LlamaForCausalLM.from_pretrained(folder, dtype=dtype)


def holds(model, folder):
    """Assert that a model's parameters are those of a folder, bit for bit."""
    stored = read(folder)
    for name, values in model.named_parameters():
        words = torch.from_numpy(stored[name]).view(torch.bfloat16).to(values.dtype)
        assert torch.equal(values, words), name


@pytest.mark.parametrize("source", ["folders", "model", "models", "tensors"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("strategy", ["top", "bottom", "random"])
def test_every_step_is_the_written_checkpoint(tmp_path, folders, strategy, dtype, source):
    base, tuned = folders
    options = {"strategy": strategy, "region": "all", "seed": 5}
    record = sftknow.restore(base, tuned, tmp_path / "out", PERCENTS, **options)
    model = load(tuned, dtype)
    origin = {
        "folders": base,
        "model": base,
        "models": load(base, dtype),
        "tensors": dict(load(base).named_parameters()),
    }
    plan = Restoration.plan(origin[source], model, PERCENTS, tuned=tuned if source == "folders" else None, **options)
    holds(model, tuned)
    for step, fraction in zip(plan, record["fractions"], strict=True):
        holds(model, tmp_path / "out" / f"{strategy}-{step.percent}")
        assert step.percent == fraction["percent"]
        assert step.restored == fraction["restored"]
        assert step.share_of_change_undone == fraction["share_of_change_undone"]
        assert step.share_of_relative_change_undone == fraction["share_of_relative_change_undone"]
    assert {key: plan.record[key] for key in ("considered", "changed", "concentration", "fractions", "tensors")} == {
        key: record[key] for key in ("considered", "changed", "concentration", "fractions", "tensors")
    }
    plan.reset()
    holds(model, tuned)


def test_iterating_again_starts_from_the_tuned_values(folders):
    base, tuned = folders
    model = load(tuned)
    plan = Restoration.plan(base, model, [20, 60])
    passes = []
    for _ in range(2):
        passes.append([[values.clone() for values in model.parameters()] for _ in plan])
    for first, second in zip(*passes, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_what_lies_outside_the_region_keeps_its_storage_and_values(folders):
    base, tuned = folders
    model = load(tuned)
    before = {name: (values.data_ptr(), values.clone()) for name, values in model.named_parameters()}
    for _ in Restoration.plan(base, model, [100], region="mlp"):
        for name, values in model.named_parameters():
            assert values.data_ptr() == before[name][0]
            assert torch.equal(values, before[name][1]) == (".mlp." not in name)


def test_tensors_in_another_memory_layout_are_restored(folders):
    base, tuned = folders
    model = load(tuned)
    name = "model.layers.0.mlp.up_proj.weight"
    turned = model.get_parameter(name).detach().t().contiguous().t()
    live = {**dict(model.named_parameters()), name: turned}
    assert not turned.is_contiguous()
    plain = load(tuned)
    for _, _ in zip(Restoration.plan(base, live, [20, 60]), Restoration.plan(base, plain, [20, 60]), strict=True):
        assert torch.equal(turned, plain.get_parameter(name))


def test_undoing_an_equal_share_of_change_can_be_compared_with_random(folders):
    base, tuned = folders
    top = Restoration.plan(base, load(tuned), [10, 20])
    random = Restoration.plan(base, load(tuned), list(range(1, 100)), strategy="random")
    for step in top.steps:
        nearest = min(random.steps, key=lambda one: abs(one.share_of_change_undone - step.share_of_change_undone))
        assert nearest.share_of_change_undone == pytest.approx(step.share_of_change_undone, abs=0.01)
        assert nearest.percent > step.percent


def test_what_does_not_fit_is_named(folders):
    base, tuned = folders
    model = load(tuned)
    with pytest.raises(ConfigError, match="top 101 is no percent"):
        Restoration.plan(base, model, [101])
    with pytest.raises(CheckpointError, match="equal in region"):
        Restoration.plan(model, model, [1])
    part = {name: values for name, values in model.named_parameters() if "up_proj" not in name}
    with pytest.raises(CheckpointError, match=r"tensors of region transformer are in .* but not in the tuned model"):
        Restoration.plan(base, part, [1])
    with pytest.raises(CheckpointError, match=r"up_proj.* of the tuned checkpoint is not in the loaded model"):
        Restoration.plan(base, part, [1], tuned=tuned)
