"""Restoration of a checkpoint: undo the updates of the parameters that fine-tuning moved most."""

import contextlib
import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sftknow.errors import ConfigError
from sftknow.models import resolve_model
from sftknow.records import check_output_folder, make_record, model_identity, new_folder, sync_tree, write_record
from sftknow.restoration.adapter import is_adapter, merged
from sftknow.restoration.apply import Nowhere, apply
from sftknow.restoration.checkpoint import Checkpoint, open_checkpoint
from sftknow.restoration.finite import check_rest
from sftknow.restoration.output import Shards, check_space, copy_other_files
from sftknow.restoration.pairs import Pairing, pair_up
from sftknow.restoration.parallel import default_threads
from sftknow.restoration.recipe import Recipe, make_recipe, percent_name
from sftknow.restoration.summary import only_fraction, summarise
from sftknow.restoration.survey import Survey, survey

RECORD = "restoration.json"


def restore(
    base: str | Path,
    tuned: str | Path,
    out: str | Path | None = None,
    top: float | Sequence[float] = 20,
    *,
    strategy: str = "top",
    region: str = "transformer",
    layers: str | None = None,
    rank_by: str = "relative",
    of: str = "region",
    seed: int = 0,
    threads: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Write checkpoints in which the largest updates of fine-tuning are undone, and return the record.

    Args:
        base: folder or Hub id of the model before fine-tuning.
        tuned: folder or Hub id of the model after it, or of a peft adapter, which is merged into base first.
        out: folder to make; several percents make ``top-5``, ``top-20``, ... in it. None needs ``dry_run``.
        top: percent or percents of the parameters to restore, 0 to 100.
        strategy: ``top`` takes the largest changes, ``bottom`` the smallest, ``random`` any.
        region: transformer, attention, mlp, embedding, all or ``regex:PATTERN`` over tensor names.
        layers: block numbers such as ``0-3,28-31``; None for all.
        rank_by: ``relative`` ranks by |s - p| / (|p| + 1e-8), ``absolute`` by |s - p|.
        of: percents of all parameters of the ``region`` or of those that ``changed``.
        seed: fixes random choices and the order of equals.
        threads: how many to use; by default one for each core. The result does not depend on it.
        overwrite: replace an existing folder once the new one is complete.
        dry_run: find thresholds and statistics, write nothing.

    Returns:
        The record that ``restoration.json`` holds, with one entry of ``fractions`` for each percent.

    Raises:
        ConfigError: options that cannot be carried out, or an output folder that cannot be written.
        CheckpointError: models that are missing, damaged or do not fit together.

    Follows the method's section "Parameter level".
    """
    recipe = make_recipe(top, strategy=strategy, region=region, layers=layers, rank_by=rank_by, of=of, seed=seed)
    if out is None and not dry_run:
        raise ConfigError("no output folder is given; name one, or ask for a dry run.")
    if out is not None and not dry_run:
        check_output_folder(Path(out), overwrite=overwrite)
    with contextlib.ExitStack() as stack:
        before, after = _open(base, tuned, stack)
        pairing = pair_up(before, after, recipe.region)
        threads = threads or default_threads()
        if out is not None and not dry_run:
            _check_apart(Path(out), before, after)
            check_space(after, Path(out), len(recipe.percents))
        found = survey(pairing.pairs, recipe, threads=threads)
        check_rest(after, pairing.pairs, threads=threads)
        if out is None or dry_run:
            undone = apply(pairing.pairs, found, recipe, Nowhere(), threads=threads, label="counting")
            body = summarise(pairing.pairs, found, undone, recipe, pairing.notes)
            return make_record("restoration", body, **_provenance(before, after, recipe))
        try:
            return _write(Path(out), before, after, pairing, found, recipe, threads, overwrite)
        except OSError as error:
            reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or error
            raise ConfigError(
                f"{out} cannot be written: {reason}; nothing was left there, name another one."
            ) from error


def _open(base: str | Path, tuned: str | Path, stack: contextlib.ExitStack) -> tuple[Checkpoint, Checkpoint]:
    before = open_checkpoint(*_find(base))
    folder, identity = _find(tuned)
    if is_adapter(folder):
        whole = stack.enter_context(merged(folder, before.folder))
        return before, open_checkpoint(whole, identity or model_identity(folder))
    return before, open_checkpoint(folder, identity)


def _find(reference: str | Path) -> tuple[Path, dict[str, Any] | None]:
    # A folder's own faults are told by open_checkpoint, which knows more about them.
    return (Path(reference), None) if Path(reference).is_dir() else resolve_model(reference)


def checkpoint_folders(out: Path, strategy: str, percents: Sequence[float]) -> dict[float, Path]:
    """Return percent -> folder of its checkpoint: ``out`` itself for one percent, else a folder in it for each."""
    if len(percents) == 1:
        return {percents[0]: out}
    return {percent: out / f"{strategy}-{percent_name(percent)}" for percent in percents}


def _write(
    out: Path,
    before: Checkpoint,
    after: Checkpoint,
    pairing: Pairing,
    found: Survey,
    recipe: Recipe,
    threads: int,
    overwrite: bool,
) -> dict[str, Any]:
    with new_folder(out, overwrite=overwrite) as staging:
        folders = list(checkpoint_folders(staging, recipe.strategy, recipe.percents).values())
        shards = Shards(after, pairing, folders)
        shards.begin()
        undone = apply(pairing.pairs, found, recipe, shards, threads=threads, label="writing")
        shards.copy_rest(threads=threads)
        body = summarise(pairing.pairs, found, undone, recipe, pairing.notes)
        for percent, folder in zip(recipe.percents, folders, strict=True):
            copy_other_files(after, folder)
            own = only_fraction(body, percent)
            write_record(folder / RECORD, "restoration", own, **_provenance(before, after, recipe))
        sync_tree(staging)
        shards.verify(threads=threads)
    return make_record("restoration", body, **_provenance(before, after, recipe))


def _check_apart(out: Path, before: Checkpoint, after: Checkpoint) -> None:
    target = out.resolve()
    for what, checkpoint in (("base", before), ("tuned", after)):
        source = checkpoint.folder.resolve()
        if target == source or source in target.parents or target in source.parents:
            raise ConfigError(f"{out} and the {what} model {checkpoint.folder} overlap; name a folder apart from it.")


def _provenance(before: Checkpoint, after: Checkpoint, recipe: Recipe) -> dict[str, Any]:
    return {"made_from": {"base": before.identity, "tuned": after.identity}, "seeds": {"restoration": recipe.seed}}
