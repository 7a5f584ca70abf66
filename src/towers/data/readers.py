"""Readers of tables, some rows at a time: TSV, CSV, JSON lines and Parquet.

The text formats are read line by line here: polars pads a row that is too short and turns a list among strings into
text, both without a warning, and does not say on which line an error is.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import chain, count
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, cast

from towers.data.encoding import GZIP, RETURNS, decode_line, gunzip
from towers.data.parquet_reader import read_parquet
from towers.data.rows import Rows, TextRows, need_polars, one_line
from towers.data.sources import Source, Stream, first_bytes, size_of

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


def read_rows(
    source: Source, format: TableFormat | None = None, *, separator: str | None = None, rows: int | None = WINDOW
) -> Iterator[Rows]:
    """Read a table `rows` rows at a time (fewer where they are long), in the given format or that of the file's ending.

    None reads it all at once. A table without rows gives one item of no rows, which knows the columns. Blank lines are
    skipped.

    `separator` is the character between the fields of a CSV file. None: the comma; or what an Excel line `sep=;` says;
    or `;`, a tab or `|`, if the header has one of these and no comma. A name with .gz at its end is read as gzip.

    Raises:
        ValueError: a TSV file, whose format is not given, has cells that are quoted as in CSV.
        ValueError: the format is neither given nor known from the ending, or is not one of the choices.
        ValueError: a line is bad (not UTF-8, another number of fields than the header, no JSON object), or a Parquet
            file is damaged; file and line are named.
        ImportError: the file is Parquet and polars is not installed.
    """
    name = source.name if isinstance(source, Stream) else fspath(source)
    told = format_of(name) if format is None else format
    if told not in ENDINGS.values():
        raise ValueError(f"format ({format!r}) must be one of {', '.join(dict.fromkeys(ENDINGS.values()))}")
    if separator is not None and (told != "csv" or len(separator) != 1 or separator in '"\r\n'):
        raise ValueError(f"separator ({separator!r}) must be one character, of a CSV file; this file is {told}")
    if told == "parquet":
        return read_parquet(source, rows)
    if told == "tsv":
        return _read_text(source, partial(_tsv_rows, refuse_quotes=format is None), rows)
    return _read_text(source, None if told == "jsonl" else partial(csv_rows, separator=separator), rows)


def format_of(path: str) -> TableFormat:
    """The format that a file's ending says."""
    ending = ending_of(path)
    if ending in (".xlsx", ".xls", ".ods"):
        raise ValueError(f"{path}: is a workbook; save its sheet as CSV")
    if ending not in ENDINGS:
        known = f"the ending {ending!r} is not known, only {', '.join(ENDINGS)}"
        raise ValueError(f"{path}: {known}; say what it is with --format, or format= in Python")
    return ENDINGS[ending]


def ending_of(path: str) -> str:
    """The ending of a file's name, without .gz."""
    return Path(path.lower().removesuffix(".gz")).suffix


class Table(NamedTuple):
    """A file's rows.

    Attributes:
        frame: the rows with all their columns.
        lines: the 1-based line at which each row begins (of Parquet: its row).

    >>> import polars
    >>> from towers.data import Table
    >>> Table(polars.DataFrame({"sentence1": ["a dog runs"]}), [2]).frame.height
    1
    """

    frame: "polars.DataFrame"
    lines: list[int]


def read_table(path: str | PathLike[str], format: TableFormat | None = None, *, separator: str | None = None) -> Table:
    """Read the table at `path` in the given format, or in the one that its ending says. Blank lines are skipped.

    TSV and CSV begin with a line of column names, and all their columns are strings. TSV knows no quoting: a `"` is a
    character like any other. CSV has standard quoting; see `SentencePairs.load` for `separator`. Of columns with the
    same name the later ones get numbers: a, a.1.

    Raises:
        ValueError: the format is neither given nor told by the ending.
        ValueError: a line is bad (not UTF-8, another number of fields than the header, no JSON object, a column of
            mixed types), or a Parquet file is damaged; file and line are named.
        ImportError: polars is not installed.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from towers.data import read_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "pairs.csv")
    ...     _ = path.write_text("sentence1,sentence2\\na dog runs,an animal moves\\n")
    ...     table = read_table(path)
    >>> table.frame.columns, table.lines
    (['sentence1', 'sentence2'], [2])
    """
    need_polars()
    (rows,) = read_rows(path, format, separator=separator, rows=None)
    return Table(rows.frame(), rows.lines)


# Text.


class Lines:
    """The lines of a file, with their numbers."""

    def __init__(self, name: str, file: BinaryIO, size: int | None = None, left_out: tuple[int, int] = (0, 0)) -> None:
        self.name, self.file, self.size, self.bytes = name, file, size, 0
        self.left_out = left_out
        self.separator, self.returns = ",", False

    def number(self, place: int) -> int:
        """The number in the whole file of the line at a place here, both from 1."""
        first, count = self.left_out
        return place if place <= first else place + count

    def __iter__(self) -> Iterator[tuple[int, str]]:
        for place, line in enumerate(iter(partial(self.file.readline, LONGEST), b""), 1):
            number = self.number(place)
            if len(line) == LONGEST:
                raise ValueError(f"{self.name}, line {number}: has {LONGEST >> 20} MB or more; is this a table?")
            self.bytes += len(line)
            yield number, decode_line(self.name, number, line)

    @property
    def share(self) -> float | None:
        """The share of the file that has been read, from 0 to 1; None if its size is unknown."""
        return min(self.bytes / self.size, 1.0) if self.size else None


Fields = Iterator[tuple[int, list[str]]]


def _read_text(source: Source, fields: Callable[["Lines"], Fields] | None, rows: int | None) -> Iterator[Rows]:
    """Rows of fields, or without a function that finds fields, of JSON objects."""
    name = source.name if isinstance(source, Stream) else fspath(source)
    with ExitStack() as opened:
        file = source.file if isinstance(source, Stream) else opened.enter_context(open(source, "rb"))
        size = size_of(file)
        if name.lower().endswith(".gz") or first_bytes(file).startswith(GZIP):
            file, size = opened.enter_context(gunzip(name, file)), None
        lines = Lines(name, file, size, source.left_out if isinstance(source, Stream) else (0, 0))
        yield from _json_rows(lines, rows) if fields is None else _text_rows(lines, fields(lines), rows)


def _windows(
    lines: Lines, records: Iterator[tuple[int, Any]], rows: int | None
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


def _tsv_rows(lines: Lines, refuse_quotes: bool) -> Fields:
    """Fields of each row. TSV knows no quoting: a `"` is a character like any other."""
    header, lines.returns = True, True
    for number, line in lines:
        row = line.rstrip("\r\n")
        if not row.strip(" "):
            continue
        fields = row.split("\t")
        suspect = refuse_quotes and ('""' in row or (header and row.startswith('"')))
        if suspect and (cell := next(filter(_QUOTED.fullmatch, fields), None)):
            problem = f"{cell[:60]} is quoted as in CSV; TSV has no quotes"
            advice = 'say --format csv --separator tab (format="csv", separator="\\t" in Python) to read the quotes'
            raise ValueError(f"{lines.name}, line {number}: {problem}; {advice}, or --format tsv to keep them")
        if header and "\r" in row:
            raise ValueError(f"{lines.name}, line {number}: {RETURNS}")
        header = False
        yield number, fields


_QUOTED = re.compile(r'"(?:[^"]|"")*"')
"""A cell that CSV's quoting can have made."""


def csv_rows(lines: Lines, separator: str | None) -> Fields:
    """Fields of each row, and the line at which it begins: a quoted field may run over several lines."""
    texts = (text for _, text in lines)
    first, skipped = next(texts, ""), 0
    while first and not first.strip():
        first, skipped = next(texts, ""), skipped + 1
    if said := re.fullmatch(r"\"?sep=(.)\"?\r?\n?", first, re.IGNORECASE):  # Excel writes and reads this line
        first, skipped, separator = next(texts, ""), skipped + 1, separator or said[1]
    lines.separator = separator or _separator_of(first)
    read: list[str] = []  # the lines of a row
    spaced = re.compile(f'(?:^|{re.escape(lines.separator)}) +"', re.MULTILINE)
    kept = (read.append(text) or text for text in chain([first], texts))
    reader = csv.reader(kept, strict=True, delimiter=lines.separator)
    start, limit = 1 + skipped, csv.field_size_limit(LONGEST)
    try:
        for fields in reader:
            late = next((field for field in fields if field[:1] == " " and field.lstrip(" ")[:1] == '"'), None)
            if late is not None and spaced.search("".join(read)):
                problem = f"{late[:40]!r} has spaces before its quotation mark, which then is no quote"
                raise ValueError(f"{lines.name}, line {lines.number(start)}: {problem}; leave these spaces out")
            read.clear()
            if fields and not (len(fields) == 1 and not fields[0].strip(" ")):
                yield lines.number(start), fields
            start = reader.line_num + skipped + 1
    except csv.Error as error:
        problem = RETURNS if "new-line" in str(error) else f"{error}; is a quotation mark left open?"
        raise ValueError(f"{lines.name}, line {lines.number(start)}: {problem}") from None
    finally:
        csv.field_size_limit(limit)


def _separator_of(header: str) -> str:
    """The comma, unless the header has none outside of quotes, but another usual separator."""
    header = re.sub('"[^"]*"', "", header)
    if "," in header:
        return ","
    return max(",;\t|", key=header.count)


def _text_rows(lines: Lines, fields: Iterator[tuple[int, list[str]]], rows: int | None) -> Iterator[Rows]:
    """Rows of strings under the names in the first of them."""
    names = next(fields, (0, list[str]()))[1]
    if not names:
        raise ValueError(f"{lines.name} is empty; expected a line of column names, and rows")
    twice = {name for name in names if names.count(name) > 1}
    names, some = _unique(names), False
    for numbers, window in _windows(lines, _records(lines.name, names, fields), rows):
        if window or not some:
            read = TextRows(lines.name, names, window, numbers, lines.share)
            read.twice, read.separator, read.returns = twice, lines.separator, lines.returns
            yield read
            some = True


def _unique(names: list[str]) -> list[str]:
    """The names, each with a number behind it if it stood before, as pandas does: a, a.1, a.2."""
    unique: dict[str, None] = {}
    for name in names:
        numbered = (f"{name}.{number}" for number in count(1))
        unique[next(new for new in chain([name], numbered) if new not in unique)] = None
    return list(unique)


def _records(path: str, names: list[str], rows: Fields) -> Iterator[tuple[int, dict[str, str]]]:
    """The cells by name. Empty rows at the end and empty cells beyond the named columns are left out."""
    least = len(names)
    while least and not names[least - 1].partition(".")[0]:
        least -= 1
    empty: list[tuple[int, list[str]]] = []  # rows of empty cells, of which it is not known yet whether others follow
    for number, fields in chain.from_iterable(_after(empty, row) for row in rows):
        while len(fields) > len(names) and not fields[-1]:
            fields.pop()
        if least <= len(fields) < len(names):
            fields += [""] * (len(names) - len(fields))
        if len(fields) != len(names):
            has = f"{len(fields)} field{'' if len(fields) == 1 else 's'}"
            raise ValueError(f"{path}, line {number} has {has}; the header has {len(names)}")
        yield number, dict(zip(names, fields, strict=True))


def _after(empty: list[tuple[int, list[str]]], row: tuple[int, list[str]]) -> list[tuple[int, list[str]]]:
    """The row, with the empty rows that were held back before it; nothing for an empty row, which is held back."""
    if len(row[1]) > 1 and not any(row[1]):
        empty.append(row)
        return []
    held = [*empty, row]
    empty.clear()
    return held


def _json_rows(lines: Lines, rows: int | None) -> Iterator[Rows]:
    """One object a line; a key that a line lacks is null there."""
    names: dict[str, None] = {}
    empty = True
    for numbers, window in _windows(lines, _json_objects(lines), rows):
        empty = empty and not window
        for record in window:
            names.update(dict.fromkeys(record))
        if window:
            yield Rows(lines.name, list(names), window, numbers, lines.share)
    if empty:
        raise ValueError(f"{lines.name} is empty; expected a JSON object on each line")


def _json_objects(lines: Lines) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in lines:
        if not text.strip():
            continue
        place = f"{lines.name}, line {number}"
        try:
            value = json.loads(text, object_pairs_hook=_once_each)
        except json.JSONDecodeError as error:
            problem = f"no JSON ({error.msg.removesuffix(' at')} at character {error.pos + 1})"
            raise ValueError(f"{place}: {problem}; each line must be one JSON object") from None
        except (RecursionError, ValueError) as error:  # nested too deeply, or an integer of thousands of digits
            raise ValueError(f"{place}: JSON that cannot be read ({one_line(error)})") from None
        if not isinstance(value, dict):
            raise ValueError(f"{place}: expected a JSON object, not {text[:40].strip()}")
        yield number, cast(dict[str, Any], value)


def _once_each(items: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(items)
    if len(record) < len(items):
        twice = next(name for name, count in Counter(name for name, _ in items).items() if count > 1)
        raise ValueError(f"an object has the key {twice!r} twice")
    return record
