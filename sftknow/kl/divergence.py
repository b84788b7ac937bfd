"""The divergence between a base model and a tuned one, holding one model in memory at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from sftknow.errors import ConfigError, DataError
from sftknow.facts.fact import Domain
from sftknow.kl.arrays import kl_rows, kl_top_k
from sftknow.kl.passes import BATCH_SIZE, gather_logits, top_logits
from sftknow.kl.prompts import KLPrompt, kl_prompts
from sftknow.kl.result import Divergence, summarise
from sftknow.mastery.table import MasteryTable, read_mastery
from sftknow.models import load_model, load_tokenizer, resolve_model

Model = str | Path | tuple[Any, Any]


def divergence(
    base: Model,
    tuned: Model,
    table: MasteryTable | str | Path,
    *,
    k: int = 10,
    bucket: int = 4,
    domain: Domain | Literal["both"] = "in_domain",
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    device: str = "cpu",
    dtype: str = "auto",
) -> Divergence:
    """Return the paper's KL between a tuned model and its base, over well-mastered test facts.

    At the first predicted token: the k highest logits of the tuned model, softmaxed over those k on both sides,
    KL(tuned || base), averaged over facts. Folders are loaded one after the other, never both at once.

    Args:
        base: model folder, Hub id, or a loaded ``(model, tokenizer)``.
        tuned: the same, after fine-tuning.
        table: the base model's mastery table, or its folder.
        k: tokens kept.
        bucket: mastery bucket of the facts.
        domain: ``in_domain``, ``out_of_domain`` or ``both``.
        seed: of the bootstrap intervals.
        batch_size: prompts per forward pass; changes numbers by rounding at most.
        device: torch device for models loaded from folders.
        dtype: for models loaded from folders; the softmax is float64 whatever it is.

    Returns:
        The mean with its 95% bootstrap interval, per relation and per fact, in nats.

    Raises:
        ConfigError: an option that cannot be used.
        DataError: no facts to compare on, or tokenizers that differ.
        CheckpointError: a model cannot be loaded.

    Source: the paper's section on token-level analysis.
    """
    table = table if isinstance(table, MasteryTable) else read_mastery(Path(table))
    prompts = kl_prompts(table, bucket=bucket, domain=domain)
    base_tokenizer, tuned_tokenizer = (_tokenizer(model) for model in (base, tuned))
    check_same_tokens(base_tokenizer, tuned_tokenizer, prompts)
    top = top_logits(_model(tuned, device, dtype), tuned_tokenizer, prompts, k, batch_size=batch_size)
    at_same = gather_logits(_model(base, device, dtype), base_tokenizer, prompts, top.ids, batch_size=batch_size)
    return _summary(prompts, kl_rows(top.logits, at_same), k, seed)


def divergence_from_logits(
    prompts: Sequence[KLPrompt], base: ArrayLike, tuned: ArrayLike, *, k: int = 10, seed: int = 0
) -> Divergence:
    """Return the paper's KL from logits already at hand, for sweeps that share the base model's pass.

    Args:
        prompts: the prompts the logits belong to, in order.
        base: :func:`sftknow.kl.last_logits` of the base model, shape ``(prompts, vocabulary)``.
        tuned: the same of the tuned or restored model.
        k: tokens kept.
        seed: of the bootstrap intervals.
    """
    base, tuned = np.asarray(base), np.asarray(tuned)
    if base.shape != tuned.shape or len(base) != len(prompts):
        raise ConfigError(f"logits of shapes {base.shape} and {tuned.shape} do not fit {len(prompts)} prompts.")
    return _summary(prompts, kl_top_k(tuned, base, k), k, seed)


def check_same_tokens(base: Any, tuned: Any, prompts: Sequence[KLPrompt]) -> None:
    """Refuse two tokenizers that name tokens differently or cut the prompts differently.

    Raises:
        DataError: with the first difference.
    """
    if base is tuned:
        return
    ours, theirs = base.get_vocab(), tuned.get_vocab()
    different = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    if different:
        token = different[0]
        raise DataError(
            f"base and tuned have different vocabularies: {len(different)} tokens differ, such as {token!r} "
            f"(id {ours.get(token)} in the base, {theirs.get(token)} in the tuned); their logits cannot be compared."
        )
    texts = [prompt.text for prompt in prompts]
    for prompt, left, right in zip(prompts, base(texts)["input_ids"], tuned(texts)["input_ids"], strict=True):
        if left != right:
            raise DataError(
                f"base and tuned tokenize prompt {prompt.id} differently ({left[:8]}... and {right[:8]}...); "
                "copy the base's tokenizer files into the tuned folder."
            )


def _summary(prompts: Sequence[KLPrompt], values: Any, k: int, seed: int) -> Divergence:
    measure = {
        "direction": "KL(tuned || base)",
        "support": f"top {k} of tuned",
        "positions": "first token",
        "unit": "nats",
    }
    ids, relations = [prompt.id for prompt in prompts], [prompt.relation for prompt in prompts]
    return summarise(ids, relations, values, seed=seed, measure=measure)


def _tokenizer(model: Model) -> Any:
    return model[1] if isinstance(model, tuple) else load_tokenizer(resolve_model(model)[0])


def _model(model: Model, device: str, dtype: str) -> Any:
    return model[0] if isinstance(model, tuple) else load_model(resolve_model(model)[0], dtype=dtype, device=device)
