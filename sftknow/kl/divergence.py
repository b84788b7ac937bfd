"""The divergence between a base model and a tuned one, holding one model in memory at a time."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from sftknow.errors import ConfigError, DataError
from sftknow.facts.fact import Domain
from sftknow.kl.arrays import kl_rows, kl_top_k
from sftknow.kl.compare import Side, compare
from sftknow.kl.journal import Journal
from sftknow.kl.measure import Direction, Measure, Support
from sftknow.kl.passes import BATCH_SIZE, gather_logits, top_logits
from sftknow.kl.prompts import KLPrompt, Positions, kl_prompts
from sftknow.kl.result import Divergence, summarise
from sftknow.mastery.table import MasteryTable, read_mastery
from sftknow.models import load_model, load_tokenizer, resolve_model

Model = str | Path | tuple[Any, Any]


def divergence(
    base: Model,
    tuned: Model,
    table: MasteryTable | str | Path | None = None,
    *,
    prompts: Sequence[KLPrompt] | None = None,
    bucket: int = 4,
    domain: Domain | Literal["both"] = "in_domain",
    k: int = 10,
    direction: Direction = "tuned-base",
    support: Support = "top",
    positions: Positions = "first",
    moved: int = 10,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    device: str = "cpu",
    dtype: str = "auto",
    work: Path | None = None,
) -> Divergence:
    """Return the divergence between a tuned model and its base; by default the paper's KL on well-mastered test facts.

    The paper's: at the first predicted token, the k highest logits of the tuned model, softmaxed over those k on both
    sides, KL(tuned || base), averaged over facts. Folders are loaded one after the other, never both at once.

    Args:
        base: model folder, Hub id, or a loaded ``(model, tokenizer)``.
        tuned: the same, after fine-tuning.
        table: the base model's mastery table, or its folder.
        prompts: other prompts to compare on, instead of a table.
        bucket: mastery bucket of the facts.
        domain: ``in_domain``, ``out_of_domain`` or ``both``.
        k: tokens kept.
        direction: ``tuned-base``, ``base-tuned`` or ``js``; see :class:`sftknow.kl.measure.Measure`.
        support: ``top`` or ``full``.
        positions: ``first`` or ``answer``.
        moved: describe this many of the facts that moved most.
        seed: of the bootstrap intervals.
        batch_size: prompts per forward pass; changes numbers by rounding at most.
        device: torch device for models loaded from folders.
        dtype: for models loaded from folders; the softmax is float64 whatever it is.
        work: hidden folder for finished chunks, so that a stopped comparison goes on; removed at the end.

    Returns:
        The mean with its 95% bootstrap interval, per relation and per fact, in nats.

    Raises:
        ConfigError: an option that cannot be used.
        DataError: no facts to compare on, or tokenizers that differ.
        CheckpointError: a model cannot be loaded.

    Source: the paper's section on token-level analysis.
    """
    measure = Measure(direction, support, positions, k)
    chosen = _prompts(table, prompts, bucket, domain)
    sides = {name: _side(model, device, dtype) for name, model in (("base", base), ("tuned", tuned))}
    check_same_tokens(sides["base"].tokenizer, sides["tuned"].tokenizer, chosen)
    width, notes = _common_width(base, tuned)
    if measure.support == "top" and width < k:
        raise ConfigError(f"k {k} is more than the vocabulary of {width} tokens; ask for fewer.")
    lead, follow = ("base", "tuned") if measure.base_leads else ("tuned", "base")
    with Journal(work, _key(base, tuned, chosen, measure, dtype) if work else {}) as journal:
        values, described = compare(
            sides[lead], sides[follow], chosen, measure, journal, batch_size=batch_size, width=width, moved=moved
        )
    result = _summary(chosen, values, measure, seed)
    return replace(result, notes=tuple(notes), moved=tuple(described))


def divergences(
    base: Model,
    others: Mapping[str, Model],
    prompts: Sequence[KLPrompt],
    *,
    k: int = 10,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    device: str = "cpu",
    dtype: str = "auto",
) -> dict[str, Divergence]:
    """Return the paper's KL(other || base) of several models, such as one restored at several fractions.

    Each is loaded once, the base last and once for all.

    Args:
        base: model folder, Hub id, or a loaded ``(model, tokenizer)``.
        others: name -> model, in the same forms.
        prompts: what to compare on; see :func:`sftknow.kl.kl_prompts` and :func:`sftknow.kl.read_prompts`.
        k: tokens kept.
        seed: of the bootstrap intervals.
        batch_size: prompts per forward pass.
        device: torch device for models loaded from folders.
        dtype: for models loaded from folders.

    Raises:
        DataError: tokenizers that differ.
        CheckpointError: a model cannot be loaded.
    """
    ours = _side(base, device, dtype)
    kept = {}
    for name, other in others.items():
        theirs = _side(other, device, dtype)
        check_same_tokens(ours.tokenizer, theirs.tokenizer, prompts)
        width, _ = _common_width(base, other)
        kept[name] = top_logits(theirs.load(), theirs.tokenizer, prompts, k, batch_size=batch_size, width=width)
    model = ours.load()
    result = {}
    for name, top in kept.items():
        at_same = gather_logits(model, ours.tokenizer, prompts, top.ids, batch_size=batch_size)
        result[name] = _summary(prompts, kl_rows(top.logits, at_same), Measure(k=k), seed)
    return result


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

    Raises:
        ConfigError: shapes that do not fit.
    """
    base, tuned = np.asarray(base), np.asarray(tuned)
    if base.shape != tuned.shape or len(base) != len(prompts):
        raise ConfigError(f"logits of shapes {base.shape} and {tuned.shape} do not fit {len(prompts)} prompts.")
    return _summary(prompts, kl_top_k(tuned, base, k), Measure(k=k), seed)


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


def _prompts(
    table: MasteryTable | str | Path | None,
    prompts: Sequence[KLPrompt] | None,
    bucket: int,
    domain: Domain | Literal["both"],
) -> Sequence[KLPrompt]:
    if (table is None) == (prompts is None):
        raise ConfigError("give either a mastery table or prompts to compare on, not both and not neither.")
    if prompts is not None:
        if not prompts:
            raise DataError("there are no prompts to compare on; give at least one.")
        return prompts
    assert table is not None
    table = table if isinstance(table, MasteryTable) else read_mastery(Path(table))
    return kl_prompts(table, bucket=bucket, domain=domain)


def _side(model: Model, device: str, dtype: str) -> Side:
    if isinstance(model, tuple):
        loaded, tokenizer = model
        return Side(lambda: loaded, tokenizer)
    folder, _ = resolve_model(model)
    return Side(lambda: load_model(folder, dtype=dtype, device=device), load_tokenizer(folder))


def _common_width(base: Model, tuned: Model) -> tuple[int, list[str]]:
    """Return how many rows of the output head both models have, and a note where one has more."""
    widths = _width(base), _width(tuned)
    if widths[0] == widths[1]:
        return widths[0], []
    larger = "base" if widths[0] > widths[1] else "tuned"
    note = f"the {larger} model's output rows {min(widths)} to {max(widths) - 1}, which the other lacks, are left out"
    return min(widths), [note]


def _width(model: Model) -> int:
    if isinstance(model, tuple):
        return int(model[0].get_output_embeddings().weight.shape[0])
    config = json.loads((resolve_model(model)[0] / "config.json").read_text(encoding="utf-8"))
    return int({**config, **config.get("text_config", {})}["vocab_size"])


def _key(base: Model, tuned: Model, prompts: Sequence[KLPrompt], measure: Measure, dtype: str) -> dict[str, Any]:
    if isinstance(base, tuple) or isinstance(tuned, tuple):
        raise ConfigError("a comparison of loaded models cannot be resumed; name folders, or leave out `work`.")
    digests = [resolve_model(model)[1]["digest"] for model in (base, tuned)]
    texts = [[prompt.text, prompt.answer] for prompt in prompts]
    return {"models": digests, "prompts": texts, "measure": asdict(measure), "dtype": dtype}


def _summary(prompts: Sequence[KLPrompt], values: Any, measure: Measure, seed: int) -> Divergence:
    ids, relations = [prompt.id for prompt in prompts], [prompt.relation for prompt in prompts]
    return summarise(ids, relations, values, seed=seed, measure=measure.in_words())
