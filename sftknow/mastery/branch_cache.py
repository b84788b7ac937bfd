"""A key-value cache whose rows are branches: they split, end and move without copying those that stay."""

import copy
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_MORE_TOKENS = 8


class BranchLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values in buffers with room for more rows and more tokens than are in use.

    The buffers are (rows, tokens, heads, width): what is in use of one row lies in one piece of memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self._key_buffer = self._value_buffer = torch.empty(0, 0, 0, 0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new tokens behind the cached ones and return everything cached, (rows, heads, tokens, width)."""
        start = self.get_seq_length()
        rows, tokens = key_states.shape[0], start + key_states.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._key_buffer = _with_room(self._key_buffer, key_states, rows, start, tokens)
        self._value_buffer = _with_room(self._value_buffer, value_states, rows, start, tokens)
        self._key_buffer[:rows, start:tokens] = key_states.transpose(1, 2)
        self._value_buffer[:rows, start:tokens] = value_states.transpose(1, 2)
        return self._show(rows, tokens)

    def arrange(self, parents: torch.Tensor, moved: torch.Tensor) -> None:
        """Make row i a copy of what row ``parents[i]`` was; only the rows in ``moved`` differ from what they were."""
        tokens = self.get_seq_length()
        self._key_buffer = _arranged(self._key_buffer, parents, moved, tokens)
        self._value_buffer = _arranged(self._value_buffer, parents, moved, tokens)
        self._show(len(parents), tokens)

    def taken(self, rows: torch.Tensor) -> "BranchLayer":
        """Return a layer of its own that holds only some rows."""
        layer = BranchLayer()
        layer.update(self.keys.index_select(0, rows), self.values.index_select(0, rows))
        return layer

    def _show(self, rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys = self._key_buffer[:rows, :tokens].transpose(1, 2)
        self.values = self._value_buffer[:rows, :tokens].transpose(1, 2)
        return self.keys, self.values


def _with_room(buffer: torch.Tensor, states: torch.Tensor, rows: int, used: int, tokens: int) -> torch.Tensor:
    if buffer.shape[0] >= rows and buffer.shape[1] >= tokens:
        return buffer
    larger = states.new_empty((max(rows, buffer.shape[0]), tokens + _MORE_TOKENS, states.shape[1], states.shape[3]))
    if used:
        larger[:rows, :used] = buffer[:rows, :used]
    return larger


def _arranged(buffer: torch.Tensor, parents: torch.Tensor, moved: torch.Tensor, tokens: int) -> torch.Tensor:
    rows, width = len(parents), tokens * buffer.shape[2] * buffer.shape[3]
    fresh = buffer.flatten(1)[:, :width].index_select(0, parents[moved])
    if rows > buffer.shape[0]:
        larger = buffer.new_empty((rows + rows // 4, *buffer.shape[1:]))
        larger[: buffer.shape[0], :tokens] = buffer[:, :tokens]
        buffer = larger
    buffer.flatten(1)[:, :width].index_copy_(0, moved, fresh)
    return buffer


class BranchCache(DynamicCache):  # type: ignore[misc]
    """The cache of a batch of branches; layers that are not plain attention keep transformers' own kind."""

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.layers: list[Any] = [BranchLayer() if type(layer) is DynamicLayer else layer for layer in self.layers]

    def arrange(self, parents: torch.Tensor) -> None:
        """Make row i of every layer a copy of what row ``parents[i]`` was."""
        moved = (parents != torch.arange(len(parents), device=parents.device)).nonzero()[:, 0]
        for layer in self.layers:
            if isinstance(layer, BranchLayer):
                layer.arrange(parents, moved)
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
