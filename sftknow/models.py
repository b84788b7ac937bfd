"""Causal language models and their tokenizers, loaded from folders or from the Hub, never with remote code."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sftknow.errors import CheckpointError, ConfigError
from sftknow.records import model_identity

DTYPES = ("auto", "float32", "bfloat16", "float16")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def resolve_model(reference: str | Path) -> tuple[Path, dict[str, Any]]:
    """Return the local folder of a model and its identity.

    Args:
        reference: a folder, or a Hub id ``org/name`` or ``org/name@revision``, which is fetched into the Hub cache.

    Raises:
        CheckpointError: neither a folder with safetensors weights nor a Hub model that can be fetched.
    """
    folder = Path(reference)
    if folder.is_dir():
        return folder, model_identity(folder)
    if folder.exists() or not _HUB_ID.fullmatch(str(reference)):
        raise CheckpointError(f"{reference} is neither a model folder nor a Hub id like org/name; check the path.")
    hub_id, _, revision = str(reference).partition("@")
    folder = _fetch(hub_id, revision or None)
    return folder, model_identity(folder, hub_id=hub_id, revision=revision or folder.name)


def _fetch(hub_id: str, revision: str | None) -> Path:
    import huggingface_hub

    patterns = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
    try:
        return Path(huggingface_hub.snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the client raises many kinds: HTTP, offline, validation, disk
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{hub_id} is no folder here and cannot be fetched from the Hub ({reason}); "
            "check the name, the connection and `hf auth login`."
        ) from error


def load_model(folder: Path, *, dtype: str = "auto", device: str | None = "cpu") -> Any:
    """Load a causal language model in evaluation mode.

    Args:
        folder: a Hugging Face model folder with safetensors weights.
        dtype: one of ``DTYPES``; ``auto`` keeps the dtype of the checkpoint.
        device: a torch device, such as ``cpu`` or ``cuda:0``; None leaves the weights where a launcher puts them.

    Raises:
        CheckpointError: the folder cannot be loaded.
        ConfigError: the dtype or the device does not exist.
    """
    import torch
    from transformers import AutoModelForCausalLM

    hush_transformers()
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}.")
    if device is not None:
        check_device(device)
    chosen = "auto" if dtype == "auto" else getattr(torch, dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=chosen, trust_remote_code=False, use_safetensors=True, local_files_only=True
        )
    except Exception as error:  # transformers and safetensors raise OSError, ValueError, SafetensorError, KeyError...
        raise CheckpointError(_load_failure(folder, error)) from error
    return (model if device is None else model.to(device)).eval()


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a model folder, padding on the left for generation.

    Raises:
        CheckpointError: the folder holds no tokenizer that can be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # as for load_model
        raise CheckpointError(_load_failure(folder, error, what="tokenizer")) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def hush_transformers() -> None:
    """Keep the bars that transformers draws for loading and saving off a stderr that is not a terminal."""
    import transformers

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()


def check_device(device: str) -> None:
    """Raise ConfigError where torch cannot use a device on this machine."""
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {device!r} cannot be used here ({reason}); try --device cpu.") from error


def default_device() -> str:
    """Return ``cuda`` where torch sees a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_threads(threads: int | None = None) -> int:
    """Set and return the number of torch CPU threads; by default one for each core this process may use."""
    import torch

    count = threads or available_cores()
    torch.set_num_threads(count)
    return count


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use so many CPU threads meanwhile: one is fastest for the laboratory's small matrices."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _load_failure(folder: Path, error: Exception, what: str = "model") -> str:
    reason = " ".join(str(error).split())[:300]
    return f"{folder} cannot be loaded as a {what} ({type(error).__name__}: {reason}); check that the folder is whole."
