"""A time limit for work in one thread: asked for where that is cheap, and enforced where work hangs between."""

import ctypes
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

GRACE = 2.0
"""Seconds after the limit before a thread that did not ask is interrupted.

It is the last resort: an interruption may fall into Python that C++ has called, which can end the process.
"""


class OutOfTime(BaseException):
    """The time limit has passed; no Exception, so that no handler on the way takes it for one of its own."""


class _Local(threading.local):
    until: float | None = None


_local = _Local()


def ask() -> None:
    """Stop here if the time of this thread is over.

    Raises:
        OutOfTime: it is.
    """
    if _local.until is not None and time.perf_counter() > _local.until:
        raise OutOfTime


@contextmanager
def time_limit(seconds: float) -> Generator[None]:
    """Raise OutOfTime in this thread once the time is over: where `ask` is called, or soon after it anywhere in Python.

    No signals: a second thread watches. Code in C is interrupted only after it has returned.
    """
    before, until = _local.until, time.perf_counter() + seconds
    _local.until = until if before is None else min(before, until)
    thread, lock, done = threading.get_ident(), threading.Lock(), threading.Event()

    def watch() -> None:
        wait = max(0.0, until - time.perf_counter()) + GRACE
        while not done.wait(wait):
            with lock:
                if not done.is_set():
                    _raise_in(thread, OutOfTime)
            wait = GRACE

    def unraisable(problem: Any) -> None:
        if not isinstance(problem.exc_value, OutOfTime):  # what fell into a finalizer is raised again
            others(problem)

    others, sys.unraisablehook = sys.unraisablehook, unraisable
    threading.Thread(target=watch, daemon=True, name="time limit of verify").start()
    try:
        yield
    finally:
        while not done.is_set():
            with suppress(OutOfTime), lock:  # one that is on its way arrives here: there is no way to take it back
                done.set()
        if sys.unraisablehook is unraisable:
            sys.unraisablehook = others
        _local.until = before


def _raise_in(thread: int, error: type[OutOfTime]) -> None:
    """Let an exception be raised in another thread as soon as it runs Python.

    It cannot be taken back: CPython 3.11 and 3.12 would go on looking for it at each step of every thread, and where a
    profiler runs, look for it for ever.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
