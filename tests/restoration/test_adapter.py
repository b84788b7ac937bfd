"""A low-rank adapter given as the tuned model is merged into its base first."""

import json
import shutil

import pytest
import torch
from checkpoints import read, same
from transformers import LlamaConfig, LlamaForCausalLM

import sftknow
from sftknow.errors import CheckpointError

peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base and an adapter of it whose update is not zero."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=1)  # fmt: skip
    base = LlamaForCausalLM(config).to(torch.bfloat16)
    base.save_pretrained(folder / "base")
    (folder / "base" / "tokenizer.json").write_text('"base"')
    (folder / "base" / "README.md").write_text("base card")
    adapted = peft.get_peft_model(
        base, peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    )
    for name, values in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(values, std=0.02)
    adapted.save_pretrained(folder / "adapter")
    (folder / "adapter" / "tokenizer.json").write_text('"adapter"')
    adapted.merge_and_unload().save_pretrained(folder / "merged")
    return folder


@pytest.mark.parametrize("percent", [0, 20, 100])
def test_an_adapter_gives_what_its_merged_model_gives(tmp_path, folders, percent):
    base = folders / "base"
    record = sftknow.restore(base, folders / "adapter", tmp_path / "out", percent)
    expected = sftknow.restore(base, folders / "merged", tmp_path / "expected", percent)
    same(read(tmp_path / "out"), read(tmp_path / "expected"))
    assert record["fractions"] == expected["fractions"]
    assert record["made_from"]["tuned"]["path"] == str(folders / "adapter")
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert not {name for name in found if name.startswith("adapter")}, "else loading would add the update again"
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '"adapter"'
    assert (tmp_path / "out" / "README.md").read_text() != "base card"
    LlamaForCausalLM.from_pretrained(tmp_path / "out")


def test_only_adapted_modules_have_changed(folders):
    record = sftknow.restore(folders / "base", folders / "adapter", dry_run=True)
    changed = {name.split(".")[-2] for name, tensor in record["tensors"].items() if tensor["changed"]}
    assert changed == {"q_proj", "up_proj"}


def test_a_pickled_adapter_is_refused(tmp_path, folders):
    adapter = shutil.copytree(folders / "adapter", tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"holds no adapter_model\.safetensors"):
        sftknow.restore(folders / "base", adapter, dry_run=True)


def test_an_adapter_of_another_model_is_refused(tmp_path, folders):
    config = LlamaConfig(
        vocab_size=40, hidden_size=24, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"adapter cannot be merged into the base"):
        sftknow.restore(tmp_path / "other", folders / "adapter", dry_run=True)


def test_an_adapter_with_more_tokens_is_merged(tmp_path, folders):
    model = LlamaForCausalLM.from_pretrained(folders / "base")
    model.resize_token_embeddings(43, mean_resizing=False)
    settings = peft.LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(model, settings)
    for name, values in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(values, std=0.02)
    adapted.save_pretrained(tmp_path / "adapter")
    record = sftknow.restore(folders / "base", tmp_path / "adapter", tmp_path / "out", 20)
    assert not any("rows" in note for note in record["notes"]), "embeddings are outside the region"
    assert read(tmp_path / "out")["model.embed_tokens.weight"].shape[0] == 43
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 43
