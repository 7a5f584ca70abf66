"""How many threads torch's own operations take, and torch's threads for C code."""

import ctypes
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch


@contextmanager
def one_thread(one: bool) -> Generator[None]:
    """Where more would only wait for each other; in this thread of Python alone."""
    before = torch.get_num_threads()
    if before == 1 or not one:
        yield
        return
    set_own_threads(1)
    try:
        yield
    finally:
        set_own_threads(before)


def set_own_threads(count: int) -> None:
    """How many threads torch's operations take in the thread that calls; without OpenMP nothing is changed.

    torch.set_num_threads would change it for every thread that starts later, too.
    """
    set_threads = _omp_set_num_threads()
    if set_threads is not None:
        set_threads(count)


@lru_cache(1)
def _omp_set_num_threads() -> Any:
    try:
        found = ctypes.CDLL(None).omp_set_num_threads
    except (AttributeError, OSError, TypeError):  # torch has no OpenMP here, or hides it
        return None
    found.argtypes, found.restype = (ctypes.c_int,), None
    return found


@lru_cache(1)
def openmp() -> Any:
    """GOMP_parallel(function, data, threads, flags) of the OpenMP that torch uses.

    Its threads keep spinning for milliseconds after torch's last operation: others would not get a core beside them.
    """
    try:
        parallel = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):  # no GNU OpenMP here
        return None
    parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None
    return parallel


def start(function: Any, job: ctypes.Structure, threads: int) -> None:
    """Run C code over a job, by this number of threads; they take its pieces by its counter `next`."""
    job.next = 0
    parallel = openmp() if threads > 1 else None
    if parallel is None:
        function(ctypes.byref(job))
    else:
        parallel(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(job), threads, 0)
