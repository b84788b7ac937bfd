"""Stored parameter values: bfloat16, float16 and float32 bytes, decoded to float32 and encoded from it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftknow.restoration.compiled import compiled

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

BF16, F16, F32 = 0, 1, 2
KINDS = {"BF16": BF16, "F16": F16, "F32": F32}
ITEM_BYTES = (2, 2, 4)


@dataclass(frozen=True)
class Values:
    """The values of one tensor, flattened, wherever they are kept.

    Attributes:
        kind: BF16, F16 or F32.
        read: (first, past the last element) -> their bytes, as a contiguous read-only array.
    """

    kind: int
    read: Callable[[int, int], Bytes]


@compiled
def decode(raw: Bytes, kind: int, out: Floats) -> None:
    """Decode little-endian bytes of one kind into float32, exactly."""
    words = out.view(np.uint32)
    if kind == 2:
        wide = raw.view(np.uint32)
        for i in range(wide.size):
            words[i] = wide[i]
        return
    narrow = raw.view(np.uint16)
    if kind == 0:
        for i in range(narrow.size):
            words[i] = np.uint32(narrow[i]) << np.uint32(16)
        return
    for i in range(narrow.size):
        magnitude = (np.uint32(narrow[i]) & np.uint32(0x7FFF)) << np.uint32(13)
        # An all-ones exponent (infinity, NaN) must stay one: the product below would make a finite number of it.
        magnitude |= np.uint32(0x7F800000) if magnitude >= np.uint32(0x0F800000) else np.uint32(0)
        words[i] = magnitude
    for i in range(narrow.size):
        out[i] = out[i] * np.float32(2.0**112)
    for i in range(narrow.size):
        words[i] |= (np.uint32(narrow[i]) & np.uint32(0x8000)) << np.uint32(16)


@compiled
def encode(values: Floats, kind: int, out: Bytes) -> None:
    """Encode float32 values as bytes of one kind, rounded to the nearest, ties to even."""
    words = values.view(np.uint32)
    if kind == 2:
        wide = out.view(np.uint32)
        for i in range(words.size):
            wide[i] = words[i]
        return
    narrow = out.view(np.uint16)
    if kind == 0:
        for i in range(words.size):
            word = words[i]
            narrow[i] = (word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        return
    for i in range(words.size):
        sign = (words[i] >> np.uint32(16)) & np.uint32(0x8000)
        magnitude = words[i] & np.uint32(0x7FFFFFFF)
        if magnitude >= np.uint32(0x38800000):
            odd = (magnitude >> np.uint32(13)) & np.uint32(1)
            rounded = (magnitude - np.uint32(0x38000000) + np.uint32(0x0FFF) + odd) >> np.uint32(13)
            narrow[i] = sign | min(rounded, np.uint32(0x7C00))
        else:
            # float16 subnormals are multiples of 2^-24; rint rounds half to even.
            narrow[i] = sign | np.uint32(np.rint(np.float64(abs(values[i])) * 16777216.0))


def convert(raw: Bytes, kind: int, wanted: int) -> Bytes:
    """Return the bytes of values in another kind; the bytes themselves where the kind is already the wanted one."""
    if kind == wanted:
        return raw
    floats = np.empty(raw.size // ITEM_BYTES[kind], np.float32)
    decode(raw, kind, floats)
    out = np.empty(floats.size * ITEM_BYTES[wanted], np.uint8)
    encode(floats, wanted, out)
    return out


@compiled
def has_non_finite(raw: Bytes, kind: int) -> bool:
    """Tell whether any value is NaN or infinite."""
    exponent = np.uint32(0x7F800000) if kind == 2 else np.uint32(0x7F80 if kind == 0 else 0x7C00)
    found = 0
    if kind == 2:
        for word in raw.view(np.uint32):
            found |= (word & exponent) == exponent
    else:
        for half in raw.view(np.uint16):
            found |= (half & exponent) == exponent
    return found != 0
