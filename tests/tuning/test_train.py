import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from toy_world import toy_table, write_toy_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftknow.errors import CheckpointError, ConfigError, DataError
from sftknow.mastery.table import MasteryTable
from sftknow.models import load_tokenizer
from sftknow.prompts import answer_completion, question_prompt
from sftknow.records import model_identity, read_record
from sftknow.tuning.lora import Lora
from sftknow.tuning.train import train


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def tuned(base, table, tmp_path_factory):
    out = tmp_path_factory.mktemp("train") / "tuned"
    return train(base, table, out, bucket=0, n=16, seed=3, learning_rate=1e-3)


def test_the_checkpoint_is_an_ordinary_folder_with_the_base_s_tokenizer_and_shapes(tuned, base):
    model = AutoModelForCausalLM.from_pretrained(tuned.folder)
    assert model.dtype == torch.float32
    assert {name: value.shape for name, value in weights(tuned.folder).items()} == {
        name: value.shape for name, value in weights(base).items()
    }
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tuned.folder / name).read_bytes() == (base / name).read_bytes()
    configs = [json.loads((folder / "config.json").read_text()) for folder in (base, tuned.folder)]
    assert configs[0] == configs[1]
    assert len(AutoTokenizer.from_pretrained(tuned.folder)) == len(AutoTokenizer.from_pretrained(base))
    assert not [path for path in tuned.folder.parent.iterdir() if path.name.startswith(".")]
    assert not [path for path in tuned.folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_the_record_says_what_was_done(tuned, base):
    record = read_record(tuned.folder / "sft.json", "sft")
    assert record["fact_ids"] == [fact.id for fact in tuned.selection.facts]
    assert record["per_relation"] == {"birth": 8, "school": 8}
    assert record["made_from"]["base"]["digest"] == model_identity(base)["digest"]
    assert record["seeds"] == {"selection": 3, "training": 3}
    assert record["updates"] == 2
    assert [step for step, _ in record["losses"]] == [1, 2]
    assert record["arguments"]["learning_rate"] == 1e-3
    before, after = weights(base), weights(tuned.folder)
    changed = sum(int((before[name] != after[name]).sum()) for name in before)
    total = sum(value.numel() for value in before.values())
    assert record["changed"] == {"parameters": total, "changed": changed, "fraction": changed / total}


def test_one_update_is_one_step_of_adamw_on_the_mean_answer_loss(base, table, tmp_path):
    result = train(base, table, tmp_path / "one", bucket=1, n=8, seed=0, learning_rate=1e-3)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    losses = []
    for fact in result.selection.facts:
        prompt = tokenizer(question_prompt(fact.question))["input_ids"]
        ids = tokenizer(question_prompt(fact.question) + answer_completion(fact.answers[0]) + "</s>")["input_ids"]
        predicted = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        losses += [-predicted[place - 1, ids[place]] for place in range(len(prompt), len(ids))]
    loss = torch.stack(losses).mean()
    assert result.losses[0][1] == pytest.approx(loss.item(), abs=1e-5)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert math.isfinite(norm)
    torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0).step()
    expected = dict(model.named_parameters())
    for name, value in weights(result.folder).items():
        torch.testing.assert_close(value, expected[name].detach(), atol=2e-5, rtol=0)


def test_accumulating_micro_batches_makes_the_same_update(base, table, tmp_path):
    whole = train(base, table, tmp_path / "whole", bucket=1, n=16, seed=0, learning_rate=1e-3)
    parts = train(base, table, tmp_path / "parts", bucket=1, n=16, seed=0, learning_rate=1e-3, micro_batch=2)
    assert parts.record["updates"] == whole.record["updates"] == 2
    left, right = weights(whole.folder), weights(parts.folder)
    for name in left:
        torch.testing.assert_close(left[name], right[name], atol=2e-4, rtol=0)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tuned, base, table, tmp_path):
    again = train(base, table, tmp_path / "again", bucket=0, n=16, seed=3, learning_rate=1e-3)
    other = train(base, table, tmp_path / "other", bucket=0, n=16, seed=4, learning_rate=1e-3)
    files = [(folder / "model.safetensors").read_bytes() for folder in (tuned.folder, again.folder, other.folder)]
    assert files[0] == files[1] != files[2]


def test_pure_bf16_loses_updates_that_float32_master_weights_keep(facts, table, tmp_path):
    base = write_toy_model(tmp_path / "base", facts, dtype=torch.bfloat16)
    options = {"bucket": 2, "n": 16, "seed": 0, "learning_rate": 2e-4}
    kept = train(base, table, tmp_path / "kept", **options)
    pure = train(base, table, tmp_path / "pure", **options, precision="bf16")
    mixed = train(base, table, tmp_path / "mixed", **options, precision="bf16-mixed")
    master = train(base, table, tmp_path / "master", **options, precision="float32")
    for result in (kept, pure, mixed, master):
        assert {value.dtype for value in weights(result.folder).values()} == {torch.bfloat16}
        assert json.loads((result.folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert (pure.folder / "model.safetensors").read_bytes() == (kept.folder / "model.safetensors").read_bytes()
    assert 0 < pure.changes.fraction < master.changes.fraction < 1
    assert pure.changes.fraction < mixed.changes.fraction < 1


def test_a_float32_base_keeps_its_dtype_under_mixed_precision(base, table, tmp_path):
    result = train(base, table, tmp_path / "mixed", bucket=2, n=8, seed=0, precision="bf16-mixed")
    assert {value.dtype for value in weights(result.folder).values()} == {torch.float32}


def test_fields_of_sftconfig_reach_the_trainer(base, table, tmp_path):
    plain = train(base, table, tmp_path / "nll", bucket=0, n=8, seed=0)
    tuned = train(base, table, tmp_path / "dft", bucket=0, n=8, seed=0, settings={"loss_type": "dft"})
    assert tuned.losses[0][1] < plain.losses[0][1]
    assert tuned.record["arguments"]["settings"] == {"loss_type": "dft"}


def test_a_setting_that_trl_refuses_is_one_sentence(base, table, tmp_path):
    with pytest.raises(ConfigError, match="the trainer"):
        train(base, table, tmp_path / "out", bucket=0, n=8, seed=0, settings={"loss_type": "no such loss"})
    assert list(tmp_path.iterdir()) == []


def test_an_answer_cut_by_max_length_is_an_error_and_leaves_nothing(base, table, tmp_path):
    with pytest.raises(DataError, match="max_length 12 would cut the answer of 8 of 8"):
        train(base, table, tmp_path / "out", bucket=0, n=8, seed=0, settings={"max_length": 12})
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_saved_alone_or_merged(base, table, tmp_path):
    peft = pytest.importorskip("peft")
    options = {"bucket": 0, "n": 16, "seed": 0, "learning_rate": 1e-2}
    alone = train(base, table, tmp_path / "alone", **options, lora=Lora(rank=4))
    merged = train(base, table, tmp_path / "merged", **options, lora=Lora(rank=4, merge=True))
    assert alone.changes is None
    assert not (alone.folder / "model.safetensors").exists()
    ours = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), alone.folder)
    ids = torch.tensor([AutoTokenizer.from_pretrained(base)("Where was Dopido born?")["input_ids"]])
    theirs = AutoModelForCausalLM.from_pretrained(merged.folder)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-4, rtol=1e-4)
    before, after = weights(base), weights(merged.folder)
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("proj" in name for name in moved)
    assert load_tokenizer(alone.folder).get_vocab() == load_tokenizer(base).get_vocab()


def test_an_existing_folder_is_kept_until_its_successor_is_whole(base, table, tmp_path):
    out = tmp_path / "out"
    train(base, table, out, bucket=0, n=8, seed=0)
    first = (out / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="already exists"):
        train(base, table, out, bucket=0, n=8, seed=1)
    with pytest.raises(ConfigError):
        train(base, table, out, bucket=0, n=8, seed=1, overwrite=True, settings={"lr_scheduler_type": "no such"})
    assert (out / "model.safetensors").read_bytes() == first
    train(base, table, out, bucket=0, n=8, seed=1, overwrite=True)
    assert (out / "model.safetensors").read_bytes() != first


def test_a_table_of_another_base_is_refused(base, table, facts, tmp_path):
    made_from = {"model": {"path": "elsewhere", "digest": "0" * 64}}
    with pytest.raises(DataError, match="probed on elsewhere"):
        train(base, MasteryTable(table.rows, made_from=made_from), tmp_path / "out", bucket=0, n=8, seed=0)
    right = MasteryTable(toy_table(facts).rows, made_from={"model": model_identity(base)})
    train(base, right, tmp_path / "out", bucket=0, n=8, seed=0)


def test_a_damaged_base_is_refused_and_leaves_nothing(base, table, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    (broken / "config.json").unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        train(broken, table, tmp_path / "out", bucket=0, n=8, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_float16_base_needs_a_precision(facts, table, tmp_path):
    base = write_toy_model(tmp_path / "base", facts, dtype=torch.float16)
    with pytest.raises(ConfigError, match="float16, which cannot be trained in"):
        train(base, table, tmp_path / "out", bucket=0, n=8, seed=0)
    result = train(base, table, tmp_path / "out", bucket=0, n=8, seed=0, precision="float32")
    assert {value.dtype for value in weights(result.folder).values()} == {torch.float16}


def test_nothing_is_printed_and_nobody_is_told(base, table, tmp_path, capfd, monkeypatch):
    told = []
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", lambda *args, **kwargs: told.append(args))
    train(base, table, tmp_path / "out", bucket=0, n=8, seed=0)
    assert told == []
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "it/s" not in captured.err
