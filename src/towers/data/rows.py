"""Some neighbouring rows of a table, independent of the format of the file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from towers.checkpoint import without_nan

if TYPE_CHECKING:
    import polars

KINDS: Mapping[type, str] = {
    bool: "a number",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


class Rows:
    """Some neighbouring rows of a text table.

    Attributes:
        unit: what errors count: a "line" of a file, or a "row" of a table in memory.

    Args:
        path: what errors call the file.
        names: the columns that are known so far.
        records: each row's cells by name; JSON lines may lack some, which are None then.
        lines: the 1-based line at which each row begins (of Parquet: its row).
        share: the share of the file that has been read after these rows, from 0 to 1; None if its size is unknown.
    """

    unit = "line"

    def __init__(
        self,
        path: str,
        names: Sequence[str],
        records: list[dict[str, Any]],
        lines: Sequence[int],
        share: float | None = None,
    ) -> None:
        self.path, self.names, self.lines, self.share = path, list(names), list(lines), share
        self.twice: set[str] = set()
        """Names that several columns of the file have."""
        self.hidden_names: set[str] = set()
        """Names of what is in the table, but not as a column."""
        self.separator = ","
        """What stands between the fields of a CSV file."""
        self.returns = False
        """Whether a carriage return may stand in a cell of a line of text, as in TSV."""
        self._records = records

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.lines)

    def take(self, places: Sequence[int]) -> "Rows":
        """The rows at these places."""
        taken = copy(self)
        taken.lines = [self.lines[place] for place in places]
        taken._records = [self._records[place] for place in places]
        return taken

    def column(self, name: str) -> list[Any]:
        """The cells of a column."""
        return [record.get(name) for record in self._records]

    def class_names(self, name: str) -> list[str]:
        """The names of the classes whose numbers a column has, where its source says so."""
        return []

    def records(self) -> list[dict[str, Any]]:
        """The cells of each row by name."""
        return self._records

    def without_bytes(self) -> "Rows":
        """The same rows without columns of bytes, which only Parquet has."""
        return self

    def cells(self) -> Iterator[list[str]]:
        """Each row as text: strings as they are, an empty string for null and NaN, JSON for everything else."""
        for record in self._records:
            yield [_text(record.get(name)) for name in self.names]

    def frame(self) -> "polars.DataFrame":
        """The rows as a polars frame.

        Raises:
            ImportError: polars is not installed.
            ValueError: a column has values of several kinds; file and line are named.
        """
        polars = need_polars()
        try:
            return polars.from_dicts(self._records, infer_schema_length=None)
        except (polars.exceptions.PolarsError, TypeError, UnicodeEncodeError, OverflowError) as error:
            self.check_kinds({})
            raise ValueError(f"{self.path}: {one_line(error)}") from None

    def check_kinds(self, seen: dict[str, str]) -> None:
        """Check that each column has one kind of value. `seen` has the kinds of earlier rows, and is updated.

        Raises:
            ValueError: a column changes its kind; the message names the line.
        """
        for line, record in zip(self.lines, self._records, strict=True):
            for name, value in record.items():
                kind = _kind(value)
                if kind is not None and seen.setdefault(name, kind) != kind:
                    raise ValueError(f"{self.path}, line {line}: {name!r} is {kind}; it was {seen[name]} before")


class TextRows(Rows):
    """Rows whose cells are strings, under the names in the first line of their file."""

    def frame(self) -> "polars.DataFrame":
        """The rows as a polars frame of strings."""
        polars = need_polars()
        return polars.DataFrame(self._records, schema=dict.fromkeys(self.names, polars.String))


class FrameRows(Rows):
    """Rows that polars has read, in types of their own."""

    def __init__(self, path: str, frame: "polars.DataFrame", lines: Sequence[int], share: float | None = None) -> None:
        super().__init__(path, frame.columns, [], lines, share)
        self._frame = frame

    def take(self, places: Sequence[int]) -> "Rows":
        """The rows at these places."""
        return FrameRows(self.path, self._frame[list(places)], [self.lines[place] for place in places], self.share)

    def column(self, name: str) -> list[Any]:
        """The cells of a column."""
        return self._frame[name].to_list()

    def records(self) -> list[dict[str, Any]]:
        """The cells of each row by name, in the types of JSON: dates and decimals are strings.

        Raises:
            ValueError: a column has bytes.
        """
        self._refuse_bytes()
        return [json.loads(line) for line in self._frame.write_ndjson().split("\n") if line]

    def cells(self) -> Iterator[list[str]]:
        """Each row as text: numbers and dates as polars spells them, nothing for null, JSON for lists and objects.

        Raises:
            ValueError: a column has bytes.
        """
        polars = need_polars()
        self._refuse_bytes()
        kinds = self._frame.schema.items()
        spans = [name for name, kind in kinds if kind == polars.Duration]
        kept = [*spans, *(name for name, kind in kinds if kind.is_nested())]
        as_text = [polars.exclude(kept).cast(polars.String), polars.col(spans).dt.to_string("iso")]
        flat = self._frame.with_columns(as_text if spans else as_text[:1])
        for row in flat.iter_rows():
            yield [_text(cell) for cell in row]

    def without_bytes(self) -> "Rows":
        """The same rows without columns of bytes."""
        return FrameRows(self.path, self._frame.drop(self._of_bytes()), self.lines, self.share)

    def _of_bytes(self) -> list[str]:
        return [name for name, kind in self._frame.schema.items() if _has_bytes(kind)]

    def _refuse_bytes(self) -> None:
        for name in self._of_bytes():
            problem = f"column {name!r} has bytes, which text cannot hold"
            raise ValueError(f"{self.path}: {problem}; write Parquet, or leave this column out")

    def frame(self) -> "polars.DataFrame":
        """The rows as a polars frame."""
        return self._frame

    def check_kinds(self, seen: dict[str, str]) -> None:
        """Nothing to check: every column has one type."""


def _has_bytes(kind: Any) -> bool:
    """Whether a type of polars is that of bytes, or has them inside."""
    inside = [field.dtype for field in getattr(kind, "fields", [])] or [getattr(kind, "inner", None)]
    return kind == need_polars().Binary or any(_has_bytes(part) for part in inside if part is not None)


def need_polars() -> Any:
    """The package polars.

    Raises:
        ImportError: it is not installed; the message has the command that installs it.
    """
    try:
        import polars
    except ImportError:
        raise ImportError('tables are read by polars: pip install "towers[train]"') from None
    return polars


def one_line(error: Exception) -> str:
    """The first line of an error's text; polars may add the plan of a query to it."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _kind(value: object) -> str | None:
    return KINDS.get(type(value))


def _text(cell: Any) -> str:
    cell = without_nan(cell)
    if cell is None or isinstance(cell, str):
        return cell or ""
    return json.dumps(cell, ensure_ascii=False, default=str)
