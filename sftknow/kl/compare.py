"""Two passes, one model at a time: the leading model's logits are kept chunk by chunk, the other's compared to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftknow.kl.arrays import Array
from sftknow.kl.journal import Journal
from sftknow.kl.measure import Measure
from sftknow.kl.moved import moved_tokens
from sftknow.kl.passes import gather_logits, last_logits, top_logits
from sftknow.kl.prompts import KLPrompt, encode
from sftknow.progress import bar

CHUNK = {"top": 1024, "full": 128}
KEPT = 100


@dataclass(frozen=True)
class Side:
    """A model to be loaded when its turn comes, and its tokenizer."""

    load: Callable[[], Any]
    tokenizer: Any


def compare(
    lead: Side,
    follow: Side,
    prompts: Sequence[KLPrompt],
    measure: Measure,
    journal: Journal,
    *,
    batch_size: int,
    width: int,
    moved: int,
) -> tuple[NDArray[np.float64], list[dict[str, Any]]]:
    """Return one divergence a prompt, and the ``moved`` prompts that moved most.

    Args:
        lead: the first distribution's model, which a top-k support belongs to.
        follow: the other.
        prompts: what to compare on.
        measure: which divergence.
        journal: keeps finished chunks.
        batch_size: prompts per forward pass.
        width: tokens of the vocabulary compared.
        moved: how many of the most moved to describe.
    """
    size = CHUNK[measure.support]
    chunks = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    options: dict[str, Any] = {"positions": measure.positions, "batch_size": batch_size}
    if not all(journal.has(f"lead-{number}") for number in range(len(chunks))):
        model = lead.load()
        for number, chunk in enumerate(_shown(chunks, "leading model")):
            journal.get(
                f"lead-{number}", partial(_lead, model, lead.tokenizer, chunk, measure, width=width, options=options)
            )
        del model  # before the other is loaded
    model = follow.load()
    values = []
    for number, chunk in enumerate(_shown(chunks, "other model")):
        kept = journal.get(f"lead-{number}", dict)
        make = partial(_follow, model, follow.tokenizer, chunk, kept, measure, options=options)
        values.append(journal.get(f"rows-{number}", make)["values"])
    result = np.concatenate(values)
    most = [int(place) for place in np.argsort(-result, kind="stable")[:moved] if result[place] > 0]
    described = []
    for place in most:
        kept = journal.get(f"lead-{place // size}", dict)
        ids, log_probabilities = _probabilities(kept, int(kept["first"][place % size]))
        logits = last_logits(model, follow.tokenizer, [prompts[place]], width=width)[0]
        fact = (prompts[place], float(result[place]), ids, log_probabilities, logits, follow.tokenizer)
        described.append(moved_tokens(*fact, base_leads=measure.base_leads))
    return result, described


def _lead(
    model: Any, tokenizer: Any, chunk: Sequence[KLPrompt], measure: Measure, *, width: int, options: dict[str, Any]
) -> dict[str, Array]:
    lengths = np.array([len(item.positions) for item in encode(tokenizer, chunk, measure.positions)])
    common: dict[str, Array] = {"lengths": lengths, "first": np.cumsum([0, *lengths[:-1]])}
    if measure.support == "full":
        return common | {"logits": last_logits(model, tokenizer, chunk, width=width, **options)}
    top = top_logits(model, tokenizer, chunk, max(measure.k, min(KEPT, width)), width=width, **options)
    return common | {"ids": top.ids, "logits": top.logits, "log_total": top.log_total}


def _follow(
    model: Any,
    tokenizer: Any,
    chunk: Sequence[KLPrompt],
    kept: dict[str, Array],
    measure: Measure,
    *,
    options: dict[str, Any],
) -> dict[str, Array]:
    """Compare one chunk and average the rows of each prompt."""
    if measure.support == "full":
        theirs = last_logits(model, tokenizer, chunk, width=kept["logits"].shape[1], **options)
        rows = measure.rows(kept["logits"], theirs)
    else:
        theirs = gather_logits(model, tokenizer, chunk, kept["ids"][:, : measure.k], **options)
        rows = measure.rows(kept["logits"][:, : measure.k], theirs)
    return {"values": np.add.reduceat(rows, kept["first"]) / kept["lengths"]}


def _probabilities(kept: dict[str, Array], row: int) -> tuple[Array, Array]:
    logits = kept["logits"][row].astype(np.float64)
    if "ids" in kept:
        return kept["ids"][row], logits - kept["log_total"][row]
    top = np.argsort(-logits, kind="stable")[:KEPT]
    return top, logits[top] - np.logaddexp.reduce(logits)


def _shown(chunks: Sequence[Any], label: str) -> Any:
    return bar(chunks, label=label, unit="chunk") if len(chunks) > 1 else chunks
