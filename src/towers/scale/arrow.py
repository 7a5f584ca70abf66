"""Batches of Arrow with more columns: of pyarrow and of polars."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from towers.data.writers import Values


def check(batch: object) -> None:
    """Refuse what is no batch.

    Raises:
        TypeError: it is neither a RecordBatch or Table of pyarrow nor a DataFrame of polars.
    """
    if not (_is(batch, "pyarrow", "RecordBatch", "Table") or _is(batch, "polars", "DataFrame")):
        kind = f"{type(batch).__module__}.{type(batch).__name__}"
        wanted = "must be a RecordBatch or a Table of pyarrow, or a DataFrame of polars"
        raise TypeError(f'batch ({kind}) {wanted}; Ray Data gives one with map_batches(…, batch_format="pyarrow")')


def _is(batch: object, package: str, *names: str) -> bool:
    """Whether it is of one of these classes of a package, which is imported only if someone else has done so."""
    module = sys.modules.get(package)
    return module is not None and isinstance(batch, tuple(getattr(module, name) for name in names))


def extended(
    batch: Any, kinds: Mapping[str, type], places: list[int], values: Sequence[Values], texts: Mapping[str, list[Any]]
) -> Any:
    """The batch with new columns: of `kinds` with values at some places and null elsewhere, then of texts."""
    rows = len(batch)
    add = _add_polars if _is(batch, "polars", "DataFrame") else _add_pyarrow
    for (name, kind), cells in zip(kinds.items(), values, strict=True):
        batch = add(batch, name, kind, *_spread(kind, places, cells, rows))
    for name, cells in texts.items():
        batch = add(batch, name, str, cells, None)
    return batch


def _spread(kind: type, places: list[int], cells: Values, rows: int) -> tuple[Any, Any]:
    """A cell for each row, and which of them are not null; numbers are an array."""
    import numpy

    there = numpy.zeros(rows, dtype=bool)
    there[places] = True
    if kind is str:
        texts: list[str | None] = [None] * rows
        for place, cell in zip(places, cells, strict=True):
            texts[place] = cell
        return texts, there
    dtype = {float: "float32", int: "int8", list[float]: "float32", list[int]: "int64"}[kind]
    given = numpy.stack([*cells]).astype(dtype) if len(cells) else numpy.zeros(0, dtype)
    spread = numpy.zeros((rows, *given.shape[1:]), dtype)
    spread[places] = given
    return spread, there


def _add_polars(frame: Any, name: str, kind: type, cells: Any, there: Any) -> Any:
    import polars

    if kind is str:
        return frame.with_columns(polars.Series(name, cells, dtype=polars.String))
    inner = {float: polars.Float32, int: polars.Int8, list[float]: polars.Float32, list[int]: polars.Int64}[kind]
    if kind in (float, int):
        column = polars.Series(name, cells, dtype=inner)
    elif cells.ndim == 2:
        column = polars.Series(name, cells).cast(polars.List(inner))
    else:
        column = polars.Series(name, [None] * len(cells), dtype=polars.List(inner))
    return frame.with_columns(polars.when(polars.Series(there)).then(column).alias(name))


def _add_pyarrow(batch: Any, name: str, kind: type, cells: Any, there: Any) -> Any:
    import numpy

    pyarrow: Any = import_module("pyarrow")  # untyped, and absent where nothing hands over its batches
    if kind is str:
        return batch.append_column(name, pyarrow.array(cells, type=pyarrow.string()))
    inner = {float: pyarrow.float32(), int: pyarrow.int8(), list[float]: pyarrow.float32(), list[int]: pyarrow.int64()}
    if kind in (float, int):
        return batch.append_column(name, pyarrow.array(cells, type=inner[kind], mask=~there))
    width = cells.shape[1] if cells.ndim == 2 else 0
    if len(cells) * width >= 1 << 31:  # offsets would begin again from below 0
        told = f"{len(cells):,} rows with {width:,} numbers each are more than a list column of Arrow holds"
        raise ValueError(f"{name}: {told} (2^31 - 1); give smaller batches")
    offsets = pyarrow.array(numpy.arange(len(cells) + 1, dtype="int32") * width)
    flat = pyarrow.array(cells.reshape(-1), type=inner[kind])
    mask = pyarrow.array(~there)
    return batch.append_column(name, pyarrow.ListArray.from_arrays(offsets, flat, mask=mask))
