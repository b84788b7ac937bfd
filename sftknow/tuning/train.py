"""Fine-tune a base model on facts of chosen mastery with TRL's SFTTrainer, and say what changed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sftknow.errors import DataError
from sftknow.kl.prompts import KLPrompt
from sftknow.mastery.table import RECORD_FILE, MasteryTable, read_mastery
from sftknow.models import resolve_model
from sftknow.records import (
    check_output_folder,
    digest,
    file_identity,
    library_versions,
    new_folder,
    read_record,
    write_record,
)
from sftknow.tuning.changes import Changes
from sftknow.tuning.mastered import mastered_prompts
from sftknow.tuning.recipe import Recipe, check_options
from sftknow.tuning.resume import shared_work, work_folder
from sftknow.tuning.save import gather_weights, save_checkpoint
from sftknow.tuning.selection import Selection, parse_buckets, select_facts
from sftknow.tuning.settings import check_settings
from sftknow.tuning.setup import Setup, set_up

RECORD = "sft.json"


@dataclass(frozen=True)
class TrainResult:
    """What one fine-tuning made.

    Attributes:
        folder: the tuned checkpoint, an ordinary Hugging Face folder.
        selection: the facts it was tuned on.
        losses: training loss at each logged update, as (update, loss).
        changes: parameters that differ from the base at all; None for an adapter that was not merged.
        record: ``sft.json`` as written.
    """

    folder: Path
    selection: Selection
    losses: tuple[tuple[int, float], ...]
    changes: Changes | None
    record: Mapping[str, Any]


def train(
    base: str | Path,
    table: MasteryTable | str | Path,
    out: Path,
    *,
    bucket: int | str | Collection[int],
    n: int | Literal["all"],
    seed: int,
    resume: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> TrainResult:
    """Fine-tune a base model on facts of one or several mastery buckets.

    The paper's recipe is the default: prompt and answer in one turn, loss on the answer, AdamW with a cosine schedule,
    batch 8, one epoch.

    Args:
        base: model folder or Hub id.
        table: mastery table of that model, or its folder.
        out: the tuned checkpoint's folder; appears whole or not at all.
        bucket: 0 to 4, several, or ``mixed``.
        n: number of facts, or ``all``.
        seed: fixes both the draw of facts and the order of training.
        resume: go on from the last checkpoint of the same run, if there is one.
        overwrite: replace an existing folder ``out``, and forget a stopped run.
        **options: fields of :class:`sftknow.tuning.recipe.Recipe`: ``learning_rate``, ``batch_size``, ``epochs``,
            ``precision``, ``device``, ``settings`` (any other field of TRL's SFTConfig), ``allow_fewer``, ``lora``,
            ``kl_weight``, ``drift_every``, ``save_steps`` and more.

    Returns:
        The folder, the facts, the losses and the share of parameters that changed.

    Raises:
        ConfigError: an option or setting that cannot be carried out, or ``out`` exists.
        DataError: a table that cannot be read, or a row whose answer would be cut.
        CheckpointError: the base cannot be loaded.

    Source: the paper's section on fine-tuning.
    """
    check_options(options)
    recipe = Recipe(buckets=parse_buckets(bucket), n=n, seed=seed, **options)
    check_output_folder(out, overwrite=overwrite)
    check_settings(recipe.settings)
    made_from = {"mastery": _table_identity(table)}
    table = table if isinstance(table, MasteryTable) else read_mastery(Path(table))
    selection = select_facts(table, recipe.buckets, n, seed, allow_fewer=recipe.allow_fewer)
    watch, preserve = _prompts(table, selection, recipe)
    folder, made_from["base"] = resolve_model(base)
    check_same_base(table, made_from["base"])
    work = work_folder(out)
    key = _key(made_from["base"], selection, (*watch, *preserve), recipe)
    with shared_work(work, key, recipe.device, resume=resume, overwrite=overwrite) as checkpoint:
        setup = set_up(folder, work, selection, recipe, preserve=preserve, watch=watch)
        setup.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return _finish(setup, selection, recipe, folder, Path(out), made_from, overwrite)


def check_same_base(table: MasteryTable, base: Mapping[str, Any]) -> None:
    """Refuse a mastery table probed on another model: buckets say what one base knows.

    Raises:
        DataError: the table names another model's digest.
    """
    probed = table.made_from.get("model", {}).get("digest")
    if probed is not None and probed != base["digest"]:
        raise DataError(
            f"the mastery table was probed on {table.made_from['model'].get('path')} (digest {probed[:12]}), not on "
            f"{base['path']} (digest {base['digest'][:12]}); probe this base, or give the one the table is of."
        )


def _prompts(table: MasteryTable, selection: Selection, recipe: Recipe) -> tuple[list[KLPrompt], list[KLPrompt]]:
    """Return the facts to watch and those to preserve, apart from each other."""
    watched = recipe.drift_facts if recipe.drift_every else 0
    preserved = recipe.kl_facts if recipe.kl_weight else 0
    if not watched + preserved:
        return [], []
    prompts = mastered_prompts(table, selection, watched + preserved, recipe.seed)
    if (watched and len(prompts) < 2) or (preserved and len(prompts) <= watched):
        watched = len(prompts) // 2 if preserved else len(prompts)
    return prompts[:watched], prompts[watched:]


def _key(base: Mapping[str, Any], selection: Selection, prompts: Sequence[KLPrompt], recipe: Recipe) -> dict[str, str]:
    options = {name: value for name, value in recipe.to_record().items() if name != "save_steps"}
    return {
        "base": base["digest"],
        "facts": digest([fact.id for fact in selection.facts]),
        "prompts": digest([[prompt.id, prompt.text] for prompt in prompts]),
        "libraries": digest(library_versions()),
        **{name: digest(value) for name, value in options.items()},
    }


def _finish(
    setup: Setup,
    selection: Selection,
    recipe: Recipe,
    base: Path,
    out: Path,
    made_from: Mapping[str, Mapping[str, Any]],
    overwrite: bool,
) -> TrainResult:
    """Gather the weights from every process; the first writes the folder, the others wait and read its record."""
    trainer = setup.trainer
    state = gather_weights(trainer)
    changes = None
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        name = made_from["base"]["hub_id"] or made_from["base"]["path"]
        with new_folder(out, overwrite=overwrite) as staging:
            changes = save_checkpoint(model, state, base, staging, dtype=setup.dtype, lora=recipe.lora, base_name=name)
            body = _body(setup, selection, recipe, changes)
            seeds = {"selection": recipe.seed, "training": recipe.seed}
            write_record(staging / RECORD, "sft", body, made_from=made_from, seeds=seeds)
    trainer.accelerator.wait_for_everyone()
    record = read_record(out / RECORD, "sft")
    losses = tuple((step, loss) for step, loss in record["losses"])
    if record["changed"] is not None:
        changes = Changes(record["changed"]["parameters"], record["changed"]["changed"])
    return TrainResult(out, selection, losses, changes, record)


def _body(setup: Setup, selection: Selection, recipe: Recipe, changes: Changes | None) -> dict[str, Any]:
    trainer, drift = setup.trainer, setup.drift
    history = trainer.state.log_history
    body = {
        "arguments": recipe.to_record(),
        "processes": trainer.accelerator.num_processes,
        "dtype": setup.dtype,
        "fact_ids": [fact.id for fact in selection.facts],
        "facts": len(selection.facts),
        "per_relation": dict(selection.per_relation),
        "per_bucket": {str(bucket): count for bucket, count in selection.per_bucket.items()},
        "shortfalls": dict(selection.shortfalls),
        "available": selection.available,
        "set_aside": selection.set_aside,
        "updates": trainer.state.global_step,
        "losses": [[entry["step"], entry["loss"]] for entry in history if "loss" in entry],
        "changed": None if changes is None else {**asdict(changes), "fraction": changes.fraction},
    }
    if trainer.preservation is not None:
        body["preservation"] = {
            "weight": recipe.kl_weight,
            "direction": trainer.preservation.direction,
            "support": trainer.preservation.support,
            "positions": "first token",
            "facts": len(trainer.preservation),
            "kl": [[entry["step"], entry["kl"]] for entry in history if "kl" in entry],
        }
    if drift is not None:
        body["drift"] = {
            "every": drift.every,
            "stop_above": drift.stop_above,
            "stopped_at": drift.stopped_at,
            "best_step": drift.best_step,
            "base_accuracy": drift.base_accuracy,
            "measured": [
                [entry["step"], entry["drift_kl"], entry["drift_accuracy"]] for entry in history if "drift_kl" in entry
            ],
        }
    return body


def _table_identity(table: MasteryTable | str | Path) -> dict[str, Any]:
    if isinstance(table, MasteryTable):
        return {"rows": len(table.rows), "digest": digest([[row.fact.id, row.bucket] for row in table.rows])}
    path = Path(table) / RECORD_FILE
    return file_identity(path) if path.is_file() else {"path": str(table)}
