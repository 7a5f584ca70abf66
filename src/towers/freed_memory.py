"""Freed memory, given back to the system."""

import ctypes
import sys
from functools import cache


def give_memory_back() -> None:
    """Make glibc return freed memory to the system: tensors of changing sizes fragment the heap, which would grow."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@cache
def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
