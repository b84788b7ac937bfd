"""The forward pass of a small LLaMA written out, for pretraining: same weights, same function, less overhead.

Rows of a batch are as long as each other or padded on the right, so attention needs no mask but the causal one. The
query, key and value projections are one matrix, so are gate and up, and the gradient of the tied embedding is added
where its rows are used instead of through a dense matrix of zeros.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

EPSILON = 1e-5
ROPE_BASE = 10_000.0


class Network:
    """A tied-embedding LLaMA as a handful of parameters.

    Args:
        model: a ``LlamaForCausalLM`` whose weights to start from; :meth:`write_back` returns them there.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._heads = model.config.num_attention_heads
        body = model.model
        self.embedding = _parameter(body.embed_tokens.weight)
        self._norm = _parameter(body.norm.weight)
        self._layers = [[_parameter(*group) for group in _groups(layer)] for layer in body.layers]
        self._rotation = _rotation(model.config, self.embedding.device)

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return every parameter, in a fixed order."""
        return [self.embedding, self._norm, *(weight for layer in self._layers for weight in layer)]

    def hidden(self, embedded: Tensor) -> Tensor:
        """Return the last hidden states, (rows x length, hidden), of embedded tokens (rows, length, hidden)."""
        rows, length, size = embedded.shape
        x = embedded.view(rows * length, size)
        for norm_in, qkv, out, norm_mid, gate_up, down in self._layers:
            x = x + F.linear(self._attention(F.linear(_rms(x, norm_in), qkv), rows, length), out)
            gate, up = F.linear(_rms(x, norm_mid), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        return _rms(x, self._norm)

    def _attention(self, qkv: Tensor, rows: int, length: int) -> Tensor:
        query, key, value = qkv.view(rows, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        cosine, sine = self._rotation[0][:length], self._rotation[1][:length]
        half = query.shape[-1] // 2
        query = query * cosine + query.roll(half, -1) * sine
        key = key * cosine + key.roll(half, -1) * sine
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.transpose(1, 2).reshape(rows * length, -1)

    def backward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Fill the gradients of the mean next-token loss and return the loss.

        Args:
            ids: (rows, length) input tokens.
            targets: (rows, length) next tokens, -100 where there is none.
        """
        embedded = self.embedding.detach()[ids].requires_grad_()
        loss = F.cross_entropy(F.linear(self.hidden(embedded), self.embedding), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        assert self.embedding.grad is not None and embedded.grad is not None
        self.embedding.grad.index_add_(0, ids.flatten(), embedded.grad.flatten(0, 1))
        return loss.detach()

    @torch.no_grad()
    def write_back(self) -> Any:
        """Copy the weights into the transformers model and return it."""
        body = self._model.model
        body.embed_tokens.weight.copy_(self.embedding)
        body.norm.weight.copy_(self._norm)
        for layer, weights in zip(body.layers, self._layers, strict=True):
            for group, weight in zip(_groups(layer), weights, strict=True):
                for part, piece in zip(group, weight.chunk(len(group)), strict=True):
                    part.copy_(piece)
        return self._model


def _groups(layer: Any) -> list[tuple[Tensor, ...]]:
    attention, mlp = layer.self_attn, layer.mlp
    return [
        (layer.input_layernorm.weight,),
        (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight),
        (attention.o_proj.weight,),
        (layer.post_attention_layernorm.weight,),
        (mlp.gate_proj.weight, mlp.up_proj.weight),
        (mlp.down_proj.weight,),
    ]


def _parameter(*parts: Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.cat([part.detach() for part in parts]).clone())


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, EPSILON)


def _rotation(config: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    size = config.hidden_size // config.num_attention_heads
    speeds = ROPE_BASE ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
    angles = torch.outer(torch.arange(config.max_position_embeddings, dtype=torch.float32), speeds).repeat(1, 2)
    sine = angles.sin()
    sine[:, : size // 2] *= -1  # rolling by half swaps the halves; the one that comes to the front changes sign
    return angles.cos().to(device), sine.to(device)
