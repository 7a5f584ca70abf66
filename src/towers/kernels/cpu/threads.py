"""How many threads torch's own operations take, and jobs side by side."""

import ctypes
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


@contextmanager
def one_thread(one: bool = True) -> Generator[None]:
    """Where more would only wait for each other; in this thread of Python alone."""
    before = torch.get_num_threads()
    if before == 1 or not one:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(jobs: Sequence[Callable[[], Result]], *, one: bool = True) -> list[Result]:
    """Their results; each job runs without autograd on one thread, and as many at once as torch has threads.

    `one=False`: a single job, on all threads.
    """
    count = min(torch.get_num_threads(), len(jobs))
    results: dict[int, Result] = {}
    errors: list[BaseException] = []
    left = list(range(len(jobs)))[::-1]
    lock, inference = Lock(), torch.is_inference_mode_enabled()

    def take() -> int | None:
        with lock:
            return left.pop() if left else None

    def work(_: object = None) -> None:
        try:
            with torch.inference_mode(inference), torch.no_grad(), one_thread(one):
                for index in iter(take, None):
                    results[index] = jobs[index]()
        except BaseException as error:  # C code that called this would swallow it
            errors.append(error)

    if count > 1 and (parallel := openmp()) is not None:
        callback = _CALLBACK(work)
        with one_thread():
            parallel(ctypes.cast(callback, ctypes.c_void_p), None, count, 0)
    else:
        work()
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(jobs))]


_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


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
