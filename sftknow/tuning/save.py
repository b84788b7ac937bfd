"""The tuned checkpoint on disk: gathered from every process, in the base's dtype, with the base's tokenizer."""

import json
import shutil
from pathlib import Path
from typing import Any

from sftknow.errors import CheckpointError
from sftknow.models import load_model
from sftknow.records import write_text
from sftknow.tuning.changes import Changes, count_changes, tensor_files
from sftknow.tuning.lora import Lora, merge_adapter, move_adapter, name_base

TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.jinja",
    "generation_config.json",
)
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def stored_dtype(folder: Path) -> str:
    """Return the dtype of a checkpoint's weights: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        CheckpointError: weights in another dtype, such as a quantised checkpoint.
    """
    from safetensors import safe_open

    name, path = next(iter(tensor_files(folder).items()))
    with safe_open(path, framework="pt") as file:
        dtype = file.get_slice(name).get_dtype()
    if dtype not in _DTYPES:
        raise CheckpointError(f"{folder} stores its weights as {dtype}; only float32, bfloat16 and float16 are tuned.")
    return _DTYPES[dtype]


def gather_weights(trainer: Any) -> dict[str, Any]:
    """Return the whole state of the trained model; every process must call this, the first one gets it all."""
    wrapped = trainer.deepspeed if trainer.is_deepspeed_enabled else trainer.model
    state: dict[str, Any] = trainer.accelerator.get_state_dict(wrapped)
    return state


def save_checkpoint(
    model: Any, state: dict[str, Any], base: Path, staging: Path, *, dtype: str, lora: Lora | None, base_name: str
) -> Changes | None:
    """Write a tuned model to a folder and count what changed; None where only an adapter is written.

    Args:
        model: the trained model, unwrapped.
        state: its gathered state.
        base: the base's folder.
        staging: the folder to fill.
        dtype: dtype to store.
        lora: the adapter's settings, or None after full fine-tuning.
        base_name: the base's Hub id or path, for the adapter's configuration.
    """
    import torch

    if lora is None:
        target = getattr(torch, dtype)
        stored = {name: value.to(target) if value.is_floating_point() else value for name, value in state.items()}
        model.save_pretrained(staging, state_dict=stored)
    else:
        model.save_pretrained(staging, state_dict=state)
        name_base(staging, base_name)
        if lora.merge:
            adapter = move_adapter(staging)
            merge_adapter(load_model(base, dtype=dtype), adapter).save_pretrained(staging)
    _copy_tokenizer(base, staging)
    for path in staging.rglob("*.safetensors"):
        path.chmod(0o644)
    if lora is not None and not lora.merge:
        return None
    _copy_config(base, staging, dtype)
    return count_changes(base, staging)


def _copy_tokenizer(base: Path, staging: Path) -> None:
    for pattern in TOKENIZER_FILES:
        for path in sorted(base.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, staging / path.name)


def _copy_config(base: Path, staging: Path, dtype: str) -> None:
    """Keep the base's configuration, which trainers edit: the shapes, tokens and architecture have not changed."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    config["dtype"] = dtype
    write_text(staging / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
