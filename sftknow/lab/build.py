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

from sftknow.errors import CheckpointError, DataError
from sftknow.facts.fact import Fact
from sftknow.facts.load import load_facts
from sftknow.facts.relations import Relation, load_relations
from sftknow.lab.cache import RECORD_FILE, cache_folder, damage, file_digests
from sftknow.lab.corpus import write_corpus
from sftknow.lab.sizes import Recipe, recipe_for
from sftknow.lab.world import LabFact, invent_world
from sftknow.models import check_device
from sftknow.records import (
    check_output_folder,
    digest,
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
    if out is not None and _is_same(out, key) and not rebuild:
        return load_lab(out)
    if out is not None:
        check_output_folder(out)
    cached = cache_folder() / "lab" / key
    check_output_folder(cached, overwrite=True)
    if rebuild or not _usable(cached, log):
        check_device(device)
        started = time.perf_counter()
        made = _make(recipe, relations, facts, seed, device, log)
        _write(cached, made, relations, key=key, asked_seed=seed, facts=facts, device=device, started=started)
        log(f"laboratory built in {time.perf_counter() - started:.0f} s: {cached}")
    return load_lab(_copy(cached, out) if out is not None else cached)


def lab_key(recipe: Recipe, relations: Mapping[str, Relation], facts: Path | None, seed: int) -> str:
    """Return the digest that names a laboratory: all that fixes it but the device and the libraries."""
    identity = {} if facts is None else load_facts(facts, only=recipe.relations).identity
    source = {name: value for name, value in identity.items() if name != "path"}
    wording = {name: asdict(relation) for name, relation in relations.items()}
    return digest({"recipe": recipe.as_dict(), "relations": wording, "facts": source, "seed": seed})


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
class _Made:
    seed: int
    recipe: Recipe
    facts: Sequence[LabFact]
    tokenizer: Any
    pretrained: Any
    histogram: tuple[int, ...]
    stalled: Sequence[Mapping[str, Any]]


def _make(
    recipe: Recipe, relations: Mapping[str, Relation], source: Path | None, seed: int, device: str, log: Log
) -> _Made:
    """Build with one seed after the other until a model has facts of every bucket."""
    from sftknow.lab.check import estimate_histogram

    stalled: list[dict[str, Any]] = []
    for tried in range(seed, seed + TRIES):
        facts = _world(recipe, relations, source, tried)
        tokenizer, pretrained = _pretrain(recipe, relations, facts, tried, device, log)
        estimate = estimate_histogram(pretrained.network, tokenizer, _probed(facts), relations, seed=tried)
        log(f"estimated mastery: {estimate}")
        if not estimate.stalled:
            return _Made(tried, recipe, facts, tokenizer, pretrained, estimate.histogram, stalled)
        stalled.append({"seed": tried, "histogram": estimate.histogram, "final_loss": pretrained.final_loss})
        log(f"seed {tried} stalled: a bucket holds under 8 percent of the facts; trying seed {tried + 1}")
    raise CheckpointError(
        f"the laboratory stalled with each of the seeds {seed} to {seed + TRIES - 1}: its mastery histogram left a "
        "bucket nearly empty; give another --seed."
    )


def _world(recipe: Recipe, relations: Mapping[str, Relation], source: Path | None, seed: int) -> list[LabFact]:
    if source is not None:
        raise DataError(f"{source}: laboratories on real facts are not built yet.")
    return invent_world(recipe, relations, seed)


def _probed(facts: Sequence[LabFact]) -> list[Fact]:
    return [fact.fact for fact in facts if fact.role == "probed"]


def _pretrain(
    recipe: Recipe, relations: Mapping[str, Relation], facts: Sequence[LabFact], seed: int, device: str, log: Log
) -> tuple[Any, Any]:
    from sftknow.lab.pretrain import pretrain
    from sftknow.lab.tokenizer import encode_rows, train_tokenizer

    corpus = write_corpus(facts, relations, recipe, seed)
    tokenizer = train_tokenizer(corpus.warm_up + corpus.main, recipe.vocabulary)
    phases = [encode_rows(tokenizer, list(rows)) for rows in (corpus.warm_up, corpus.main)]
    log(
        f"pretraining on {sum(len(row) for rows in phases for row in rows):,} tokens that tell {len(facts):,} facts "
        f"(seed {seed}, {device})"
    )
    return tokenizer, pretrain(phases, tokenizer, recipe, seed=seed, device=device)


def _write(
    folder: Path,
    made: _Made,
    relations: Mapping[str, Relation],
    *,
    key: str,
    asked_seed: int,
    facts: Path | None,
    device: str,
    started: float,
) -> None:
    with new_folder(folder, overwrite=True) as staging:
        _write_model(staging, made)
        _write_facts(staging, made.facts, relations)
        body = {
            "key": key,
            "recipe": made.recipe.as_dict(),
            "facts": "invented world" if facts is None else str(facts),
            "asked_seed": asked_seed,
            "seed": made.seed,
            "retries": len(made.stalled),
            "stalled": list(made.stalled),
            "tokens": made.pretrained.tokens,
            "steps": made.pretrained.steps,
            "final_loss": made.pretrained.final_loss,
            "parameters": sum(weight.numel() for weight in made.pretrained.model.parameters()),
            "histogram": list(made.histogram),
            "device": device,
            "seconds": round(time.perf_counter() - started, 1),
            "files": file_digests(staging),
        }
        write_record(staging / RECORD_FILE, "lab", body, seeds={"lab": made.seed})


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
