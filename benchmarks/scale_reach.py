"""The aims of runs of many rows, and of indexes of many items, beside what one run measured."""

from collections.abc import Callable, Sequence

from report import Row
from rich import box
from rich.table import Table

LOCAL, RAY = (f"towers predict, 400,000 pairs, {engine}" for engine in ("local", "Ray"))
MEMORY, INDEX = "memory of towers predict", "memory of an index, 10,000,000 items"
# Case, implementation, what is measured, the aim, and whether the aim is a lower (or an upper) bound.
AIMS: tuple[tuple[str, str, str, float, bool], ...] = (
    (LOCAL, "2 workers", "rows a second over those of one", 1.0, True),
    (RAY, "2 workers", "rows a second over those of one", 1.6, True),
    (RAY, "2 workers", "models that an actor loaded", 1, False),
    (MEMORY, "200,000 pairs", "peak over that of the first", 1.05, False),
    (INDEX, "parts of 100,000", "peak over what is laid out", 1.2, False),
    (INDEX, "one part", "peak over what is laid out", 1.2, False),
    (INDEX, "parts of 100,000", "peak over 4 x dense bytes", 1.2, False),
    (INDEX, "one part", "peak over 4 x dense bytes", 1.2, False),
    (INDEX, "memory-mapped", "peak over 4 x dense bytes", 0.01, False),
)
MEASURED: dict[str, Callable[[Row], float]] = {
    "rows a second over those of one": lambda row: 1 / row.time_ratio,
    "models that an actor loaded": lambda row: row.details["loads_of_one"],
    "peak over that of the first": lambda row: row.time_ratio,
    "peak over what is laid out": lambda row: row.details["over_laid_out"],
    "peak over 4 x dense bytes": lambda row: row.details["over_rows"],
}


def reach(rows: Sequence[Row]) -> Table:
    """The aims beside what was measured; an aim whose row is not there was not measured."""
    by_name = {(row.case, row.implementation): row for row in rows}
    table = Table(title="Aims", box=box.SIMPLE_HEAD)
    for heading in ("", "aim", "measured", "reached"):
        table.add_column(heading, justify="left" if not heading else "right")
    for case, name, what, aim, least in AIMS:
        cells = ["not measured", ""]
        if row := by_name.get((case, name)):
            value = MEASURED[what](row)
            cells = [f"{value:.3g}", "yes" if (value >= aim if least else value <= aim) else "no"]
        table.add_row(f"{case}, {name}: {what}", f"at {'least' if least else 'most'} {aim:g}", *cells)
    return table
