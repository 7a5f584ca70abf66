"""Parquet, some rows at a time, by polars."""

import os
from collections.abc import Iterator
from os import fspath

from towers.data.rows import FrameRows, Rows, need_polars, one_line
from towers.data.sources import Source, Stream, as_file

GROUP = 1 << 16
"""Rows of Parquet that polars reads at a time; each read has a fixed cost."""


def read_parquet(source: Source, rows: int | None) -> Iterator[Rows]:
    """The rows of a Parquet file, at most `rows` at a time; None: all at once."""
    polars = need_polars()
    name = source.name if isinstance(source, Stream) else fspath(source)
    with as_file(source) as path:
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
