"""The prompts on which two models are compared: completion templates filled with well-mastered facts, or any text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sftknow.errors import ConfigError, DataError
from sftknow.facts.fact import DOMAINS, Domain, Split
from sftknow.mastery.buckets import BUCKETS
from sftknow.mastery.table import MasteryTable

Positions = Literal["first", "answer"]


@dataclass(frozen=True, slots=True)
class KLPrompt:
    """One text whose continuation two models predict.

    Attributes:
        id: the fact's id, or the prompt's own.
        relation: what results are grouped by.
        text: the prompt, without BOS; the first predicted token follows it.
        answer: the gold answer, where there is one.
    """

    id: str
    relation: str
    text: str
    answer: str | None = None


def kl_prompts(
    table: MasteryTable,
    *,
    bucket: int = 4,
    domain: Domain | Literal["both"] = "in_domain",
    split: Split = "test",
) -> tuple[KLPrompt, ...]:
    """Return the paper's prompts: facts of test bucket 4 in the best completion template of their relation.

    Args:
        table: the base model's mastery table.
        bucket: mastery bucket of the facts.
        domain: ``in_domain`` (the paper's test set), ``out_of_domain``, or ``both``.
        split: official split of the facts.

    Raises:
        ConfigError: an unknown bucket or domain.
        DataError: no such facts, or a relation without templates.

    Source: the paper's section on token-level analysis.
    """
    if bucket not in BUCKETS or domain not in (*DOMAINS, "both"):
        raise ConfigError(f"bucket {bucket!r} of domain {domain!r} does not exist; see `sftknow kl --help`.")
    rows = table.select(split=split, domain=None if domain == "both" else domain, buckets=(bucket,))
    if not rows:
        raise DataError(
            f"the mastery table has no {split} facts in bucket {bucket} ({domain}); "
            "probe more facts, or choose another bucket or domain."
        )
    best = table.best_templates()
    missing = sorted({row.fact.relation for row in rows} - best.keys())
    if missing:
        raise DataError(f"the mastery table holds no completion templates for {', '.join(missing)}; probe again.")
    return tuple(
        KLPrompt(
            row.fact.id,
            row.fact.relation,
            best[row.fact.relation].replace("{subject}", row.fact.subject).rstrip(),
            row.fact.answers[0],
        )
        for row in rows
    )


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt as tokens.

    Attributes:
        ids: the tokens a model reads.
        positions: those whose next-token logits are wanted.
        next_ids: the gold tokens at those positions, where answers are known.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    next_ids: tuple[int, ...] = ()


def encode(tokenizer: Any, prompts: Sequence[KLPrompt], positions: Positions = "first") -> list[Encoded]:
    """Tokenize prompts with the tokenizer's default special tokens, as training and scoring do.

    Args:
        tokenizer: a tokenizer of transformers.
        prompts: what to encode.
        positions: ``first`` for the first predicted token, ``answer`` for every token of the gold answer.

    Raises:
        DataError: a prompt of no tokens, or without an answer where answers are wanted.
    """
    starts = [_without_eos(ids, tokenizer) for ids in tokenizer([prompt.text for prompt in prompts])["input_ids"]]
    for prompt, ids in zip(prompts, starts, strict=True):
        if not ids:
            raise DataError(f"prompt {prompt.id} is empty for this tokenizer; remove it.")
    if positions == "first":
        return [Encoded(tuple(ids), (len(ids) - 1,)) for ids in starts]
    lacking = [prompt.id for prompt in prompts if not prompt.answer]
    if lacking:
        raise DataError(f"prompt {lacking[0]} has no answer; answer positions need an `answer` with every prompt.")
    wholes = tokenizer([f"{prompt.text} {prompt.answer}" for prompt in prompts])["input_ids"]
    return [
        _answer_positions(start, _without_eos(whole, tokenizer)) for start, whole in zip(starts, wholes, strict=True)
    ]


def _answer_positions(start: Sequence[int], whole: Sequence[int]) -> Encoded:
    pairs = zip(start, whole, strict=False)
    shared = next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(start), len(whole)))
    begin = max(shared, 1)
    return Encoded(tuple(whole[:-1]), tuple(range(begin - 1, len(whole) - 1)), tuple(whole[begin:]))


def _without_eos(ids: Sequence[int], tokenizer: Any) -> list[int]:
    """Drop an EOS that some tokenizers append: the models are to go on, not to have ended."""
    trailing = len(ids) > 1 and ids[-1] == tokenizer.eos_token_id and ids[-1] != tokenizer.bos_token_id
    return list(ids[:-1] if trailing else ids)
