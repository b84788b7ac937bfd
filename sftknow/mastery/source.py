"""Where completions come from: a local model folder, probed with our own sampler, or a backend of lm-eval."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow.errors import ConfigError
from sftknow.mastery.backend import BackendEngine, LmEvalModel
from sftknow.mastery.engine import Engine, InProcess, LocalModel, ManyProcesses
from sftknow.records import digest

LOCAL_WINDOW = 256
BACKEND_WINDOW = 32
_TOKENS = 64
_SMALL_WEIGHTS = 500_000_000
_MOST_WORKERS = 8
_CPU_BUDGET = 2 << 30
_GPU_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Source:
    """A model to probe and how.

    Attributes:
        model: the local model, or the backend's.
        identity: for the table's provenance.
        batch_size: rows of a forward pass at most; 1 where the backend decides.
        workers: processes.
    """

    model: LocalModel | LmEvalModel
    identity: dict[str, Any]
    batch_size: int
    workers: int

    @property
    def local(self) -> bool:
        """Whether the model runs here, with our own sampler."""
        return isinstance(self.model, LocalModel)

    @property
    def window_facts(self) -> int:
        """Facts that are probed together, and lost together when the probe is killed."""
        return LOCAL_WINDOW if self.local else BACKEND_WINDOW

    def options(self) -> dict[str, Any]:
        """Return what of the model fixes the numbers, for the journal to hold on to."""
        if isinstance(self.model, LocalModel):
            return {"model": self.identity["digest"], "device": self.model.device, "dtype": self.model.dtype}
        return {"model": self.identity["digest"], "backend": self.model.name}

    def engine(self) -> Engine:
        """Load the model."""
        if isinstance(self.model, LmEvalModel):
            return BackendEngine(self.model)
        return ManyProcesses(self.model, self.workers) if self.workers > 1 else InProcess(self.model)


def open_source(
    reference: str | Path | LmEvalModel,
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    workers: int | None = 1,
) -> Source:
    """Return the source that a reference names, without loading it yet.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: a device that cannot be used, or workers where they do not help.
    """
    from sftknow.models import DTYPES, check_device, default_device, resolve_model

    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}.")
    if isinstance(reference, LmEvalModel):
        if workers is not None and workers > 1:
            raise ConfigError(f"--workers is for --model hf on a CPU; {reference.name} has its own ways.")
        return Source(reference, _backend_identity(reference), 1, 1)
    device = device or default_device()
    check_device(device)
    if workers is not None and workers > 1 and device != "cpu":
        raise ConfigError(f"several workers share a CPU, not {device}; leave --workers out.")
    dtype = dtype or ("float32" if device == "cpu" else "auto")
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}.")
    folder, identity = resolve_model(reference)
    workers = workers or fitting_workers(folder, device)
    model = LocalModel(str(folder), device, dtype, threads=1 if workers > 1 else None)
    rows = batch_size if batch_size is not None else fitting_batch(folder, device)
    return Source(model, identity, rows, workers)


def fitting_batch(folder: Path, device: str) -> int:
    """Return how many rows of keys and values fit: 2 GB on a CPU, 30% of the memory of a GPU; 16 to 2048 rows."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        heads = config.get("num_key_value_heads") or config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        row = _TOKENS * 2 * 4 * config["num_hidden_layers"] * heads * width
    except (OSError, ValueError, KeyError, TypeError):
        return 64
    return int(max(16, min(2048, _memory(device) // row)))


def fitting_workers(folder: Path, device: str) -> int:
    """Return how many processes to probe with: on a CPU one a core for a small model, which each loads; else one."""
    weights = sum(shard.stat().st_size for shard in folder.glob("*.safetensors"))
    if device != "cpu" or weights > _SMALL_WEIGHTS:
        return 1
    return min(len(os.sched_getaffinity(0)), _MOST_WORKERS)


def _memory(device: str) -> float:
    if not device.startswith("cuda"):
        return _CPU_BUDGET
    import torch

    return float(torch.cuda.get_device_properties(device).total_memory * _GPU_SHARE)


def _backend_identity(model: LmEvalModel) -> dict[str, Any]:
    from sftknow.models import resolve_model

    pairs = dict(pair.partition("=")[::2] for pair in model.args.split(","))
    named = pairs.get("pretrained", "")
    identity = resolve_model(named)[1] if named and Path(named).is_dir() else {"path": named or pairs.get("model")}
    return {**identity, "backend": model.name, "model_args": model.args, "digest": digest([model.args, identity])}
