"""The files of a model folder that hold no weights."""

import os
from collections.abc import Iterator
from pathlib import Path

WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx"}
LEFT_OUT = {"adapter_config.json", "restoration.json", "model.safetensors.index.json"}
"""Files that say something of the tuned folder which would be false of another: what its weights are."""
TRAINING_FOLDERS = ("checkpoint-", "global_step", "runs")


def other_files(folder: Path) -> Iterator[Path]:
    """Yield tokenizer, configuration, chat templates and whatever else lies in a model folder beside its weights.

    Hidden files and the folders in which trainers keep their states are left out.
    """
    for parent, folders, files in os.walk(folder):
        at_top = Path(parent) == folder
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not (at_top and name.startswith(TRAINING_FOLDERS))
        )
        for name in sorted(files):
            path = Path(parent, name)
            wanted = path.suffix not in WEIGHT_SUFFIXES and name not in LEFT_OUT and not name.startswith(".")
            if wanted and path.is_file():
                yield path
