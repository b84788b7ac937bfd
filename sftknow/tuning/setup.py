"""From a recipe and chosen facts to a trainer that is ready to run."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow.errors import ConfigError
from sftknow.kl.prompts import KLPrompt, encode
from sftknow.models import check_device, load_model, load_tokenizer
from sftknow.tuning.data import check_answers_fit, tokenized_rows, training_rows
from sftknow.tuning.lora import peft_config
from sftknow.tuning.recipe import Recipe
from sftknow.tuning.regularise import Preservation
from sftknow.tuning.save import stored_dtype
from sftknow.tuning.selection import Selection
from sftknow.tuning.settings import default_arguments, sft_config, split_batch


@dataclass(frozen=True)
class Setup:
    """A trainer ready to run, the drift callback if there is one, and the dtype the checkpoint will be stored in."""

    trainer: Any
    drift: Any
    dtype: str


def set_up(
    folder: Path,
    work: Path,
    selection: Selection,
    recipe: Recipe,
    *,
    preserve: Sequence[KLPrompt] = (),
    watch: Sequence[KLPrompt] = (),
) -> Setup:
    """Build the trainer of a run.

    Args:
        folder: the base model.
        work: where the trainer may write.
        selection: the training facts.
        recipe: everything else.
        preserve: prompts of the penalty on drift, where ``recipe.kl_weight`` is above 0.
        watch: prompts of the drift callback, where ``recipe.drift_every`` is given.

    Raises:
        ConfigError: a setting or combination that the trainer refuses.
        DataError: a row whose answer would be cut.
        CheckpointError: the base cannot be loaded.
    """
    from datasets import Dataset

    settings = {"max_length": None, **recipe.settings}
    check_device(recipe.device)
    config = _config(recipe, settings, work)
    tokenizer = load_tokenizer(folder)
    rows = tokenized_rows(
        training_rows(selection.facts),
        tokenizer,
        eos=settings.get("eos_token"),
        completion_only=settings.get("completion_only_loss") is not False,
    )
    check_answers_fit(rows, selection.facts, settings["max_length"])
    base_dtype = stored_dtype(folder)
    model = load_model(folder, dtype=_training_dtype(base_dtype, recipe), device=None)
    penalty = _preservation(recipe, config, tokenizer, preserve)
    drift = _drift(recipe, tokenizer, watch)
    trainer = _build(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=peft_config(recipe.lora) if recipe.lora else None,
        callbacks=[drift] if drift else None,
        preservation=penalty,
    )
    if drift:
        drift.attach(trainer)
    if penalty and not recipe.lora:
        penalty.keep_base(trainer.model)
    return Setup(trainer, drift, "bfloat16" if recipe.precision == "bf16" else base_dtype)


def _config(recipe: Recipe, settings: dict[str, Any], work: Path) -> Any:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    per_device, accumulation = split_batch(recipe.batch_size, processes, recipe.micro_batch)
    arguments = default_arguments(
        learning_rate=recipe.learning_rate,
        epochs=recipe.epochs,
        seed=recipe.seed,
        per_device=per_device,
        accumulation=accumulation,
        device=recipe.device,
        mixed=recipe.precision == "bf16-mixed",
    )
    if recipe.save_steps is not None:
        arguments |= {"save_strategy": "steps", "save_steps": recipe.save_steps, "save_total_limit": 2}
    return sft_config(arguments, settings, work)


def _build(**parts: Any) -> Any:
    from sftknow.tuning.trainer import FactTrainer

    try:
        return FactTrainer(**parts)
    except (ValueError, TypeError, ImportError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"the trainer cannot be set up ({type(error).__name__}: {reason}).") from error


def _training_dtype(base: str, recipe: Recipe) -> str:
    if recipe.precision is not None:
        return "bfloat16" if recipe.precision == "bf16" else "float32"
    if base == "float16":
        raise ConfigError(
            "the base is stored in float16, which cannot be trained in; give --precision float32 or bf16."
        )
    return base


def _preservation(recipe: Recipe, config: Any, tokenizer: Any, prompts: Sequence[KLPrompt]) -> Preservation | None:
    if not recipe.kl_weight:
        return None
    if not recipe.lora and config.distributed_state.distributed_type.value in ("FSDP", "DEEPSPEED"):
        raise ConfigError("--kl-weight needs the base's logits, and sharded weights cannot give them; add --lora.")
    return Preservation(recipe.kl_weight, encode(tokenizer, prompts), batch=recipe.batch_size, seed=recipe.seed)


def _drift(recipe: Recipe, tokenizer: Any, prompts: Sequence[KLPrompt]) -> Any:
    if recipe.drift_every is None:
        return None
    from sftknow.tuning.drift import DriftCallback

    return DriftCallback(prompts, tokenizer, every=recipe.drift_every, stop_above=recipe.drift_stop)
