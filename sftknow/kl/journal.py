"""Finished chunks of a pass over many prompts, on disk where an interrupted command finds them again."""

import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from sftknow.errors import ConfigError
from sftknow.kl.arrays import Array
from sftknow.records import digest, write_bytes, write_text

KEY_FILE = "key.json"


class Journal:
    """Chunks by name; kept in memory, or in a hidden folder that goes when the work is done.

    Args:
        folder: where chunks are kept; None for memory.
        key: JSON fields that fix the chunks' contents; chunks of another key are thrown away.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self, folder: Path | None, key: Mapping[str, Any]) -> None:
        self._folder, self._memory = folder, dict[str, dict[str, Array]]()
        if folder is None:
            return
        name = digest(dict(key))
        if _key_of(folder) == name:
            return
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise ConfigError(f"{folder} cannot be made: {error.strerror or error}; name another file.") from error
        write_text(folder / KEY_FILE, json.dumps({"key": name}) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def has(self, name: str) -> bool:
        """Say whether a chunk is there."""
        return name in self._memory or (self._folder is not None and (self._folder / f"{name}.npz").is_file())

    def get(self, name: str, make: Callable[[], dict[str, Array]]) -> dict[str, Array]:
        """Return a chunk, making and keeping it where it is not there."""
        if self._folder is None:
            if name not in self._memory:
                self._memory[name] = make()
            return self._memory[name]
        path = self._folder / f"{name}.npz"
        if not path.is_file():
            buffer = io.BytesIO()
            np.savez(buffer, **make())  # type: ignore[arg-type]
            write_bytes(path, buffer.getvalue())
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)


def _key_of(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / KEY_FILE).read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError):
        return None
