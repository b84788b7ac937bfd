"""One model's pass over the prompts: next-token logits at the wanted positions, in batches of similar length."""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftknow.kl.arrays import Array
from sftknow.kl.prompts import Encoded, KLPrompt, Positions, encode
from sftknow.progress import counter

BATCH_SIZE = 64


@dataclass(frozen=True, slots=True)
class TopLogits:
    """The highest logits of each row of a pass.

    Attributes:
        ids: token ids, highest logit first, shape ``(rows, k)``.
        logits: their logits, float32, same shape.
        log_total: log of the sum of exponentials over the whole vocabulary, shape ``(rows,)``: ``logits - log_total``
            are full-vocabulary log-probabilities.
    """

    ids: NDArray[np.int64]
    logits: NDArray[np.float32]
    log_total: NDArray[np.float64]


def top_logits(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[KLPrompt],
    k: int = 10,
    *,
    positions: Positions = "first",
    batch_size: int = BATCH_SIZE,
    width: int | None = None,
) -> TopLogits:
    """Return the k highest next-token logits of every prompt; ties go to the lower id.

    Args:
        model: a loaded causal language model.
        tokenizer: its tokenizer.
        prompts: what to predict the continuation of.
        k: logits kept for each row.
        positions: ``first`` (one row a prompt) or ``answer`` (one row for each answer token, prompt after prompt).
        batch_size: prompts per forward pass.
        width: tokens of the vocabulary considered; None for all.
    """
    encoded = encode(tokenizer, prompts, positions)
    rows = sum(len(item.positions) for item in encoded)
    ids = np.empty((rows, k), dtype=np.int64)
    logits = np.empty((rows, k), dtype=np.float32)
    log_total = np.empty(rows, dtype=np.float64)
    for index, values in batches(model, encoded, batch_size=batch_size, width=width, label="highest logits"):
        chosen = _top_ids(values, k)
        ids[index] = chosen.cpu().numpy()
        logits[index] = values.gather(-1, chosen).cpu().numpy()
        log_total[index] = values.double().logsumexp(-1).cpu().numpy()
    return TopLogits(ids, logits, log_total)


def gather_logits(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[KLPrompt],
    ids: NDArray[np.int64],
    *,
    positions: Positions = "first",
    batch_size: int = BATCH_SIZE,
) -> NDArray[np.float32]:
    """Return a model's next-token logits at given ids, shape and row order of ``ids``; float32."""
    import torch

    encoded = encode(tokenizer, prompts, positions)
    logits = np.empty(ids.shape, dtype=np.float32)
    for index, values in batches(model, encoded, batch_size=batch_size, label="logits at given tokens"):
        wanted = torch.from_numpy(ids[index]).to(values.device)
        logits[index] = values.gather(-1, wanted).cpu().numpy()
    return logits


def last_logits(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[KLPrompt],
    *,
    positions: Positions = "first",
    batch_size: int = BATCH_SIZE,
    width: int | None = None,
) -> NDArray[np.float32]:
    """Return all next-token logits of every prompt, shape ``(rows, vocabulary)``, float32: small sets only."""
    encoded = encode(tokenizer, prompts, positions)
    rows = sum(len(item.positions) for item in encoded)
    logits: Array = np.empty((0, 0), dtype=np.float32)
    for index, values in batches(model, encoded, batch_size=batch_size, width=width, label="logits"):
        if not logits.size:
            logits = np.empty((rows, values.shape[-1]), dtype=np.float32)
        logits[index] = values.cpu().numpy()
    return logits


def batches(
    model: Any,
    encoded: Sequence[Encoded],
    *,
    batch_size: int = BATCH_SIZE,
    width: int | None = None,
    label: str = "logits",
) -> Iterator[tuple[NDArray[np.int64], Any]]:
    """Run a model over encoded prompts, longest first, and yield row numbers with their float32 logits.

    Prompts are padded on the right by hand, where a causal model cannot see the padding, so neither the tokenizer's
    padding side nor the batch size changes a logit by more than rounding. Only the wanted positions reach the output
    head.

    Yields:
        ``(rows, logits)``: row numbers in prompt order, and a tensor ``(rows, vocabulary)`` on the model's device.
    """
    import torch

    order = sorted(range(len(encoded)), key=lambda number: -len(encoded[number].ids))
    first_row = np.cumsum([0, *(len(item.positions) for item in encoded)])
    chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    bar = counter(label=label, total=len(encoded), unit="prompt") if len(chunks) > 1 else contextlib.nullcontext()
    with _evaluating(model), bar as shown:
        for chunk in chunks:
            items = [encoded[number] for number in chunk]
            with torch.inference_mode():
                values = forward(model, items)
                values = values[:, :width] if width else values
            index = [first_row[number] + step for number in chunk for step in range(len(encoded[number].positions))]
            yield np.asarray(index, dtype=np.int64), values
            if shown is not None:
                shown.update(len(chunk))


def forward(model: Any, items: Sequence[Encoded]) -> Any:
    """Run one batch and return its float32 logits at the wanted positions, shape ``(rows, vocabulary)``.

    Gradients flow unless the caller switched them off; the model stays in its mode.
    """
    import torch

    device = next(model.parameters()).device
    longest = max(len(item.ids) for item in items)
    ids = torch.zeros((len(items), longest), dtype=torch.long)
    mask = torch.zeros((len(items), longest), dtype=torch.long)
    for row, item in enumerate(items):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        mask[row, : len(item.ids)] = 1
    wanted = sorted({position for item in items for position in item.positions})
    options = {"logits_to_keep": torch.tensor(wanted, device=device)} if _keeps_logits(model) else {}
    logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False, **options).logits
    column = {position: number for number, position in enumerate(wanted)} if options else range(longest)
    rows = [row for row, item in enumerate(items) for _ in item.positions]
    columns = [column[position] for item in items for position in item.positions]
    return logits[torch.tensor(rows, device=device), torch.tensor(columns, device=device)].float()


def _keeps_logits(model: Any) -> bool:
    model = getattr(model, "module", model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(type(model).forward).parameters


def _top_ids(values: Any, k: int) -> Any:
    """Return the ids of the k highest values, highest first, lower ids first among equals, on any device."""
    import torch

    top = values.topk(k, dim=-1)
    threshold = top.values[:, -1:]
    above = values > threshold
    equal = values == threshold
    room = k - above.sum(-1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(-1) <= room))
    ids = chosen.nonzero()[:, 1].view(values.shape[0], k)
    order = values.gather(-1, ids).sort(dim=-1, descending=True, stable=True).indices
    return torch.gather(ids, -1, order)


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Put a model in evaluation mode, and back as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
