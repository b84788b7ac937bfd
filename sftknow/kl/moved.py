"""The facts that moved most, with the tokens that gained and lost probability, as readable text."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sftknow.kl.arrays import Array, log_softmax, top_ids
from sftknow.kl.prompts import KLPrompt

TOKENS = 5
NOTICEABLE = 1e-5


def moved_tokens(
    prompt: KLPrompt,
    value: float,
    lead_ids: Array,
    lead_log_probabilities: Array,
    follow_logits: Array,
    tokenizer: Any,
    *,
    base_leads: bool,
) -> dict[str, Any]:
    """Describe one fact: its prompt and the tokens whose probability rose and fell most at the first position.

    Args:
        prompt: the fact's prompt.
        value: its divergence.
        lead_ids: ids whose probability the leading model's pass kept, shape ``(kept,)``.
        lead_log_probabilities: their full-vocabulary log-probabilities, same shape.
        follow_logits: the other model's logits, shape ``(vocabulary,)``.
        tokenizer: to spell tokens.
        base_leads: whether the leading model is the base.

    Returns:
        JSON fields; a probability is null where it lies below all that the pass kept.
    """
    follow = np.exp(log_softmax(follow_logits))
    lead = dict(zip(lead_ids.tolist(), np.exp(lead_log_probabilities).tolist(), strict=True))
    candidates = sorted({*lead, *top_ids(follow_logits[None], min(len(lead_ids), len(follow)))[0].tolist()})
    rows = [(token, lead.get(token), float(follow[token])) for token in candidates]
    pairs = [(token, left, right) if base_leads else (token, right, left) for token, left, right in rows]
    pairs = sorted((row for row in pairs if abs(_gain(row)) > NOTICEABLE), key=_gain)
    return {
        "id": prompt.id,
        "relation": prompt.relation,
        "prompt": prompt.text,
        "answer": prompt.answer,
        "value": value,
        "gained": [_row(row, tokenizer) for row in reversed(pairs[-TOKENS:]) if _gain(row) > 0],
        "lost": [_row(row, tokenizer) for row in pairs[:TOKENS] if _gain(row) < 0],
    }


def describe_moved(facts: Sequence[Any]) -> list[str]:
    """Return lines of text for the facts that moved most."""
    lines = []
    for fact in facts:
        lines.append(f"{fact['value']:.3f}  {fact['prompt']} ...")
        for sign, side in (("+", "gained"), ("-", "lost")):
            texts = [f"{row['token']!r} {_share(row['base'])} -> {_share(row['tuned'])}" for row in fact[side][:3]]
            if texts:
                lines.append(f"    {sign} {', '.join(texts)}")
    return lines


def _gain(row: tuple[int, float | None, float | None]) -> float:
    return (row[2] or 0.0) - (row[1] or 0.0)


def _row(row: tuple[int, float | None, float | None], tokenizer: Any) -> dict[str, Any]:
    token, base, tuned = row
    return {"token": tokenizer.decode([token]), "id": token, "base": base, "tuned": tuned}


def _share(probability: float | None) -> str:
    return "~0" if probability is None else f"{100 * probability:.3g}%"
