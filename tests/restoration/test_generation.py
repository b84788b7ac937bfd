"""A restored checkpoint is an ordinary one: transformers loads it and it writes text."""

import pytest
import torch
from checkpoints import Pair, read, region_names, same
from transformers import pipeline

import sftknow
from sftknow.mastery.table import MasteryTable, ProbedFact


@pytest.fixture(scope="module")
def tuned(tiny_lab, tmp_path_factory):
    """The laboratory's model, really tuned on sixty of its facts."""
    rows = [ProbedFact.from_counts(fact, (n % 3,), (10,)) for n, fact in enumerate(tiny_lab.facts)]
    names = {fact.relation for fact in tiny_lab.facts}
    table = MasteryTable(tuple(rows), templates={name: ["{subject} is"] for name in names})
    out = tmp_path_factory.mktemp("lab") / "tuned"
    sftknow.train(tiny_lab.folder, table, out, bucket=[0, 1], n=60, seed=0, learning_rate=1e-3, allow_fewer=True)
    return out


def test_a_tuned_checkpoint_of_the_laboratory_is_restored_and_writes_text(tmp_path, tiny_lab, tuned):
    sftknow.restore(tiny_lab.folder, tuned, tmp_path / "out", [0, 20, 100], region="all")

    def answers(folder):
        writer = pipeline("text-generation", model=str(folder), tokenizer=str(folder))
        asked = [f"<|question|> {fact.question}<|answer|>" for fact in tiny_lab.facts[:8]]
        written = writer(asked, max_new_tokens=8, do_sample=False, return_full_text=False)
        return [one[0]["generated_text"] for one in written]

    assert answers(tmp_path / "out" / "top-0") == answers(tuned)
    assert answers(tmp_path / "out" / "top-100") == answers(tiny_lab.folder)
    assert all(answers(tmp_path / "out" / "top-20"))
    assert answers(tuned) != answers(tiny_lab.folder), "tuning must have changed what the model writes"


def test_restoring_a_tuned_checkpoint_of_the_laboratory_agrees_with_sorting(tmp_path, tiny_lab, tuned):
    before, after = read(tiny_lab.folder), read(tuned)
    pair = Pair(tiny_lab.folder, tuned, before, after, "F32", "F32")
    record = sftknow.restore(tiny_lab.folder, tuned, tmp_path / "out", [5, 20, 60])
    names = region_names("transformer", after)
    for percent in (5, 20, 60):
        same(read(tmp_path / "out" / f"top-{percent}"), pair.expected(names, percent))
    assert record["changed_percent"] > 50
    assert 0.2 < record["concentration"]["share"]["5"] < 1


def test_a_checkpoint_that_trl_saved_in_float32_is_restored_to_a_bfloat16_base(tmp_path):
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                         num_attention_heads=2, eos_token_id=1)  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    rows = Dataset.from_list(
        [{"input_ids": [2, 3, 4, 5 + n, 1], "labels": [-100, -100, -100, 5 + n, 1]} for n in range(8)]
    )
    model = LlamaForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path / "tuned"), max_steps=2, per_device_train_batch_size=4, learning_rate=1e-3,
        use_cpu=True, bf16=False, report_to=[], save_strategy="no", dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    trainer = trl.SFTTrainer(model=model, args=arguments, train_dataset=rows, processing_class=_tokenizer())
    trainer.train()
    trainer.save_model()
    record = sftknow.restore(tmp_path / "base", tmp_path / "tuned", tmp_path / "out", 50)
    base, tuned, found = (read(tmp_path / name) for name in ("base", "tuned", "out"))
    name = "model.layers.1.mlp.up_proj.weight"
    widened = base[name].astype("uint32") << 16
    taken = found[name] == widened
    assert (taken | (found[name] == tuned[name])).all()
    assert record["tensors"][name]["restored"]["50"] <= taken.sum()
    assert 0.3 < taken.mean() < 0.7


def _tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "</s>": 1, **{f"w{number}": number for number in range(2, 64)}}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>", pad_token="<pad>", unk_token="<pad>")
