"""Two requests to the system that Python does not pass on: room for a file, and an early start of writing it out.

Where the C library or the file system knows neither, nothing is lost but time.
"""

import ctypes
import errno
import functools
import os
from typing import Any

_WRITE = 2


def reserve(handle: int, size: int) -> None:
    """Ask for the disk space of a file before it is written, so that a full disk is known at once.

    Raises:
        OSError: there is no room.
    """
    call = _library_call("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call is not None and call(handle, 0, 0, size) != 0 and ctypes.get_errno() in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def start_flush(handle: int, start: int, length: int) -> None:
    """Let the system begin to write a range to disk, so that the final sync finds little left to do."""
    call = _library_call("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    if call is not None:
        call(handle, start, length, _WRITE)


@functools.cache
def _library_call(name: str, *types: Any) -> Any:
    call = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if call is not None:
        call.argtypes = types
    return call
