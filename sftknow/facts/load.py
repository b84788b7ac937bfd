"""Facts from any source: read, duplicates merged, overlaps between train and test counted."""

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sftknow.errors import DataError
from sftknow.facts.entity_questions import folder_files, read_archive, read_folder
from sftknow.facts.fact import SPLITS, Fact, fact_id
from sftknow.facts.jsonl import read_jsonl
from sftknow.facts.relations import Relation, load_relations, pick_relation
from sftknow.facts.row import Row
from sftknow.records import digest, file_digest, file_identity

ZIP_START = b"PK"


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What loading found.

    Attributes:
        rows: rows read.
        facts: facts kept.
        merged: rows that repeated the question of an earlier row of the same relation and split; their answers were
            added to that row's.
        question_leaks: train facts whose question stands in test, of any relation loaded.
        subject_leaks: train facts whose subject stands in test, of any relation loaded (these include the former).
        left_out: train facts left out because of such a leak.
        counts: (relation, split) -> facts kept.
    """

    rows: int
    facts: int
    merged: int
    question_leaks: int
    subject_leaks: int
    left_out: int
    counts: Mapping[tuple[str, str], int]

    def lines(self) -> list[str]:
        """Return the report as lines to print: totals, overlaps, then a table by relation and split."""
        relations = list(dict.fromkeys(relation for relation, _ in self.counts))
        fate = f"{self.left_out:,} left out of train" if self.left_out else "kept; --no-leak leaves them out of train"
        return [
            f"rows: {self.rows:,}, facts: {self.facts:,}, relations: {len(relations)}",
            f"rows that repeat a question, their answers merged: {self.merged:,}",
            f"train facts that share a question with test: {self.question_leaks:,}, a subject: {self.subject_leaks:,}"
            + (f" ({fate})" if self.subject_leaks else ""),
            f"{'relation':<12}" + "".join(f"{split:>9}" for split in SPLITS),
            *(
                f"{relation:<12}" + "".join(f"{self.counts.get((relation, split), 0):>9,}" for split in SPLITS)
                for relation in relations
            ),
        ]


@dataclass(frozen=True, slots=True)
class FactSet:
    """Facts, how they were loaded, and what they were loaded from.

    Attributes:
        facts: by relation in the order of the relations file (of first appearance, for JSONL), then train, dev, test.
        report: what loading found.
        identity: path and digest of the source, for the provenance of whatever is made from these facts.
    """

    facts: tuple[Fact, ...]
    report: LoadReport
    identity: Mapping[str, Any]


def load_facts(
    source: str | Path,
    *,
    relations: Mapping[str, Relation] | None = None,
    only: Collection[str] | None = None,
    no_leak: bool = False,
    any_relation: bool = False,
) -> FactSet:
    """Load facts from an archive, a folder or a file.

    Args:
        source: the EntityQuestions archive as published (zip) or its unpacked folder, or a JSONL file of
            {relation, subject, answers, split}; or where to fetch one of these, see :mod:`sftknow.facts.download`.
        relations: relation id -> relation; by default the 24 of EntityQuestions.
        only: ids of the relations to load; None loads all.
        no_leak: leave out of train the facts whose subject or question stands in test.
        any_relation: take a JSONL file with questions of relations that have no wording, see
            :func:`sftknow.facts.jsonl.read_jsonl`.

    Raises:
        DataError: the source is missing, malformed, empty, or names a relation that is not known.

    Source: the paper's section on data; EntityQuestions keeps 1,806 rows that repeat a question.
    """
    relations = load_relations() if relations is None else relations
    if only is not None and not any_relation:
        for name in only:
            pick_relation(relations, name)
    path = _local(source)
    rows = _read(path, relations, only, any_relation)
    count, facts = _merge(rows)
    if not facts:
        raise DataError(f"{path} holds no facts of {', '.join(only) if only else 'any relation'}.")
    asked, about = leaks(facts)
    kept = [fact for fact in facts if not (no_leak and (fact.id in asked or fact.id in about))]
    report = LoadReport(
        rows=count,
        facts=len(kept),
        merged=count - len(facts),
        question_leaks=len(asked),
        subject_leaks=len(about),
        left_out=len(facts) - len(kept),
        counts=Counter((fact.relation, fact.split) for fact in kept),
    )
    return FactSet(tuple(kept), report, _identity(path))


def _local(source: str | Path) -> Path:
    """Return where a source lies, fetching it if it is an address."""
    if isinstance(source, str) and source.startswith(("https://", "http://", "hf://")):
        from sftknow.facts.download import fetch

        return fetch(source)
    return Path(source)


def leaks(facts: Iterable[Fact]) -> tuple[set[str], set[str]]:
    """Return the ids of the train facts whose question, and of those whose subject, stands in test.

    Names are compared without regard to case and Unicode form; a name counts as the same subject in any relation.
    """
    facts = list(facts)
    questions = {_alike(fact.question) for fact in facts if fact.split == "test"}
    subjects = {_alike(fact.subject) for fact in facts if fact.split == "test"}
    train = [fact for fact in facts if fact.split == "train"]
    return (
        {fact.id for fact in train if _alike(fact.question) in questions},
        {fact.id for fact in train if _alike(fact.subject) in subjects},
    )


def _alike(text: str) -> str:
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(folded.casefold().split())


def _read(
    path: Path, relations: Mapping[str, Relation], only: Collection[str] | None, any_relation: bool
) -> Iterator[Row]:
    if path.is_dir():
        return read_folder(path, relations, only)
    if not path.is_file():
        raise DataError(f"{path} does not exist; name the EntityQuestions zip or folder, or a JSONL file of facts.")
    if path.suffix == ".zip" or _starts_like_a_zip(path):
        return read_archive(path, relations, only)
    return read_jsonl(path, relations, only, any_relation=any_relation)


def _starts_like_a_zip(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(ZIP_START)) == ZIP_START
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _merge(rows: Iterable[Row]) -> tuple[int, list[Fact]]:
    """Return the number of rows and their facts, the answers of rows that ask the same joined in order."""
    count = 0
    facts: dict[str, Fact] = {}
    for row in rows:
        count += 1
        name = fact_id(row.relation, row.split, row.question)
        earlier = facts.get(name)
        if earlier is None:
            facts[name] = Fact(name, row.relation, row.domain, row.split, row.subject, row.question, row.answers)
        else:
            facts[name] = replace(earlier, answers=tuple(dict.fromkeys((*earlier.answers, *row.answers))))
    return count, list(facts.values())


def _identity(path: Path) -> dict[str, Any]:
    if path.is_file():
        return file_identity(path)
    digests = {f"{file.parent.name}/{file.name}": file_digest(file) for file in folder_files(path)}
    return {"path": str(path), "digest": digest(digests)}
