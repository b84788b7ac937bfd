"""A checkpoint folder read lazily: safetensors headers now, values only when asked for, never a pickle."""

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sftknow.errors import CheckpointError
from sftknow.records import model_identity
from sftknow.restoration.values import KINDS, Bytes, Values

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
MAX_HEADER_BYTES = 100_000_000
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One stored tensor.

    Attributes:
        name: as in the file.
        dtype: as safetensors writes it, such as ``BF16``.
        shape: sizes of its dimensions.
        shard: the file that holds it.
        start: first byte of its values in that file.
        stop: past the last.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: Path
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """A model folder.

    Attributes:
        folder: where it is.
        identity: as :func:`sftknow.records.model_identity` gives it.
        config: ``config.json``; empty where there is none.
        shards: the files in use, in order.
        index: the weight index, where the weights are sharded.
        tensors: name -> tensor, in the order of the files.
    """

    folder: Path
    identity: Mapping[str, Any]
    config: Mapping[str, Any]
    shards: tuple[Path, ...]
    index: Path | None
    tensors: Mapping[str, Tensor]
    _maps: dict[Path, Bytes] = field(default_factory=dict, repr=False, compare=False)

    def raw(self, tensor: Tensor) -> Bytes:
        """Return the bytes of one tensor, mapped from its file."""
        if tensor.shard not in self._maps:
            with tensor.shard.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._maps[tensor.shard] = np.frombuffer(mapped, np.uint8)
        return self._maps[tensor.shard][tensor.start : tensor.stop]

    def values(self, tensor: Tensor) -> Values:
        """Return the values of a floating-point tensor."""
        raw = self.raw(tensor)
        item = _BITS[tensor.dtype] // 8
        aligned = tensor.start % item == 0

        def read(first: int, last: int) -> Bytes:
            chunk = raw[first * item : last * item]
            if aligned:
                return chunk
            copy = chunk.copy()
            copy.flags.writeable = False
            return copy

        return Values(KINDS[tensor.dtype], read)


def open_checkpoint(folder: Path, identity: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read the headers of a model folder and check that its files are whole.

    Raises:
        CheckpointError: no safetensors weights, a damaged or missing shard, a bad index, or quantised weights.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; name a Hugging Face model folder.")
    config = _read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if config.get("quantization_config"):
        raise CheckpointError(
            f"{folder / 'config.json'} says that the weights are quantised; use the unquantised checkpoint."
        )
    shards, index = _weight_files(folder)
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        for tensor in read_header(shard):
            if tensor.name in tensors:
                raise CheckpointError(
                    f"tensor {tensor.name} is in both {tensors[tensor.name].shard} and {shard}; save the model again."
                )
            tensors[tensor.name] = tensor
    if index is not None:
        _check_index(index, tensors)
    return Checkpoint(folder, identity or model_identity(folder), config, shards, index, tensors)


def read_header(shard: Path) -> list[Tensor]:
    """Return the tensors of one safetensors file, in the order of their values, checked against its length.

    Raises:
        CheckpointError: the file is missing, is not safetensors, is truncated or contradicts itself.
    """
    try:
        length = shard.stat().st_size
        with shard.open("rb") as file:
            head = file.read(8)
            header_bytes = int.from_bytes(head, "little")
            if head == b"version ":
                raise CheckpointError(f"{shard} is a Git LFS pointer, not the weights; fetch them with `git lfs pull`.")
            if length < 8 or header_bytes > min(length - 8, MAX_HEADER_BYTES):
                raise CheckpointError(f"{shard} is truncated or no safetensors file; copy or download it again.")
            header = json.loads(file.read(header_bytes))
        tensors = [_tensor(shard, name, entry, 8 + header_bytes) for name, entry in _entries(header)]
    except OSError as error:
        raise CheckpointError(f"{shard} cannot be read: {error.strerror or error}; check the folder.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{shard} has a damaged header ({error}); copy or download it again.") from error
    _check_spans(shard, tensors, 8 + header_bytes, length)
    return sorted(tensors, key=lambda tensor: (tensor.start, tensor.stop))


def _entries(header: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, entry) for name, entry in header.items() if name != "__metadata__"]


def _tensor(shard: Path, name: str, entry: Mapping[str, Any], data: int) -> Tensor:
    dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
    start, stop = (int(offset) for offset in entry["data_offsets"])
    if dtype not in _BITS:
        raise ValueError(f"tensor {name} has the unknown dtype {dtype}")
    if min(shape, default=0) < 0 or (stop - start) * 8 != math.prod(shape) * _BITS[dtype]:
        raise ValueError(f"tensor {name} has {stop - start} bytes for shape {list(shape)} and dtype {dtype}")
    return Tensor(name, dtype, shape, shard, data + start, data + stop)


def _check_spans(shard: Path, tensors: list[Tensor], data: int, length: int) -> None:
    at = data
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.stop)):
        if tensor.start != at:
            raise CheckpointError(f"{shard} has a damaged header at tensor {tensor.name}; copy or download it again.")
        at = tensor.stop
    if at != length:
        what = "truncated" if length < at else "longer than its header says"
        raise CheckpointError(f"{shard} is {what} ({length} bytes, expected {at}); copy or download it again.")


def _weight_files(folder: Path) -> tuple[tuple[Path, ...], Path | None]:
    # As from_pretrained does: an unsharded file wins over an index, which may be stale.
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,), None
    if (folder / INDEX).is_file():
        return _indexed_files(folder / INDEX), folder / INDEX
    if any(path for pattern in PICKLES for path in folder.glob(pattern)):
        raise CheckpointError(
            f"{folder} holds pickled weights, which can run code when read; if you trust them, convert them: python -c "
            f"\"from transformers import AutoModelForCausalLM as M; M.from_pretrained('{folder}', dtype='auto')"
            f".save_pretrained('{folder}-safetensors')\"."
        )
    found = ", ".join(sorted(path.name for path in folder.glob("*.safetensors"))[:4])
    raise CheckpointError(
        f"{folder} has neither {SINGLE} nor {INDEX}" + (f" (only {found})" if found else "")
        + "; name a Hugging Face model folder with safetensors weights."
    )  # fmt: skip


def _indexed_files(index: Path) -> tuple[Path, ...]:
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; save the model again.")
    files = sorted({str(file) for file in weight_map.values()})
    for file in files:
        if Path(file).name != file or file in ("", ".", ".."):
            raise CheckpointError(f"{index} names {file!r}, a file outside its folder; use a checkpoint you trust.")
        if not (index.parent / file).is_file():
            raise CheckpointError(f"{index} names {file}, which is missing; copy or download it again.")
    return tuple(index.parent / file for file in files)


def _check_index(index: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, file in _read_json(index)["weight_map"].items():
        if name not in tensors or tensors[name].shard.name != file:
            raise CheckpointError(f"{index} places tensor {name} in {file}, which does not hold it; save it again.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); copy or download it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object; copy or download it again.")
    return content
