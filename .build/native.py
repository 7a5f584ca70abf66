"""Compiles the C sources of towers into one library. `python .build/native.py` does it in a checkout, without pip.

No Python header and no torch is needed, so one wheel serves all releases of Python and torch: py3-none-PLATFORM. The
compiler is `CC`, or the first of cc, gcc and clang (Windows: clang-cl, clang); `CFLAGS` and `LDFLAGS` are passed on.
"""

import os
import platform
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

CPU = Path(__file__).resolve().parent.parent / "src/towers/kernels/cpu"
OPTIONS = ("-O2", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden")
KINDS = {
    "lstm": (0, 1),
    "lstm_layer": (0, 1),
    "phrases": (0,),
    "tower": (0,),
    "topk": (0,),
    "arrange": (0,),
    "heads": (0,),
}
"""The sources, and the widths of vectors (SHIFT) that each is compiled for."""
REALS = ("float", "double")
LEVELS = {"v2": ("-march=x86-64-v2",), "v3": ("-march=x86-64-v3",), "v4": ("-march=x86-64-v4",)}
MACOS = {"arm64": "11.0", "x86_64": "10.13"}
"""The oldest macOS that the library runs on."""

built = runpy.run_path(str(CPU / "built.py"))


class BuildError(Exception):
    """Why nothing could be compiled, in one line."""


class Unit(NamedTuple):
    """A source, and the options that make one object of it."""

    source: str
    options: tuple[str, ...]


def build(folder: Path) -> str:
    """Compile into `folder`, whole or not at all; returns by what and for which levels, in one line.

    Raises:
        BuildError: there is no compiler, or it fails.
    """
    compiler = find_compiler()
    levels = LEVELS if _machine() == "x86_64" else {"base": ()}
    version = _run([*compiler, "--version"]).splitlines()[0]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            _compile(compiler, levels, Path(scratch), Path(scratch) / "native")
            _keep(Path(scratch) / "native", folder / built["LIBRARY"].name)
    except OSError as error:
        raise BuildError(f"the library could not be written: {error}") from error
    return f"compiled by {version} for {', '.join(levels)}"


def find_compiler() -> list[str]:
    """The C compiler, and the options that always stand behind it."""
    windows = sys.platform == "win32"
    try:
        given = shlex.split(os.environ.get("CC", ""), posix=not windows)
    except ValueError as error:
        raise BuildError(f"CC is {os.environ['CC']!r}: {error}") from error
    names = [given] if given else [["clang-cl"], ["clang"]] if windows else [["cc"], ["gcc"], ["clang"]]
    found = next((name for name in names if shutil.which(name[0])), None)
    if found is None:
        looked_for = f"CC is {given[0]!r}" if given else "CC, " + " or ".join(name for (name,) in names)
        raise BuildError(f"no C compiler was found ({looked_for})")
    return [*found, "--driver-mode=gcc"] if "clang-cl" in Path(found[0]).name else found


def platform_tag() -> str:
    """What the wheel's name says about the platform."""
    if sys.platform == "darwin":
        return f"macosx_{MACOS[_machine()].replace('.', '_')}_{_machine()}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def results(folder: Path) -> list[Path]:
    """Where in `folder` the library and the report of its build lie, if they are there."""
    return [folder / built[name].name for name in ("LIBRARY", "REPORT")]


def write_report(folder: Path, report: str) -> None:
    """For people: `towers about` shows it."""
    results(folder)[1].write_text(report + "\n", encoding="utf8")


def remove(folder: Path) -> None:
    """The library of an earlier build, if there is one."""
    results(folder)[0].unlink(missing_ok=True)


def _machine() -> str:
    return {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())


def _compile(compiler: list[str], levels: dict[str, tuple[str, ...]], scratch: Path, library: Path) -> None:
    options, link = [*shlex.split(os.environ.get("CFLAGS", "")), *OPTIONS], ["-shared"]
    link += shlex.split(os.environ.get("LDFLAGS", ""))
    if sys.platform != "win32":
        options.append("-fPIC")
    if sys.platform == "darwin":
        options.append(f"-mmacosx-version-min={MACOS[_machine()]}")

    def object_of(numbered: tuple[int, Unit]) -> str:
        number, unit = numbered
        target = str(scratch / f"{number}.o")
        _run([*compiler, *options, *unit.options, "-c", str(CPU / unit.source), "-o", target])
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(object_of, enumerate(_units(levels))))
    _run([*compiler, *options, *link, *objects, "-o", str(library)])


def _units(levels: dict[str, tuple[str, ...]]) -> list[Unit]:
    units = [
        Unit(f"{source}.c", (f"-DREAL={real}", f"-DSHIFT={shift}", f"-DLEVEL={level}", *options))
        for source, shifts in KINDS.items()
        for shift in shifts
        for level, options in levels.items()
        for real in REALS
    ]
    about = Unit("levels.c", ("-DREAL=float", "-DSHIFT=0", "-DLEVEL=base", f'-DSOURCES="{built["digest"]()}"'))
    return [*units, about]


def _keep(made: Path, library: Path) -> None:
    """Whole or not at all, and under a new inode: a process that has the old library loaded goes on with it."""
    half = library.with_name(f"{library.name}.{os.getpid()}")
    try:
        shutil.copyfile(made, half)
        half.replace(library)
    finally:
        half.unlink(missing_ok=True)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, errors="replace", check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        first = next((line for line in said if "error" in line), said[0] if said else "")
        raise BuildError(f"{command[0]} failed with exit code {done.returncode}" + (f": {first}" if first else ""))
    return done.stdout


if __name__ == "__main__":
    try:
        report = build(CPU)
        write_report(CPU, report)
    except (BuildError, OSError) as error:
        sys.exit(f"The C code was not built: {error}")
    print(f"{built['LIBRARY'].name}: {report}")
