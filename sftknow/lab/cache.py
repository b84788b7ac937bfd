"""Whether a laboratory that is kept is whole."""

from pathlib import Path
from typing import Any

from sftknow.errors import DataError
from sftknow.records import file_digest, read_record

RECORD_FILE = "lab.json"


def file_digests(folder: Path) -> dict[str, str]:
    """Return name -> SHA-256 of every file of a laboratory but its record."""
    return {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.name != RECORD_FILE}


def damage(folder: Path) -> str | None:
    """Say what is wrong with a laboratory's folder: a file missing or changed, no readable record; None if whole."""
    try:
        record: dict[str, Any] = read_record(folder / RECORD_FILE, "lab")
        for name, digest in record["files"].items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if file_digest(folder / name) != digest:
                return f"{name} is not the file that was written"
    except DataError as error:
        return str(error).rstrip(".")
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except (KeyError, TypeError, AttributeError):
        return f"{RECORD_FILE} lacks the list of files"
    return None
