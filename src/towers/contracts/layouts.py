# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The sizes of whatever carries sentences: a tensor, a jagged nested tensor, values with offsets, a packed sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


@dataclass(slots=True)
class RaggedAxis:
    """An axis that has a length of its own in every row, and no size."""

    offsets: Tensor | None
    """Where each row starts and the last one ends; None where nothing says it without work (a packed sequence)."""

    @property
    def lengths(self) -> Tensor | None:
        """The length of every row."""
        return None if self.offsets is None else self.offsets.diff()


Size = int | RaggedAxis


def layout(value: Any) -> tuple[Sequence[Size], torch.dtype, torch.device]:
    """The sizes, the dtype and the device. Rank, batch and widths of ragged rows come from values and offsets.

    Values that are ids of the rows of a `table` have the table's width and dtype: what the ids stand for is meant.
    """
    if isinstance(value, PackedSequence):
        batch = int(value.batch_sizes[0]) if len(value.batch_sizes) else 0
        return [batch, RaggedAxis(None), *value.data.shape[1:]], value.data.dtype, value.data.device
    if not isinstance(value, Tensor):
        table = getattr(value, "table", None)
        values, offsets = value.values if table is None else table, value.offsets
    elif value.layout is torch.jagged:
        values, offsets = value.values(), cast(Any, value).offsets()
    else:
        return value.shape, value.dtype, value.device
    return [offsets.shape[0] - 1, RaggedAxis(offsets), *values.shape[1:]], values.dtype, values.device


def has_layout(value: object) -> bool:
    """Whether `layout` can read it: nested tensors of layout torch.strided do not say their sizes."""
    return not (isinstance(value, Tensor) and value.is_nested and value.layout is not torch.jagged)


def sized(sizes: Sequence[Size]) -> list[int | None]:
    """The sizes, with None for a ragged axis."""
    return [None if isinstance(size, RaggedAxis) else size for size in sizes]


def shown(size: Size) -> str:
    """A size as a message shows it."""
    return "ragged" if isinstance(size, RaggedAxis) else str(size)
