"""Prompts from the user's own file: JSON lines, or a dataset that the datasets library reads."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sftknow.errors import DataError
from sftknow.kl.prompts import KLPrompt

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:\w+)?")


def read_prompts(source: str | Path) -> tuple[KLPrompt, ...]:
    """Read prompts with a ``prompt`` and optionally an ``answer``, ``id`` and ``relation``.

    Args:
        source: a ``.jsonl`` file, a folder that ``Dataset.save_to_disk`` wrote, or a Hub dataset ``org/name`` or
            ``org/name:split`` (the only case that uses the network; the split is ``train`` unless named).

    Raises:
        DataError: a missing or malformed file, a row without a prompt, or no rows.
    """
    path = Path(source)
    rows = _json_lines(path) if path.is_file() else _dataset(str(source))
    prompts = tuple(_prompt(row, number, source) for number, row in enumerate(rows, 1))
    if not prompts:
        raise DataError(f'{source} holds no prompts; give one JSON object a line, such as {{"prompt": "..."}}.')
    ids = [prompt.id for prompt in prompts]
    twice = next((name for name in ids if ids.count(name) > 1), None) if len(set(ids)) < len(ids) else None
    if twice is not None:
        raise DataError(f"{source} names two prompts {twice!r}; give each row its own id, or none.")
    return prompts


def _json_lines(path: Path) -> Iterable[Any]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: no JSON ({error.msg}); give one JSON object a line.") from error


def _dataset(source: str) -> Iterable[Any]:
    import datasets

    try:
        if Path(source).is_dir():
            loaded = datasets.load_from_disk(source)
            if isinstance(loaded, datasets.DatasetDict):
                raise DataError(f"{source} holds the splits {', '.join(loaded)}; name one of its folders.")
            return list(loaded)
        if not _HUB_NAME.fullmatch(source) or source.endswith((".json", ".jsonl")):
            raise DataError(f"{source} does not exist; name a JSONL file, a saved dataset, or a Hub dataset org/name.")
        name, _, split = source.partition(":")
        return list(datasets.load_dataset(name, split=split or "train"))
    except DataError:
        raise
    except Exception as error:  # datasets raises many kinds for missing, malformed and unreachable data
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{source} is no JSONL file here and cannot be read as a dataset ({reason}).") from error


def _prompt(row: Any, number: int, source: str | Path) -> KLPrompt:
    fields = row if isinstance(row, Mapping) else {}
    text = fields.get("prompt")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{source}, row {number}: no text under `prompt`; every row needs one.")
    answer = fields.get("answer")
    if answer is not None and (not isinstance(answer, str) or not answer.strip()):
        raise DataError(f"{source}, row {number}: `answer` is no text; give one, or leave it out.")
    return KLPrompt(str(fields.get("id") or number), str(fields.get("relation") or "prompts"), text.rstrip(), answer)
