"""The hidden folder beside OUT that holds a run's checkpoints, and the rules for going on from them."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sftknow.errors import ConfigError
from sftknow.records import write_text

KEY_FILE = "run.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def work_folder(out: Path) -> Path:
    """Return the hidden sibling of OUT where a run keeps its checkpoints until it is done."""
    out = Path(out).absolute()
    return out.with_name(f".{out.name}.work")


def last_checkpoint(work: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end, or None.

    The trainer's state is the last file it writes, so a checkpoint cut off by a kill lacks it.
    """
    found = [(int(match[1]), path) for path in work.glob("*") if (match := _CHECKPOINT.fullmatch(path.name))]
    for step, path in sorted(found, reverse=True):
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if state.get("global_step") == step:
            return path
    return None


def open_work(work: Path, key: Mapping[str, Any], *, resume: bool, overwrite: bool) -> Path | None:
    """Prepare the work folder and return the checkpoint to go on from, if any.

    Args:
        work: the folder.
        key: JSON fields that fix the result; a stopped run is gone on with only where they are all equal.
        resume: go on from the last checkpoint, or from the start where there is none.
        overwrite: begin again although there is a checkpoint.

    Raises:
        ConfigError: a stopped run lies there and neither option was given, or it was a different run.
    """
    checkpoint = last_checkpoint(work)
    if checkpoint is not None and resume:
        _check_key(work, key)
        return checkpoint
    if checkpoint is not None and not overwrite:
        raise ConfigError(
            f"a stopped run lies in {work} ({checkpoint.name}); "
            "give --resume to go on from it, or --overwrite to begin again."
        )
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"{work} cannot be made: {error.strerror or error}; name another OUT folder.") from error
    write_text(work / KEY_FILE, json.dumps(dict(key), indent=1) + "\n")
    return None


@contextlib.contextmanager
def shared_work(
    work: Path, key: Mapping[str, Any], device: str, *, resume: bool, overwrite: bool
) -> Iterator[Path | None]:
    """Open the work folder for all processes of a launch, yield the checkpoint to go on from, and clean up.

    The folder goes when the block ends well; after an error it stays if it holds a checkpoint to resume from.
    """
    state = _processes(device)
    main = state is None or state.is_main_process
    checkpoint = open_work(work, key, resume=resume, overwrite=overwrite) if main else None
    if state is not None:
        state.wait_for_everyone()
        checkpoint = last_checkpoint(work) if resume else None
    try:
        yield checkpoint
    except BaseException:
        if main and last_checkpoint(work) is None:
            shutil.rmtree(work, ignore_errors=True)
        raise
    if main:
        shutil.rmtree(work, ignore_errors=True)


def _processes(device: str) -> Any:
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from accelerate import PartialState

    return PartialState(cpu=device == "cpu")


def _check_key(work: Path, key: Mapping[str, Any]) -> None:
    try:
        stopped = json.loads((work / KEY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{work / KEY_FILE} cannot be read ({error}); begin again with --overwrite.") from error
    different = sorted(name for name in key.keys() | stopped.keys() if key.get(name) != stopped.get(name))
    if different:
        raise ConfigError(
            f"the stopped run in {work} differs in {', '.join(different)}; "
            "give the same options to --resume it, or --overwrite to begin again."
        )
