"""Two scored models compared fact by fact: what the second lost and gained against the first, bucket by bucket."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from sftknow.errors import DataError
from sftknow.facts.fact import DOMAINS, Domain
from sftknow.paired import mcnemar
from sftknow.records import read_record
from sftknow.scoring import Outcome, outcome_of

TASKS = ("cbqa_mastery_id_", "cbqa_mastery_ood_", "cbqa_completion_id_", "cbqa_completion_ood_")


@dataclass(frozen=True, slots=True)
class Change:
    """What changed on some facts.

    Attributes:
        facts: facts that both models were asked.
        before: accuracy of the first model, in 0..1; over several buckets the unweighted mean.
        after: accuracy of the second.
        lost: facts that the first answered and the second does not, as (first, second) outcomes.
        gained: facts that the second answers and the first did not.
        p_value: McNemar's exact test on these facts.
    """

    facts: int
    before: float
    after: float
    lost: tuple[tuple[Outcome, Outcome], ...]
    gained: tuple[tuple[Outcome, Outcome], ...]
    p_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two scored models on the facts that both were asked.

    Attributes:
        buckets: change in each domain and bucket that has facts.
        domains: change in each domain: accuracies are unweighted means over buckets, the p-value is over all facts.
        only_first: facts that only the first was asked.
        only_second: facts that only the second was asked.
    """

    buckets: Mapping[tuple[Domain, int], Change]
    domains: Mapping[Domain, Change]
    only_first: int
    only_second: int


def compare(first: str | Path, second: str | Path) -> Comparison:
    """Compare two results on the same mastery table.

    Args:
        first: a file that ``sftknow score --out`` wrote, or a folder that ``lm_eval --log_samples --output_path``
            wrote; of several runs in the folder the last.
        second: the same, for the second model.

    Raises:
        DataError: a result cannot be read, the two have no fact in common, or a fact is in different buckets.
    """
    before, after = read_outcomes(Path(first)), read_outcomes(Path(second))
    shared = [fact for fact in before if fact in after]
    if not shared:
        raise DataError(f"{first} and {second} have no fact in common; score both on the same mastery table.")
    for fact in shared:
        if before[fact].bucket != after[fact].bucket:
            raise DataError(
                f"fact {fact} is in bucket {before[fact].bucket} in {first} and {after[fact].bucket} in {second}; "
                "score both on the same mastery table."
            )
    pairs = [(before[fact], after[fact]) for fact in shared]
    buckets = {
        (domain, bucket): _change(part)
        for domain in DOMAINS
        for bucket in range(5)
        if (part := [pair for pair in pairs if (pair[0].domain, pair[0].bucket) == (domain, bucket)])
    }
    domains = {domain: _whole(domain, buckets) for domain in DOMAINS if any(name == domain for name, _ in buckets)}
    return Comparison(buckets, domains, len(before) - len(shared), len(after) - len(shared))


def _change(pairs: list[tuple[Outcome, Outcome]]) -> Change:
    lost = tuple(pair for pair in pairs if pair[0].contains and not pair[1].contains)
    gained = tuple(pair for pair in pairs if pair[1].contains and not pair[0].contains)
    before = fmean(pair[0].contains for pair in pairs)
    after = fmean(pair[1].contains for pair in pairs)
    return Change(len(pairs), before, after, lost, gained, mcnemar(len(lost), len(gained)))


def _whole(domain: Domain, buckets: Mapping[tuple[Domain, int], Change]) -> Change:
    parts = [change for (name, _), change in buckets.items() if name == domain]
    lost = tuple(pair for part in parts for pair in part.lost)
    gained = tuple(pair for part in parts for pair in part.gained)
    return Change(
        sum(part.facts for part in parts),
        fmean(part.before for part in parts),
        fmean(part.after for part in parts),
        lost,
        gained,
        mcnemar(len(lost), len(gained)),
    )


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """Read what each fact scored, by fact id.

    Raises:
        DataError: the path is neither a scores record nor a folder with logged samples of the mastery tasks.
    """
    outcomes = _from_samples(path) if path.is_dir() else _from_record(path)
    return {outcome.fact: outcome for outcome in outcomes}


def _from_record(path: Path) -> list[Outcome]:
    record = read_record(path, "scores")
    try:
        return [Outcome(**{**fact, "gold": tuple(fact["gold"])}) for fact in record["facts"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); score the model again.") from error


def _from_samples(folder: Path) -> list[Outcome]:
    files = [path for path in folder.rglob("samples_cbqa_*.jsonl") if path.name.startswith(_prefixes())]
    if not files:
        raise DataError(
            f"{folder} holds no logged samples of the mastery tasks; run lm_eval with --log_samples --output_path."
        )
    last = max(_stamp(path) for path in files)
    views = {path.name.split("_")[2] for path in files if _stamp(path) == last}
    if len(views) > 1:
        raise DataError(f"{folder} holds questions and completions of one run; score them into folders of their own.")
    return [outcome for path in sorted(files) if _stamp(path) == last for outcome in _read_samples(path)]


def _prefixes() -> tuple[str, ...]:
    return tuple(f"samples_{task}" for task in TASKS)


def _stamp(path: Path) -> str:
    return path.stem.rpartition("_")[2]


def _read_samples(path: Path) -> Iterable[Outcome]:
    try:
        samples: list[Mapping[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [outcome_of(sample) for sample in samples if "contains" in sample]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as logged samples ({error}); run lm_eval again.") from error
