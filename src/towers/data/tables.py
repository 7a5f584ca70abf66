"""Tables of sentences: TSV, CSV, JSON lines and Parquet as one polars frame, with the line of each row."""

from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

from towers.data.readers import TableFormat, read_rows
from towers.data.rows import need_polars

if TYPE_CHECKING:
    import polars


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
    need_polars()
    (rows,) = read_rows(path, format, rows=None)
    return Table(rows.frame(), rows.lines)
