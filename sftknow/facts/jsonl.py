"""Facts of one's own: a text file with one JSON object a line, ``{relation, subject, answers, split}``.

``question`` may stand there too; without it the question template of the relation is used. Other fields are left
alone, so that a file can carry labels beside its facts.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from sftknow.errors import DataError
from sftknow.facts.fact import DOMAINS, SPLITS, Domain
from sftknow.facts.relations import Relation, known
from sftknow.facts.row import Row, check_answers

FIELDS = ("relation", "subject", "answers", "split")


def read_jsonl(
    path: Path, relations: Mapping[str, Relation], only: Collection[str] | None, *, any_relation: bool = False
) -> Iterator[Row]:
    """Yield the rows of a JSONL file of facts.

    Args:
        path: the file, in UTF-8; blank lines are skipped.
        relations: relation id -> relation.
        only: ids of the relations to keep; None keeps all.
        any_relation: take relations that have no wording too, for question sets that are probed without templates;
            such a row must carry its question and may carry its ``domain`` (``in_domain`` otherwise).

    Raises:
        DataError: the file cannot be read or a line is wrong; the line is named.
    """
    count = 0
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not valid JSON ({error.msg}){_hint(line)}.") from error
        except RecursionError:
            raise DataError(f"{where}: nested too deeply to be a fact.") from None
        if not isinstance(item, dict):
            raise DataError(f"{where}: expected an object with {', '.join(FIELDS)}{_hint(line)}.")
        count += 1
        row = _row(where, item, relations, any_relation)
        if only is None or row.relation in only:
            yield row
    if not count:
        raise DataError(f"{path} is empty; expected one JSON object a line with {', '.join(FIELDS)}.")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is neither a zip nor a text file in UTF-8; expected JSONL of facts.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _hint(line: str) -> str:
    return "; a JSON list is no JSONL: write one object a line" if line.lstrip().startswith("[") else ""


def _row(where: str, item: dict[str, Any], relations: Mapping[str, Relation], any_relation: bool) -> Row:
    name = _text(where, item, "relation")
    relation = relations.get(name)
    if relation is None and not any_relation:
        raise DataError(f"{where}: relation {name!r} is not known; known relations: {known(relations)}.")
    split = _text(where, item, "split")
    if split not in SPLITS:
        raise DataError(f"{where}: split {split!r} must be one of {', '.join(SPLITS)}.")
    if relation is None:
        question = _text(where, item, "question")
        subject = _text(where, item, "subject") if "subject" in item else question
    else:
        subject = _text(where, item, "subject")
        question = _text(where, item, "question") if item.get("question") is not None else relation.ask(subject)
    if "answers" not in item:
        raise DataError(f"{where}: the field 'answers' is missing.")
    answers = check_answers(item["answers"])
    if isinstance(answers, str):
        raise DataError(f"{where}: {answers}.")
    domain = relation.domain if relation is not None else _domain(where, item)
    return Row(name, domain, split, subject, question, answers)


def _text(where: str, item: Mapping[str, Any], field: str) -> str:
    if field not in item:
        raise DataError(f"{where}: the field {field!r} is missing.")
    value = item[field]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {field!r} must be text that is not empty.")
    return value.strip()


def _domain(where: str, item: Mapping[str, Any]) -> Domain:
    domain = item.get("domain", DOMAINS[0])
    if domain not in DOMAINS:
        raise DataError(f"{where}: domain {domain!r} must be one of {', '.join(DOMAINS)}.")
    return cast(Domain, domain)
