"""The journal of a long probe: finished windows are appended as they come, so that a killed run goes on.

One JSON line a window, behind a first line that names what is probed and how. A torn last line, the mark of a kill in
the middle of a write, is dropped.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from sftknow.errors import ConfigError, DataError
from sftknow.records import SCHEMA_VERSIONS, sync_folder

SCHEMA = f"sftknow.probe-journal/{SCHEMA_VERSIONS['probe-journal']}"


class Journal:
    """An append-only file of results by window number.

    Args:
        path: the file; made if absent, gone on with if it holds the same options.
        options: everything that fixes the numbers; another value refuses to go on.

    Raises:
        ConfigError: the file was begun with other options, which are named, or cannot be written.
        DataError: the file is no journal.
    """

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        self.path = path
        self.done: dict[int, Any] = {}
        wanted = json.loads(json.dumps(dict(options)))
        whole = self._read(wanted) if path.exists() else 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("r+b" if whole else "wb")
            self._file.truncate(whole)
            self._file.seek(whole)
            if not whole:
                self._line({"schema": SCHEMA, "options": wanted})
                sync_folder(path.parent)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, window: int, result: Any) -> None:
        """Write one finished window; it is on disk when this returns."""
        self._line({"window": window, "result": result})
        self.done[window] = result

    def remove(self) -> None:
        """Delete the file, once its results stand elsewhere."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _line(self, value: Any) -> None:
        try:
            self._file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be written ({error.strerror or error}); what it holds is kept: make room and run "
                "the same command again."
            ) from error

    def _read(self, wanted: Mapping[str, Any]) -> int:
        """Read the whole lines of an earlier run and return where they end."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}.") from error
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        if not lines:
            return 0
        self._check_header(lines[0], wanted)
        end = len(lines[0]) + 1
        for line in lines[1:]:
            try:
                entry = json.loads(line)
                self.done[int(entry["window"])] = entry["result"]
            except (ValueError, KeyError, TypeError):
                break
            end += len(line) + 1
        return end

    def _check_header(self, line: bytes, wanted: Mapping[str, Any]) -> None:
        try:
            header = json.loads(line)
            schema, found = header["schema"], dict(header["options"])
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{self.path} is not a probe's journal; move it away, or name another --out.") from None
        if schema != SCHEMA:
            raise DataError(
                f"{self.path} has schema {schema!r}, this version reads {SCHEMA!r}; delete it to begin anew."
            )
        differing = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        if differing:
            changes = ", ".join(f"{name} {found.get(name)!r} -> {wanted.get(name)!r}" for name in differing)
            raise ConfigError(
                f"{self.path} was begun with other options ({changes}); give the same options to go on, "
                "or delete it to begin anew."
            )
