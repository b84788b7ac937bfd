"""The restored checkpoint on disk: shards like the tuned ones, its other files, and a check of what was written."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sftknow.errors import CheckpointError, ConfigError
from sftknow.restoration.checkpoint import Checkpoint, Tensor, open_checkpoint
from sftknow.restoration.compiled import compiled
from sftknow.restoration.disk import reserve, start_flush
from sftknow.restoration.files import other_files
from sftknow.restoration.pairs import Pair, Pairing
from sftknow.restoration.parallel import run_tasks
from sftknow.restoration.survey import CHUNK, Chunk
from sftknow.restoration.values import ITEM_BYTES, Bytes, convert

PIECE_BYTES = 1 << 21
SPARE_BYTES = 1 << 24
_MASK = (1 << 64) - 1


@dataclass
class _Piece:
    """A run of bytes that was written, with the sum of its words and the sum of its words times their number."""

    path: Path
    start: int
    length: int
    total: int
    weighted: int

    def change(self, offset: int, old: bytes, new: bytes) -> None:
        """Account for a change of a few bytes inside one word."""
        step = (int.from_bytes(new, "little") - int.from_bytes(old, "little")) << (8 * (offset % 8))
        self.total = (self.total + step) & _MASK
        self.weighted = (self.weighted + step * (offset // 8 + 1)) & _MASK


@dataclass
class Shards:
    """A sink that writes one checkpoint for each fraction.

    Attributes:
        tuned: gives headers, sharding and every byte that is not restored.
        pairing: what is compared, and which tied twins get the same values.
        folders: one for each fraction, rising.
    """

    tuned: Checkpoint
    pairing: Pairing
    folders: Sequence[Path]
    wants_values = True
    _pieces: dict[tuple[Path, int], _Piece] = field(default_factory=dict)

    def begin(self) -> None:
        """Make the folders and the shard files with the tuned headers."""
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
            for shard in self.tuned.shards:
                with (folder / shard.name).open("xb") as out:
                    out.write(_header(shard))
                    out.truncate(shard.stat().st_size)
                    reserve(out.fileno(), shard.stat().st_size)

    def write(self, pair: Pair, chunk: Chunk, levels: Bytes, outs: Bytes) -> None:
        """Write one chunk to the checkpoint of every fraction."""
        item = ITEM_BYTES[pair.tuned.kind]
        for folder, values in zip(self.folders, outs, strict=True):
            for tensor in self._places(pair.name):
                self._put(folder / tensor.shard.name, tensor.start + chunk.first * item, values)

    def lower(self, pair: Pair, index: int, old: int, new: int) -> None:
        """Write the base value of one parameter to the checkpoints from ``new`` up to ``old``."""
        item = ITEM_BYTES[pair.tuned.kind]
        before = pair.tuned.read(index, index + 1).tobytes()
        after = convert(pair.base.read(index, index + 1), pair.base.kind, pair.tuned.kind).tobytes()
        first = index - index % CHUNK
        for folder in self.folders[new:old]:
            for tensor in self._places(pair.name):
                path = folder / tensor.shard.name
                _write_at(path, tensor.start + index * item, after)
                self._pieces[path, tensor.start + first * item].change((index - first) * item, before, after)

    def copy_rest(self, *, threads: int) -> None:
        """Copy what lies outside the pairs: other tensors, and the rows that only tuned has."""

        def copy(_: None, piece: tuple[Tensor, int, int]) -> None:
            tensor, first, last = piece
            raw = self.tuned.raw(tensor)[first:last]
            for folder in self.folders:
                self._put(folder / tensor.shard.name, tensor.start + first, raw)

        run_tasks(
            list(self._rest()), copy, threads=threads, make_state=lambda: None,
            weigh=lambda piece: piece[2] - piece[1], label="copying", unit="B",
        )  # fmt: skip

    def verify(self, *, threads: int) -> None:
        """Read everything back.

        Raises:
            CheckpointError: a file does not hold what was written to it.
        """

        def check(room: Bytes, piece: _Piece) -> None:
            data = _read_at(piece.path, piece.start, room[: piece.length])
            if data.size != piece.length or _sums(data) != (piece.total, piece.weighted):
                raise CheckpointError(f"{piece.path} does not hold what was written; check the disk and run again.")

        pieces = list(self._pieces.values())
        longest = max((piece.length for piece in pieces), default=0)
        for folder in self.folders:
            written = open_checkpoint(folder, {"path": str(folder)})
            if list(written.tensors) != list(self.tuned.tensors):
                raise CheckpointError(f"{folder} does not hold the tensors of tuned; check the disk and run again.")
        run_tasks(
            pieces, check, threads=threads, make_state=lambda: np.empty(longest, np.uint8),
            weigh=lambda piece: piece.length, label="verifying", unit="B",
        )  # fmt: skip

    def _places(self, name: str) -> list[Tensor]:
        return [self.tuned.tensors[one] for one in (name, *self.pairing.twins.get(name, ()))]

    def _rest(self) -> Iterator[tuple[Tensor, int, int]]:
        done = {
            tensor.name: pair.size * ITEM_BYTES[pair.tuned.kind]
            for pair in self.pairing.pairs
            for tensor in self._places(pair.name)
        }
        for tensor in self.tuned.tensors.values():
            length = tensor.stop - tensor.start
            for first in range(done.get(tensor.name, 0), length, PIECE_BYTES):
                yield tensor, first, min(first + PIECE_BYTES, length)

    def _put(self, path: Path, start: int, data: Bytes) -> None:
        _write_at(path, start, data.data)
        self._pieces[path, start] = _Piece(path, start, data.size, *_sums(data))


def check_space(tuned: Checkpoint, out: Path, copies: int) -> None:
    """Raise ConfigError where the disk has no room for the checkpoints."""
    weights = sum(shard.stat().st_size for shard in tuned.shards)
    others = sum(file.stat().st_size for file in other_files(tuned.folder))
    needed = copies * (weights + others + SPARE_BYTES)
    parent = next(folder for folder in Path(os.path.abspath(out)).parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise ConfigError(
            f"{out} needs {needed / 1e9:.2f} GB and {parent} has {free / 1e9:.2f} GB left; "
            "free some or name another folder."
        )


def copy_other_files(tuned: Checkpoint, folder: Path) -> None:
    """Copy tokenizer, configuration, chat template and every other non-weight file, with ordinary file modes."""
    for file in other_files(tuned.folder):
        target = folder / file.relative_to(tuned.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    if tuned.index is not None:
        shutil.copyfile(tuned.index, folder / tuned.index.name)


def _header(shard: Path) -> bytes:
    with shard.open("rb") as file:
        head = file.read(8)
        return head + file.read(int.from_bytes(head, "little"))


def _write_at(path: Path, start: int, data: bytes | memoryview) -> None:
    handle = os.open(path, os.O_WRONLY)
    try:
        view = memoryview(data)
        while view:
            written = os.pwrite(handle, view, start)
            start_flush(handle, start, written)
            view, start = view[written:], start + written
    finally:
        os.close(handle)


def _read_at(path: Path, start: int, room: Bytes) -> Bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        done = 0
        while done < room.size and (step := file.readinto(room.data[done:])):
            done += step
    return room[:done]


def _sums(data: Bytes) -> tuple[int, int]:
    whole = data.size // 8 * 8
    total, weighted = _word_sums(data[:whole])
    tail = int.from_bytes(data[whole:].tobytes(), "little")
    return (int(total) + tail) & _MASK, (int(weighted) + tail * (whole // 8 + 1)) & _MASK


@compiled
def _word_sums(data: Bytes) -> tuple[np.uint64, np.uint64]:
    total, weighted = np.uint64(0), np.uint64(0)
    words = data.view(np.uint64)
    for i in range(words.size):
        total += words[i]
        weighted += words[i] * np.uint64(i + 1)
    return total, weighted
