"""An integer random generator whose stream is the same on every machine, Python and hash seed."""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Generic, TypeVar

Item = TypeVar("Item")
_MASK = (1 << 64) - 1


class Rng:
    """SplitMix64, seeded by the SHA-256 of its keys, so that named streams do not disturb each other.

    Python's own generator promises the same stream only for ``random()``; how ``shuffle`` and ``choices`` use it has
    changed between versions.
    """

    def __init__(self, *keys: int | str) -> None:
        text = "\x1f".join(str(key) for key in keys)
        self._state = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    def bits(self) -> int:
        """Return 64 random bits."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        value = self._state
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
        return value ^ (value >> 31)

    def below(self, limit: int) -> int:
        """Return an integer in 0..limit-1."""
        return (self.bits() * limit) >> 64

    def chance(self, percent: int) -> bool:
        """Return True in ``percent`` of 100 calls."""
        return self.below(100) < percent

    def choice(self, items: Sequence[Item]) -> Item:
        """Return one of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """Return the items in random order."""
        mixed = list(items)
        for position in range(len(mixed) - 1, 0, -1):
            other = self.below(position + 1)
            mixed[position], mixed[other] = mixed[other], mixed[position]
        return mixed


class Weighted(Generic[Item]):
    """Items drawn with integer weights."""

    def __init__(self, items: Sequence[Item], weights: Sequence[int]) -> None:
        self._items = tuple(items)
        self._edges = tuple(accumulate(weights))

    def draw(self, rng: Rng) -> Item:
        """Return one item, with probability proportional to its weight."""
        return self._items[bisect_right(self._edges, rng.below(self._edges[-1]))]


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Split ``total`` in proportion to integer weights, largest remainders first (earlier wins a tie)."""
    whole = sum(weights)
    counts = [total * weight // whole for weight in weights]
    remainders = sorted(range(len(weights)), key=lambda place: (-(total * weights[place] % whole), place))
    for place in remainders[: total - sum(counts)]:
        counts[place] += 1
    return counts
