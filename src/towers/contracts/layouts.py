"""The sizes of whatever carries sentences: a tensor, a jagged nested tensor, values with offsets, a packed sequence."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


@dataclass(slots=True, eq=False)
class RaggedAxis:
    """An axis that has a length of its own in every row, and no size."""

    offsets: Tensor | None
    """Where each row starts and the last one ends; None where nothing says it without work (a packed sequence)."""

    @property
    def lengths(self) -> Tensor | None:
        """The length of every row."""
        return None if self.offsets is None else self.offsets.diff()


Size = int | RaggedAxis


def layout(value: Any) -> tuple[Sequence[Size], torch.dtype | None, torch.device | None]:
    """The sizes, the dtype and the device. Rank, batch and widths of ragged rows come from values and offsets.

    Values that are ids of the rows of a `table` have the table's width and dtype: what the ids stand for is meant.
    The dtype is None where torch has none of that name, the device where it is not one of torch's (a numpy array).
    """
    if isinstance(value, PackedSequence):
        batch = int(value.batch_sizes[0]) if len(value.batch_sizes) else 0
        return [batch, RaggedAxis(None), *value.data.shape[1:]], value.data.dtype, value.data.device
    if isinstance(value, Tensor):
        if value.layout is not torch.jagged:
            return value.shape, value.dtype, value.device
        values, offsets = value.values(), cast(Any, value).offsets()
    elif hasattr(value, "offsets"):
        table = getattr(value, "table", None)
        values, offsets = value.values if table is None else table, value.offsets
    else:
        dtype = getattr(torch, str(value.dtype).rpartition(".")[2], None)
        return value.shape, dtype if isinstance(dtype, torch.dtype) else None, None
    return [offsets.shape[0] - 1, RaggedAxis(offsets), *values.shape[1:]], values.dtype, values.device


def has_layout(value: object) -> bool:
    """Whether `layout` can read it: nested tensors of layout torch.strided do not say their sizes."""
    if isinstance(value, Tensor):
        return not value.is_nested or value.layout is torch.jagged
    ragged = hasattr(value, "values") and hasattr(value, "offsets")
    return isinstance(value, PackedSequence) or ragged or (hasattr(value, "shape") and hasattr(value, "dtype"))


def flat(
    value: Any, kinds: type | tuple[type, ...], rows: RaggedAxis | None
) -> tuple[Sequence[int | None] | None, torch.dtype | None, RaggedAxis | None]:
    """The sizes, None for a ragged axis; the dtype; the ragged axis, if there is one, else `rows`.

    Sizes and dtype are None where it is of none of some kinds or does not say its sizes.
    """
    if not isinstance(value, kinds):
        return None, None, rows
    if isinstance(value, Tensor) and not value.is_nested:
        return value.shape, value.dtype, rows
    if not has_layout(value):
        return None, None, rows
    sizes, dtype, _ = layout(value)
    found = next((size for size in sizes if isinstance(size, RaggedAxis)), rows)
    return sized(sizes), dtype, found


def sized(sizes: Sequence[Size]) -> list[int | None]:
    """The sizes, with None for a ragged axis."""
    return [None if isinstance(size, RaggedAxis) else size for size in sizes]


def number(size: Any) -> Any:
    """A size as a message shows it: in a program that is being compiled, the number of this call."""
    if torch.compiler.is_compiling() and not isinstance(size, float):
        return operator.index(size)  # int(size) would stay a symbol, which Dynamo cannot turn into text
    return size


def shown(size: Size) -> str:
    """A size as a message shows it."""
    return "ragged" if isinstance(size, RaggedAxis) else str(number(size))
