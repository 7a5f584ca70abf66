"""Writers of tables, some rows at a time, with more columns of numbers: TSV, CSV, JSON lines and Parquet."""

import json
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from towers.checkpoint import without_nan
from towers.data.parquet_reader import GROUP
from towers.data.readers import TableFormat
from towers.data.rows import Rows, need_polars, one_line

Values = Sequence[Any]
"""A column: float32 numbers of NumPy, integers, strings, or rows of NumPy; None where a cell stays empty."""


@contextmanager
def writing(file: BinaryIO, format: TableFormat, columns: Mapping[str, type]) -> Generator["Writer"]:
    """A writer of rows with new last columns. After the `with` statement the file is complete.

    A column's kind is float, int, str, list[float] or list[int].
    """
    writers = {"tsv": TsvWriter, "csv": CsvWriter, "jsonl": JsonWriter}
    if format == "parquet":
        with tempfile.TemporaryDirectory(prefix="towers-") as folder:
            parquet = ParquetWriter(file, columns, Path(folder))
            yield parquet
            parquet.finish()
    else:
        yield writers[format](file, columns)


class Writer(ABC):
    """A writer of any format."""

    def __init__(self, file: BinaryIO, columns: Mapping[str, type]) -> None:
        self.file, self.columns = file, dict(columns)

    @abstractmethod
    def write(self, rows: Rows, values: Sequence[Values]) -> None:
        """Add rows, and for each new column a number a row; None leaves the cell empty.

        Raises:
            ValueError: the format cannot hold a row; the message names file and line.
        """


class TextWriter(Writer):
    """A line of column names, and a line for each row."""

    names: list[str] | None = None

    def write(self, rows: Rows, values: Sequence[Values]) -> None:
        """Add rows. Columns that the first rows did not have are refused."""
        if self.names is None:
            self.names = rows.names
            self._line(rows, -1, [*rows.names, *self.columns])
        if len(rows.names) > len(self.names):
            self._refuse_new(rows, rows.names[len(self.names)])
        for place, (cells, *numbers) in enumerate(zip(rows.cells(), *values, strict=True)):
            self._line(rows, place, [*cells, *map(_spelled, numbers)])

    def _line(self, rows: Rows, place: int, cells: list[str]) -> None:
        try:
            self.file.write((self.join(rows, place, cells) + "\n").encode())
        except UnicodeEncodeError:
            raise self._mistake(rows, place, "half a character, which UTF-8 cannot hold") from None

    @abstractmethod
    def join(self, rows: Rows, place: int, cells: list[str]) -> str:
        """The line of the row at `place` (-1: of the names)."""

    def _mistake(self, rows: Rows, place: int, problem: str) -> ValueError:
        line = rows.lines[place] if place >= 0 else 1
        return ValueError(f"{rows.path}, line {line}: has {problem}; write another format, with --out-format")

    def _refuse_new(self, rows: Rows, name: str) -> None:
        place = next(place for place, record in enumerate(rows.records()) if name in record)
        raise self._mistake(rows, place, f"{name!r}, which is no column of the header")


class TsvWriter(TextWriter):
    """TSV, without quoting, as in the reader.

    Other programs end a line at a carriage return, so that only one that a TSV file has itself is written.
    """

    def join(self, rows: Rows, place: int, cells: list[str]) -> str:
        """The cells as they are."""
        line = "\t".join(cells)
        if line.count("\t") >= len(cells) or "\n" in line or ("\r" in line and not rows.returns):
            raise self._mistake(rows, place, "a tab or a line end in a cell, which TSV cannot hold")
        return line


class CsvWriter(TextWriter):
    """CSV, with quotes around the cells that need them."""

    def join(self, rows: Rows, place: int, cells: list[str]) -> str:
        """The cells, in quotes if they have a separator, a quotation mark or a line end; separated as in the input."""
        special = re.compile(f'[{re.escape(rows.separator)}"\r\n]')
        quoted = ('"' + cell.replace('"', '""') + '"' if special.search(cell) else cell for cell in cells)
        return rows.separator.join(quoted)


class JsonWriter(Writer):
    """JSON lines: each object as it was read, with the new key; NaN and infinity, which JSON lacks, become null."""

    def write(self, rows: Rows, values: Sequence[Values]) -> None:
        """Add rows."""
        for record, *numbers in zip(rows.records(), *values, strict=True):
            new = {
                name: None if number is None else (kind if kind in (float, int, str) else json.loads)(_spelled(number))
                for (name, kind), number in zip(self.columns.items(), numbers, strict=True)
            }
            line = without_nan({**record, **new})
            try:
                self.file.write((json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode())
            except UnicodeEncodeError:  # a lone surrogate can only be written as an escape
                self.file.write((json.dumps(line, allow_nan=False) + "\n").encode())


class ParquetWriter(Writer):
    """Parquet: groups of rows in a temporary folder, joined at the end, since polars cannot append to a file."""

    def __init__(self, file: BinaryIO, columns: Mapping[str, type], folder: Path) -> None:
        super().__init__(file, columns)
        self.polars, self.folder = need_polars(), folder
        self.waiting: list[Any] = []
        self.parts: list[Path] = []
        self.kinds: dict[str, str] = {}

    def write(self, rows: Rows, values: Sequence[Values]) -> None:
        """Add rows."""
        rows.check_kinds(self.kinds)
        polars = self.polars
        kinds = {float: polars.Float32, int: polars.Int8, str: polars.String}
        kinds |= {list[float]: polars.List(polars.Float32), list[int]: polars.List(polars.Int64)}
        new = [
            polars.Series(name, [_plain(number) for number in numbers], dtype=kinds[kind])
            for (name, kind), numbers in zip(self.columns.items(), values, strict=True)
        ]
        self.waiting.append(rows.frame().with_columns(new))
        if sum(map(len, self.waiting)) >= GROUP:
            self._flush(rows.path)

    def _flush(self, path: str) -> None:
        with self._explained(path):
            part = self.folder / f"{len(self.parts)}.parquet"
            self.polars.concat(self.waiting, how="diagonal_relaxed").write_parquet(part)
        self.parts.append(part)
        self.waiting.clear()

    def finish(self) -> None:
        """Put the groups together."""
        if self.waiting:
            self._flush("the table")
        whole = self.folder / "whole.parquet"
        with self._explained("the table"):
            parts = [self.polars.scan_parquet(part, glob=False) for part in self.parts]
            self.polars.concat(parts, how="diagonal_relaxed").sink_parquet(whole)
        with whole.open("rb") as file:
            shutil.copyfileobj(file, self.file)

    @contextmanager
    def _explained(self, path: str) -> Generator[None]:
        try:
            yield
        except self.polars.exceptions.PolarsError as error:
            raise ValueError(f"{path}: cannot be written as Parquet: {one_line(error)}") from None


def _spelled(value: Any) -> str:
    """The shortest decimal number that gives the same float32 number again, a list of them; nothing for None."""
    if value is None or isinstance(value, str):
        return value or ""
    return str(value) if not getattr(value, "ndim", 0) else f"[{', '.join(map(str, value))}]"


def _plain(value: Any) -> Any:
    """A row of NumPy as a list: polars takes no column of rows and None."""
    return value.tolist() if getattr(value, "ndim", 0) else value
