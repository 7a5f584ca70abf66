"""Tables and columns that are in memory already: of pandas, polars, Arrow, Hugging Face datasets, or plain Python."""

from collections.abc import Mapping, Set
from typing import Any, cast

from towers.data.rows import Rows


class MemoryRows(Rows):
    """The rows of a table in memory.

    Args:
        table: anything with named columns, see `is_table`.

    Raises:
        ValueError: its columns do not have one length.
    """

    unit = "row"

    def __init__(self, table: Any) -> None:
        collect = getattr(table, "collect", None)
        self._table = table = collect() if callable(collect) else table  # polars may be lazy
        name, names = f"the {type(table).__name__}", names_of(table)
        _check_table(name, table)
        count = 0 if isinstance(table, Mapping) else len(table)
        if isinstance(table, Mapping):
            sizes = {column: len(values) for column, values in cast(Mapping[str, Any], table).items()}
            if len(set(sizes.values())) > 1:
                listed = ", ".join(f"{column} has {size}" for column, size in sizes.items())
                raise ValueError(f"{name}: its columns must be equally long: {listed}")
            count = next(iter(sizes.values()), 0)
        super().__init__(name, names, [], range(1, count + 1))
        self.twice = {name for name in names if names.count(name) > 1}
        index: Any = getattr(cast(Any, table), "index", None)  # of pandas
        named: list[Any] = list(getattr(index, "names", None) or [])
        self.hidden_names = {str(own) for own in named if own is not None and own not in names}

    def column(self, name: str) -> list[Any]:
        """The cells of a column."""
        return as_list(cast(Any, self._table)[name])

    def class_names(self, name: str) -> list[str]:
        """The names of a ClassLabel of Hugging Face."""
        features = getattr(self._table, "features", None)
        feature = cast(Mapping[str, Any], features).get(name) if isinstance(features, Mapping) else None
        return list(getattr(feature, "names", None) or ())


def _check_table(name: str, table: Any) -> None:
    """Refuse what only looks like a table of pairs.

    Raises:
        ValueError: it is one row, splits of a dataset, or a stream; or its columns are; the message says what to do.
    """
    if isinstance(table, Mapping):
        for column, values in cast(Mapping[str, Any], table).items():
            if isinstance(values, str | bytes):
                problem = f"{column} is one string ({values[:40]!r}); a column is a list"
                raise ValueError(f"{name}: {problem}. For one row, put each of its values in a list: [{values[:20]!r}]")
            if is_table(values) and not hasattr(values, "__array__"):  # a DatasetDict
                raise ValueError(f"{name}: {column} is a whole table ({type(values).__name__}); give one: [{column!r}]")
            if not hasattr(values, "__len__"):
                problem = f"{column} is {type(values).__name__}, whose length is not known"
                raise ValueError(f"{name}: {problem}; give a list: list(...)")
    elif not hasattr(table, "__len__"):
        advice = "give a part that fits in memory, such as datasets.Dataset.from_list(list(stream.take(10_000)))"
        raise ValueError(f"{name} is a stream, whose length is not known; {advice}")
    elif getattr(getattr(table, "columns", None), "nlevels", 1) > 1:
        advice = "make it one: frame.columns = frame.columns.map('_'.join)"
        raise ValueError(f"{name} has more than one level of column names (a MultiIndex); {advice}")


def is_table(value: object) -> bool:
    """Whether a value has named columns: a frame, a table, a dataset, or a dict of columns."""
    kind: object = type(value)  # on a lazy frame itself, the question would run its query
    return isinstance(value, Mapping) or hasattr(kind, "column_names") or hasattr(kind, "columns")


def names_of(table: Any) -> list[str]:
    """The names of a table's columns; columns of pandas that are named by numbers are left out."""
    if isinstance(table, Mapping):
        return list(cast(Mapping[str, Any], table))
    names = getattr(table, "column_names", None)
    return [name for name in (table.columns if names is None else names) if isinstance(name, str)]


def as_list(column: Any) -> list[Any]:
    """The values of a column, or of any iterable, as Python's own objects; arrays among them become lists.

    Raises:
        ValueError: it is bytes, a set, a whole table, or nothing that can be gone through.
    """
    kind = type(column).__name__
    if isinstance(column, bytes | bytearray):
        raise ValueError(f"sentences are {kind}: decode them, b.decode('utf8')")
    if isinstance(column, Set):
        raise ValueError(f"sentences are a {kind}, which has no order: give a list")
    if is_table(column):
        raise ValueError(f"sentences are a whole {kind}: give one of its columns")
    if not hasattr(column, "__iter__") and not hasattr(column, "__getitem__"):
        raise ValueError(f"sentences are {column!r:.60}: give a list of strings")
    for name in ("to_pylist", "to_list", "tolist"):  # of Arrow, of pandas and polars, of NumPy
        if callable(method := getattr(column, name, None)):
            values = method()
            if not isinstance(values, list):  # of an array without axes
                raise ValueError(f"sentences are {column!r:.60}: give a list of strings")
            return [_plain(value) for value in cast(list[Any], values)]
    return [_plain(value) for value in column]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    for name in ("as_py", "tolist"):  # a scalar of Arrow; an array or a scalar of NumPy
        if callable(method := getattr(value, name, None)):
            return method()
    return list(cast(tuple[Any, ...], value)) if isinstance(value, tuple) else value
