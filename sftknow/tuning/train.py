"""Fine-tune a base model on facts of chosen mastery with TRL's SFTTrainer, and say what changed."""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sftknow.errors import ConfigError
from sftknow.mastery.table import RECORD_FILE, MasteryTable, read_mastery
from sftknow.models import load_model, load_tokenizer, resolve_model
from sftknow.records import check_output_folder, digest, file_identity, new_folder, write_record
from sftknow.tuning.changes import Changes, count_changes
from sftknow.tuning.data import check_answers_fit, tokenized_rows, training_rows
from sftknow.tuning.selection import Selection, parse_buckets, select_facts
from sftknow.tuning.settings import check_settings, default_arguments, sft_config, split_batch

RECORD = "sft.json"
Precision = Literal["float32", "bf16", "bf16-mixed"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16", "bf16-mixed")
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.jinja",
    "generation_config.json",
)


@dataclass(frozen=True)
class TrainResult:
    """What one fine-tuning made.

    Attributes:
        folder: the tuned checkpoint, an ordinary Hugging Face folder.
        selection: the facts it was tuned on.
        losses: training loss at each logged update, as (update, loss).
        changes: parameters that differ from the base at all.
        record: ``sft.json`` as written.
    """

    folder: Path
    selection: Selection
    losses: tuple[tuple[int, float], ...]
    changes: Changes
    record: Mapping[str, Any]


def train(
    base: str | Path,
    table: MasteryTable | str | Path,
    out: Path,
    *,
    bucket: int | str | Collection[int],
    n: int | Literal["all"],
    seed: int,
    learning_rate: float = 1e-5,
    batch_size: int = 8,
    micro_batch: int | None = None,
    epochs: float = 1,
    precision: Precision | None = None,
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    allow_fewer: bool = False,
    overwrite: bool = False,
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
        learning_rate: peak learning rate.
        batch_size: facts per update, over all processes.
        micro_batch: facts per process and forward pass; the rest of a batch is accumulated.
        epochs: passes over the facts.
        precision: ``float32``, ``bf16`` (weights and updates in bf16), ``bf16-mixed`` (float32 weights, bf16
            arithmetic); None trains in the dtype of the base. The checkpoint is stored in the base's dtype, except
            that ``bf16`` stores bf16.
        device: torch device, ``cpu`` or ``cuda``.
        settings: any other field of TRL's SFTConfig.
        allow_fewer: take what there is where the bucket has fewer than ``n`` facts.
        overwrite: replace an existing folder ``out``.

    Returns:
        The folder, the facts, the losses and the share of parameters that changed.

    Raises:
        ConfigError: an option or setting that cannot be carried out, or ``out`` exists.
        DataError: a table that cannot be read, or a row whose answer would be cut.
        CheckpointError: the base cannot be loaded.

    Source: the paper's section on fine-tuning.
    """
    settings = dict(settings or {})
    if precision is not None and precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}.")
    check_output_folder(out, overwrite=overwrite)
    table_identity = _table_identity(table)
    table = table if isinstance(table, MasteryTable) else read_mastery(Path(table))
    selection = select_facts(table, parse_buckets(bucket), n, seed, allow_fewer=allow_fewer)
    check_settings(settings)
    folder, identity = resolve_model(base)
    arguments = {
        "bucket": list(parse_buckets(bucket)),
        "n": n,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "micro_batch": micro_batch,
        "epochs": epochs,
        "precision": precision,
        "device": device,
        "settings": settings,
    }
    trainer, stored_dtype = _trainer(folder, out, selection, arguments, seed)
    try:
        trainer.train()
        with new_folder(out, overwrite=overwrite) as staging:
            _save(trainer, folder, staging, stored_dtype)
            changes = count_changes(folder, staging)
            losses = tuple((entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry)
            record = write_record(
                staging / RECORD,
                "sft",
                _body(selection, arguments, losses, changes, trainer),
                made_from={"base": identity, "mastery": table_identity},
                seeds={"selection": seed, "training": seed},
            )
    finally:
        shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
    return TrainResult(Path(out), selection, losses, changes, record)


def _trainer(folder: Path, out: Path, selection: Selection, arguments: Mapping[str, Any], seed: int) -> tuple[Any, Any]:
    from datasets import Dataset

    from sftknow.tuning.trainer import FactTrainer

    settings = {"max_length": None, **arguments["settings"]}
    tokenizer = load_tokenizer(folder)
    rows = tokenized_rows(
        training_rows(selection.facts), tokenizer, completion_only=settings.get("completion_only_loss") is not False
    )
    check_answers_fit(rows, selection.facts, settings["max_length"])
    precision = arguments["precision"]
    model = load_model(folder, dtype="auto", device="cpu")
    base_dtype = model.dtype
    model = model.to(_training_dtype(base_dtype, precision))
    per_device, accumulation = split_batch(arguments["batch_size"], 1, arguments["micro_batch"])
    defaults = default_arguments(
        learning_rate=arguments["learning_rate"],
        epochs=arguments["epochs"],
        seed=seed,
        per_device=per_device,
        accumulation=accumulation,
        device=arguments["device"],
        mixed=precision == "bf16-mixed",
    )
    config = sft_config(defaults, settings, _work_folder(out))
    try:
        trainer = FactTrainer(
            model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )
    except (ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"the trainer cannot be set up ({type(error).__name__}: {reason}); change it.") from error
    return trainer, model.dtype if precision == "bf16" else base_dtype


def _training_dtype(base: Any, precision: Precision | None) -> Any:
    import torch

    if precision is None:
        return base
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _save(trainer: Any, base: Path, staging: Path, dtype: Any) -> None:
    """Write weights and config in the stored dtype, and the base's tokenizer files as they are."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.to(dtype).save_pretrained(staging)
    for pattern in TOKENIZER_FILES:
        for path in sorted(base.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, staging / path.name)
    for path in staging.glob("*.safetensors"):
        path.chmod(0o644)


def _body(
    selection: Selection,
    arguments: Mapping[str, Any],
    losses: tuple[tuple[int, float], ...],
    changes: Changes,
    trainer: Any,
) -> dict[str, Any]:
    return {
        "arguments": dict(arguments),
        "fact_ids": [fact.id for fact in selection.facts],
        "facts": len(selection.facts),
        "per_relation": dict(selection.per_relation),
        "per_bucket": {str(bucket): count for bucket, count in selection.per_bucket.items()},
        "shortfalls": dict(selection.shortfalls),
        "available": selection.available,
        "set_aside": selection.set_aside,
        "updates": trainer.state.global_step,
        "losses": [list(entry) for entry in losses],
        "changed": {**asdict(changes), "fraction": changes.fraction},
    }


def _table_identity(table: MasteryTable | str | Path) -> dict[str, Any]:
    if isinstance(table, MasteryTable):
        return {"rows": len(table.rows), "digest": digest([[row.fact.id, row.bucket] for row in table.rows])}
    path = Path(table) / RECORD_FILE
    return file_identity(path) if path.is_file() else {"path": str(table)}


def _work_folder(out: Path) -> Path:
    out = Path(out).absolute()
    return out.with_name(f".{out.name}.work")
