"""The C code beside this file, as a library that was compiled when towers was installed, or by `.build/native.py`.

Nothing is compiled, written or looked for elsewhere when a program runs. The library has code for x86-64-v2, v3 and v4
(elsewhere for one level); the best that the processor can run is taken. The environment variable TOWERS_NATIVE, read
once, switches it off ("off") or asks for a lower level ("v2", "v3" or "v4").

What other files use:

    code(dtype) -> Code | None            the C functions for numbers of this dtype, in the widest vectors
    code(dtype, hidden) -> Code | None    the same, in the vectors that suit an LSTM of this hidden size
        .lanes                            how many numbers such a vector has
        .lstm_forward, .phrases_pack, …   a C function by its name in C: NAME(lstm_forward) in `lstm.h`. Functions that
                                          are declared BY_THREADS go to `threads.start(function, job, threads)`, the
                                          others are called: give pointers as c_void_p and sizes as c_int64
    why_not() -> str | None               why `code` gives None, for people
    level() -> str | None                 what the code that runs is for: "x86-64-v4", for example; None: no code

A C function gets raw pointers: check all sizes and dtypes before, for it reads whatever lies there.
"""

import ctypes
import os
import platform
import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from towers.kernels.cpu.built import LIBRARY, REPORT, digest

REALS = {torch.float32: "float", torch.float64: "double"}
"""The dtypes of the C code, and their names in C."""

LEVELS_OF_X86 = ("v2", "v3", "v4")
LEVELS = {4: "v4", 3: "v3", 2: "v2", 1: "base"}
"""What `towers_level` of `levels.c` answers, and the names of the functions end in."""

NEVER_BUILT = "the C code of this checkout was never built"
BUILD_AGAIN = "run `pip install -e .` (or only `python .build/native.py`) in the checkout"


class Code:
    """The C functions of one dtype and one width of vectors; `code` gives it."""

    def __init__(self, functions: ctypes.CDLL, kind: str) -> None:
        self._functions, self._kind = functions, kind
        self.lanes: int = self.function("lanes")()

    def function(self, name: str) -> Any:
        """A C function; it returns an int64, if anything."""
        found = self._functions[f"{name}_{self._kind}"]
        found.restype = ctypes.c_int64
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = self.__dict__[name] = self.function(name)
        return found


@lru_cache(None)
def code(dtype: torch.dtype, hidden: int | None = None) -> Code | None:
    """The C functions for a dtype, and for an LSTM's hidden size; None: `why_not` says why.

    Raises:
        ImportError: the library was built from other sources than those of this checkout.
        ValueError: TOWERS_NATIVE is something unknown.
    """
    loaded = _loaded()
    if loaded.functions is None or dtype not in REALS:
        _warn_once()
        return None
    widest = Code(loaded.functions, f"{REALS[dtype]}_0_{loaded.level}")
    if hidden is None or hidden > widest.lanes // 2:
        return widest
    return Code(loaded.functions, f"{REALS[dtype]}_1_{loaded.level}")


def why_not() -> str | None:
    """Why there is no C code, for people; None where there is.

    Raises:
        ImportError, ValueError: as `code`.
    """
    return _loaded().refusal


def level() -> str | None:
    """What the C code that runs is compiled for, for people; None: `why_not` says why none runs.

    Raises:
        ImportError, ValueError: as `code`.
    """
    level = _loaded().level
    return platform.machine() if level == "base" else level and f"x86-64-{level}"


@lru_cache(1)
def asked() -> str:
    """What TOWERS_NATIVE asks for, read once: "off", "v2", "v3", "v4"; or "" for the best level of this processor.

    Raises:
        ValueError: it is something else.
    """
    level = os.environ.get("TOWERS_NATIVE", "")
    if level not in ("", "off", *LEVELS_OF_X86):
        raise ValueError(f"TOWERS_NATIVE is {level!r}; expected off, v2, v3 or v4, or leave it unset")
    return level


class _Loaded(NamedTuple):
    functions: ctypes.CDLL | None
    level: str | None
    refusal: str | None
    remedy: str = ""


@lru_cache(1)
def _loaded() -> _Loaded:
    if asked() == "off":
        return _Loaded(None, None, "TOWERS_NATIVE is off")
    if not LIBRARY.exists():
        return _Loaded(None, None, *_why_it_is_missing())
    try:
        functions = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        return _Loaded(None, None, f"{LIBRARY.name} could not be loaded: {error}", "install towers again")
    functions.towers_sources.restype, functions.towers_level.restype = ctypes.c_char_p, ctypes.c_int64
    made_from, present = functions.towers_sources().decode(), digest()
    if present not in (None, made_from):
        raise ImportError(
            f"{LIBRARY} was built from other C sources ({made_from}) than those beside it ({present}): {BUILD_AGAIN}"
        )
    best = LEVELS.get(_processor(functions), "none")
    if asked() and asked() not in _levels_up_to(best):
        has = f"{best} at most" if best in LEVELS_OF_X86 else "no level of x86-64"
        return _Loaded(None, None, f"TOWERS_NATIVE is {asked()}, and this processor has {has}", "leave it unset")
    if best == "none":
        return _Loaded(None, None, "this processor has not even x86-64-v2", "another processor")
    return _Loaded(functions, asked() or best, None)


def _processor(functions: ctypes.CDLL) -> int:
    return functions.towers_level()


def _levels_up_to(best: str) -> tuple[str, ...]:
    return LEVELS_OF_X86[: LEVELS_OF_X86.index(best) + 1] if best in LEVELS_OF_X86 else ()


def _why_it_is_missing() -> tuple[str, str]:
    """The reason, and the remedy."""
    again = "install a C compiler, and then towers again"
    try:
        report = REPORT.read_text(encoding="utf8").strip()
    except OSError:
        report = ""
    if report.startswith("left out"):
        return f"the C code was {report}", again
    if digest() is not None:
        return NEVER_BUILT, BUILD_AGAIN
    return "this installation has no C code", again


@lru_cache(1)
def _warn_once() -> None:
    """Warn once that torch's own operations run, since users would not find out why it is slow."""
    _, _, refusal, remedy = _loaded()
    if refusal is not None and asked() != "off":
        warnings.warn(
            f"{refusal}: torch's own operations are used, which give the same results more slowly. Remedy: {remedy}; "
            "or set TOWERS_NATIVE=off to be content with it",
            stacklevel=2,
        )
