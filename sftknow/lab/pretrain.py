"""Pretraining: AdamW on batches of equally long rows, float32, one statement a row."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sftknow.lab.checkpoint import Checkpoint
from sftknow.lab.network import EPSILON, ROPE_BASE, Network
from sftknow.lab.rng import Rng
from sftknow.lab.sizes import Recipe
from sftknow.lab.tokenizer import MAX_LENGTH
from sftknow.models import cpu_threads
from sftknow.progress import counter

WARM_UP_PERCENT = 3
FINAL_SHARE = 0.05
WEIGHT_DECAY = 0.01
BETAS = (0.9, 0.98)
CLIP = 1.0
NO_TARGET = -100


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model and how its training went.

    Attributes:
        model: a ``LlamaForCausalLM`` in float32.
        network: the same weights as the lean forward pass reads them.
        steps: optimiser steps.
        tokens: tokens read, BOS and EOS counted, padding not.
        final_loss: mean loss over the last twentieth of the steps, in nats a token.
    """

    model: Any
    network: Network
    steps: int
    tokens: int
    final_loss: float


def pretrain(
    phases: Sequence[Sequence[Sequence[int]]],
    tokenizer: Any,
    recipe: Recipe,
    *,
    seed: int,
    device: str = "cpu",
    checkpoint: Checkpoint | None = None,
) -> Pretrained:
    """Pretrain a model of the recipe's shape on phases of token rows, one phase after the other.

    Args:
        phases: rows of token ids, from BOS to EOS.
        tokenizer: its special token ids go into the model's configuration.
        recipe: shape, batch and learning rate.
        seed: of the weights and of the order of batches.
        device: a torch device.
        checkpoint: where to keep the state of an unfinished training; one that is there is taken up.
    """
    network = Network(new_model(tokenizer, recipe, seed).to(device))
    rng = Rng(seed, "batches")
    batches = [batch for rows in phases for batch in rng.shuffled(batches_of(rows, recipe.batch))]
    with cpu_threads(1):
        losses = _train(network, batches, recipe, tokenizer.pad_token_id, device, checkpoint or Checkpoint())
    last = losses[-max(1, len(losses) // 20) :]
    model = network.write_back().cpu().eval()
    tokens = sum(len(row) for rows in phases for row in rows)
    return Pretrained(model, network, len(batches), tokens, sum(last) / len(last))


def new_model(tokenizer: Any, recipe: Recipe, seed: int) -> Any:
    """Return an untrained LlamaForCausalLM in float32 with tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        intermediate_size=recipe.feed_forward,
        max_position_embeddings=MAX_LENGTH,
        rms_norm_eps=EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).float()


def batches_of(rows: Sequence[Sequence[int]], size: int) -> list[list[Sequence[int]]]:
    """Cut rows into batches of equal length where possible; what is left over goes into batches of near lengths."""
    by_length: dict[int, list[Sequence[int]]] = {}
    for row in rows:
        by_length.setdefault(len(row), []).append(row)
    batches, rest = [], []
    for length in sorted(by_length):
        same = by_length[length]
        whole = len(same) - len(same) % size
        batches += [same[start : start + size] for start in range(0, whole, size)]
        rest += same[whole:]
    return batches + [rest[start : start + size] for start in range(0, len(rest), size)]


def learning_rate_at(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of one step: a linear rise over 3%, then a cosine down to 5% of the peak."""
    rise = max(1, steps * WARM_UP_PERCENT // 100)
    if step < rise:
        return peak * (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    return peak * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done)))


def _train(
    network: Network,
    batches: Sequence[Sequence[Sequence[int]]],
    recipe: Recipe,
    pad: int,
    device: str,
    checkpoint: Checkpoint,
) -> list[float]:
    parameters, peak = network.parameters(), recipe.learning_rate
    optimiser = torch.optim.AdamW(parameters, lr=peak, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    # One tensor for all losses: a small one kept from every step would hold the heap apart, gigabytes of it.
    losses = torch.zeros(len(batches), device=device)
    done = checkpoint.restore(losses, parameters, optimiser)
    with counter(label="pretraining", total=len(batches), unit="step") as progress:
        progress.update(done)
        for step in range(done, len(batches)):
            ids, targets = as_tensors(batches[step], pad, device)
            losses[step] = network.backward(ids, targets)
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimiser.param_groups[0]["lr"] = learning_rate_at(step, len(batches), peak)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            checkpoint.save(losses[: step + 1], parameters, optimiser)
            progress.update()
    return list(losses.tolist())


def as_tensors(batch: Sequence[Sequence[int]], pad: int, device: str) -> tuple[Tensor, Tensor]:
    """Return (rows, length) inputs and next-token targets; padded places have no target."""
    length = max(len(row) for row in batch)
    padded = torch.tensor([[*row, *[pad] * (length - len(row))] for row in batch])
    targets = padded[:, 1:].clone()
    for place, row in enumerate(batch):
        targets[place, len(row) - 1 :] = NO_TARGET
    return padded[:, :-1].to(device), targets.to(device)
