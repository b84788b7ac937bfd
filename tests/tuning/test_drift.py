from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from sftknow.errors import ConfigError
from sftknow.kl import divergence, kl_prompts
from sftknow.models import load_model, load_tokenizer
from sftknow.tuning.data import training_rows
from sftknow.tuning.drift import DriftCallback
from sftknow.tuning.train import train


@pytest.fixture
def prompts(table):
    return kl_prompts(table)[:8]


def trainer_arguments(tmp_path, **options):
    return SFTConfig(output_dir=str(tmp_path / "work"), use_cpu=True, bf16=False, report_to="none", **options)


def bare_trainer(base, facts, tmp_path, callbacks, **options):
    """Anyone's SFTTrainer: nothing of this project but the callback."""
    config = trainer_arguments(
        tmp_path,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        num_train_epochs=1,
        logging_steps=3,
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
        **options,
    )
    return SFTTrainer(
        model=load_model(base),
        args=config,
        train_dataset=Dataset.from_list(training_rows(facts[:32])),
        processing_class=load_tokenizer(base),
        callbacks=callbacks,
    )


def test_in_a_bare_trainer_it_logs_the_paper_s_kl_with_the_loss(base, facts, prompts, tmp_path):
    drift = DriftCallback(prompts, load_tokenizer(base), every=4)
    trainer = bare_trainer(base, facts, tmp_path, [drift])
    trainer.train()
    logged = {entry["step"]: entry for entry in trainer.state.log_history if "drift_kl" in entry}
    assert sorted(logged) == [4, 8]
    assert "loss" in logged[4]
    pairs = ((load_model(base), load_tokenizer(base)), (trainer.model.eval(), load_tokenizer(base)))
    assert logged[8]["drift_kl"] == pytest.approx(divergence(*pairs, prompts=prompts).mean, rel=1e-4)
    assert [(entry.step, entry.kl) for entry in drift.measurements] == [
        (step, logged[step]["drift_kl"]) for step in (4, 8)
    ]


def test_accuracy_is_the_fraction_of_facts_the_model_completes(base, facts, prompts, tmp_path):
    """Three of eight answers are made to be the model's own most probable next token, spelled as one token."""
    model, tokenizer = load_model(base), load_tokenizer(base)
    with torch.no_grad():
        bias = torch.zeros(model.config.vocab_size, model.config.hidden_size)
        spaced = tokenizer(" Da")["input_ids"][1:]
        assert len(spaced) == 1
        model.set_output_embeddings(torch.nn.Linear(*reversed(bias.shape), bias=True))
        model.get_output_embeddings().weight.zero_()
        model.get_output_embeddings().bias.zero_()[spaced[0]] = 5.0
    answers = ["Da"] * 3 + ["Do"] * 5
    asked = [replace(prompt, answer=answer) for prompt, answer in zip(prompts, answers, strict=True)]
    drift = DriftCallback(asked, tokenizer)
    drift.on_init_end(trainer_arguments(tmp_path), None, None, model=model)
    assert drift.base_accuracy == 3 / 8


def test_trackers_see_the_figures_once_it_is_attached(base, facts, prompts, tmp_path):
    from transformers import TrainerCallback

    seen = []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(dict(logs))

    drift = DriftCallback(prompts, load_tokenizer(base), every=4)
    trainer = bare_trainer(base, facts, tmp_path, [Tracker(), drift])
    drift.attach(trainer)
    trainer.train()
    assert sum("drift_kl" in logs for logs in seen) == 2


def test_past_the_bound_it_stops_and_brings_back_the_last_weights_within(base, facts, prompts, tmp_path):
    watch = DriftCallback(prompts, load_tokenizer(base), every=1)
    trainer = bare_trainer(base, facts, tmp_path, [watch])
    trainer.train()
    kls = [entry.kl for entry in watch.measurements]
    assert kls[0] < max(kls)
    bound = (kls[0] + max(kls)) / 2
    first_past = next(number for number, kl in enumerate(kls, 1) if kl > bound)
    drift = DriftCallback(prompts, load_tokenizer(base), every=1, stop_above=bound)
    trainer = bare_trainer(base, facts, tmp_path, [drift])
    trainer.train()
    assert (drift.stopped_at, drift.best_step) == (first_past, first_past - 1)
    pairs = ((load_model(base), load_tokenizer(base)), (trainer.model.eval(), load_tokenizer(base)))
    assert divergence(*pairs, prompts=prompts).mean == pytest.approx(kls[first_past - 2], rel=1e-3)


def test_a_bound_passed_at_once_keeps_the_base(base, table, tmp_path):
    result = train(
        base, table, tmp_path / "out", bucket=0, n=16, seed=0, learning_rate=1e-2, drift_every=1, drift_stop=1e-9
    )
    assert result.changes.changed == 0
    assert (result.record["drift"]["stopped_at"], result.record["drift"]["best_step"]) == (1, 0)


def test_measuring_changes_nothing(base, table, tmp_path):
    options = {"bucket": 0, "n": 16, "seed": 0, "learning_rate": 1e-3}
    plain = train(base, table, tmp_path / "plain", **options)
    watched = train(base, table, tmp_path / "watched", **options, drift_every=1)
    assert (plain.folder / "model.safetensors").read_bytes() == (watched.folder / "model.safetensors").read_bytes()
    assert [step for step, _, _ in watched.record["drift"]["measured"]] == [1, 2]


def test_no_prompts_or_interval_is_refused(base, prompts):
    for arguments in (((), 5), (prompts, 0)):
        with pytest.raises(ConfigError, match="drift callback"):
            DriftCallback(arguments[0], load_tokenizer(base), every=arguments[1])
