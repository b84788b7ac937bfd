"""Training rows in the paper's question-answer format, and the check that none loses its answer."""

from collections.abc import Sequence
from typing import Any

from sftknow.errors import DataError
from sftknow.facts.fact import Fact
from sftknow.prompts import answer_completion, question_prompt

IGNORED = -100


def training_rows(facts: Sequence[Fact]) -> list[dict[str, str]]:
    """Return one prompt/completion row a fact, with the first gold answer as the target."""
    return [
        {"prompt": question_prompt(fact.question), "completion": answer_completion(fact.answers[0])} for fact in facts
    ]


def tokenized_rows(
    rows: Sequence[dict[str, str]], tokenizer: Any, *, eos: str | None = None, completion_only: bool = True
) -> list[dict[str, list[int]]]:
    """Tokenize rows as TRL does: EOS appended, whole text at once, labels only where prompt and text part ways.

    TRL's own preparation gives the same rows (a test compares them) but spends a second on caching five passes.

    Args:
        rows: prompt/completion text.
        tokenizer: a fast tokenizer of transformers; its default special tokens are kept, so BOS comes first.
        eos: text of the token that ends a row; None for the tokenizer's own.
        completion_only: false puts a label on every token.

    Returns:
        ``input_ids`` and ``labels`` of each row; -100 marks what carries no loss.
    """
    texts = [_with_eos(row, eos or tokenizer.eos_token) for row in rows]
    prompts = tokenizer([row["prompt"] for row in rows])["input_ids"]
    wholes = tokenizer(texts)["input_ids"]
    result = []
    for prompt, whole in zip(prompts, wholes, strict=True):
        start = _common_length(prompt, whole) if completion_only else 0
        result.append({"input_ids": list(whole), "labels": [IGNORED] * start + list(whole[start:])})
    return result


def check_answers_fit(rows: Sequence[dict[str, list[int]]], facts: Sequence[Fact], max_length: int | None) -> None:
    """Refuse rows whose answer would be cut by ``max_length`` tokens; trainers drop or shorten such rows silently.

    Raises:
        DataError: the first row that does not fit, with the length that would do.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    if max_length is None or max(lengths) <= max_length:
        return
    first = next(index for index, length in enumerate(lengths) if length > max_length)
    count = sum(length > max_length for length in lengths)
    raise DataError(
        f"max_length {max_length} would cut the answer of {count} of {len(rows)} training rows, first fact "
        f"{facts[first].id} with {lengths[first]} tokens; set max_length to {max(lengths)} or more."
    )


def _with_eos(row: dict[str, str], eos: str) -> str:
    completion = row["completion"]
    return row["prompt"] + (completion if completion.endswith(eos) else completion + eos)


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    for position, (left, right) in enumerate(zip(first, second, strict=False)):
        if left != right:
            return position
    return min(len(first), len(second))
