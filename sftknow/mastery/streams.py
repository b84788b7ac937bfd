"""Random streams: every sample of every prompt has its own, named by what it belongs to.

A sample's random numbers depend on the probe's seed, the fact, the template and the sample's index, and on nothing
else. So the same sample comes out whatever batch, process or resumed run it is drawn in, and the first five samples of
a prompt are the first five of its ten.
"""

import hashlib
from typing import Any

import numpy as np

_STEPS = 1 << 16
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def stream_key(seed: int, name: str) -> int:
    """Return the 64-bit key of one prompt's streams.

    Args:
        seed: the probe's seed.
        name: what the prompt is, such as the fact's id and the position of its template.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}\n{name}".encode()).digest()[:8], "little")


def uniforms(keys: np.ndarray[Any, Any], samples: np.ndarray[Any, Any], step: int) -> np.ndarray[Any, Any]:
    """Return one uniform number in [0, 1) per sample for one step of generation.

    Args:
        keys: (n,) uint64, the key of each sample's prompt.
        samples: (n,) index of each sample among its prompt's samples.
        step: position of the token to be drawn, from 0.

    Returns:
        (n,) float64. SplitMix64 of a counter: 2**16 steps are set aside for each sample.
    """
    counter = samples.astype(np.uint64) * np.uint64(_STEPS) + np.uint64(step + 1)
    z = keys + counter * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    z = z ^ (z >> np.uint64(31))
    return np.asarray((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)
