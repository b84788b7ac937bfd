"""Low-rank adapters with peft: the paper's comparison row."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow.errors import ConfigError

ADAPTER_FOLDER = "adapter"


@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter on linear layers.

    Attributes:
        rank: of the update of each layer.
        alpha: the update is scaled by ``alpha / rank``; None for twice the rank.
        dropout: on the adapter's input.
        targets: module names to adapt; empty for every linear layer but the output head.
        merge: write the merged checkpoint (the adapter goes to its subfolder ``adapter``), not the adapter alone.
    """

    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    merge: bool = False


def peft_config(lora: Lora) -> Any:
    """Return peft's configuration of an adapter.

    Raises:
        ConfigError: peft is not installed, or the rank or dropout makes no sense.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigError("LoRA needs peft, which is not installed; run `pip install 'sftknow[lora]'`.") from None
    if lora.rank < 1 or not 0 <= lora.dropout < 1:
        raise ConfigError(f"LoRA rank {lora.rank} with dropout {lora.dropout} cannot be used; give 1 or more, 0 to 1.")
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha if lora.alpha is not None else 2 * lora.rank,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or "all-linear",
        task_type="CAUSAL_LM",
    )


def merge_adapter(model: Any, adapter: Path) -> Any:
    """Return a freshly loaded base model with an adapter's update added to its weights.

    Args:
        model: the base model in the dtype to store.
        adapter: folder that peft wrote.
    """
    from peft import PeftModel

    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


def name_base(adapter: Path, base: str) -> None:
    """Write the base's name into an adapter's configuration, and drop the model card draft."""
    import json

    from sftknow.records import write_text

    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    write_text(path, json.dumps(config, indent=2) + "\n")
    (adapter / "README.md").unlink(missing_ok=True)


def move_adapter(folder: Path) -> Path:
    """Move an adapter's files into the subfolder ``adapter`` of the folder that will hold the merged checkpoint."""
    target = folder / ADAPTER_FOLDER
    target.mkdir()
    for path in list(folder.glob("adapter_*")):
        shutil.move(path, target / path.name)
    return target
