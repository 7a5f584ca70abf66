"""The files of `towers predict`: what is read and what is written, `-` for the standard streams among them."""

import argparse
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from glob import escape
from io import IOBase
from pathlib import Path
from typing import BinaryIO, cast

from towers.checkpoint import replace
from towers.data.readers import ENDINGS, TableFormat, ending_of
from towers.data.sources import Source, Stream

STANDARD = Path("-")


def source_of(arguments: argparse.Namespace) -> tuple[Source, TableFormat]:
    """What --pairs names, and its format.

    Raises:
        ValueError: neither its name nor --format says the format.
        FileNotFoundError: there is no such file.
    """
    pairs: Path = arguments.pairs
    format = arguments.format or ENDINGS.get(ending_of(str(pairs)))
    if pairs == STANDARD and sys.stdin is None:  # closed: `<&-`
        raise ValueError("--pairs -: standard input is closed")
    if pairs != STANDARD:
        pairs.stat()  # a missing file is reported first
    elif format is None and getattr(sys.stdin, "isatty", bool)():
        format = "tsv"
    if format is None:
        name = "standard input" if pairs == STANDARD else f"the ending {ending_of(str(pairs))!r}"
        known = "" if pairs == STANDARD else f", as {', '.join(ENDINGS)} do"
        raise ValueError(f"--pairs {pairs}: {name} does not tell the format{known}; say --format tsv, or another")
    return (Stream("standard input", sys.stdin.buffer) if pairs == STANDARD else str(pairs)), format


def place_of(arguments: argparse.Namespace) -> Path | None:
    """The file to write (links resolved), or None for standard output. Folders, devices and input files are refused.

    Raises:
        ValueError: --out is not a file that can be written, or one that is read, or has the ending of another kind.
    """
    out: Path = arguments.out
    if out == STANDARD:
        if sys.stdout is None:  # closed: `>&-`
            raise ValueError("--out -: standard output is closed")
        if arguments.pairs.exists() and _is_standard_output(arguments.pairs):
            raise ValueError("--out -: standard output goes to the file of --pairs; send it elsewhere")
        return None
    check_ending(out)
    place = Path(os.path.realpath(out))
    if not place.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent if place == out.absolute() else place.parent}")
    if place.is_dir():
        raise ValueError(f"--out {out}: is a folder; name a file")
    if out.exists() and (not place.is_file() or _is_standard_output(place)):
        raise ValueError(f"--out {out}: is no regular file; name one, or - for standard output")
    for option in ("pairs", "vectors"):
        read: Path | None = getattr(arguments, option)
        if read is not None and out.exists() and read.exists() and out.samefile(read):
            raise ValueError(f"--out {out}: is the file of --{option}, which stays as it is; name another file")
    return place


NOT_WRITTEN = frozenset({".gz", ".bz2", ".xz", ".zst", ".zip", ".xlsx", ".xls", ".ods"})
"""Endings of files that are compressed or workbooks."""


def check_ending(out: Path) -> None:
    """Refuse a name that says what is not written: the text in it would be taken for something else.

    Raises:
        ValueError: the name is that of a compressed file or of a workbook.
    """
    if out.suffix.lower() in NOT_WRITTEN:
        known = ", ".join(ENDINGS)
        raise ValueError(f"--out {out}: files of the ending {out.suffix!r} are not written, only text and {known}")


def format_of_output(arguments: argparse.Namespace, format: TableFormat) -> TableFormat:
    """What --out-format says, or the ending of --out, or else the format of the pairs.

    Raises:
        ValueError: Parquet, which no person can read, would go to a terminal.
    """
    said: TableFormat = arguments.out_format or ENDINGS.get(arguments.out.suffix.lower()) or format
    if said == "parquet" and arguments.out == STANDARD and sys.stdout.isatty():
        raise ValueError("--out -: Parquet is not for a terminal; name a file, or say --out-format tsv")
    return said


def write(place: Path | None, work: Callable[[BinaryIO], None]) -> None:
    """Call `work` with the open output. A file gets its name only when it is complete.

    Raises:
        OSError: it cannot be written; the message names it.
    """
    if place is None:
        work(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        _remove_leftovers(place)
        replace(place, lambda partial: _into(partial, work))


def _into(path: Path, work: Callable[[BinaryIO], None]) -> None:
    with path.open("wb") as file:
        _lock(file)
        work(cast(BinaryIO, file))


def _remove_leftovers(place: Path) -> None:
    """Remove what killed commands left of this output; what a running command writes is locked, and stays."""
    for partial in place.parent.glob(f".{escape(place.name)}.*.partial"):
        with suppress(OSError), partial.open("rb") as file:
            if _lock(file):
                partial.unlink()


def _lock(file: IOBase) -> bool:
    """Lock a file until it is closed. False: another process has locked it, or the system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def naming(out: Path) -> Generator[None]:
    """Name the output in errors of the operating system, which do not name it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        kept = "standard output is not whole" if out == STANDARD else "nothing was written"
        name = "standard output" if out == STANDARD else out
        raise type(error)(f"{name}: {error.strerror or error}; {kept}") from None


def _is_standard_output(file: Path) -> bool:
    with suppress(OSError):  # standard output may be closed
        return os.path.samestat(os.fstat(1), file.stat())
    return False
