"""Values that no checkpoint should hold: NaN and infinity, found and named."""

from collections.abc import Sequence

from sftknow.errors import CheckpointError
from sftknow.restoration.checkpoint import Checkpoint, Tensor
from sftknow.restoration.pairs import Pair
from sftknow.restoration.parallel import run_tasks
from sftknow.restoration.values import KINDS, has_non_finite

CHUNK = 1 << 20


def check_chunk(pair: Pair, first: int, last: int) -> None:
    """Raise CheckpointError where a run of a pair's parameters holds NaN or infinity."""
    for which, values in (("base", pair.base), ("tuned", pair.tuned)):
        if has_non_finite(values.read(first, last), values.kind):
            raise _error(pair.name, which)


def check_rest(tuned: Checkpoint, pairs: Sequence[Pair], *, threads: int) -> None:
    """Raise CheckpointError where a tuned tensor that is only copied holds NaN or infinity."""
    compared = {pair.name: pair.size for pair in pairs}
    tasks = [
        (tensor, first)
        for tensor in tuned.tensors.values()
        if tensor.dtype in KINDS
        for first in range(compared.get(tensor.name, 0), tensor.size, CHUNK)
    ]

    def check(_: None, task: tuple[Tensor, int]) -> None:
        tensor, first = task
        values = tuned.values(tensor)
        if has_non_finite(values.read(first, min(first + CHUNK, tensor.size)), values.kind):
            raise _error(tensor.name, "tuned")

    run_tasks(tasks, check, threads=threads, make_state=lambda: None, weigh=lambda _: CHUNK, label="checking")


def _error(name: str, which: str) -> CheckpointError:
    return CheckpointError(f"tensor {name} of {which} holds NaN or infinity; use an undamaged checkpoint.")
