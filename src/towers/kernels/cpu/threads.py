"""How many threads torch's own operations take, and torch's threads for C code."""

import ctypes
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

TORCH_CPU = {"win32": "torch_cpu.dll", "darwin": "libtorch_cpu.dylib"}.get(sys.platform, "libtorch_cpu.so")


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
def parallel_for() -> Any:
    """torch_parallel_for(begin, end, grain_size, function, data) of libtorch's C interface; None where it has none.

    It is at::parallel_for, so that torch's own pool of threads and its settings hold. Without it one thread does all,
    and a warning says so.
    """
    try:
        found = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / TORCH_CPU)).torch_parallel_for
    except (AttributeError, OSError):
        warn_of_one_thread(f"{TORCH_CPU} of torch {torch.__version__} has no torch_parallel_for")
        return None
    found.argtypes = (ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
    found.restype = ctypes.c_int32
    return found


@lru_cache(1)
def parallel_at() -> int:
    """Where `parallel_for` is; 0: nowhere."""
    found = parallel_for()
    return 0 if found is None else ctypes.cast(found, ctypes.c_void_p).value or 0


@lru_cache(None)
def warn_of_one_thread(reason: str) -> None:
    """Warn once for each reason, since users would not find out why it is slow."""
    warnings.warn(
        f"{reason}: the C code of towers runs in one thread, slower, with the same results. "
        "torch.set_num_threads(1) asks for no more",
        stacklevel=2,
    )


def start(function: Any, job: ctypes.Structure, threads: int) -> None:
    """Run a C function that is declared BY_THREADS over a job, by this number of threads.

    They take the job's pieces by its counter `next`, so that each number of threads does the whole of it.
    """
    job.next = 0
    parallel = parallel_for() if threads > 1 else None
    if parallel is None:
        function(ctypes.c_int64(0), ctypes.c_int64(1), ctypes.byref(job))
    elif parallel(0, threads, 1, ctypes.cast(function, ctypes.c_void_p), ctypes.byref(job)):
        warn_of_one_thread("torch's threads could not be started")
        function(ctypes.c_int64(0), ctypes.c_int64(1), ctypes.byref(job))  # what is left
