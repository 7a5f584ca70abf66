"""Reads the sizes of a value: a tensor, a jagged nested tensor, values with offsets, or a packed sequence."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn.utils.rnn import PackedSequence

FEW = 64
"""Values that Python compares sooner than torch."""


@dataclass(slots=True, eq=False)
class RaggedAxis:
    """An axis whose length differs from row to row, so that it has no size."""

    offsets: Tensor | None
    """The start of each row and the end of the last one; None for a packed sequence, which does not store them."""
    _few: list[int] | None = None  # or one of them, where all are equal

    def few_lengths(self) -> list[int] | None:
        """The lengths as ints of Python, read once; None: they are more than `FEW`, or not to be read in eager code."""
        if self._few is None and self._are_few():
            ends = cast(Tensor, self.offsets).tolist()
            self._few = list(map(operator.sub, ends[1:], ends))
        return self._few

    def _are_few(self) -> bool:
        offsets = self.offsets
        if torch.compiler.is_compiling() or type(offsets) is not Tensor or not offsets.is_cpu:
            return False
        return offsets.dim() == 1 and offsets.shape[0] <= FEW + 1 and not is_functorch_wrapped_tensor(offsets)

    @property
    def lengths(self) -> Tensor | None:
        """The length of every row."""
        return None if self.offsets is None else self.offsets.diff()


Size = int | RaggedAxis
Sizes = tuple[int | None, ...]


class RaggedKind(Protocol):
    """The attributes of a value with a ragged second axis, such as `towers.Ragged`: rows stored end to end.

    A class with these attributes can be the first argument of an annotation. The ragged kinds of torch are converted
    to this form. One more, the int `uniform`, is optional: the length of every row, where it is known without reading
    the offsets.
    """

    @property
    def values(self) -> Tensor:
        """All rows end to end. The value has their last axes, dtype and device."""
        ...

    @property
    def offsets(self) -> Tensor | None:
        """The start of each row and the end of the last one; None if they are not stored."""
        ...

    @property
    def batch(self) -> int:
        """The number of rows."""
        ...

    @property
    def table(self) -> Tensor | None:
        """The vectors, if the values are ids of vectors, whose width, dtype and device then count; else None."""
        ...


class _Packed(NamedTuple):
    values: Tensor
    offsets: Tensor | None
    batch: int
    table: Tensor | None = None


def _ragged(value: Any) -> RaggedKind | None:
    """A value as a ragged kind, or None."""
    if isinstance(value, PackedSequence):
        return _Packed(value.data, None, int(value.batch_sizes[0]) if len(value.batch_sizes) else 0)
    if isinstance(value, Tensor):
        jagged = cast(Any, value)
        if value.layout is not torch.jagged:
            return None
        offsets, lengths = jagged.offsets(), jagged.lengths()
        count = offsets.shape[0] - 1
        if lengths is not None:  # torch.nested.narrow left gaps: the offsets say where sentences start, no more
            offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        return _Packed(jagged.values(), offsets, count)
    return value if hasattr(value, "offsets") and hasattr(value, "values") else None


def layout(value: Any) -> tuple[Sequence[Size], torch.dtype | None, torch.device | None]:
    """The sizes, the dtype and the device of a tensor, a ragged kind or an array.

    The dtype is None if torch has none of that name. The device is None for an array that is not torch's.
    """
    ragged = _ragged(value)
    if ragged is not None:
        values = ragged.values if ragged.table is None else ragged.table
        return [ragged.batch, RaggedAxis(ragged.offsets), *values.shape[1:]], values.dtype, values.device
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    if torch.compiler.is_compiling():  # where Dynamo knows no dtype of an array
        tensor = torch.as_tensor(value)
        return tensor.shape, tensor.dtype, None
    names = (str(value.dtype).rpartition(".")[2], str(getattr(value.dtype, "name", "")))  # ">f4" is called float32
    found = (getattr(torch, name, None) for name in names)
    return value.shape, next((dtype for dtype in found if isinstance(dtype, torch.dtype)), None), None


def has_layout(value: object) -> bool:
    """Whether `layout` can read a value: it cannot read nested tensors of layout torch.strided."""
    if isinstance(value, Tensor):
        return not value.is_nested or value.layout is torch.jagged
    return _ragged(value) is not None or (hasattr(value, "shape") and hasattr(value, "dtype"))


def flat(
    value: Any, kinds: type | tuple[type, ...], rows: RaggedAxis | None
) -> tuple[Sequence[int | None] | None, torch.dtype | None, RaggedAxis | None]:
    """The sizes of a value (None for a ragged axis), its dtype, and its ragged axis (`rows` if it has none).

    Sizes and dtype are None if the value has another type than `kinds`, or has no sizes.
    """
    if not isinstance(value, kinds):
        return None, None, rows
    if isinstance(value, Tensor) and not value.is_nested:
        return value.shape, value.dtype, rows
    ragged = _ragged(value)
    if ragged is not None:
        values = ragged.values if ragged.table is None else ragged.table
        batch, length = ragged.batch, getattr(ragged, "uniform", None)
        if type(length) is not int or torch.compiler.is_compiling():
            return (batch, None, *values.shape[1:]), values.dtype, RaggedAxis(ragged.offsets)
        return (batch, None, *values.shape[1:]), values.dtype, RaggedAxis(ragged.offsets, [length] if batch else [])
    if not has_layout(value):
        return None, None, rows
    sizes, dtype, _ = layout(value)
    return sized(sizes), dtype, rows


def sized(sizes: Sequence[Size]) -> Sizes:
    """The sizes, with None for a ragged axis."""
    return tuple(None if isinstance(size, RaggedAxis) else size for size in sizes)


def number(size: Any) -> Any:
    """A size for a message. While a program is compiled, this is the number of the current call."""
    if torch.compiler.is_compiling() and not isinstance(size, float):
        return operator.index(size)  # int(size) would stay a symbol, which Dynamo cannot turn into text
    return int(size) if isinstance(size, Tensor) else size  # torch.jit.trace has tensors for sizes


def shown(size: Size) -> str:
    """A size as text for a message."""
    return "ragged" if isinstance(size, RaggedAxis) else str(number(size))


def merged(known: tuple[Sizes, bool] | None, came: Sizes, broadcast: bool) -> tuple[Sizes, bool] | None:
    """Combine the sizes of a variadic name with those of one more argument.

    Returns the sizes, and whether later arguments may still broadcast with them; None if the two do not fit.
    """
    if known is None:
        return tuple(came), broadcast
    sizes, still_open = known
    both = broadcast_sizes(sizes, came) if broadcast or still_open else tuple(came)
    if both is None or (not still_open and both != sizes) or (not broadcast and both != tuple(came)):
        return None
    return both, still_open and broadcast


def broadcast_sizes(first: Sizes, second: Sizes) -> Sizes | None:
    """The sizes that two tuples of sizes broadcast to; None if they do not broadcast."""
    pairs: list[tuple[Any, Any]] = list(zip_longest(reversed(first), reversed(second), fillvalue=1))
    if any(one != 1 and other != 1 and one != other for one, other in pairs):
        return None
    return tuple(other if one == 1 else one for one, other in reversed(pairs))
