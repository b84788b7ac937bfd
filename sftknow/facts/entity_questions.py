"""The EntityQuestions archive as published: a zip or its unpacked folder, one JSON list per relation and split.

Each file, ``dataset/train/P19.train.json`` for one, holds ``{"question": ..., "answers": [...]}`` objects; the
``dataset/`` level may be missing. The subject is recovered from the question. A zip is read in memory, never unpacked.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from sftknow.errors import DataError
from sftknow.facts.fact import SPLITS, Split
from sftknow.facts.relations import Relation, known
from sftknow.facts.row import Row, check_answers

LAYOUT = "train/P19.train.json, dev/P19.dev.json and test/P19.test.json, with or without a dataset/ folder above"
MAX_FILE_BYTES = 1 << 28
MAX_TOTAL_BYTES = 1 << 30
_MEMBER = re.compile(r"(?:(?!__MACOSX/)[^/]+/)*?(train|dev|test)/([^/]+)\.(train|dev|test)\.json")

Place = tuple[str, Split]
Files = dict[Place, tuple[str, Callable[[], bytes]]]


def read_archive(path: Path, relations: Mapping[str, Relation], only: Collection[str] | None) -> Iterator[Row]:
    """Yield the rows of a zip in the layout of the EntityQuestions archive.

    Args:
        path: the zip.
        relations: relation id -> relation; their order is the order of the rows.
        only: ids of the relations to read; None reads all.

    Raises:
        DataError: no zip, damaged, too large once unpacked, files missing, or a row that is wrong (file and row named).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_size(path, archive)
            files = _files(path, ((info.filename, info) for info in archive.infolist()), _member_reader(path, archive))
            yield from _read_files(path, files, relations, only)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is not a zip archive, or is damaged ({error}); fetch it again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_folder(path: Path, relations: Mapping[str, Relation], only: Collection[str] | None) -> Iterator[Row]:
    """Yield the rows of the unpacked archive; see :func:`read_archive`."""
    files = _files(path, ((f"{file.parent.name}/{file.name}", file) for file in folder_files(path)), _file_reader)
    yield from _read_files(path, files, relations, only)


def folder_files(path: Path) -> list[Path]:
    """Return the JSON files of an unpacked archive, with or without its ``dataset/`` level, sorted."""
    root = path / "dataset" if (path / "dataset").is_dir() else path
    return sorted(file for split in SPLITS for file in (root / split).glob("*.json"))


def is_member(name: str) -> bool:
    """Return whether a path within an archive or dataset is one of the archive's files of questions."""
    return _MEMBER.fullmatch(name) is not None


def _check_size(path: Path, archive: zipfile.ZipFile) -> None:
    sizes = [info.file_size for info in archive.infolist()]
    if sum(sizes) > MAX_TOTAL_BYTES or max(sizes, default=0) > MAX_FILE_BYTES:
        raise DataError(
            f"{path} would unpack to {sum(sizes) / 1e6:,.0f} MB, more than the {MAX_TOTAL_BYTES / 1e6:,.0f} MB "
            f"({MAX_FILE_BYTES / 1e6:,.0f} MB a file) that an archive of facts may hold; it is not read."
        )


def _member_reader(path: Path, archive: zipfile.ZipFile) -> Callable[[Any], bytes]:
    def read(info: zipfile.ZipInfo) -> bytes:
        try:
            with archive.open(info) as file:
                return file.read(MAX_FILE_BYTES)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(f"{path}: {info.filename} is damaged ({error}); fetch the archive again.") from error
        except (RuntimeError, NotImplementedError) as error:
            raise DataError(f"{path}: {info.filename} cannot be unpacked: {error}.") from error

    return read


def _file_reader(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _files(path: Path, names: Iterable[tuple[str, Any]], read: Callable[[Any], bytes]) -> Files:
    files: Files = {}
    for name, handle in names:
        match = _MEMBER.fullmatch(name)
        if match is None:
            continue
        folder, relation, split = match.groups()
        if folder != split:
            raise DataError(f"{path}: {name} stands in the folder of another split; put it into {split}/.")
        place = (relation, cast(Split, split))
        if place in files:
            raise DataError(f"{path} holds both {files[place][0]} and {name}; leave one of them.")
        files[place] = (name, lambda handle=handle: read(handle))  # type: ignore[misc]
    if not files:
        raise DataError(f"{path} does not have the layout of the EntityQuestions archive: {LAYOUT}.")
    return files


def _read_files(
    path: Path, files: Files, relations: Mapping[str, Relation], only: Collection[str] | None
) -> Iterator[Row]:
    present = {relation for relation, _ in files}
    for name in sorted(present) if only is None else only:
        if name not in present:
            raise DataError(f"{path} has no relation {name!r}; it has {known(sorted(present))}.")
        if name not in relations:
            raise DataError(f"{path}: relation {name!r} is not known; known relations: {known(relations)}.")
    for relation in relations.values():
        for split in SPLITS:
            if (relation.id, split) in files and (only is None or relation.id in only):
                file, read = files[relation.id, split]
                yield from _read_rows(f"{path}: {file}", read(), relation, split)


def _read_rows(where: str, data: bytes, relation: Relation, split: Split) -> Iterator[Row]:
    for number, item in enumerate(_parse(where, data), start=1):
        if not isinstance(item, dict) or not isinstance(item.get("question"), str):
            raise DataError(f"{where}, row {number}: expected an object with 'question' and 'answers'.")
        answers = check_answers(item.get("answers"))
        if isinstance(answers, str):
            raise DataError(f"{where}, row {number}: {answers}.")
        question = item["question"]
        subject = relation.subject_of(question)
        if subject is None:
            raise DataError(
                f"{where}, row {number}: the question {question!r} does not have the wording "
                f"of {relation.id}, {relation.question!r}."
            )
        yield Row(relation.id, relation.domain, split, subject, question, answers)


def _parse(where: str, data: bytes) -> list[Any]:
    if not data.strip():
        raise DataError(f"{where} is empty.")
    try:
        rows = json.loads(data)
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}, line {error.lineno}: not valid JSON ({error.msg}).") from error
    except RecursionError:
        raise DataError(f"{where} is nested too deeply to be a list of questions.") from None
    if not isinstance(rows, list):
        raise DataError(f"{where} must hold a JSON list of questions.")
    return rows
