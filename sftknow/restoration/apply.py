"""The second reading: each parameter gets its level, the first fraction that restores it, and goes to a sink."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sftknow.restoration.change import measure
from sftknow.restoration.levels import assign_levels
from sftknow.restoration.pairs import Pair
from sftknow.restoration.parallel import run_tasks
from sftknow.restoration.recipe import Recipe
from sftknow.restoration.survey import CHUNK, STRATEGY_CODES, Chunk, Survey, chunks_of
from sftknow.restoration.ties import mix_all
from sftknow.restoration.values import ITEM_BYTES, Bytes, Values, decode

_OPEN_ROOM = 4096
_NO_VALUES = np.empty((0, 0), np.uint8)


class Sink(Protocol):
    """Where levels go; ``write`` is called from several threads, each chunk once, ``lower`` afterwards."""

    @property
    def wants_values(self) -> bool:
        """Whether restored values are to be made, not levels alone."""

    def write(self, pair: Pair, chunk: Chunk, levels: Bytes, outs: Bytes) -> None:
        """Take one chunk: [n] levels and, if wanted, [J, bytes] values of each fraction."""

    def lower(self, pair: Pair, index: int, old: int, new: int) -> None:
        """Take a lower level for one parameter of a chunk that was written."""


class Nowhere:
    """A sink that keeps nothing: for statistics alone."""

    wants_values = False

    def write(self, pair: Pair, chunk: Chunk, levels: Bytes, outs: Bytes) -> None:
        """Drop it."""

    def lower(self, pair: Pair, index: int, old: int, new: int) -> None:
        """Drop it."""


@dataclass(frozen=True)
class Undone:
    """What each fraction restores of each pair.

    Attributes:
        restored: [pairs, J] how many parameters.
        absolute: [pairs, J] their sum of |s - p|.
        relative: [pairs, J] their sum of r.
    """

    restored: npt.NDArray[np.int64]
    absolute: npt.NDArray[np.float64]
    relative: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Open:
    """Decisions that one chunk left open: parameters whose hash is near the one that splits their tie group."""

    pair: int
    index: npt.NDArray[np.int64]
    fraction: npt.NDArray[np.uint8]
    level: Bytes
    hashes: npt.NDArray[np.uint64]
    absolute: npt.NDArray[np.float32]
    relative: npt.NDArray[np.float32]


@dataclass
class _Buffers:
    levels: Bytes = field(default_factory=lambda: np.empty(CHUNK, np.uint8))
    open_index: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(_OPEN_ROOM, np.int64))
    open_fraction: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(_OPEN_ROOM, np.uint8))
    outs: Bytes = field(default_factory=lambda: np.empty((0, 0), np.uint8))

    def outs_for(self, fractions: int, size: int) -> Bytes:
        """Return room for the values of each fraction, all in one piece."""
        if self.outs.size < fractions * size:
            self.outs = np.empty((1, fractions * size), np.uint8)
        return self.outs.reshape(-1)[: fractions * size].reshape(fractions, size)


def apply(pairs: Sequence[Pair], found: Survey, recipe: Recipe, sink: Sink, *, threads: int, label: str) -> Undone:
    """Read every pair once more and send each parameter's level to a sink.

    Args:
        pairs: the same as were surveyed.
        found: thresholds of the first reading.
        recipe: the same as was surveyed.
        sink: receives the levels.
        threads: how many work at once; the result does not depend on it.
        label: what the progress bar says.
    """
    count = len(found.cuts)
    cuts = np.array([cut.above for cut in found.cuts], np.int32)
    ties = np.array([cut.tie for cut in found.cuts], np.int32)
    below = np.array([cut.below for cut in found.cuts], np.uint64)
    last = np.array([cut.last for cut in found.cuts], np.uint64)
    strategy = STRATEGY_CODES[recipe.strategy]

    def work(buffers: _Buffers, chunk: Chunk) -> tuple[npt.NDArray[np.float64], _Open | None]:
        pair = pairs[chunk.pair]
        base_raw, tuned_raw = pair.base.read(chunk.first, chunk.last), pair.tuned.read(chunk.first, chunk.last)
        start = np.uint64((found.starts[chunk.pair] + chunk.first) % (1 << 64))
        levels = buffers.levels[: chunk.size]
        outs = buffers.outs_for(count, tuned_raw.size) if sink.wants_values else _NO_VALUES
        while True:
            tally = np.zeros((count, 3))
            opened = assign_levels(
                base_raw, pair.base.kind, tuned_raw, pair.tuned.kind, recipe.by_absolute, strategy,
                recipe.only_changed, cuts, ties, below, last, start, levels, tally,
                buffers.open_index, buffers.open_fraction, outs,
            )  # fmt: skip
            if opened <= buffers.open_index.size:
                break
            buffers.open_index = np.empty(2 * opened, np.int64)
            buffers.open_fraction = np.empty(2 * opened, np.uint8)
        sink.write(pair, chunk, levels, outs)
        return tally, _open_of(pair, chunk, buffers, opened, levels, start) if opened else None

    chunks = chunks_of(pairs)
    parts = run_tasks(chunks, work, threads=threads, make_state=_Buffers, weigh=lambda chunk: chunk.size, label=label)
    tally = np.zeros((len(pairs), count, 3))
    for chunk, (part, _) in zip(chunks, parts, strict=True):
        tally[chunk.pair] += part
    _settle([left for _, left in parts if left is not None], found, pairs, sink, tally)
    reached = np.cumsum(tally, axis=1)
    return Undone(reached[..., 0].astype(np.int64), reached[..., 1], reached[..., 2])


def _open_of(pair: Pair, chunk: Chunk, buffers: _Buffers, opened: int, levels: Bytes, start: np.uint64) -> _Open:
    index = buffers.open_index[:opened].copy()
    base, tuned = (_pick(values, chunk, index) for values in (pair.base, pair.tuned))
    absolute, relative = np.empty(opened, np.float32), np.empty(opened, np.float32)
    measure(base, tuned, absolute, relative)
    hashes = mix_all(start, index)
    fraction = buffers.open_fraction[:opened].copy()
    return _Open(chunk.pair, chunk.first + index, fraction, levels[index], hashes, absolute, relative)


def _pick(values: Values, chunk: Chunk, index: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    item = ITEM_BYTES[values.kind]
    raw = values.read(chunk.first, chunk.last).reshape(-1, item)[index].reshape(-1)
    raw.flags.writeable = False
    out = np.empty(index.size, np.float32)
    decode(raw, values.kind, out)
    return out


def _settle(
    left: Sequence[_Open], found: Survey, pairs: Sequence[Pair], sink: Sink, tally: npt.NDArray[np.float64]
) -> None:
    """Sort the open decisions of each fraction by hash and restore as many as it still lacks."""
    if not left:
        return
    pair = np.concatenate([np.full(part.index.size, part.pair) for part in left])
    index, fraction, level, hashes, absolute, relative = (
        np.concatenate([getattr(part, name) for part in left])
        for name in ("index", "fraction", "level", "hashes", "absolute", "relative")
    )
    lowered: dict[tuple[int, int], tuple[int, int, float, float]] = {}
    for j, cut in enumerate(found.cuts):
        mine = np.flatnonzero(fraction == j)
        for one in mine[np.argsort(hashes[mine], kind="stable")][: cut.open_taken]:
            key = (int(pair[one]), int(index[one]))
            lowered.setdefault(key, (int(level[one]), j, float(absolute[one]), float(relative[one])))
    for (number, at), (old, new, moved, ratio) in sorted(lowered.items()):
        if new < old:
            change = np.array([1.0, moved, ratio])
            tally[number, new] += change
            if old < len(found.cuts):
                tally[number, old] -= change
            sink.lower(pairs[number], at, old, new)
