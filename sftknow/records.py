"""Every file the tool writes: schema, provenance, atomic writing, and reading that checks.

A JSON record carries ``schema`` (``sftknow.<kind>/<version>``), ``created``, the versions of sftknow and of the
libraries that made it, seeds, and the identity of whatever it was made from. Files and folders appear under their
final name whole or not at all.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sftknow.errors import CheckpointError, ConfigError, DataError

SCHEMA_VERSIONS: dict[str, int] = {
    "mastery": 1,
    "sft": 1,
    "kl": 1,
    "restoration": 1,
    "scores": 1,
    "sweep": 1,
    "lab": 1,
    "demo": 1,
    "demo-unit": 1,
    "probe-journal": 1,
}
LIBRARIES = ("torch", "transformers", "trl", "lm-eval", "datasets", "peft", "numpy", "numba", "tokenizers")


def write_record(
    path: Path,
    kind: str,
    body: Mapping[str, Any],
    *,
    made_from: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: Mapping[str, int] | Sequence[int] | None = None,
) -> dict[str, Any]:
    """Write one JSON record atomically, with schema and provenance, and return what was written.

    Args:
        path: the file; its folder must exist.
        kind: a key of ``SCHEMA_VERSIONS``.
        body: JSON-serialisable fields; NaN and infinity are refused.
        made_from: name -> identity (see :func:`model_identity`, :func:`file_identity`) of each input.
        seeds: the seeds that fixed the result.

    Raises:
        DataError: the folder cannot be written.
    """
    record = make_record(kind, body, made_from=made_from, seeds=seeds)
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return record


def make_record(
    kind: str,
    body: Mapping[str, Any],
    *,
    made_from: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: Mapping[str, int] | Sequence[int] | None = None,
) -> dict[str, Any]:
    """Return a record as :func:`write_record` writes it, without writing."""
    return {
        "schema": f"sftknow.{kind}/{SCHEMA_VERSIONS[kind]}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": library_versions(),
        "seeds": seeds if seeds is None or isinstance(seeds, Mapping) else list(seeds),
        "made_from": dict(made_from or {}),
        **body,
    }


def read_record(path: Path, kind: str) -> dict[str, Any]:
    """Read a JSON record of one kind.

    Raises:
        DataError: the file is missing, is not JSON, or carries another schema or schema version.
    """
    wanted = f"sftknow.{kind}/{SCHEMA_VERSIONS[kind]}"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; expected a record with schema {wanted}.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); make it again.") from error
    found = record.get("schema") if isinstance(record, dict) else None
    if found != wanted:
        raise DataError(
            f"{path} has schema {found!r}, this version of sftknow reads {wanted!r}; "
            "make it again with this version, or use the version that wrote it."
        )
    return dict(record)


def amend_record(path: Path, kind: str, fields: Mapping[str, Any]) -> None:
    """Add fields to a record on disk, atomically; DataError as for reading and writing one."""
    record = {**read_record(path, kind), **fields}
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def library_versions() -> dict[str, str]:
    """Return the versions of sftknow and of the installed libraries that numbers depend on."""
    from sftknow import __version__

    versions = {"sftknow": __version__}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; raise DataError where the folder cannot be written."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: a hidden sibling, synced, then renamed over the final name.

    Raises:
        DataError: the folder is missing or cannot be written, or the disk is full.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a hidden sibling to fill; it takes the name ``path`` when the block ends without an error.

    Leftovers of killed runs for the same name are removed first. With ``overwrite`` an existing folder is replaced
    only once the new one is complete.

    Raises:
        ConfigError: ``path`` exists and ``overwrite`` is false, or its parent cannot be written.
    """
    path = Path(os.path.abspath(path))
    _remove_leftovers(path)
    check_output_folder(path, overwrite=overwrite)
    staging = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:6]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}; name another folder.") from error
    with _held(staging):
        try:
            yield staging
            sync_tree(staging)
            _replace_folder(staging, path)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def check_output_folder(path: Path, *, overwrite: bool = False) -> None:
    """Raise ConfigError where an output folder already exists or cannot be made, before work begins."""
    path = Path(os.path.abspath(path))
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() and not (overwrite and path.is_dir()):
        what = "is a file" if path.is_file() else "already exists and is not empty"
        raise ConfigError(f"{path} {what}; name another folder or give --overwrite to replace a folder.")
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigError(f"{path} cannot be written: {parent} is not a folder you may write to; name another folder.")


def _remove_leftovers(path: Path) -> None:
    pattern = re.compile(re.escape(f".{path.name}.") + r"(\d+)-[0-9a-f]{6}\.(?:partial|old)")
    for entry in path.parent.iterdir() if path.parent.is_dir() else ():
        match = pattern.fullmatch(entry.name)
        if match and _is_abandoned(entry, int(match[1])):
            if entry.name.endswith(".old") and not path.exists():
                entry.rename(path)
            else:
                shutil.rmtree(entry, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock a folder while the block runs, so that it is no leftover to others; the lock ends with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: the process id has to do
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _is_abandoned(folder: Path, pid: int) -> bool:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return not _process_runs(pid)
    finally:
        os.close(handle)
    return True


def _process_runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def _replace_folder(staging: Path, path: Path) -> None:
    if path.exists() and _exchange(staging, path):
        pass  # what was there now has the hidden name, which the caller removes
    elif path.exists():
        old = staging.with_suffix(".old")
        path.rename(old)
        staging.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        staging.rename(path)
    sync_folder(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step, so that no moment has neither; false where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, swap = -100, 2
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below ``folder`` to disk."""
    for entry in sorted(folder.rglob("*")):
        if entry.is_file():
            with entry.open("rb") as file:
                os.fsync(file.fileno())
    for entry in (folder, *(entry for entry in folder.rglob("*") if entry.is_dir())):
        sync_folder(entry)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to disk, where the system allows it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def cache_folder() -> Path:
    """Return the folder for what can be built again: ``$SFTKNOW_CACHE``, or sftknow's place in the user's cache."""
    if os.environ.get("SFTKNOW_CACHE"):
        return Path(os.environ["SFTKNOW_CACHE"])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "sftknow"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sftknow" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sftknow"


def digest(value: Any) -> str:
    """Return 16 hex digits naming any JSON-serialisable value; equal values give equal digests."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_identity(path: Path) -> dict[str, Any]:
    """Return the identity of one input file: its path, size in bytes and SHA-256."""
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": file_digest(path)}


def model_identity(folder: Path, *, hub_id: str | None = None, revision: str | None = None) -> dict[str, Any]:
    """Return the identity of a checkpoint folder: where it came from and a digest of its weight index.

    The digest covers config.json and, for every safetensors shard, its size, its header (names, dtypes, shapes) and
    64 pieces of 4 KB spread over its values: milliseconds at any model size, and different for retrained weights.

    Raises:
        CheckpointError: no safetensors weights are found in the folder.
    """
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise CheckpointError(f"{folder} holds no .safetensors weights; name a Hugging Face model folder.")
    sha = hashlib.sha256()
    config = folder / "config.json"
    if config.is_file():
        sha.update(config.read_bytes())
    for shard in shards:
        with shard.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            sha.update(f"{shard.name} {shard.stat().st_size}\n".encode() + file.read(min(length, 1 << 28)))
            _sample_bytes(file, shard.stat().st_size, sha)
    return {"path": str(folder), "hub_id": hub_id, "revision": revision, "digest": sha.hexdigest()}


def _sample_bytes(file: Any, size: int, sha: Any, pieces: int = 64, width: int = 4096) -> None:
    for piece in range(pieces):
        file.seek(size * piece // pieces)
        sha.update(file.read(width))
