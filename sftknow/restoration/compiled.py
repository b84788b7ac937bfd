"""Numba compilation as the restoration uses it: no GIL, IEEE division, results kept on disk where possible.

Numba notices a change in a kernel's own file, not in a file it calls into: after editing ``values.py`` or ``ties.py``,
touch ``change.py`` and ``levels.py``.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a kernel; it releases the GIL and divides as NumPy does."""
    return _compile(function, {"nogil": True, "error_model": "numpy"})


def compiled_sum(function: Function) -> Function:
    """Compile a float64 sum that may be taken in vector lanes.

    The lanes are the same on every thread, so fixed blocks give the same sum however the work is divided.
    """
    return _compile(function, {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "nsz"}})


def load_numba_alone() -> None:
    """Load what Numba needs for cached kernels without SciPy, in a process that uses no other Numba code.

    Numba imports SciPy on first use, a fifth of a second, to find a BLAS; no kernel here calls one.
    """
    name = "scipy.linalg.cython_blas"
    if name not in sys.modules:
        sys.modules[name] = None  # type: ignore[assignment]
        try:
            importlib.import_module("numba.np.arraymath")
        finally:
            del sys.modules[name]


def _compile(function: Function, options: dict[str, Any]) -> Function:
    try:
        return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # neither this package's folder nor the user's cache folder can be written
        return numba.njit(**options)(function)  # type: ignore[no-any-return]
