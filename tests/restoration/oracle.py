"""The selection worked out densely with NumPy, by sorting everything: what the streaming engine must reproduce."""

import hashlib

import numpy as np

MASK = (1 << 64) - 1


def to_floats(words, dtype):
    """Return float32 values of 16-bit or 32-bit words."""
    if dtype == "F32":
        return words.view(np.float32)
    if dtype == "F16":
        return words.view(np.float16).astype(np.float32)
    return (words.astype(np.uint32) << 16).view(np.float32)


def from_floats(values, dtype):
    """Return words of float32 values, rounded to the nearest, ties to even."""
    if dtype == "F32":
        return values.astype(np.float32).view(np.uint32)
    if dtype == "F16":
        return values.astype(np.float16).view(np.uint16)
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def changes(base, tuned):
    """Return |s - p| and |s - p| / (|p| + 1e-8) in float32."""
    with np.errstate(over="ignore"):
        absolute = np.abs(tuned - base)
        return absolute, absolute / (np.abs(base) + np.float32(1e-8))


def hashes(name, size, seed):
    """Return the hash of each element of a tensor: splitmix64 of a counter that starts at the tensor's own place."""
    start = int.from_bytes(hashlib.blake2b(f"{seed}\0{0}\0{name}".encode(), digest_size=8).digest(), "little")
    with np.errstate(over="ignore"):
        x = (np.uint64(start) + np.arange(size, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def restored(pairs, percent, *, strategy="top", rank_by="relative", of="region", seed=0):
    """Return name -> mask of the restored parameters.

    Args:
        pairs: name -> (base, tuned) float32 values, flattened; only the tensors of the region.
    """
    names = list(pairs)
    measured = [changes(*pairs[name])[rank_by == "relative"] for name in names]
    measure = np.concatenate(measured).astype(np.float64)
    codes = np.concatenate([hashes(name, pairs[name][0].size, seed) for name in names])
    key = {"top": -measure, "bottom": measure, "random": np.zeros_like(measure)}[strategy]
    order = np.lexsort((codes, key))
    if of == "changed":
        differs = np.concatenate([base != tuned for base, tuned in pairs.values()])
        order = order[differs[order]]
    mask = np.zeros(measure.size, bool)
    mask[order[: int(order.size * percent / 100)]] = True
    return dict(zip(names, np.split(mask, np.cumsum([part.size for part in measured])[:-1]), strict=True))
