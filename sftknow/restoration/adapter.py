"""A low-rank adapter given as the tuned model: merged into its base with peft, in a temporary folder."""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sftknow.errors import CheckpointError, ConfigError
from sftknow.models import hush_transformers, load_model
from sftknow.restoration.checkpoint import INDEX, SINGLE, read_header
from sftknow.restoration.files import other_files
from sftknow.tuning.lora import merge_adapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_VOCABULARY = re.compile(r".*\.(?:embed_tokens|wte|word_embeddings|embed_in|lm_head|embed_out)\.(?:.+\.)?weight")


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds an adapter and no whole model."""
    return (folder / CONFIG).is_file() and not (folder / SINGLE).is_file() and not (folder / INDEX).is_file()


@contextlib.contextmanager
def merged(adapter: Path, base: Path) -> Iterator[Path]:
    """Yield a temporary model folder: the adapter merged into its base, with the files of both.

    The whole model is held in memory while it is merged; everything after that streams.

    Args:
        adapter: folder that peft wrote.
        base: folder of the model that it was trained on.

    Raises:
        CheckpointError: the adapter is pickled, or does not fit the base.
        ConfigError: peft is not installed.
    """
    if not (adapter / WEIGHTS).is_file():
        raise CheckpointError(f"{adapter} holds no {WEIGHTS}; save the adapter again with safe_serialization=True.")
    rows = _vocabulary_rows(adapter)
    with tempfile.TemporaryDirectory(prefix="sftknow-merged-") as name:
        folder = Path(name)
        model = load_model(base)
        hush_transformers()
        if rows > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(rows, mean_resizing=False)
        _merge(model, adapter).save_pretrained(folder)
        del model
        _add_files(folder, adapter, base)
        yield folder


def _merge(model: Any, adapter: Path) -> Any:
    try:
        return merge_adapter(model, adapter)
    except ImportError:
        raise ConfigError(
            f"{adapter} is an adapter, which needs peft to be merged; run `pip install 'sftknow[lora]'`."
        ) from None
    except Exception as error:  # peft raises RuntimeError, ValueError, KeyError, AttributeError
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{adapter} cannot be merged into the base ({type(error).__name__}: {reason}); "
            "give the base it was trained on."
        ) from error


def _vocabulary_rows(adapter: Path) -> int:
    """Return how many tokens the adapter's own embedding or head has; 0 where it has none."""
    tensors = read_header(adapter / WEIGHTS)
    return max((t.shape[0] for t in tensors if _VOCABULARY.fullmatch(t.name) and "lora_" not in t.name), default=0)


def _add_files(folder: Path, adapter: Path, base: Path) -> None:
    for source in (adapter, base):
        for file in other_files(source):
            target = folder / file.relative_to(source)
            if not target.exists() and (source == adapter or file.name != "README.md"):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
