"""The files of `towers predict`: what is read and what is written, `-` for the standard streams among them."""

import argparse
import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO, cast

from towers.checkpoint import lock, replace
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
    return file_to_write(out, {name: getattr(arguments, name) for name in ("pairs", "vectors")})


def file_to_write(out: Path, read: Mapping[str, Path | None], *, standard: bool = True) -> Path:
    """The file that --out names, links resolved. `read` has the files that the command reads, by their options.

    Raises:
        ValueError: it is a folder, a device, or a file that is read; its folder is missing; or its ending is that of
            another kind of file. With `standard` the message names - for standard output.
    """
    check_ending(out)
    place = Path(os.path.realpath(out))
    if not place.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent if place == out.absolute() else place.parent}")
    if place.is_dir():
        raise ValueError(f"--out {out}: is a folder; name a file")
    if out.exists() and (not place.is_file() or _is_standard_output(place)):
        stream = ", or - for standard output" if standard else ""
        raise ValueError(f"--out {out}: is no regular file; name one{stream}")
    for option, file in read.items():
        if file is not None and out.exists() and file.exists() and out.samefile(file):
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
        lock(file, without_locks=False)
        work(cast(BinaryIO, file))


def _remove_leftovers(place: Path) -> None:
    """Remove what killed commands left of this output; what a running command writes is locked, and stays."""
    for partial in place.parent.glob(f".{escape(place.name)}.*.partial"):
        with suppress(OSError), partial.open("rb") as file:
            if lock(file, without_locks=False):
                partial.unlink()


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
