"""Folders of runs, taken before the work begins, so that no two runs share one; and their JSON files."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

from towers.checkpoint import CONFIG, RESUME, WEIGHTS, replace, without_nan

DEFAULT_FOLDER = "towers-run"
PARTIAL = ".*.partial"
"""Files that an interruption may leave half written."""


def take(path: Path, record: Mapping[str, Any]) -> bool:
    """Put resume.json into an empty folder, or make a new folder with it. Returns whether the folder is new.

    Raises:
        FileExistsError: the folder holds something, or is a file.
        OSError: it cannot be made, or nothing can be written to it.
    """
    place = path.resolve()  # a link stays a link: the run is written to its target
    if place.is_dir() and _is_empty(place):
        _check_writable(place, path)
        write_json(place / RESUME, record)
        return False
    if place.exists():
        kind = "holds something already" if place.is_dir() else "is a file"
        if is_run(place):
            way_out = "resume goes on with it, overwrite replaces it, or name another folder"
            raise FileExistsError(f"{path}: holds a run already; {way_out}")
        raise FileExistsError(f"{path}: {kind}; name another folder, or remove it first")
    place.parent.mkdir(parents=True, exist_ok=True)
    _make(place, record)
    return True


def next_free(record: Mapping[str, Any]) -> Path:
    """Make `towers-run`, or the next free `towers-run-N`, with its resume.json in it."""
    for name in chain([DEFAULT_FOLDER], (f"{DEFAULT_FOLDER}-{number}" for number in count(2))):
        if not Path(name).exists():
            with suppress(FileExistsError):  # another run has just taken this name
                _make(Path(name), record)
                return Path(name)
    raise AssertionError("count() has no end")


def _make(place: Path, record: Mapping[str, Any]) -> None:
    """Make a folder that appears together with its resume.json, so that the run can always be resumed."""
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent))
    try:
        partial.chmod(0o777 & ~_umask())  # mkdtemp makes folders that only the owner can open
        write_json(partial / RESUME, record)
        try:
            partial.rename(place)
        except OSError as error:
            if place.exists():
                raise FileExistsError(f"{place}: holds something already; name another folder") from error
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def is_run(path: Path) -> bool:
    """Whether a folder holds a run, finished or not, or a model."""
    return (path / RESUME).is_file() or all((path / name).is_file() for name in (CONFIG, WEIGHTS))


def _is_empty(place: Path) -> bool:
    partial = set(place.glob(PARTIAL))
    return all(file in partial for file in place.iterdir())


def _check_writable(place: Path, path: Path) -> None:
    """Try to write: permission bits alone do not tell (access lists, read-only mounts)."""
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=place))
    except OSError as error:
        raise type(error)(f"{path}: nothing can be written there ({error.strerror}); name another folder") from None


def write_json(path: Path, entries: Mapping[str, Any]) -> None:
    """Write a complete file under another name, then rename it. NaN becomes null."""
    text = json.dumps(without_nan(entries), indent=2) + "\n"
    replace(path, lambda partial: partial.write_text(text, encoding="utf8"))
