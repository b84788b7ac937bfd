"""Base and tuned tensors brought together: what is compared, what is only copied, and what does not fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sftknow.errors import CheckpointError, ConfigError
from sftknow.restoration.checkpoint import Tensor
from sftknow.restoration.regions import (
    BUFFER,
    Place,
    Region,
    bare_name,
    has_vocabulary_rows,
    is_head,
    is_input_embedding,
    outline,
    place_of,
)
from sftknow.restoration.values import KINDS, Bytes, Values

_COMPARE_BYTES = 1 << 24


class Source(Protocol):
    """A model whose tensors can be looked up: a checkpoint folder, or one in memory."""

    @property
    def folder(self) -> Path | str:
        """Where it is, for messages."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Its tensors by name."""

    def raw(self, tensor: Tensor) -> Bytes:
        """Return the bytes of one tensor."""

    def values(self, tensor: Tensor) -> Values:
        """Return the values of one tensor."""


@dataclass(frozen=True)
class Pair:
    """One tensor of the region, before and after fine-tuning.

    Attributes:
        name: in the tuned model; ties are broken by it.
        place: where it stands in the model.
        size: how many parameters, from the first, are compared.
        base: values p.
        tuned: values s.
    """

    name: str
    place: Place
    size: int
    base: Values
    tuned: Values


@dataclass(frozen=True)
class Pairing:
    """Two checkpoints brought together.

    Attributes:
        pairs: the tensors of the region, in the order of the tuned files.
        twins: name of a pair -> the tied tensors stored beside it, which get the same values.
        notes: sentences the user should read.
    """

    pairs: tuple[Pair, ...]
    twins: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]


def pair_up(base: Source, tuned: Source, region: Region) -> Pairing:
    """Bring the tensors of a region together.

    Raises:
        CheckpointError: tensors of the region are in one model only, differ in shape, or are no floating-point weights.
        ConfigError: the region matches nothing.
    """
    wanted = [tensor for tensor in tuned.tensors.values() if _holds(region, tensor)]
    if not wanted:
        raise ConfigError(_matches_nothing(region, tuned))
    twin = _stored_twin(tuned) if _concerns_vocabulary(wanted) else None
    if twin is not None:  # the two are one parameter, considered under the embedding's name
        chosen = {tensor.name for tensor in wanted if tensor != twin[1]} | {twin[0].name}
        wanted = [tensor for tensor in tuned.tensors.values() if tensor.name in chosen]
    finder = _Finder(base)
    _check_complete(base, tuned, region, wanted, finder)
    notes: list[str] = []
    pairs = tuple(_pair(tensor, finder, base, tuned, notes) for tensor in wanted)
    if finder.renamed:
        notes.append(f"{finder.renamed} tensors have other name prefixes in base and were matched without them.")
    twins = {twin[0].name: (twin[1].name,)} if twin is not None else {}
    return Pairing(pairs, twins, tuple(notes))


def _holds(region: Region, tensor: Tensor) -> bool:
    return region.holds(tensor.name, place_of(tensor.name, tensor.shape))


def _concerns_vocabulary(tensors: list[Tensor]) -> bool:
    return any(is_head(tensor.name) or is_input_embedding(tensor.name) for tensor in tensors)


class _Finder:
    """Looks a tuned tensor up in base: by name, without wrappers, or the embedding for a tied head."""

    def __init__(self, base: Source) -> None:
        self.base = base
        self.renamed = 0
        bare: dict[str, list[Tensor]] = {}
        for tensor in base.tensors.values():
            bare.setdefault(bare_name(tensor.name), []).append(tensor)
        self._bare = {name: found[0] for name, found in bare.items() if len(found) == 1}
        self._embedding = next((t for t in base.tensors.values() if is_input_embedding(t.name)), None)
        self._has_head = any(is_head(name) for name in base.tensors)

    def find(self, name: str) -> Tensor | None:
        """Return the tensor of base that a tuned tensor started from."""
        found = self.base.tensors.get(name) or self._bare.get(bare_name(name))
        if found is None and is_head(name) and not self._has_head:
            return self._embedding
        return found


def _check_complete(base: Source, tuned: Source, region: Region, wanted: list[Tensor], finder: _Finder) -> None:
    lost = [tensor.name for tensor in wanted if finder.find(tensor.name) is None]
    if lost:
        raise CheckpointError(_one_sided(lost, tuned, base, region))
    partners = {found.name for name in tuned.tensors if (found := finder.find(name)) is not None}
    extra = [tensor for tensor in base.tensors.values() if _holds(region, tensor) and tensor.name not in partners]
    if _concerns_vocabulary(extra) and (twin := _stored_twin(base)) is not None and twin[0].name in partners:
        extra = [tensor for tensor in extra if tensor != twin[1]]
    if extra:
        raise CheckpointError(_one_sided([tensor.name for tensor in extra], base, tuned, region))


def _one_sided(names: list[str], here: Source, there: Source, region: Region) -> str:
    return (
        f"{len(names)} tensors of region {region.name} are in {here.folder} but not in {there.folder}: "
        f"{outline(names)}; give the base that this model was tuned from, or another --region."
    )


def _pair(tensor: Tensor, finder: _Finder, base: Source, tuned: Source, notes: list[str]) -> Pair:
    source = finder.find(tensor.name)
    assert source is not None
    if is_head(tensor.name) and is_input_embedding(source.name):
        notes.append(f"base has a tied head: {tensor.name} is compared with its {source.name}.")
    elif source.name != tensor.name:
        finder.renamed += 1
    for checkpoint, one in ((base, source), (tuned, tensor)):
        if one.dtype not in KINDS:
            raise CheckpointError(
                f"tensor {one.name} in {checkpoint.folder} holds {one.dtype} values; only BF16, F16 and F32 weights "
                "can be compared, so give unquantised checkpoints saved in one of these."
            )
    place = place_of(tensor.name, tensor.shape)
    size = tensor.size
    if source.shape != tensor.shape:
        size = _shared_size(source, tensor, notes)
    return Pair(tensor.name, place, size, base.values(source), tuned.values(tensor))


def _shared_size(source: Tensor, tensor: Tensor, notes: list[str]) -> int:
    same_width = source.shape[1:] == tensor.shape[1:] and len(source.shape) == len(tensor.shape) > 0
    if not (has_vocabulary_rows(tensor.name) and same_width and tensor.shape[0] > source.shape[0]):
        raise CheckpointError(
            f"tensor {tensor.name} has shape {list(source.shape)} in base and {list(tensor.shape)} in tuned; "
            "give the base that this model was tuned from."
        )
    notes.append(
        f"{tensor.name} has {tensor.shape[0] - source.shape[0]} rows more in tuned than in base; "
        f"only the {source.shape[0]} shared rows are compared, the others stay as tuned."
    )
    return source.size


def _stored_twin(checkpoint: Source) -> tuple[Tensor, Tensor] | None:
    """Return (embedding, head) where both are stored with equal bytes, that is, tied and saved twice."""
    embedding = next((t for t in checkpoint.tensors.values() if is_input_embedding(t.name)), None)
    head = next((t for t in checkpoint.tensors.values() if is_head(t.name)), None)
    if embedding is None or head is None or (embedding.shape, embedding.dtype) != (head.shape, head.dtype):
        return None
    left, right = checkpoint.raw(embedding), checkpoint.raw(head)
    for at in range(0, left.size, _COMPARE_BYTES):
        if not np.array_equal(left[at : at + _COMPARE_BYTES], right[at : at + _COMPARE_BYTES]):
            return None
    return embedding, head


def _matches_nothing(region: Region, tuned: Source) -> str:
    places = {name: place_of(name, tensor.shape) for name, tensor in tuned.tensors.items()}
    names = [name for name, place in places.items() if place.part != BUFFER]
    layers = ""
    if region.layers:
        blocks = sorted({place.block for place in places.values() if place.block is not None})
        known = f"blocks are numbered {blocks[0]} to {blocks[-1]}" if blocks else "there are no numbered blocks"
        layers = f" in layers {', '.join(map(str, sorted(region.layers)))} ({known})"
    return f"region {region.name} matches no tensor of {tuned.folder}{layers}; its tensors are {outline(names)}."
