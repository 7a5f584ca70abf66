"""Readers of tables, some rows at a time: TSV, CSV, JSON lines and Parquet.

The text formats are read line by line here: polars pads a row that is too short and turns a list among strings into
text, both without a warning, and does not say on which line an error is.
"""

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, cast

from towers.data.encoding import decode_line
from towers.data.rows import FrameRows, Rows, TextRows, need_polars, one_line

if TYPE_CHECKING:
    import polars

TableFormat = Literal["tsv", "csv", "jsonl", "parquet"]
ENDINGS: Mapping[str, TableFormat] = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
WINDOW = 2048
"""The most rows that are read at a time."""
LETTERS = 1 << 22
"""The bytes of lines after which a window of rows ends, even with fewer rows."""
LONGEST = 1 << 26
"""A line with this number of bytes or more is refused."""
GROUP = 1 << 16
"""Rows of Parquet that polars reads at a time; each read has a fixed cost."""


class Stream(NamedTuple):
    """An open binary file, such as standard input, and what errors call it."""

    name: str
    file: BinaryIO


Source = str | PathLike[str] | Stream


def read_rows(source: Source, format: TableFormat | None = None, *, rows: int | None = WINDOW) -> Iterator[Rows]:
    """Read a table `rows` rows at a time (fewer where they are long), in the given format or that of the file's ending.

    None reads it all at once. A table without rows gives one item of no rows, which knows the columns. Blank lines are
    skipped.

    Raises:
        ValueError: the format is neither given nor known from the ending, or is not one of the choices.
        ValueError: a line is bad (not UTF-8, another number of fields than the header, no JSON object), or a Parquet
            file is damaged; file and line are named.
        ImportError: the file is Parquet and polars is not installed.
    """
    name = source.name if isinstance(source, Stream) else fspath(source)
    format = format_of(name) if format is None else format
    if format not in ENDINGS.values():
        raise ValueError(f"format ({format!r}) must be one of {', '.join(dict.fromkeys(ENDINGS.values()))}")
    return _read_parquet(source, rows) if format == "parquet" else _read_text(source, format, rows)


def format_of(path: str) -> TableFormat:
    """The format that a file's ending says."""
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"{path}: the ending {ending!r} is not known, only {', '.join(ENDINGS)}; rename the file")
    return ENDINGS[ending]


class Table(NamedTuple):
    """A file's rows with all their columns, and the 1-based line at which each row begins (of Parquet: its row)."""

    frame: "polars.DataFrame"
    lines: list[int]


def read_table(path: str | PathLike[str], format: TableFormat | None = None) -> Table:
    """Read a table in the given format, or in the one that the file's ending says. Blank lines are skipped.

    TSV and CSV begin with a line of column names, and all their columns are strings. TSV knows no quoting: a `"` is a
    character like any other. CSV has standard quoting.

    Raises:
        ValueError: the format is neither given nor told by the ending.
        ValueError: a line is bad (not UTF-8, another number of fields than the header, no JSON object, a column of
            mixed types), or a Parquet file is damaged; file and line are named.
        ImportError: polars is not installed.
    """
    need_polars()
    (rows,) = read_rows(path, format, rows=None)
    return Table(rows.frame(), rows.lines)


# Text.


class _Lines:
    """The lines of a file, with their numbers."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name, self.file, self.bytes = name, file, 0
        self.size = _size(file)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(iter(partial(self.file.readline, LONGEST), b""), 1):
            if len(line) == LONGEST:
                raise ValueError(f"{self.name}, line {number}: has {LONGEST >> 20} MB or more; is this a table?")
            self.bytes += len(line)
            yield number, decode_line(self.name, number, line)

    @property
    def share(self) -> float | None:
        """The share of the file that has been read, from 0 to 1; None if its size is unknown."""
        return min(self.bytes / self.size, 1.0) if self.size else None


def _size(file: BinaryIO) -> int | None:
    """The size of a regular file."""
    try:
        status = os.fstat(file.fileno())
    except OSError:  # there is no file behind it
        return None
    return status.st_size if S_ISREG(status.st_mode) else None


def _read_text(source: Source, format: TableFormat, rows: int | None) -> Iterator[Rows]:
    name = source.name if isinstance(source, Stream) else fspath(source)
    with nullcontext(source.file) if isinstance(source, Stream) else open(source, "rb") as file:
        lines = _Lines(name, file)
        if format == "jsonl":
            yield from _json_rows(lines, rows)
        else:
            fields: Callable[[_Lines], Iterator[tuple[int, list[str]]]] = _tsv_rows if format == "tsv" else _csv_rows
            yield from _text_rows(lines, fields(lines), rows)


def _windows(
    lines: _Lines, records: Iterator[tuple[int, Any]], rows: int | None
) -> Iterator[tuple[list[int], list[Any]]]:
    """Line numbers and records, at most `rows` at a time; the last window may be empty."""
    numbers: list[int] = []
    window: list[Any] = []
    end = lines.bytes + LETTERS
    for number, record in records:
        numbers.append(number)
        window.append(record)
        if rows is not None and (len(window) == rows or lines.bytes > end):
            yield numbers, window
            numbers, window, end = [], [], lines.bytes + LETTERS
    yield numbers, window


def _tsv_rows(lines: _Lines) -> Iterator[tuple[int, list[str]]]:
    """Fields of each row. TSV knows no quoting: a `"` is a character like any other."""
    for number, line in lines:
        if row := line.rstrip("\r\n"):
            yield number, row.split("\t")


def _csv_rows(lines: _Lines) -> Iterator[tuple[int, list[str]]]:
    """Fields of each row, and the line at which it begins: a quoted field may run over several lines."""
    reader = csv.reader((text for _, text in lines), strict=True)
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{lines.name}, line {start}: {error}; is a quotation mark left open?") from None


def _text_rows(lines: _Lines, fields: Iterator[tuple[int, list[str]]], rows: int | None) -> Iterator[Rows]:
    """Rows of strings under the names in the first of them."""
    first, names = next(fields, (0, list[str]()))
    if not names:
        raise ValueError(f"{lines.name} is empty; expected a line of column names, and rows")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{lines.name}, line {first}: two columns are named {twice!r}")
    some = False
    for numbers, window in _windows(lines, _records(lines.name, names, fields), rows):
        if window or not some:
            yield TextRows(lines.name, names, window, numbers, lines.share)
            some = True


def _records(
    path: str, names: list[str], rows: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, dict[str, str]]]:
    for number, fields in rows:
        if len(fields) != len(names):
            has = f"{len(fields)} field{'' if len(fields) == 1 else 's'}"
            raise ValueError(f"{path}, line {number} has {has}; the header has {len(names)}")
        yield number, dict(zip(names, fields, strict=True))


def _json_rows(lines: _Lines, rows: int | None) -> Iterator[Rows]:
    """One object a line; a key that a line lacks is null there."""
    names: dict[str, None] = {}
    for numbers, window in _windows(lines, _json_objects(lines), rows):
        for record in window:
            names.update(dict.fromkeys(record))
        if window:
            yield Rows(lines.name, list(names), window, numbers, lines.share)
    if not names:
        raise ValueError(f"{lines.name} is empty; expected a JSON object on each line")


def _json_objects(lines: _Lines) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in lines:
        if not text.strip():
            continue
        place = f"{lines.name}, line {number}"
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{place}: no JSON ({error.msg.removesuffix(' at')} at character {error.pos + 1})"
            ) from None
        except (RecursionError, ValueError) as error:  # nested too deeply, or an integer of thousands of digits
            raise ValueError(f"{place}: JSON that cannot be read ({one_line(error)})") from None
        if not isinstance(value, dict):
            raise ValueError(f"{place}: expected a JSON object, not {text[:40].strip()}")
        yield number, cast(dict[str, Any], value)


# Parquet.


def _read_parquet(source: Source, rows: int | None) -> Iterator[Rows]:
    polars = need_polars()
    name = source.name if isinstance(source, Stream) else fspath(source)
    with _as_file(source) as path:
        if os.path.getsize(path) == 0:
            raise ValueError(f"{name} is empty; expected a Parquet file")
        try:
            table = polars.scan_parquet(path, glob=False)
            total = int(table.select(polars.len()).collect().item())
            group = max(total, 1) if rows is None else GROUP
            end = 0
            for start in range(0, total, group):
                for frame in table.slice(start, group).collect().iter_slices(rows or group):
                    start, end = end, end + len(frame)
                    yield FrameRows(name, frame, range(start + 1, end + 1), end / total)
            if not total:
                yield FrameRows(name, table.collect(), [])
        except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
            raise ValueError(f"{name}: is no Parquet file, or damaged: {one_line(error)}") from None


@contextmanager
def _as_file(source: Source) -> Generator[str]:
    """The path of a seekable file with the source's content: a stream is copied into a temporary file."""
    if isinstance(source, Stream):
        with tempfile.NamedTemporaryFile(suffix=".parquet") as spool:
            shutil.copyfileobj(source.file, spool)
            spool.flush()
            yield spool.name
    else:
        with open(source, "rb") as file:  # polars does not name the file in its errors
            if _size(file) is not None:
                yield fspath(source)
                return
            with _as_file(Stream(fspath(source), file)) as path:
                yield path
