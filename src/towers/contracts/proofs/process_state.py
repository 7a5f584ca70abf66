"""What code sets for the whole process, such as a flag of torch or the working directory: after verify it is as before.

Each setting is read before the first run, and written in the end if it then reads otherwise. Other threads see what the
code sets until then, and what they set meanwhile is put back too. A thread that was started cannot be undone: it is
named.
"""

import gc
import locale
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch.nn.modules import module as every_module

from towers.contracts.proofs.kinds_of_state import write_items
from towers.contracts.proofs.time_limit import THREADS

_torch: Any = torch


class Setting(NamedTuple):
    """How a setting is read and written."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]


def settings() -> Iterator[Setting]:
    """All that are kept."""
    for name, read, write in _FUNCTIONS:
        yield Setting(name, read, write)
    for name, holder, attribute in _ATTRIBUTES:
        yield Setting(name, partial(getattr, holder, attribute), partial(setattr, holder, attribute))
    for name, held in (("sys.path", sys.path), ("sys.argv", sys.argv)):
        yield Setting(name, held.copy, partial(held.__setitem__, slice(None)))
    for name, held in vars(every_module).items():
        if name.startswith("_global_") and isinstance(held, dict):
            hooks = cast(dict[Any, Any], held)
            yield Setting("hooks of all modules", hooks.copy, partial(write_items, hooks))


def _environment() -> dict[str, str]:
    return dict(os.environ)


def _set_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


def _loggers() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    yield root
    for each in list(root.manager.loggerDict.values()):
        if isinstance(each, logging.Logger):
            yield each


def _logging() -> dict[logging.Logger, tuple[Any, ...]]:
    return {each: (each.level, each.disabled, each.propagate, [*each.handlers]) for each in _loggers()}


def _set_logging(before: dict[logging.Logger, tuple[Any, ...]]) -> None:
    for logger, state in _logging().items():
        if logger in before and before[logger] != state:
            level, logger.disabled, logger.propagate, handlers = before[logger]
            logger.setLevel(level)
            logger.handlers[:] = handlers


def _determinism() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), _torch.is_deterministic_algorithms_warn_only_enabled()


def _set_determinism(before: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _anomalies() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _set_anomalies(before: tuple[bool, bool]) -> None:
    _torch.autograd.set_detect_anomaly(*before)


_printing = cast(dict[str, Any], vars(_torch._tensor_str.PRINT_OPTS))


def _print_options() -> dict[str, Any]:
    return {**_printing}


def _set_print_options(before: dict[str, Any]) -> None:
    _printing.update(before)


_cuda: Any = torch.backends.cuda

_FUNCTIONS: list[tuple[str, Callable[[], Any], Callable[[Any], Any]]] = [
    ("deterministic algorithms", _determinism, _set_determinism),
    ("anomaly detection", _anomalies, _set_anomalies),
    ("the precision of float32", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    ("the number of torch's threads", torch.get_num_threads, torch.set_num_threads),
    ("torch.set_warn_always", _torch.is_warn_always_enabled, _torch.set_warn_always),
    ("torch's print options", _print_options, _set_print_options),
    ("flash attention", _cuda.flash_sdp_enabled, _cuda.enable_flash_sdp),
    ("memory-efficient attention", _cuda.mem_efficient_sdp_enabled, _cuda.enable_mem_efficient_sdp),
    ("attention by cuDNN", _cuda.cudnn_sdp_enabled, _cuda.enable_cudnn_sdp),
    ("attention without a fused kernel", _cuda.math_sdp_enabled, _cuda.enable_math_sdp),
    ("os.environ", _environment, _set_environment),
    ("the working directory", os.getcwd, os.chdir),
    ("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    ("the locale", partial(locale.setlocale, locale.LC_ALL), partial(locale.setlocale, locale.LC_ALL)),
    ("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    ("logging", _logging, _set_logging),
]
"""Name, what reads it, and what writes it."""

_ATTRIBUTES: list[tuple[str, Any, str]] = [
    ("cuDNN", torch.backends.cudnn, "enabled"),
    ("cudnn.benchmark", torch.backends.cudnn, "benchmark"),
    ("cudnn.deterministic", torch.backends.cudnn, "deterministic"),
    ("cudnn.allow_tf32", torch.backends.cudnn, "allow_tf32"),
    ("cuda.matmul.allow_tf32", _cuda.matmul, "allow_tf32"),
    ("oneDNN", torch.backends.mkldnn, "enabled"),
    ("logging.disable", logging.getLogger().manager, "disable"),
    ("sys.excepthook", sys, "excepthook"),
    ("sys.displayhook", sys, "displayhook"),
]
"""Name, what has it, and the attribute."""


class Process:
    """The settings as they are when this is made."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.kept: list[tuple[Setting, Any]] = []
        for setting in settings():
            try:
                self.kept.append((setting, setting.read()))
            except Exception:  # torch refuses to tell flags that were set in two ways; a directory may be gone
                continue
        self.lost: dict[str, None] = {}

    def put_back(self) -> None:
        """Write each that reads otherwise."""
        for setting, before in self.kept:
            try:
                if setting.read() != before:
                    setting.write(before)
            except Exception:
                self.lost[setting.name] = None

    def assumptions(self) -> tuple[str, ...]:
        """One text on what is not as it was; none if all is."""
        started = [each for each in threading.enumerate() if each not in self.threads and each.name not in THREADS]
        named = [*self.lost, *(f"the thread {each.name}, which was started meanwhile and runs on" for each in started)]
        return (f"what the code sets for the whole process is put back, but for {', '.join(named)}",) if named else ()


class Unlogged(logging.Filter):
    """While verify runs, no handler gets what its thread logs: sizes are symbols there."""

    def __init__(self, silent: Callable[[], bool]) -> None:
        super().__init__()
        self.silent = silent
        last = [logging.lastResort] if logging.lastResort else []
        self.handlers = list(dict.fromkeys([*last, *(each for logger in _loggers() for each in logger.handlers)]))

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record passes."""
        return not self.silent()

    def __enter__(self) -> None:
        for each in self.handlers:
            each.addFilter(self)

    def __exit__(self, *error: object) -> None:
        for each in self.handlers:
            each.removeFilter(self)
