# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Tables of sentences: TSV, CSV, JSON lines and Parquet as one polars frame, with the line of each row.

The text formats are walked line by line here: polars fills up a row that is too short and turns a list among strings
into text, both without a word, and does not say on which line a mistake is.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from towers.data.encoding import decode_line

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


class Table(NamedTuple):
    """A file's rows with all their columns, and the 1-based line at which each row begins (of Parquet: its row)."""

    frame: "polars.DataFrame"
    lines: list[int]


def read_table(path: str | PathLike[str], format: TableFormat | None = None) -> Table:
    """Read a table in the given format, or in the one that the file's ending says. Blank lines are passed over.

    TSV and CSV begin with a line of column names, and all their columns are strings. TSV knows no quoting: a `"` is a
    character like any other. CSV has standard quoting.

    Raises:
        ValueError: the format is neither given nor told by the ending.
        ValueError: a line is bad (not UTF-8, another number of fields than the header, no JSON object, a column of
            mixed types), or a Parquet file is damaged; file and line are named.
        ImportError: polars is not installed.
    """
    path = fspath(path)
    format = format_of(path) if format is None else format
    readers = {"tsv": _read_tsv, "csv": _read_csv, "jsonl": _read_json_lines, "parquet": _read_parquet}
    if format not in readers:
        raise ValueError(f"format ({format!r}) must be one of {', '.join(readers)}")
    return readers[format](path)


def format_of(path: str) -> TableFormat:
    """The format that a file's ending says."""
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"{path}: the ending {ending!r} is not known, only {', '.join(ENDINGS)}; rename the file")
    return ENDINGS[ending]


def _polars() -> Any:
    try:
        import polars
    except ImportError:
        raise ImportError('tables are read by polars: pip install "towers[train]"') from None
    return polars


def _read_tsv(path: str) -> Table:
    rows = ((number, line.rstrip("\r\n")) for number, line in _lines(path))
    return _text_table(path, ((number, row.split("\t")) for number, row in rows if row))


def _read_csv(path: str) -> Table:
    return _text_table(path, _csv_rows(path))


def _read_parquet(path: str) -> Table:
    polars = _polars()
    try:
        frame = polars.read_parquet(path)
    except polars.exceptions.PolarsError as error:
        raise ValueError(f"{path}: {error}") from None
    return Table(frame, list(range(1, len(frame) + 1)))


def _lines(path: str) -> Iterator[tuple[int, str]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            yield number, decode_line(path, number, line)


def _csv_rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """Fields of each row, and the line at which it begins: a quoted field may run over several lines."""
    reader = csv.reader((text for _, text in _lines(path)), strict=True)
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {start}: {error}") from None


def _text_table(path: str, rows: Iterator[tuple[int, list[str]]]) -> Table:
    """Rows of strings under the names in the first of them."""
    _, names = next(rows, (0, []))
    if not names:
        raise ValueError(f"{path} is empty")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path}, line 1: two columns are named {twice!r}")
    lines: list[int] = []
    columns: list[list[str]] = [[] for _ in names]
    for number, fields in rows:
        if len(fields) != len(names):
            raise ValueError(f"{path}, line {number} has {len(fields)} fields; the header has {len(names)}")
        lines.append(number)
        for column, field in zip(columns, fields, strict=True):
            column.append(field)
    polars = _polars()
    schema = dict.fromkeys(names, polars.String)
    return Table(polars.DataFrame(dict(zip(names, columns, strict=True)), schema=schema), lines)


def _read_json_lines(path: str) -> Table:
    """One object a line; a key that a line lacks is null there."""
    lines: list[int] = []
    rows: list[dict[str, Any]] = []
    for number, text in _lines(path):
        if text.strip():
            lines.append(number)
            rows.append(_json_object(f"{path}, line {number}", text))
    if not rows:
        raise ValueError(f"{path} is empty")
    polars = _polars()
    try:
        return Table(polars.from_dicts(rows, infer_schema_length=None), lines)
    except (polars.exceptions.PolarsError, TypeError, UnicodeEncodeError) as error:
        _refuse_mixed(path, lines, rows)
        raise ValueError(f"{path}: {error}") from None


def _json_object(place: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: no JSON ({error.msg} at character {error.pos + 1})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected a JSON object, not {text[:40]}")
    return cast(dict[str, Any], value)


def _refuse_mixed(path: str, lines: Sequence[int], rows: Iterable[Mapping[str, Any]]) -> None:
    """Name the first line on which a column has another kind of value than before."""
    kinds = {bool: "a number", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    seen: dict[str, str] = {}
    for number, row in zip(lines, rows, strict=True):
        for name, value in row.items():
            kind = kinds.get(type(value))
            if kind is not None and seen.setdefault(name, kind) != kind:
                raise ValueError(f"{path}, line {number}: {name!r} is {kind}; it was {seen[name]} before")
