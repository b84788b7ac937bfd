"""How many parameters a fine-tuning changed at all, counted tensor by tensor from the two folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Changes:
    """Scalar parameters of the tuned checkpoint that differ from the base.

    Attributes:
        parameters: scalar parameters in both checkpoints.
        changed: those whose stored value differs, the base first cast to the dtype of the tuned checkpoint.
    """

    parameters: int
    changed: int

    @property
    def fraction(self) -> float:
        """Changed parameters as a fraction of all, 0..1."""
        return self.changed / self.parameters if self.parameters else 0.0


def count_changes(base: Path, tuned: Path) -> Changes:
    """Compare two checkpoints of one architecture, holding one tensor of each in memory at a time.

    Args:
        base: folder of the model before fine-tuning.
        tuned: folder of the model after.

    Raises:
        CheckpointError: a tensor has another shape in the two, or a folder holds no safetensors.
    """
    from safetensors import safe_open

    before, after = tensor_files(base), tensor_files(tuned)
    parameters = changed = 0
    for name in sorted(before.keys() & after.keys()):
        with safe_open(before[name], framework="pt") as old_file, safe_open(after[name], framework="pt") as new_file:
            old, new = old_file.get_tensor(name), new_file.get_tensor(name)
        if old.shape != new.shape:
            raise CheckpointError(f"tensor {name} is {tuple(old.shape)} in {base} and {tuple(new.shape)} in {tuned}.")
        parameters += new.numel()
        changed += int((_cast(old, new.dtype) != new).sum())
    return Changes(parameters, changed)


def tensor_files(folder: Path) -> dict[str, Path]:
    """Return the shard that holds each tensor of a checkpoint, by tensor name."""
    from safetensors import safe_open

    files = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            files.update(dict.fromkeys(file.keys(), path))
    if not files:
        raise CheckpointError(f"{folder} holds no .safetensors weights; name a Hugging Face model folder.")
    return files


def _cast(tensor: Any, dtype: Any) -> Any:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)
