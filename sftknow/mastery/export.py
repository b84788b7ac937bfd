"""Facts with their mastery, or one's own fine-tuning set labelled by it, for any trainer."""

import json
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow.errors import ConfigError, DataError
from sftknow.facts.fact import Split
from sftknow.mastery.buckets import BUCKETS
from sftknow.mastery.table import MasteryTable, ProbedFact
from sftknow.prompts import answer_completion, question_prompt
from sftknow.records import check_output_folder, new_folder, write_bytes

FORMATS = ("jsonl", "parquet", "datasets")


@dataclass(frozen=True, slots=True)
class Labelled:
    """One's own rows with the mastery of what they ask.

    Attributes:
        rows: the rows kept, each with its labels.
        known: rows whose question is in the table.
        unknown: rows whose question is not.
    """

    rows: tuple[dict[str, Any], ...]
    known: int
    unknown: int


def fact_rows(
    table: MasteryTable, *, buckets: Collection[int] = BUCKETS, split: Split | None = None
) -> list[dict[str, Any]]:
    """Return the facts of some buckets as rows, with prompt and completion in the paper's format.

    Args:
        table: the mastery table.
        buckets: which buckets to keep; leaving out 0 leaves out what the model does not know.
        split: keep this split only.
    """
    return [
        {
            "id": row.fact.id,
            "relation": row.fact.relation,
            "domain": row.fact.domain,
            "split": row.fact.split,
            "subject": row.fact.subject,
            "question": row.fact.question,
            "answers": list(row.fact.answers),
            "prompt": question_prompt(row.fact.question),
            "completion": answer_completion(row.fact.answers[0]),
            **labels(row),
        }
        for row in table.select(split=split, buckets=buckets)
    ]


def labels(row: ProbedFact) -> dict[str, Any]:
    """Return what probing found of a fact, as columns."""
    found = {"mastery": row.mastery, "bucket": row.bucket}
    return found if row.category is None else {**found, "category": row.category}


def label_own(
    own: Iterable[Mapping[str, Any]],
    table: MasteryTable,
    *,
    field: str = "question",
    buckets: Collection[int] = BUCKETS,
    keep_unknown: bool = False,
) -> Labelled:
    """Label rows of one's own by the mastery of the question they hold, and keep those of some buckets.

    Args:
        own: the rows; each must hold ``field``.
        table: the mastery table.
        field: where a row's question stands; case, Unicode form and spaces are evened out. The paper's prompt around
            the question is seen through.
        buckets: which buckets to keep.
        keep_unknown: keep rows whose question is not in the table, with empty labels.

    Raises:
        DataError: a row lacks the field.
    """
    by_question: dict[str, ProbedFact] = {}
    for row in table.rows:
        by_question.setdefault(_alike(row.fact.question), row)
        by_question.setdefault(_alike(question_prompt(row.fact.question)), row)
    kept, known, unknown = [], 0, 0
    for number, values in enumerate(own, start=1):
        if not isinstance(values.get(field), str):
            raise DataError(
                f"row {number} of the data has no text in the field {field!r}; name the field with --field."
            )
        found = by_question.get(_alike(values[field]))
        if found is None:
            unknown += 1
            if keep_unknown:
                kept.append({**values, "mastery": None, "bucket": None})
        else:
            known += 1
            if found.bucket in buckets:
                kept.append({**values, **labels(found)})
    return Labelled(tuple(kept), known, unknown)


def read_own(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSONL file of one's own; raise DataError naming the line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSONL ({error}).") from error
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} is empty; give a JSONL file with one row a line.")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error.msg}).") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: a row must be a JSON object, not {type(row).__name__}.")
        yield row


def write_rows(rows: Collection[Mapping[str, Any]], out: Path, kind: str, *, overwrite: bool = False) -> None:
    """Write rows as a JSONL file, a Parquet file or a datasets folder.

    Args:
        rows: at least one.
        out: the file or folder.
        kind: one of ``FORMATS``.
        overwrite: replace what is there.

    Raises:
        ConfigError: an unknown format, or ``out`` exists without ``overwrite``.
        DataError: there are no rows, or a column holds values of several kinds.
    """
    if kind not in FORMATS:
        raise ConfigError(f"format {kind!r} is unknown; choose one of {', '.join(FORMATS)}.")
    if not rows:
        raise DataError("no row is left to export; name other buckets, or another split.")
    if kind == "jsonl":
        _check_file(out, overwrite)
        write_bytes(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        return
    table = _arrow(rows)
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        _check_file(out, overwrite)
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink)
        write_bytes(out, bytes(sink.getvalue()))
        return
    from datasets import Dataset

    with new_folder(out, overwrite=overwrite) as staging:
        Dataset(table).save_to_disk(str(staging))


def check_export(out: Path, kind: str, *, overwrite: bool = False) -> None:
    """Raise ConfigError where an export cannot be written, before work begins."""
    if kind == "datasets":
        check_output_folder(out, overwrite=overwrite)
    else:
        _check_file(out, overwrite)


def _check_file(out: Path, overwrite: bool) -> None:
    if out.is_dir() or (out.exists() and not overwrite):
        raise ConfigError(f"{out} already exists; name another file, or give --overwrite to replace a file.")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{out} cannot be written: {out.parent} is not a folder; make it first.")


def _arrow(rows: Collection[Mapping[str, Any]]) -> Any:
    import pyarrow

    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        return pyarrow.table({name: pyarrow.array([row.get(name) for row in rows]) for name in names})
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        raise DataError(f"the rows do not make a table ({error}); use --format jsonl.") from error


def _alike(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
