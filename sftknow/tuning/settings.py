"""The trainer's settings: the paper's defaults, any field of TRL's SFTConfig by name, wrong names answered in words."""

import dataclasses
import difflib
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sftknow.errors import ConfigError

OWNED = {
    "output_dir": "the OUT folder",
    "seed": "--seed",
    "num_train_epochs": "--epochs",
    "per_device_train_batch_size": "--batch-size and --micro-batch",
    "gradient_accumulation_steps": "--batch-size and --micro-batch",
    "bf16": "--precision",
    "fp16": "--precision",
    "use_cpu": "--device",
    "resume_from_checkpoint": "--resume",
    "save_steps": "--save-steps",
    "save_strategy": "--save-steps",
    "push_to_hub": "`hf upload` afterwards",
}
FORBIDDEN = {
    "trust_remote_code": "code from a model folder is never run",
    "model_init_kwargs": "the model is loaded by sftknow; see --precision and --device",
    "chat_template_path": "it can add tokens to the vocabulary, and the method needs unchanged shapes",
    "pad_token": "a pad token is chosen without touching the vocabulary",
}


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn ``name=value`` texts into settings; values are read as YAML, so ``true``, ``0.1`` and ``{a: 1}`` work.

    Raises:
        ConfigError: a text without ``=``, or a value that is no YAML.
    """
    import yaml

    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {pair!r} is not of the form name=value, as in --set warmup_steps=10.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {pair!r}: the value cannot be read as YAML; quote it.") from error
        settings[name.strip()] = _number(value)
    return settings


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse names SFTConfig does not have, with the nearest right one, and names that sftknow sets itself.

    Raises:
        ConfigError: all wrong names at once.
    """
    from trl import SFTConfig

    known = {field.name for field in dataclasses.fields(SFTConfig) if field.init}
    problems = []
    for name in settings:
        if name in OWNED:
            problems.append(f"{name} is set by {OWNED[name]}")
        elif name in FORBIDDEN:
            problems.append(f"{name} cannot be set: {FORBIDDEN[name]}")
        elif name not in known:
            near = difflib.get_close_matches(name, sorted(known - set(OWNED) - set(FORBIDDEN)), n=1, cutoff=0.5)
            problems.append(f"{name} is no field of TRL's SFTConfig" + (f", did you mean {near[0]}?" if near else ""))
    if problems:
        raise ConfigError(f"training settings cannot be used: {'; '.join(problems)}.")


def sft_config(arguments: Mapping[str, Any], settings: Mapping[str, Any], work: Path) -> Any:
    """Build TRL's SFTConfig from our arguments, overridden by checked settings.

    Raises:
        ConfigError: transformers or TRL refuses a value.
    """
    from trl import SFTConfig

    check_settings(settings)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TRL and transformers 5 name activation checkpointing apart
            return SFTConfig(output_dir=str(work), **{**arguments, **settings})
    except (ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"the trainer refuses its settings ({type(error).__name__}: {reason}); change them."
        ) from error


def default_arguments(
    *,
    learning_rate: float,
    epochs: float,
    seed: int,
    per_device: int,
    accumulation: int,
    device: str,
    mixed: bool,
) -> dict[str, Any]:
    """Return the paper's recipe as SFTConfig fields: AdamW, cosine, no warm-up, one pass."""
    return {
        "learning_rate": learning_rate,
        "num_train_epochs": epochs,
        "lr_scheduler_type": "cosine",
        "optim": "adamw_torch",
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": accumulation,
        "seed": seed,
        "use_cpu": device == "cpu",
        "bf16": mixed,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": device != "cpu",
        "ddp_find_unused_parameters": False,
    }


def split_batch(batch_size: int, processes: int, micro_batch: int | None) -> tuple[int, int]:
    """Return rows per process and step, and steps per update, so that one update sees ``batch_size`` facts.

    Raises:
        ConfigError: the batch does not divide evenly.
    """
    if batch_size < 1 or batch_size % processes:
        raise ConfigError(f"batch size {batch_size} does not divide over {processes} processes; choose a multiple.")
    each = batch_size // processes
    micro = min(each, micro_batch or each)
    if micro < 1 or each % micro:
        raise ConfigError(f"a batch of {each} facts per process does not divide into micro-batches of {micro}.")
    return micro, each // micro


def _number(value: Any) -> Any:
    """Read ``1e-5`` as a number, which YAML 1.1 takes for text."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return number if math.isfinite(number) else value
    return value
