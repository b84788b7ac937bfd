"""Where a mastery table lies: a folder here, or a dataset of the same form on the Hugging Face Hub."""

import functools
import re
from pathlib import Path

from sftknow.errors import DataError
from sftknow.mastery.table import FACTS_FILE, RECORD_FILE, MasteryTable, read_mastery

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def mastery_folder(reference: str | Path) -> Path:
    """Return the local folder of a mastery table.

    Args:
        reference: a folder, or a Hub dataset ``org/name`` or ``org/name@revision``, fetched into the Hub cache.

    Raises:
        DataError: there is no such folder, and no such dataset can be fetched.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or not _HUB_ID.fullmatch(str(reference)):
        raise DataError(
            f"{reference} is neither a folder nor a Hub dataset like org/name; "
            "name a mastery table made by `sftknow probe`."
        )
    dataset, _, revision = str(reference).partition("@")
    return _fetch(dataset, revision or None)


def load_mastery(reference: str | Path) -> MasteryTable:
    """Read a mastery table from a folder or from the Hub; the same table is read only once in a process.

    Raises:
        DataError: the table is missing, damaged or of another schema.
    """
    folder = mastery_folder(reference).resolve()
    stamps = tuple(
        (entry.stat().st_mtime_ns, entry.stat().st_size) if entry.is_file() else (0, 0)
        for entry in (folder / RECORD_FILE, folder / FACTS_FILE)
    )
    return _read_once(folder, stamps)


@functools.lru_cache(maxsize=4)
def _read_once(folder: Path, stamps: tuple[tuple[int, int], ...]) -> MasteryTable:
    return read_mastery(folder)


def _fetch(dataset: str, revision: str | None) -> Path:
    import huggingface_hub

    try:
        path = huggingface_hub.snapshot_download(
            dataset, repo_type="dataset", revision=revision, allow_patterns=[RECORD_FILE, FACTS_FILE]
        )
    except Exception as error:  # the client raises many kinds: HTTP, offline, validation, disk
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{dataset} is no folder here and cannot be fetched from the Hub as a dataset ({reason}); "
            "name a mastery table made by `sftknow probe`."
        ) from error
    return Path(path)
