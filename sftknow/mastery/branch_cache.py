"""A key-value cache whose rows are branches: they split, end and move without copying those that stay."""

import copy
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class BranchLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values in a buffer with room for more rows and more tokens than are in use."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self._keys: torch.Tensor | None = None
        self._values: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new tokens behind the cached ones and return everything cached, (rows, heads, tokens, width)."""
        start = self.get_seq_length()
        rows, tokens = key_states.shape[0], start + key_states.shape[2]
        if self._keys is None or self._values is None:
            self.lazy_initialization(key_states, value_states)
            self._keys = _buffer(key_states, rows, max(self.room, tokens))
            self._values = _buffer(value_states, rows, max(self.room, tokens))
        self._keys[:rows, :, start:tokens] = key_states
        self._values[:rows, :, start:tokens] = value_states
        self.keys, self.values = self._keys[:rows, :, :tokens], self._values[:rows, :, :tokens]
        return self.keys, self.values

    def arrange(self, parents: torch.Tensor) -> None:
        """Make row i a copy of what row ``parents[i]`` was; rows that are their own parent are not touched."""
        tokens, rows = self.get_seq_length(), len(parents)
        self._keys = _arranged(self._keys, parents, tokens)
        self._values = _arranged(self._values, parents, tokens)
        self.keys, self.values = self._keys[:rows, :, :tokens], self._values[:rows, :, :tokens]

    def taken(self, rows: torch.Tensor) -> "BranchLayer":
        """Return a layer of its own that holds only some rows."""
        layer = BranchLayer(self.room)
        layer.update(self.keys[rows], self.values[rows])
        return layer


def _buffer(like: torch.Tensor, rows: int, tokens: int) -> torch.Tensor:
    return like.new_empty((rows, like.shape[1], tokens, like.shape[3]))


def _arranged(buffer: torch.Tensor | None, parents: torch.Tensor, tokens: int) -> torch.Tensor:
    assert buffer is not None
    rows = len(parents)
    moved = (parents != torch.arange(rows, device=parents.device)).nonzero()[:, 0]
    fresh = buffer[parents[moved], :, :tokens]
    if rows > buffer.shape[0]:
        larger = _buffer(buffer, max(rows, buffer.shape[0] * 3 // 2), buffer.shape[2])
        larger[: buffer.shape[0], :, :tokens] = buffer[:, :, :tokens]
        buffer = larger
    buffer[moved, :, :tokens] = fresh
    return buffer


class BranchCache(DynamicCache):  # type: ignore[misc]
    """The cache of a batch of branches; layers that are not plain attention keep transformers' own kind."""

    def __init__(self, config: Any, room: int) -> None:
        super().__init__(config=config)
        self.layers: list[Any] = [BranchLayer(room) if type(layer) is DynamicLayer else layer for layer in self.layers]

    def arrange(self, parents: torch.Tensor) -> None:
        """Make row i of every layer a copy of what row ``parents[i]`` was."""
        for layer in self.layers:
            if isinstance(layer, BranchLayer):
                layer.arrange(parents)
            else:
                layer.reorder_cache(parents)

    def taken(self, rows: torch.Tensor) -> "BranchCache":
        """Return a cache of its own that holds only some rows."""
        part = copy.copy(self)
        part.layers = []
        for layer in self.layers:
            if isinstance(layer, BranchLayer):
                part.layers.append(layer.taken(rows))
            else:
                part.layers.append(copy.deepcopy(layer))
                part.layers[-1].reorder_cache(rows)
        return part
