"""The C code beside this file, compiled for this machine when it is first needed, kept for later processes, and loaded.

The compiler is `CC`, or the first of cc, gcc and clang. The environment variable TOWERS_NATIVE, read once, may switch
this code off ("off") or ask for code for a level of x86-64 in place of this very processor ("v2", "v3" or "v4"), which
other processors run too. The library lies in `XDG_CACHE_HOME`/towers, or
~/.cache/towers, by a hash of the source, the options and the processor, and by its own size; where that cannot be
written, in a folder of this process.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

REALS = {torch.float32: "float", torch.float64: "double"}  # the dtypes of the C code, and their names in C
OPTIONS = ("-O2", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
TUNED = (("-march=native",), ("-mcpu=native",), ())  # the first that the compiler knows
NEEDS = {
    "v2": {"sse4_2", "popcnt"},
    "v3": {"avx2", "fma", "bmi2"},
    "v4": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
}
"""Of each level of x86-64 that TOWERS_NATIVE may ask for, the features without which a processor ends the process."""


class Library(NamedTuple):
    """`lstm.c`, and how many numbers there are in one of its vectors."""

    code: ctypes.CDLL
    lanes: int


@lru_cache(None)
def library(real: str, hidden: int) -> Library | None:
    """The code for numbers of type `real`, "float" or "double", and this hidden size; None: `why_not` says why."""
    widest = _lstm(real, 0)
    if widest is None or hidden > widest.lanes // 2:
        return widest
    return _lstm(real, 1)


def _lstm(real: str, shift: int) -> Library | None:
    loaded = code("lstm", real, shift)
    if loaded is None:
        return None
    loaded.lanes.restype = loaded.lay_out.restype = ctypes.c_int64
    return Library(loaded, loaded.lanes())


@lru_cache(1)
def asked() -> str:
    """What TOWERS_NATIVE asks for, read once: "off", "v2", "v3", "v4"; or "" for code for this very processor.

    Raises:
        ValueError: it is something else.
    """
    level = os.environ.get("TOWERS_NATIVE", "")
    if level not in ("", "off", *NEEDS):
        raise ValueError(f"TOWERS_NATIVE is {level!r}; expected off, v2, v3 or v4, or leave it unset")
    return level


@lru_cache(1)
def why_not() -> str | None:
    """Why there is no library, for people; None where there is one."""
    compiled = _refusal() is None and code("lstm", "float") is not None
    return None if compiled else _refusal() or "the C compiler could not compile it"


@lru_cache(1)
def _refusal() -> str | None:
    """Why nothing is compiled or loaded."""
    if asked() == "off":
        return "TOWERS_NATIVE is off"
    if missing := NEEDS.get(asked(), set[str]()) - _features():
        return f"TOWERS_NATIVE is {asked()}, and this processor has no {', '.join(sorted(missing))}"
    return "no C compiler was found (CC, cc, gcc or clang)" if _compiler() is None else None


@lru_cache(1)
def _compiler() -> tuple[str, ...] | None:
    try:
        given = shlex.split(os.environ.get("CC", ""))
    except ValueError:  # a quotation that has no end
        return None
    names = [given] if given else [["cc"], ["gcc"], ["clang"]]
    return next((tuple(name) for name in names if shutil.which(name[0])), None)


@lru_cache(None)
def code(source: str, real: str, shift: int = 0) -> ctypes.CDLL | None:
    """What a source beside this file was compiled to; None: `why_not` says why."""
    compiler, file = _compiler(), Path(__file__).with_name(f"{source}.c")
    if compiler is None or _refusal() is not None:
        return None
    stem = f"{source}-{_fingerprint(compiler, file)}-{real}-{shift}"
    for folder in _folders():
        path = _whole(folder, stem) or _compile(
            [*compiler, f"-DREAL={real}", f"-DSHIFT={shift}", str(file)], folder, stem
        )
        if path is not None:
            try:
                return ctypes.CDLL(str(path))
            except OSError:  # made for another machine
                continue
    return None


def _folders() -> Iterator[Path]:
    """Where it may lie: for good, and else for this process."""
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "towers"
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError:
        pass
    else:
        if os.access(kept, os.W_OK) or any(kept.glob("*.so")):
            yield kept
    with tempfile.TemporaryDirectory(prefix="towers-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)  # what is loaded from it stays when it is gone


def _whole(folder: Path, stem: str) -> Path | None:
    """What was compiled before. Its size stands in its name: to load what was cut off would end the process."""
    found = (path for path in folder.glob(f"{stem}-*.so") if path.name == f"{stem}-{path.stat().st_size}.so")
    return next(found, None)


def _compile(given: list[str], folder: Path, stem: str) -> Path | None:
    """Whole or not at all: other processes may look at the same time."""
    half = folder / f"{stem}.{os.getpid()}"
    for tuned in ((f"-march=x86-64-{asked()}",),) if asked() else TUNED:
        command = [*given, *OPTIONS, *tuned, "-o", str(half)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=120, check=False)
            if done.returncode == 0:
                return half.replace(folder / f"{stem}-{half.stat().st_size}.so")
        except (OSError, subprocess.TimeoutExpired):
            break
    half.unlink(missing_ok=True)
    return None


def _features() -> set[str]:
    """What Linux says that the processor can do; elsewhere all that a level asks for, unseen."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return set[str]().union(*NEEDS.values())
    return next((set(line.split()) for line in lines if line.startswith("flags")), set[str]())


def _fingerprint(compiler: tuple[str, ...], source: Path) -> str:
    about = [part.read_text(encoding="utf8") for part in (source, *sorted(source.parent.glob("*.h")))]
    about += [*compiler, *OPTIONS, asked(), platform.platform(), platform.machine()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
        about += sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    except OSError:
        about.append(platform.processor())
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
