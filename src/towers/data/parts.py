"""Files of rows in parts that can be read on their own, in any order and by any process.

A part is a number of lines of TSV or JSON lines, of records of CSV, or of rows of Parquet. A line that cannot be read
costs that line: it is named, and the others are read.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import torch

from towers.data.encoding import GZIP
from towers.data.readers import WINDOW, Lines, Stream, TableFormat, csv_rows, read_rows
from towers.data.rows import FrameRows, Rows, need_polars, one_line

BLOCK = 1 << 20


class Fingerprint(NamedTuple):
    """What a file holds: its size, when it was changed, and a digest of all of it."""

    size: int
    changed: int
    sha256: str

    @classmethod
    def of(cls, path: str | Path) -> "Fingerprint":
        """Read all of a file.

        Raises:
            OSError: it cannot be read.
        """
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            for block in iter(partial(file.read, BLOCK), b""):
                digest.update(block)
            return cls.read(file, digest.hexdigest())

    @classmethod
    def read(cls, file: BinaryIO, digest: str) -> "Fingerprint":
        """Of an open file, of which the digest is known."""
        status = os.fstat(file.fileno())
        return cls(status.st_size, status.st_mtime_ns, digest)

    def fits(self, path: str | Path) -> bool:
        """Whether a file holds the same: it is read only if it was changed, or copied, since.

        Raises:
            OSError: there is no such file.
        """
        status = os.stat(path)
        if status.st_size != self.size:
            return False
        return status.st_mtime_ns == self.changed or Fingerprint.of(path).sha256 == self.sha256


class TableFile(NamedTuple):
    """A file of rows.

    header: the bytes and the lines up to the end of its line of names; of JSON lines and Parquet there is none.
    separator: of CSV.
    """

    path: str
    format: TableFormat
    separator: str | None
    header: tuple[int, int]
    fingerprint: Fingerprint


class Part(NamedTuple):
    """Some rows of a file: from one byte to another (of Parquet, row), and the line of the first."""

    number: int
    file: int
    start: int
    end: int
    line: int
    rows: int


class BadLine(NamedTuple):
    """A line that is no row."""

    line: int
    problem: str
    text: str


def plan(
    paths: list[str], format: TableFormat, *, separator: str | None = None, rows: int
) -> tuple[list[TableFile], list[Part]]:
    """Read files once, and divide them into parts of some rows each.

    Blank lines count as rows here; there are none in what is read.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is compressed, is no table, or has other columns than the first one.
    """
    files, parts = list[TableFile](), list[Part]()
    for path in paths:
        with open(path, "rb") as source:
            packed = source.read(len(GZIP)) == GZIP
        if packed:
            raise ValueError(f"{path}: is compressed, so that no part can be read on its own; unpack it first")
        file, cuts = _plan_parquet(path, rows) if format == "parquet" else _plan_text(path, format, separator, rows)
        for start, end, line, count in cuts:
            parts.append(Part(len(parts), len(files), start, end, line, count))
        files.append(file)
    names = [_names(file) for file in files]
    for file, own in zip(files, names, strict=True):
        if own != names[0]:
            raise ValueError(f"{file.path}: has the columns {', '.join(own)}; {paths[0]} has {', '.join(names[0])}")
    return files, parts


Cuts = list[tuple[int, int, int, int]]
"""Of each part: where it starts and ends, the line of its first row, and how many rows it has."""


def _plan_parquet(path: str, rows: int) -> tuple[TableFile, Cuts]:
    total = int(_of_parquet(path, lambda table: table.select(need_polars().len()).collect().item()))
    file = TableFile(path, "parquet", None, (0, 0), Fingerprint.of(path))
    starts = range(0, total, rows)
    return file, [(start, min(start + rows, total), start + 1, min(rows, total - start)) for start in starts]


def _of_parquet(path: str, ask: Callable[[Any], Any]) -> Any:
    polars = need_polars()
    try:
        return ask(polars.scan_parquet(path, glob=False))
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
        raise ValueError(f"{path}: is no Parquet file, or damaged: {one_line(error)}") from None


def _slice(start: int, count: int, table: Any) -> Any:
    return table.slice(start, count).collect()


def _plan_text(path: str, format: TableFormat, separator: str | None, rows: int) -> tuple[TableFile, Cuts]:
    with open(path, "rb") as source:
        header, separator = ((0, 0), None) if format == "jsonl" else _header(path, source, format, separator)
        source.seek(0)
        digest, quoted, whole = hashlib.sha256(source.read(header[0])), False, True
        cuts, start, line, count, at = Cuts(), header[0], header[1] + 1, 0, header[0]
        for block in iter(partial(source.read, BLOCK), b""):
            digest.update(block)
            quoted = quoted or (format == "csv" and b'"' in block)
            ends = block.count(b"\n")
            if count + ends >= rows:
                places = (torch.frombuffer(bytearray(block), dtype=torch.uint8) == ord("\n")).nonzero()[:, 0]
                for place in cast(list[int], places[rows - count - 1 :: rows].tolist()):
                    cuts.append((start, at + place + 1, line, rows))
                    start, line = at + place + 1, line + rows
            count = (count + ends) % rows
            at, whole = at + len(block), block.endswith(b"\n")
        if start < at:
            cuts.append((start, at, line, count + (not whole)))
        fingerprint = Fingerprint.read(source, digest.hexdigest())
        if quoted:  # a record may have several lines
            source.seek(0)
            cuts = _cuts_of_records(Lines(path, source), separator, header[0], rows)
    return TableFile(path, format, separator, header, fingerprint), cuts


def _header(path: str, source: BinaryIO, format: TableFormat, separator: str | None) -> tuple[tuple[int, int], Any]:
    """The bytes and lines up to the end of the names, and what separates fields of CSV."""
    lines = Lines(path, source)
    if format == "csv":
        numbered = csv_rows(lines, separator)
        if next(numbered, None) is None:
            raise ValueError(f"{path} is empty; expected a line of column names, and rows")
        source.seek(0)
        return (lines.bytes, source.read(lines.bytes).count(b"\n")), lines.separator
    for number, text in lines:
        if text.rstrip("\r\n").strip(" "):
            return (lines.bytes, number), None
    raise ValueError(f"{path} is empty; expected a line of column names, and rows")


def _cuts_of_records(lines: Lines, separator: str | None, header: int, rows: int) -> Cuts:
    cuts, start, first, count, end = Cuts(), header, 0, 0, header
    for line, _ in csv_rows(lines, separator):
        if lines.bytes <= header:
            continue
        if count == rows:
            cuts.append((start, end, first, count))
            start, count = end, 0
        first = line if count == 0 else first
        count, end = count + 1, lines.bytes
    return [*cuts, (start, end, first, count)] if count else cuts


def _names(file: TableFile) -> list[str]:
    if file.format == "jsonl":
        return []
    if file.format == "parquet":
        return _of_parquet(file.path, lambda table: list(table.collect_schema()))
    with open(file.path, "rb") as source:
        header = Stream(file.path, BytesIO(source.read(file.header[0])))
    return next(read_rows(header, file.format, separator=file.separator)).names


def read_part(file: TableFile, part: Part) -> Iterator[Rows | BadLine]:
    """The rows of a part, some at a time, and the lines that are none. Rows of empty cells are left out.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file has become shorter, or is no Parquet file any more.
    """
    if file.format == "parquet":
        for start in range(part.start, part.end, WINDOW):
            count = min(WINDOW, part.end - start)
            frame = _of_parquet(file.path, partial(_slice, start, count))
            yield FrameRows(file.path, frame, range(start + 1, start + 1 + len(frame)))
        return
    with open(file.path, "rb") as source:
        header = source.read(file.header[0])
        source.seek(part.start)
        body = source.read(part.end - part.start)
    if len(body) < part.end - part.start:
        raise ValueError(f"{file.path}: has become shorter since the run began")
    records = _records(file, header, body, part.line)
    for first in range(0, len(records), WINDOW):
        yield from _read(file, header, records[first : first + WINDOW])


Record = tuple[int, bytes]
"""The line of a row, and its bytes."""


def _records(file: TableFile, header: bytes, body: bytes, line: int) -> list[Record]:
    empty = re.compile(rb'[\s"%s]*' % re.escape((file.separator or "\t").encode()))
    if file.format == "csv" and b'"' in body:
        lines = Lines(file.path, BytesIO(header + body), None, (file.header[1], line - file.header[1] - 1))
        ends, starts = [len(header)], list[int]()
        for number, _ in csv_rows(lines, file.separator):
            if lines.bytes > len(header):
                starts.append(number)
                ends.append(lines.bytes)
        whole = header + body
        records = [(number, whole[ends[at] : ends[at + 1]]) for at, number in enumerate(starts)]
        # Blank lines before a record are in its bytes: its number is that of the first of them.
        records = [(number - _blank_lines(text), text) for number, text in records]
    else:
        records = list(enumerate(body.splitlines(keepends=True) if b"\r" not in body else BytesIO(body), line))
    return [record for record in records if not empty.fullmatch(record[1])]


def _blank_lines(text: bytes) -> int:
    return len(text[: len(text) - len(text.lstrip(b"\r\n "))].splitlines())


def _read(file: TableFile, header: bytes, records: list[Record]) -> Iterator[Rows | BadLine]:
    """Read all at once; if that fails, each half."""
    if not records:
        return
    first, text = records[0]
    body = b"".join(_without_gaps(records))
    stream = Stream(file.path, BytesIO(header + body), (file.header[1], first - file.header[1] - 1))
    try:
        yield from list(read_rows(stream, file.format, separator=file.separator, rows=None))
    except ValueError as error:
        if len(records) == 1:
            yield BadLine(first, str(error), text.decode("utf8", "backslashreplace").rstrip("\r\n"))
            return
        half = len(records) // 2
        yield from _read(file, header, records[:half])
        yield from _read(file, header, records[half:])


def _without_gaps(records: list[Record]) -> Iterator[bytes]:
    """Records with an empty line for each line that was left out between them, so that lines are counted right."""
    expected = records[0][0]
    for number, text in records:
        yield b"\n" * (number - expected)
        yield text
        expected = number + max(1, text.count(b"\n"))
