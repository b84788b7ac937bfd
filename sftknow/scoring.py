"""Scores by mastery bucket: one loaded model scored again and again while its weights change, as typed values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftknow.errors import ConfigError
from sftknow.facts.fact import DOMAINS, Domain, Split
from sftknow.harness import evaluate, language_model, load_tasks
from sftknow.mastery.table import RECORD_FILE
from sftknow.records import file_identity, write_record

GROUPS: dict[str, dict[Domain, str]] = {
    "questions": {"in_domain": "cbqa_mastery_id", "out_of_domain": "cbqa_mastery_ood"},
    "completions": {"in_domain": "cbqa_completion_id", "out_of_domain": "cbqa_completion_ood"},
}
BATCH_SIZE = 128


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one fact scored.

    Attributes:
        fact: the fact's id.
        relation: the fact's relation.
        domain: ``in_domain`` or ``out_of_domain``.
        bucket: mastery bucket, 0..4.
        mastery: R(k) of the base model the table was probed on, in 0..1.
        prompt: what the model was asked.
        gold: the answers that count, aliases left out.
        answer: the generated text.
        contains: whether an answer or alias occurs in the text.
        exact_match: whether the text is an answer or alias.
        f1: best token F1 against the answers, in 0..1.
    """

    fact: str
    relation: str
    domain: Domain
    bucket: int
    mastery: float
    prompt: str
    gold: tuple[str, ...]
    answer: str
    contains: bool
    exact_match: bool
    f1: float


@dataclass(frozen=True, slots=True)
class BucketScore:
    """Accuracy (share of facts whose answer contains a gold answer) in one bucket.

    Attributes:
        accuracy: in 0..1.
        stderr: standard error of that mean; None for a single fact.
        facts: how many were tested.
        outcomes: a 1 or 0 for each fact, in the same order for every model scored with the same options.
    """

    accuracy: float
    stderr: float | None
    facts: int
    outcomes: str


@dataclass(frozen=True, slots=True)
class DomainScore:
    """The unweighted mean of the accuracies of a domain's non-empty buckets: the paper's headline figure."""

    accuracy: float
    stderr: float | None
    facts: int
    buckets: Mapping[int, BucketScore]


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one model on one mastery table.

    Attributes:
        domains: score of each domain that has tested facts.
        outcomes: what each fact scored, in task order: the same facts in the same order for every model scored with
            the same options, so that two models can be compared pair by pair.
    """

    domains: Mapping[Domain, DomainScore]
    outcomes: tuple[Outcome, ...]

    def to_record(self) -> dict[str, Any]:
        """Return the scores as JSON values: per domain accuracy, stderr, facts, and the same for each bucket."""
        return {
            domain: {
                "accuracy": score.accuracy,
                "stderr": score.stderr,
                "facts": score.facts,
                "buckets": {str(bucket): asdict(part) for bucket, part in score.buckets.items()},
            }
            for domain, score in self.domains.items()
        }

    def contained(self) -> dict[str, bool]:
        """Return fact id -> whether the model's answer contained a gold answer, for paired statistics."""
        return {outcome.fact: outcome.contains for outcome in self.outcomes}


class Scorer:
    """A model and the mastery tasks, kept across scorings; the weights may change in place between them.

    Args:
        model: a model folder or Hub id, or a loaded causal language model.
        table: folder or Hub dataset of the mastery table.
        tokenizer: the tokenizer of a loaded model; not needed with a folder.
        view: ``questions`` (the tuned model's) or ``completions`` (the base model's).
        split: which facts are tested.
        facts_per_bucket: test at most so many facts of each bucket and domain, drawn by ``seed``; None tests all.
        seed: seed of that choice.
        prompt_format: see :class:`sftknow.lmtask.TaskOptions`.
        batch_size: prompts generated at once.
        num_fewshot: examples in front of each question.
        dtype: see :func:`sftknow.models.load_model`; used with a folder only.
        device: a torch device; used with a folder only.
        progress: show lm-eval's progress bars where stderr is a terminal.

    Raises:
        ConfigError: a loaded model comes without a tokenizer, or an option makes no sense.
        DataError: the table cannot be read or has no facts of the split.
        CheckpointError: the model cannot be loaded.
    """

    def __init__(
        self,
        model: Any,
        table: str | Path,
        *,
        tokenizer: Any = None,
        view: str = "questions",
        split: Split = "test",
        facts_per_bucket: int | None = None,
        seed: int = 0,
        prompt_format: str = "paper",
        batch_size: int = BATCH_SIZE,
        num_fewshot: int = 0,
        dtype: str = "auto",
        device: str = "cpu",
        progress: bool = False,
    ) -> None:
        if view not in GROUPS:
            raise ConfigError(f"view {view!r} is unknown; choose one of {', '.join(GROUPS)}.")
        self.progress = progress
        self.seed = seed
        self.groups = GROUPS[view]
        options = {
            "mastery": str(table),
            "split": split,
            "facts_per_bucket": facts_per_bucket,
            "facts_seed": seed,
            "prompt_format": prompt_format,
        }
        self.tasks = load_tasks(list(self.groups.values()), options, num_fewshot=num_fewshot)
        self.lm = language_model(model, tokenizer, batch_size=batch_size, dtype=dtype, device=device)

    def score(self) -> Scores:
        """Score the model as its weights are now."""
        results = evaluate(self.lm, self.tasks, seed=self.seed, progress=self.progress)
        return read_scores(results, self.groups)


def score(model: Any, table: str | Path, **options: Any) -> Scores:
    """Score one model on the facts of a mastery table, once.

    Arguments and errors are those of :class:`Scorer`; use that class to score a model whose weights change.

    Returns:
        Scores per domain and bucket, and the outcome of each fact.

    Source: the paper's section on testing: greedy, at most 16 new tokens, unweighted mean over the buckets.
    """
    return Scorer(model, table, **options).score()


def write_scores(
    path: Path, scores: Scores, settings: Mapping[str, Any], *, model: Mapping[str, Any], table: Path
) -> None:
    """Write a ``scores`` record: settings, scores per domain and bucket, and what each fact scored.

    Raises:
        DataError: the folder of ``path`` cannot be written.
    """
    body = {
        "settings": dict(settings),
        "scores": scores.to_record(),
        "facts": [asdict(outcome) for outcome in scores.outcomes],
    }
    identities = {"model": model, "mastery": file_identity(table / RECORD_FILE)}
    write_record(path, "scores", body, made_from=identities, seeds={"facts": int(settings.get("seed", 0))})


def check_output_file(path: Path, *, overwrite: bool) -> None:
    """Raise ConfigError where an output file exists already or its folder is missing, before work begins."""
    if path.exists() and not (overwrite and path.is_file()):
        raise ConfigError(f"{path} exists already; name another file or give --overwrite.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path.absolute().parent} is not a folder, so {path.name} cannot be written there.")


def read_scores(results: Mapping[str, Any], groups: Mapping[Domain, str]) -> Scores:
    """Read lm-eval's results of the mastery tasks back as typed values."""
    domains = {
        domain: _domain_score(results, group)
        for domain in DOMAINS
        if (group := groups[domain]) in results["results"] and "contains,none" in results["results"][group]
    }
    outcomes = tuple(
        outcome_of(sample)
        for group in groups.values()
        for task in results["group_subtasks"].get(group, ())
        for sample in results["samples"][task]
        if "contains" in sample
    )
    return Scores(domains, outcomes)


def _domain_score(results: Mapping[str, Any], group: str) -> DomainScore:
    parts = {}
    for bucket, task in enumerate(results["group_subtasks"][group]):
        figures = results["results"][task]
        if "contains,none" in figures:
            values = [sample["contains"] for sample in results["samples"][task]]
            outcomes = "".join("1" if value else "0" for value in values)
            parts[bucket] = BucketScore(*_figures(figures), facts=len(values), outcomes=outcomes)
    whole = results["results"][group]
    return DomainScore(*_figures(whole), facts=sum(part.facts for part in parts.values()), buckets=parts)


def _figures(figures: Mapping[str, Any]) -> tuple[float, float | None]:
    stderr = figures["contains_stderr,none"]
    return float(figures["contains,none"]), None if stderr == "N/A" else float(stderr)


def outcome_of(sample: Mapping[str, Any]) -> Outcome:
    """Read one sample of lm-eval's log as a typed value."""
    doc = sample["doc"]
    return Outcome(
        fact=doc["id"],
        relation=doc["relation"],
        domain=doc["domain"],
        bucket=doc["bucket"],
        mastery=doc["mastery"],
        prompt=doc["prompt"],
        gold=tuple(doc["gold"]),
        answer=sample["filtered_resps"][0],
        contains=bool(sample["contains"]),
        exact_match=bool(sample["exact_match"]),
        f1=float(sample["f1"]),
    )
