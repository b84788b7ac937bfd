"""The order of parameters that tie: a seeded hash of tensor name and index, never their position.

In a bf16 fine-tune most changed parameters moved by one unit in the last place, so thresholds fall inside large
groups of equal r. Taking such a group by position would restore the early layers first.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sftknow.restoration.compiled import compiled


def tensor_starts(names: Sequence[str], sizes: Sequence[int], seed: int) -> list[int]:
    """Return for each tensor the 64-bit counter of its element 0; element i hashes to ``mix(start + i)``.

    Starts depend on the seed and the tensor's own name. In the rare case that two tensors' counters would overlap, all
    are drawn again with another salt: counters are distinct, ``mix`` is a bijection, so no two parameters ever tie.
    """
    salt = 0
    while True:
        starts = [_start(name, seed, salt) for name in names]
        spans = sorted(zip(starts, sizes, strict=True))
        ends = [start + size for start, size in spans]
        limits = [start for start, _ in spans[1:]] + [1 << 64]
        if all(end <= limit for end, limit in zip(ends, limits, strict=True)):
            return starts
        salt += 1


def _start(name: str, seed: int, salt: int) -> int:
    text = f"{seed}\0{salt}\0{name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


@compiled
def mix(counter: np.uint64) -> np.uint64:
    """Return the hash of a counter: a bijection of the 64-bit integers that looks random."""
    x = counter * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled
def mix_all(start: np.uint64, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return the hashes of the counters ``start + index``."""
    out = np.empty(index.size, np.uint64)
    for i in range(index.size):
        out[i] = mix(start + np.uint64(index[i]))
    return out
