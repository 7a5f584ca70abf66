"""A time limit for work that may hang anywhere: it runs in a thread of its own, and who waits for it need not.

`ask` ends work where asking is cheap. What does not ask is interrupted from outside, but only in code where an
exception may come at any time: code of the user's and sympy's. A call into C is left to itself, and its thread ends
once it returns; whoever set the limit has gone on by then.
"""

import atexit
import ctypes
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from functools import cache
from types import FrameType
from typing import Any, TypeVar

import torch
from torch.overrides import _get_current_function_mode_stack  # pyright: ignore
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack, _push_mode  # pyright: ignore

T = TypeVar("T")

SLACK = 0.1
"""Seconds after the limit in which the work is given time to end; after them it is abandoned."""

PAUSE = 0.005
"""Seconds between two looks at what the work does."""

THREADS = ("verify", "end of verify")
"""The names of the threads that are started here."""

MOST_SENT = 100
"""Interruptions that work may catch; then its thread is stopped where it is, for good."""


class OutOfTime(BaseException):
    """The time limit has passed; no Exception, so that no handler on the way takes it for one of its own."""


class _Stop(OutOfTime):
    """Stops the thread that makes one, for good: an exception is made where it is caught."""

    def __init__(self) -> None:
        _local.stopped.set()
        threading.Event().wait()


class _Local(threading.local):
    stopped = threading.Event()
    until: float = float("inf")
    root: int | None = None
    """The thread that set the outermost limit; None outside of one."""


_local = _Local()


def ask() -> None:
    """Stop here if the time of this thread is over.

    Raises:
        OutOfTime: it is.
    """
    if time.perf_counter() > _local.until:
        raise OutOfTime


def root_thread() -> int:
    """The thread for which this one works: itself, outside of a time limit."""
    return threading.get_ident() if _local.root is None else _local.root


def limited() -> bool:
    """Whether this thread works under a time limit."""
    return _local.root is not None


@contextmanager
def sooner(seconds: float) -> Generator[None]:
    """An earlier end for a part of the work: `ask` raises OutOfTime after it. What does not ask goes on."""
    before = _local.until
    _local.until = min(before, time.perf_counter() + seconds)
    try:
        yield
    finally:
        _local.until = before


class Abandoned(OutOfTime):
    """The time limit has passed, and the work has not ended: its thread runs on until it can be interrupted."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """The result of some work, done in a thread of its own with the modes of this one.

    Raises:
        OutOfTime: it took longer, and ended when it was told to.
        Abandoned: it took longer, and could not be told.
    """
    return _Worker(min(_local.until, time.perf_counter() + max(seconds, 0.0)), work).result()


class _Worker:
    def __init__(self, until: float, work: Callable[[], Any]) -> None:
        self.until, self.work, self.root = until, work, root_thread()
        self.done, self.stopped, self.lock = threading.Event(), threading.Event(), threading.Lock()
        self.found: list[Any] = []
        self.error: BaseException | None = None
        self.modes, self.context = _Modes(), copy_context()
        self.thread = threading.Thread(target=self.run, daemon=True, name=THREADS[0])

    def run(self) -> None:
        """What the thread does."""
        try:
            try:
                _local.until, _local.root, _local.stopped = self.until, self.root, self.stopped
                with torch.inference_mode() if self.modes.inference else nullcontext():
                    self.modes.enter()
                    self.found.append(self.context.run(self.work))
            except BaseException as error:
                self.error = error
            self.finish()
        except OutOfTime:
            self.finish()

    def finish(self) -> None:
        """No interruption is sent after this; one that is on its way arrives here."""
        try:
            with self.lock:
                self.done.set()
        except OutOfTime:
            self.finish()

    def result(self) -> Any:
        """Wait for the work."""
        self.thread.start()
        try:
            if not self.done.wait(max(0.0, self.until - time.perf_counter())):
                self.end(self.until + SLACK)
        finally:  # also where the user interrupts the wait
            if not self.done.is_set():
                _abandoned.append(self)
                threading.Thread(target=self.end, daemon=True, name=THREADS[1]).start()
        if not self.done.is_set():
            raise Abandoned
        self.thread.join()
        if self.error is None:
            return self.found[0]
        try:
            raise self.error
        finally:
            self.error = None  # it holds this frame

    def end(self, until: float = float("inf")) -> None:
        """Interrupt the work until it has ended, or the time has come."""
        pause, sent = PAUSE, 0
        try:
            while not self.done.wait(pause) and not self.stopped.is_set() and time.perf_counter() < until:
                pause = min(pause * 1.01, 0.1)
                with self.lock:
                    if not self.done.is_set() and interruptible(self.thread.ident, in_finalizers=pause > 2 * PAUSE):
                        if not sent:
                            _finalizers.watch(1)
                        sent += 1
                        self.send(OutOfTime if sent < MOST_SENT else _Stop)
        finally:
            if sent:
                _finalizers.watch(-1)

    def send(self, error: type[OutOfTime]) -> None:
        """Let an exception be raised in the thread once it runs Python.

        It cannot be taken back: CPython 3.11 and 3.12 would go on looking for it at each step of every thread.
        """
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread.ident or 0), ctypes.py_object(error))


class _Abandoned(list[_Worker]):
    """Work that did not end. When Python ends, its threads are stopped first: in C++ they would end it as an error."""

    def append(self, worker: _Worker) -> None:
        """Add one, and forget those that have ended."""
        if not self:
            atexit.register(self.stop)
        self[:] = [each for each in (*self, worker) if not each.done.is_set()]

    def stop(self) -> None:
        """Stop each, unless it is in a call that does not come back."""
        until = time.perf_counter() + 2 * SLACK
        for worker in self:
            with worker.lock:
                if not worker.done.is_set():
                    worker.send(_Stop)
        while time.perf_counter() < until and not all(each.done.is_set() or each.stopped.is_set() for each in self):
            time.sleep(PAUSE)


_abandoned = _Abandoned()


class _Modes:
    """What torch keeps for each thread: modes of gradients, autocast and overrides, the device, OpenMP's threads."""

    def __init__(self) -> None:
        self.gradients, self.inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        self.autocast = [
            (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in ("cpu", "cuda")
        ]
        self.cache = torch.is_autocast_cache_enabled()
        self.functions: list[Any] = _get_current_function_mode_stack()
        self.dispatch: list[Any] = _get_current_dispatch_mode_stack()
        self.cuda = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def enter(self) -> None:
        """Set them in this thread."""
        torch.get_num_threads()  # OpenMP has the number of torch.set_num_threads in a thread once it was asked there
        torch.set_grad_enabled(self.gradients)
        for device, on, dtype in self.autocast:
            torch.set_autocast_enabled(device, on)
            torch.set_autocast_dtype(device, dtype)
        torch.set_autocast_cache_enabled(self.cache)
        for mode in self.functions:
            torch._C._push_on_torch_function_stack(mode)  # pyright: ignore
        for mode in self.dispatch:
            _push_mode(mode)
        if self.cuda is not None:
            torch.cuda.set_device(self.cuda)


# Where an exception may come at any time.

_COMPUTES = {"copy", "difflib", "fractions", "functools", "heapq", "json", "random", "re", "statistics"}
"""Modules of Python that take no locks, so that their code is as good as the user's."""


def interruptible(thread: int | None, *, in_finalizers: bool) -> bool:
    """Whether a thread is in code that may be interrupted: the user's or sympy's, and not while it imports a module.

    Not torch's, Python's own and the prover's: they take locks, count, and put back what they have changed. In a
    finalizer only the finalizer ends: it is better not to wait for one that ends by itself.
    """
    frame: FrameType | None = sys._current_frames().get(thread or 0)  # pyright: ignore[reportPrivateUsage]
    if frame is None or not _may_fail(frame.f_globals.get("__name__", "")):
        return False
    while frame is not None and frame.f_code is not _Worker.run.__code__:
        if frame.f_globals.get("__name__", "").startswith("importlib."):
            return False
        if frame.f_code.co_name == "__del__" and not in_finalizers:
            return False
        frame = frame.f_back
    return frame is not None


@cache
def _may_fail(name: str) -> bool:
    package = name.partition(".")[0]
    return package in _COMPUTES or not (
        package in ("torch", *sys.stdlib_module_names) or name.startswith("towers.contracts")
    )


class _Finalizers:
    """Says nothing of an interruption that fell into a finalizer, where it is not raised: the work gets another."""

    def __init__(self) -> None:
        self.lock, self.users, self.others = threading.Lock(), 0, sys.unraisablehook

    def watch(self, users: int) -> None:
        """One more who interrupts, or one less; the hook is there while there is any."""
        with self.lock:
            self.users += users
            if self.users == users == 1:
                self.others, sys.unraisablehook = sys.unraisablehook, self.hook
            elif self.users == 0 and sys.unraisablehook == self.hook:
                sys.unraisablehook = self.others

    def hook(self, problem: Any) -> None:
        """In place of sys.unraisablehook."""
        if not isinstance(problem.exc_value, OutOfTime):
            self.others(problem)


_finalizers = _Finalizers()
