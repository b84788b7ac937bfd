"""Building a laboratory: facts, corpus, tokenizer, pretraining, a check of the mastery histogram, and the cache."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from sftknow.errors import CheckpointError, ConfigError, DataError
from sftknow.facts.fact import Fact
from sftknow.facts.load import load_facts
from sftknow.facts.relations import Relation, load_relations
from sftknow.lab.cache import RECORD_FILE, damage, file_digests
from sftknow.lab.corpus import QUESTION_FORMATS, write_corpus
from sftknow.lab.real import choose_facts
from sftknow.lab.sizes import Recipe, recipe_for
from sftknow.lab.world import LabFact, invent_world
from sftknow.models import check_device
from sftknow.records import (
    cache_folder,
    check_output_folder,
    digest,
    file_identity,
    library_versions,
    new_folder,
    read_record,
    write_bytes,
    write_record,
    write_text,
)

FACTS_FILE = "facts.jsonl"
RELATIONS_FILE = "relations.yaml"
EXPOSURES_FILE = "exposures.json"
TRIES = 4

Log = Callable[[str], None]
log_quietly: Log = logging.getLogger(__name__).info


@dataclass(frozen=True)
class Lab:
    """A laboratory on disk.

    Attributes:
        folder: a Hugging Face model folder that holds the facts, their relations and the record too.
        facts: the probed facts; warm-up and filler facts are not among them.
        relations: the relations of the facts.
        record: what ``lab.json`` says: recipe, seed, tokens, seconds, loss, estimated mastery histogram.
    """

    folder: Path
    facts: tuple[Fact, ...]
    relations: dict[str, Relation]
    record: dict[str, Any]


def build_lab(
    out: Path | None = None,
    *,
    size: str = "demo",
    facts: Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    rebuild: bool = False,
    log: Log = log_quietly,
) -> Lab:
    """Build a laboratory, or reuse the cached one of the same recipe, facts and seed.

    Args:
        out: a new folder to copy it to; None leaves it in the cache alone.
        size: ``tiny``, ``demo`` or ``long``; see :mod:`sftknow.lab.sizes`.
        facts: the EntityQuestions archive, for real facts; None invents a world.
        seed: of the world, the corpus, the weights and the order of training. A build that stalls goes on with the
            next seed; the record says which seed it ended with.
        device: a torch device to pretrain on.
        rebuild: build it again even where the cache holds it.
        log: called with a line of progress at each step.

    Returns:
        The laboratory in ``out``, or in the cache.

    Raises:
        ConfigError: an unknown size, or a folder that cannot be written.
        DataError: the archive cannot be read or has too few fitting facts.
        CheckpointError: the mastery histogram stalled for every seed tried.
    """
    recipe = recipe_for(size, real=facts is not None)
    relations = {name: load_relations()[name] for name in recipe.relations}
    key = lab_key(recipe, relations, facts, seed)
    plan = _Plan(recipe, relations, facts, seed, device, key, cache_folder() / "lab" / key)
    if out is not None and not rebuild and _is_same(out, key):
        return load_lab(out)
    if out is not None:
        check_output_folder(out)
    if rebuild or not _usable(plan.folder, log):
        _check_cache(plan.folder)
        check_device(device)
        _build(plan, log)
    return load_lab(_copy(plan.folder, out) if out is not None else plan.folder)


def lab_key(recipe: Recipe, relations: Mapping[str, Relation], facts: Path | None, seed: int) -> str:
    """Return the digest that names a laboratory: all that fixes it but the device and the libraries."""
    source = {name: value for name, value in _source(facts).items() if name != "path"}
    wording = {name: asdict(relation) for name, relation in relations.items()}
    texts = {"relations": wording, "questions": QUESTION_FORMATS}
    return digest({"recipe": recipe.as_dict(), "texts": texts, "facts": source, "seed": seed})


def _source(facts: Path | None) -> dict[str, Any]:
    if facts is None:
        return {}
    return file_identity(facts) if facts.is_file() else dict(load_facts(facts).identity)


def _check_cache(folder: Path) -> None:
    try:
        check_output_folder(folder, overwrite=True)
    except ConfigError as error:
        raise ConfigError(f"the cache of laboratories: {error} SFTKNOW_CACHE names it.") from error


def load_lab(folder: Path) -> Lab:
    """Load a laboratory that :func:`build_lab` wrote.

    Raises:
        DataError: no laboratory there, or one that is damaged.
    """
    wrong = damage(folder)
    if wrong:
        raise DataError(f"{folder} is no whole laboratory ({wrong}); build it with `sftknow lab build`.")
    relations = load_relations(folder / RELATIONS_FILE)
    facts = load_facts(folder / FACTS_FILE, relations=relations).facts
    return Lab(folder, facts, relations, read_record(folder / RECORD_FILE, "lab"))


def _is_same(folder: Path, key: str) -> bool:
    return (folder / RECORD_FILE).is_file() and not damage(folder) and load_lab(folder).record["key"] == key


def _usable(cached: Path, log: Log) -> bool:
    if not cached.exists():
        return False
    wrong = damage(cached)
    if wrong:
        log(f"the cached laboratory {cached} is damaged ({wrong}): building it again")
        return False
    log(f"using the cached laboratory {cached}")
    return True


@dataclass(frozen=True)
class _Plan:
    recipe: Recipe
    relations: Mapping[str, Relation]
    source: Path | None
    seed: int
    device: str
    key: str
    folder: Path

    def checkpoint(self, seed: int) -> Path:
        return self.folder.with_name(f".{self.key}-{seed}.checkpoint")


@dataclass(frozen=True)
class _Made:
    seed: int
    facts: Sequence[LabFact]
    tokenizer: Any
    pretrained: Any
    histogram: tuple[int, ...]


def _build(plan: _Plan, log: Log) -> None:
    """Build with one seed after the other until a model has facts of every bucket, and write that one."""
    started = time.perf_counter()
    stalled: list[dict[str, Any]] = []
    for seed in range(plan.seed, plan.seed + TRIES):
        made, enough = _try(plan, seed, log)
        if enough:
            _write(plan, made, stalled, time.perf_counter() - started)
            log(f"laboratory built in {time.perf_counter() - started:.0f} s: {plan.folder}")
            break
        stalled.append({"seed": seed, "histogram": made.histogram, "final_loss": made.pretrained.final_loss})
        log(f"seed {seed} stalled: a bucket holds under 8 percent of the facts; trying seed {seed + 1}")
    for seed in range(plan.seed, plan.seed + TRIES):
        plan.checkpoint(seed).unlink(missing_ok=True)
    if len(stalled) == TRIES:
        raise CheckpointError(
            f"the laboratory stalled with each of the seeds {plan.seed} to {plan.seed + TRIES - 1}: its mastery "
            "histogram left a bucket nearly empty; give another --seed."
        )


def _try(plan: _Plan, seed: int, log: Log) -> tuple[_Made, bool]:
    """Pretrain with one seed; return what was made and whether its mastery histogram is filled."""
    from sftknow.lab.check import estimate_histogram

    facts = _world(plan, seed)
    tokenizer, pretrained = _pretrain(plan, facts, seed, log)
    estimate = estimate_histogram(pretrained.network, tokenizer, _probed(facts), plan.relations, seed=seed)
    log(f"estimated mastery: {estimate}")
    return _Made(seed, facts, tokenizer, pretrained, estimate.histogram), not estimate.stalled


def _world(plan: _Plan, seed: int) -> list[LabFact]:
    if plan.source is not None:
        return choose_facts(plan.recipe, plan.relations, plan.source, seed)
    return invent_world(plan.recipe, plan.relations, seed)


def _probed(facts: Sequence[LabFact]) -> list[Fact]:
    return [fact.fact for fact in facts if fact.role == "probed"]


def _pretrain(plan: _Plan, facts: Sequence[LabFact], seed: int, log: Log) -> tuple[Any, Any]:
    from sftknow.lab.checkpoint import Checkpoint
    from sftknow.lab.pretrain import pretrain
    from sftknow.lab.tokenizer import encode_rows, train_tokenizer

    corpus = write_corpus(facts, plan.relations, plan.recipe, seed)
    tokenizer = train_tokenizer(corpus.warm_up + corpus.main, plan.recipe.vocabulary)
    phases = [encode_rows(tokenizer, list(rows)) for rows in (corpus.warm_up, corpus.main)]
    tokens = sum(len(row) for rows in phases for row in rows)
    log(f"pretraining on {tokens:,} tokens that tell {len(facts):,} facts (seed {seed}, {plan.device})")
    identity = digest([plan.key, seed, plan.device, library_versions()])
    checkpoint = Checkpoint(plan.checkpoint(seed), identity, log)
    return tokenizer, pretrain(phases, tokenizer, plan.recipe, seed=seed, device=plan.device, checkpoint=checkpoint)


def _write(plan: _Plan, made: _Made, stalled: Sequence[Mapping[str, Any]], seconds: float) -> None:
    with new_folder(plan.folder, overwrite=True) as staging:
        _write_model(staging, made)
        _write_facts(staging, made.facts, plan.relations)
        body = {
            "key": plan.key,
            "recipe": plan.recipe.as_dict(),
            "facts": "invented world" if plan.source is None else str(plan.source),
            "asked_seed": plan.seed,
            "seed": made.seed,
            "retries": len(stalled),
            "stalled": list(stalled),
            "tokens": made.pretrained.tokens,
            "steps": made.pretrained.steps,
            "final_loss": made.pretrained.final_loss,
            "parameters": sum(weight.numel() for weight in made.pretrained.model.parameters()),
            "histogram": list(made.histogram),
            "device": plan.device,
            "seconds": round(seconds, 1),
            "files": file_digests(staging),
        }
        source = {} if plan.source is None else {"facts": _source(plan.source)}
        write_record(staging / RECORD_FILE, "lab", body, made_from=source, seeds={"lab": made.seed})


def _write_model(folder: Path, made: _Made) -> None:
    import safetensors.torch

    model = made.pretrained.model
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    tensors = {name: weight.contiguous() for name, weight in model.state_dict().items() if name != "lm_head.weight"}
    write_bytes(folder / "model.safetensors", safetensors.torch.save(tensors, metadata={"format": "pt"}))


def _write_facts(folder: Path, facts: Sequence[LabFact], relations: Mapping[str, Relation]) -> None:
    lines = [json.dumps(asdict(fact), ensure_ascii=False) for fact in _probed(facts)]
    write_text(folder / FACTS_FILE, "\n".join(lines) + "\n")
    exposures = {fact.fact.id: fact.exposures for fact in facts if fact.role == "probed"}
    write_text(folder / EXPOSURES_FILE, json.dumps(exposures, indent=0) + "\n")
    wording = {
        name: {field: value for field, value in asdict(relation).items() if field != "id"}
        for name, relation in relations.items()
    }
    for fields in wording.values():
        fields["templates"] = list(fields["templates"])
    write_text(folder / RELATIONS_FILE, yaml.safe_dump(wording, sort_keys=False, allow_unicode=True, width=1000))


def _copy(cached: Path, out: Path) -> Path:
    with new_folder(out) as staging:
        for path in cached.iterdir():
            shutil.copyfile(path, staging / path.name)
    return out
