"""Restoration of a loaded model, in place and step by step: a sweep over fractions without a checkpoint on disk."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sftknow.errors import CheckpointError
from sftknow.models import resolve_model
from sftknow.restoration.apply import apply
from sftknow.restoration.checkpoint import Checkpoint, Tensor, open_checkpoint
from sftknow.restoration.pairs import Pair, Pairing, pair_up
from sftknow.restoration.parallel import default_threads
from sftknow.restoration.recipe import make_recipe
from sftknow.restoration.regions import Region, outline, place_of
from sftknow.restoration.summary import summarise
from sftknow.restoration.survey import CHUNK, Chunk, survey
from sftknow.restoration.values import BF16, F16, F32, ITEM_BYTES, KINDS, Bytes, Values

FRACTIONS = (1.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0)
"""The percents of the paper."""


@dataclass(frozen=True)
class Step:
    """One fraction, as it stands in the model while it is yielded.

    Attributes:
        percent: of the parameters of the region.
        restored: how many parameters that is.
        share_of_change_undone: their share of the sum of |s - p|, 0 to 1.
        share_of_relative_change_undone: their share of the sum of r, 0 to 1.
    """

    percent: float
    restored: int
    share_of_change_undone: float | None
    share_of_relative_change_undone: float | None


@dataclass
class Restoration:
    """A planned sweep: iterate to bring the model from one fraction to the next.

    The selection is bit for bit that of :func:`sftknow.restoration.restore.restore` with the same options. Kept in
    memory beside the model: one byte for each parameter of the region, and its tuned values where no tuned folder
    was given.

    Attributes:
        record: what a dry run would report.
        steps: one for each fraction, rising.
    """

    record: dict[str, Any]
    steps: tuple[Step, ...]
    _pairing: Pairing
    _live: Mapping[str, Any]
    _levels: Mapping[str, Bytes]
    _touched: bool = field(default=False)

    @classmethod
    def plan(
        cls,
        base: Any,
        model: Any,
        fractions: Sequence[float] = FRACTIONS,
        *,
        tuned: str | Path | None = None,
        strategy: str = "top",
        region: str = "transformer",
        layers: str | None = None,
        rank_by: str = "relative",
        of: str = "region",
        seed: int = 0,
        threads: int | None = None,
    ) -> "Restoration":
        """Find which parameters every fraction restores; the model itself is not changed yet.

        Args:
            base: values before fine-tuning: a folder, a Hub id, a torch model, or names and tensors.
            model: the loaded torch model (or its names and tensors) that holds the tuned values and will be changed.
            fractions: percents, 0 to 100.
            tuned: folder of the tuned checkpoint, read instead of keeping the model's values in memory.
            strategy: top, bottom or random.
            region: as for ``restore``.
            layers: as for ``restore``.
            rank_by: relative or absolute.
            of: region or changed.
            seed: fixes random choices and the order of equals.
            threads: how many to use; by default one for each core.

        Raises:
            ConfigError: options that cannot be carried out.
            CheckpointError: the two do not fit together.

        Follows the method's section "Parameter level".
        """
        recipe = make_recipe(
            list(fractions), strategy=strategy, region=region, layers=layers, rank_by=rank_by, of=of, seed=seed
        )
        live = _named_tensors(model)
        before = _source(base)
        after = _Loaded("the tuned model", _snapshot(live, recipe.region)) if tuned is None else _source(tuned)
        pairing = pair_up(before, after, recipe.region)
        _check_live(pairing, live)
        threads = threads or default_threads()
        found = survey(pairing.pairs, recipe, threads=threads)
        keeper = _LevelKeeper({pair.name: np.empty(pair.size, np.uint8) for pair in pairing.pairs})
        undone = apply(pairing.pairs, found, recipe, keeper, threads=threads, label="planning")
        record = summarise(pairing.pairs, found, undone, recipe, pairing.notes)
        return cls(record, _steps(record), pairing, live, keeper.levels)

    def __iter__(self) -> Iterator[Step]:
        """Yield each fraction after writing only the parameters it restores beyond the one before."""
        self.reset()
        for level, step in enumerate(self.steps):
            self._touched = True
            for pair in self._pairing.pairs:
                self._restore(pair, level)
            yield step

    def reset(self) -> None:
        """Give the model its tuned values back."""
        if self._touched:
            for pair in self._pairing.pairs:
                _write(self._live[pair.name], slice(0, pair.size), _as_torch(pair.tuned, 0, pair.size))
        self._touched = False

    def _restore(self, pair: Pair, level: int) -> None:
        import torch

        levels, item = self._levels[pair.name], ITEM_BYTES[pair.base.kind]
        for first in range(0, pair.size, CHUNK):
            chosen = np.flatnonzero(levels[first : first + CHUNK] == level)
            if chosen.size:
                raw = pair.base.read(first, min(first + CHUNK, pair.size)).reshape(-1, item)[chosen].reshape(-1)
                _write(self._live[pair.name], torch.from_numpy(chosen + first), _tensor(raw, pair.base.kind))


@dataclass(frozen=True)
class _Loaded:
    """Named tensors in memory, as ``pair_up`` takes a checkpoint."""

    folder: str
    held: Mapping[str, Any]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Names, dtypes and shapes."""
        return {name: _describe(name, tensor) for name, tensor in self.held.items()}

    def raw(self, tensor: Tensor) -> Bytes:
        """Return the bytes of one tensor."""
        return _as_bytes(self.held[tensor.name])

    def values(self, tensor: Tensor) -> Values:
        """Return the values of one tensor."""
        flat = self.held[tensor.name].detach().reshape(-1)
        return Values(KINDS[tensor.dtype], lambda first, last: _as_bytes(flat[first:last]))


@dataclass(frozen=True)
class _LevelKeeper:
    """A sink that keeps every level."""

    levels: dict[str, Bytes]
    wants_values = False

    def write(self, pair: Pair, chunk: Chunk, levels: Bytes, outs: Bytes) -> None:
        """Keep one chunk."""
        self.levels[pair.name][chunk.first : chunk.last] = levels

    def lower(self, pair: Pair, index: int, old: int, new: int) -> None:
        """Keep the lower level."""
        self.levels[pair.name][index] = new


def _named_tensors(model: Any) -> dict[str, Any]:
    """Return a model's parameters by name; tied ones once, under their first name."""
    if isinstance(model, Mapping):
        return dict(model)
    return dict(model.named_parameters())


def _source(reference: Any) -> Checkpoint | _Loaded:
    if isinstance(reference, str | Path):
        return open_checkpoint(*resolve_model(reference))
    return _Loaded("the base model", _named_tensors(reference))


def _snapshot(live: Mapping[str, Any], region: Region) -> dict[str, Any]:
    """Copy the tensors of the region to memory; the others keep their place, since they never change."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        if region.holds(name, place_of(name, tuple(tensor.shape)))
        else tensor.detach()
        for name, tensor in live.items()
    }


def _check_live(pairing: Pairing, live: Mapping[str, Any]) -> None:
    for pair in pairing.pairs:
        if pair.name not in live:
            raise CheckpointError(
                f"tensor {pair.name} of the tuned checkpoint is not in the loaded model, which has {outline(live)}; "
                "leave out tuned= to take the values from the model itself."
            )


def _steps(record: Mapping[str, Any]) -> tuple[Step, ...]:
    return tuple(
        Step(one["percent"], one["restored"], one["share_of_change_undone"], one["share_of_relative_change_undone"])
        for one in record["fractions"]
    )


def _describe(name: str, tensor: Any) -> Tensor:
    import torch

    dtypes = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
    return Tensor(name, dtypes.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape), Path(), 0, tensor.nbytes)


def _as_bytes(tensor: Any) -> Bytes:
    import torch

    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    flat.flags.writeable = False
    return flat  # type: ignore[no-any-return]


def _as_torch(values: Values, first: int, last: int) -> Any:
    return _tensor(values.read(first, last).copy(), values.kind)


def _tensor(raw: Bytes, kind: int) -> Any:
    import torch

    dtype = {BF16: torch.bfloat16, F16: torch.float16, F32: torch.float32}[kind]
    return torch.from_numpy(raw).view(dtype)


def _write(target: Any, where: Any, values: Any) -> None:
    """Set elements of a live tensor, numbered along its flattened shape, whatever its layout, dtype and device."""
    data = target.detach()
    flat = data.view(-1) if data.is_contiguous() else data.flatten()
    where = where.to(flat.device) if hasattr(where, "to") else where
    flat[where] = values.to(flat.device, flat.dtype)
    if not data.is_contiguous():
        data.copy_(flat.view(data.shape))
