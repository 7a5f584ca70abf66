"""Fast rules for changes of axes: permute, view, flatten, parts of a tensor, cat.

They serve tensors of which it is known how they lie in memory. As in `layer_rules`, the first argument is the symbols
of the run.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise, product
from math import prod
from typing import Any

import torch
from torch import SymInt, Tensor

from towers.contracts.proofs.elementwise_rules import alike, hinted, is_one
from towers.contracts.proofs.fast_meta import (
    first_or_last,
    items_of,
    lying,
    made,
    order_of,
    part_of,
    plain,
    slices,
    whole,
    with_gaps,
)
from towers.contracts.proofs.symbols import Symbols


def permute(symbols: Symbols, input: Any, *dims: Any) -> Any:
    """Tensor.permute and torch.permute."""
    axes = items_of(dims[0]) if len(dims) == 1 else list(dims)
    order = lying(input)
    if order is None or not all(type(axis) is int and -len(order) <= axis < len(order) for axis in axes):
        return NotImplemented
    axes = [axis % len(order) for axis in axes]
    if sorted(axes) != list(range(len(order))):
        return NotImplemented
    turned = tuple(axes.index(axis) for axis in order)
    if order_of(input) is None:
        return with_gaps(input.permute(axes), turned)
    return made([input.shape[axis] for axis in axes], input.dtype, turned)


def transpose(symbols: Symbols, input: Any, one: Any, other: Any) -> Any:
    """Tensor.transpose and torch.transpose."""
    rank = input.dim() if plain(input) else 0
    if type(one) is not int or type(other) is not int or not (-rank <= one < rank and -rank <= other < rank):
        return NotImplemented
    axes = list(range(rank))
    axes[one], axes[other] = axes[other], axes[one]
    return permute(symbols, input, axes)


def view(symbols: Symbols, input: Any, *sizes: Any) -> Any:
    """Tensor.view of a contiguous tensor, where the sizes cancel out; of others where axes split or join."""
    return _viewed(symbols, input, sizes, copied=False)


def reshape(symbols: Symbols, input: Any, *sizes: Any) -> Any:
    """Tensor.reshape and torch.reshape: a view, or a contiguous copy where it is known to be one."""
    return _viewed(symbols, input, sizes, copied=True)


def _viewed(symbols: Symbols, input: Any, sizes: tuple[Any, ...], *, copied: bool) -> Any:
    wanted = items_of(sizes[0]) if len(sizes) == 1 else list(sizes)
    if lying(input) is None:
        return NotImplemented
    if not whole(input):
        filled = _filled(symbols, input, wanted)
        return NotImplemented if filled is None else _regrouped(symbols, input, filled, copied)
    if not any(isinstance(size, SymInt) for size in input.shape):
        return NotImplemented
    filled = _filled(symbols, input, wanted)
    return NotImplemented if filled is None else made(filled, input.dtype)


def _filled(symbols: Symbols, input: Any, wanted: list[Any]) -> list[Any] | None:
    """The sizes of a view with a number for -1; None where torch must say whether they fit."""
    numbers = [size for size in (*wanted, *input.shape) if not isinstance(size, SymInt)]
    if not all(type(size) is int and size and size >= -1 for size in numbers):
        return None
    missing = [place for place, size in enumerate(wanted) if type(size) is int and size == -1]
    given = [size for place, size in enumerate(wanted) if place not in missing]
    if len(missing) > 1 or (missing and not all(symbols.from_on(size, 1) for size in given)):
        return None
    rest = _without_common(list(input.shape), given)
    if rest is None and not missing and alike(prod(input.shape), prod(wanted)):
        rest = 1
    if rest is None or (not missing and not is_one(rest)):
        return None
    return [rest if place in missing else size for place, size in enumerate(wanted)]


Groups = list[tuple[list[int], list[int]]]
"""Axes that stay, join to one or become several: those before and those after."""


def _groups(came: Sequence[Any], wanted: Sequence[Any]) -> Groups | None:
    """Which axes become which; None where that is not known."""
    found: Groups = []
    at = to = 0
    while at < len(came) and to < len(wanted):
        joined, split = _reaching(came, at, wanted[to]), _reaching(wanted, to, came[at])
        count, parts = (joined, 1) if joined else (1, split)
        if not count or not parts:
            return None
        found.append((list(range(at, at + count)), list(range(to, to + parts))))
        at, to = at + count, to + parts
    return found if at == len(came) and to == len(wanted) else None


def _reaching(sizes: Sequence[Any], first: int, goal: Any) -> int:
    """How many sizes from one on have a product; 0 where none have."""
    product: Any = 1
    for count, size in enumerate(sizes[first:], 1):
        product = size if count == 1 else product * size
        if alike(product, goal):
            return count
    return 0


def _regrouped(symbols: Symbols, input: Any, wanted: list[Any], copied: bool) -> Any:
    """A view in which axes split, as of batch * heads, or join that are neighbours in memory; or a copy."""
    order, groups = lying(input), _groups(input.shape, wanted)
    if order is None or groups is None:
        return NotImplemented
    of = {before[0]: after for before, after in groups}
    turned = tuple(at for axis in order for at in of.get(axis, ()))
    if order_of(input) is None:  # where there are gaps, axes can split
        split = all(len(before) == 1 for before, _ in groups)
        return with_gaps(input.view(wanted), turned) if split else NotImplemented
    if _joins(order, groups):
        return made(wanted, input.dtype, turned)
    doubtful = [axis for axis, size in enumerate(input.shape) if not symbols.from_on(size, 2)]
    if not copied or len(doubtful) > 5:
        return NotImplemented
    for ones in product([False, True], repeat=len(doubtful)):  # which of these are 1, and so lie anywhere
        dropped = {axis for axis, one in zip(doubtful, ones, strict=True) if one or is_one(input.shape[axis])}
        left = [axis for axis in order if axis not in dropped]
        kept = [([axis for axis in before if axis not in dropped], after) for before, after in groups]
        if left != sorted(left) and _joins(left, kept):
            return NotImplemented  # a view, and not contiguous
    return made(wanted, input.dtype)


def _joins(order: Sequence[int], groups: Groups) -> bool:
    """Whether all axes that join follow on each other in memory."""
    place = {axis: at for at, axis in enumerate(order)}
    return all(place[two] == place[one] + 1 for before, _ in groups for one, two in pairwise(before))


def unflatten(symbols: Symbols, input: Any, dim: Any, sizes: Any) -> Any:
    """Tensor.unflatten and torch.unflatten."""
    if not plain(input) or type(dim) is not int or not -input.dim() <= dim < input.dim():
        return NotImplemented
    dim %= input.dim()
    return view(symbols, input, (*input.shape[:dim], *items_of(sizes), *input.shape[dim + 1 :]))


def divided(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of torch that gives parts of a tensor along an axis: it is noted how they lie."""

    def rule(symbols: Symbols, input: Any, *how: Any, **options: Any) -> Any:
        parts = function(input, *how, **options)
        return (
            tuple(part_of(part, input) for part in items_of(parts))
            if isinstance(parts, tuple)
            else part_of(parts, input)
        )

    return rule


def chunk(symbols: Symbols, input: Any, chunks: Any, dim: Any = 0) -> Any:
    """torch.chunk, whose number of parts torch asks for by a quotient of quotients.

    From some size on it is the number that was asked for; each smaller size is looked at alone.
    """
    if not plain(input) or type(chunks) is not int or type(dim) is not int or not -input.dim() <= dim < input.dim():
        return NotImplemented
    size: Any = input.shape[dim]
    if not isinstance(size, SymInt):
        return tuple(part_of(part, input) for part in torch.chunk(input, chunks, dim))
    if not 1 < chunks <= MOST_CHUNKS:
        return NotImplemented
    if size < _from_on(chunks):
        int(size)  # asks for a run of each size alone
        return tuple(part_of(part, input) for part in torch.chunk(input, chunks, dim))
    length = (size + chunks - 1) // chunks
    parts = [input.narrow(dim, place * length, length) for place in range(chunks - 1)]
    parts.append(input.narrow(dim, (chunks - 1) * length, size - (chunks - 1) * length))
    return tuple(part_of(part, input) for part in parts)


MOST_CHUNKS = 12


def _from_on(chunks: int) -> int:
    """The size from which on torch.chunk gives as many parts as were asked for."""
    lengths = [-(-size // chunks) for size in range(1, chunks * chunks)]
    fewer = [size for size, length in enumerate(lengths, 1) if -(-size // length) != chunks]
    return fewer[-1] + 1


def unbind(symbols: Symbols, input: Any, dim: Any = 0) -> Any:
    """torch.unbind along the first axis."""
    count: Any = input.shape[0] if lying(input) else None
    if type(count) is not int or type(dim) is not int or dim % input.dim():
        return NotImplemented
    return tuple(first_or_last(symbols, input, row) for row in range(count))


def flatten(symbols: Symbols, input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Tensor.flatten and torch.flatten: as reshape."""
    if order_of(input) is None or not input.dim() or type(start_dim) is not int or type(end_dim) is not int:
        return NotImplemented
    rank = input.dim()
    if not (-rank <= start_dim < rank and -rank <= end_dim < rank) or start_dim % rank >= end_dim % rank:
        return NotImplemented
    first, last = start_dim % rank, end_dim % rank
    size: Any = 1
    for each in input.shape[first : last + 1]:
        size = each if is_one(size) else size if is_one(each) else size * each
    wanted = [*input.shape[:first], size, *input.shape[last + 1 :]]
    return made(wanted, input.dtype) if whole(input) else _regrouped(symbols, input, wanted, copied=True)


def _without_common(sizes: list[Any], divisors: list[Any]) -> Any:
    """The product of sizes by that of others, where each symbol of those is one of the sizes; None where not."""
    number, symbolic = 1, [size for size in sizes if isinstance(size, SymInt)]
    for size in sizes:
        number *= size if type(size) is int else 1
    for divisor in divisors:
        if type(divisor) is int:
            if number % divisor:
                return None
            number //= divisor
            continue
        at = next((place for place, size in enumerate(symbolic) if alike(size, divisor)), None)
        if at is None:
            return None
        del symbolic[at]
    product: Any = number
    for size in symbolic:
        product = size if is_one(product) else product * size
    return product


def cat(symbols: Symbols, tensors: Any, dim: Any = 0, **options: Any) -> Any:
    """torch.cat of tensors that lie alike, or of which one is known not to have its channels last."""
    if options or not isinstance(tensors, (tuple, list)) or not tensors or type(dim) is not int:
        return NotImplemented
    parts = [part for part in items_of(tensors) if not _empty(part)] or items_of(tensors)
    orders, rank = [lying(part) for part in parts], parts[0].dim() if plain(parts[0]) else 0
    if not all(plain(part) and part.dim() == rank for part in parts) or not -rank <= dim < rank:
        return NotImplemented
    in_order = tuple(range(rank))
    if rank in (2, 3) or len(parts) < len(items_of(tensors)) or any(map(partial(_rows_first, symbols), parts)):
        orders = [in_order] * len(parts)
    if orders[0] not in (in_order, channels_last(rank)) or any(order != orders[0] for order in orders):
        return NotImplemented
    first = parts[0]
    if any(each.dtype != first.dtype for each in parts):
        return NotImplemented
    dim %= rank
    if not all(hinted(each.shape) for each in parts):
        return NotImplemented
    for at, each in enumerate(parts[1:], 1):
        for axis, (left, right) in enumerate(zip(first.shape, each.shape, strict=True)):
            if axis != dim and not alike(left, right) and left != right:
                raise RuntimeError(
                    f"Sizes of tensors must match except in dimension {dim}. "
                    f"Expected size {left} but got size {right} for tensor number {at} in the list."
                )
    shape: list[Any] = list(first.shape)
    for each in parts[1:]:
        shape[dim] = shape[dim] + each.shape[dim]
    return made(shape, first.dtype, orders[0])


def diagonal(symbols: Symbols, input: Any, offset: Any = 0, dim1: Any = 0, dim2: Any = 1) -> Any:
    """torch.diagonal of two axes: torch asks which one is smaller."""
    rank = input.dim() if plain(input) else 0
    if not all(type(each) is int for each in (offset, dim1, dim2)) or dim1 == dim2:
        return NotImplemented
    if not (-rank <= dim1 < rank and -rank <= dim2 < rank) or not symbols.from_on(rank, 2):
        return NotImplemented
    one, other = input.shape[dim1], input.shape[dim2]
    if alike(one, other) or not whole(input) or offset:
        return NotImplemented
    rest = [size for axis, size in enumerate(input.shape) if axis not in (dim1 % rank, dim2 % rank)]
    return made((*rest, 2, torch.sym_min(one, other)), input.dtype).select(-2, 0)  # with gaps, as that of a square


def diag(symbols: Symbols, input: Any, diagonal: Any = 0) -> Any:
    """torch.diag of a matrix, beside its diagonal by a number that is computed from sizes."""
    if not isinstance(diagonal, SymInt) or not plain(input) or input.dim() != 2:
        return NotImplemented
    rows, columns = input.shape
    upper = symbols.from_on(diagonal, 0) or diagonal >= 0
    left = torch.sym_min(rows, columns - diagonal) if upper else torch.sym_min(rows + diagonal, columns)
    if alike(rows, columns):
        left = rows - diagonal if upper else rows + diagonal
    return made((left if symbols.from_on(left, 0) or left >= 0 else 0,), input.dtype)


def windows(symbols: Symbols, input: Any, dimension: Any, size: Any, step: Any) -> Any:
    """Tensor.unfold by a size or a step that is computed from sizes."""
    if not isinstance(size, SymInt) and not isinstance(step, SymInt):
        return NotImplemented
    if not plain(input) or type(dimension) is not int or not -input.dim() <= dimension < input.dim():
        return NotImplemented
    at, wide = dimension % input.dim(), input.shape[dimension]
    if size > wide:
        raise RuntimeError(f"maximum size for tensor at dimension {at} is {wide} but size is {size}")
    if not symbols.from_on(step, 1) and step < 1:
        raise RuntimeError(f"step is {step} but must be > 0")
    shape, strides = list(input.shape), list(input.stride())
    shape[at], strides[at] = (wide - size) // step + 1, strides[at] * step
    return input.as_strided((*shape, size), (*strides, input.stride(at)), input.storage_offset())


def _empty(part: Any) -> bool:
    """Whether it is a tensor of one axis without numbers, which torch leaves out of a longer one."""
    return isinstance(part, Tensor) and part.dim() == 1 and type(part.shape[0]) is int and part.shape[0] == 0


def _rows_first(symbols: Symbols, part: Any) -> bool:
    """Whether a tensor surely lies with its last axis inside of its second: then torch joins it in order."""
    order = lying(part)
    if order is None or not 4 <= len(order) <= 5:
        return False
    return order.index(1) < order.index(len(order) - 1) and symbols.from_on(part.shape[-1], 2)


def roll(symbols: Symbols, input: Any, shifts: Any, dims: Any = None) -> Any:
    """torch.roll along axes that are named: torch joins two parts of the tensor along each."""
    axes, steps, order = items_of(dims), items_of(shifts), order_of(input)
    if order is None or not axes or len(axes) != len(steps) or not all(type(step) is int for step in steps):
        return NotImplemented
    if not all(type(axis) is int and -input.dim() <= axis < input.dim() for axis in axes):
        return NotImplemented
    if whole(input) or input.dim() < 4 or _rows_first(symbols, input):
        return made(input.shape, input.dtype)
    return made(input.shape, input.dtype, order) if order == channels_last(input.dim()) else NotImplemented


def fill_part(symbols: Symbols, input: Any, index: Any, value: Any) -> Any:
    """`tensor[:, 1:] = 0`: slices and a number. What is written through tensors or lists of indices must fit there."""
    if isinstance(value, Tensor):
        return _must_fit(input, tuple(items_of(index)), value)
    fine = order_of(input) is not None and not input.requires_grad and slices(index)
    return None if fine and len(items_of(index)) <= input.dim() and type(value) in (int, float) else NotImplemented


def put(symbols: Symbols, input: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """Tensor.index_put, where None stands for a whole axis."""
    return _must_fit(input, tuple(slice(None) if each is None else each for each in indices), values)


def _must_fit(input: Any, index: tuple[Any, ...], value: Any) -> Any:
    """Leaves the operation to torch, whose symbolic kernel does not compare the values with the places they go to."""
    if any(isinstance(each, (Tensor, list)) for each in index) and isinstance(value, Tensor):
        try:
            places = input[index].shape
        except Exception:
            return NotImplemented  # where masks decide, for example
        sizes = [1] * len(value.shape) + list(places)
        for size, wanted in zip(reversed(value.shape), reversed(sizes), strict=False):
            if not (alike(size, wanted) or is_one(size)) and size != wanted and size != 1:
                shapes = f"{list(value.shape)} cannot be broadcast to indexing result of shape {list(places)}"
                raise RuntimeError(f"shape mismatch: value tensor of shape {shapes}")
    return NotImplemented


def channels_last(rank: int) -> tuple[int, ...]:
    """The layout in which the second axis is the innermost."""
    return (0, *range(2, rank), 1)


def arange(symbols: Symbols, end: Any, *more: Any, **options: Any) -> Any:
    """torch.arange of whole numbers some of which are computed from sizes."""
    start, end, step = (0, end, 1) if not more else (end, *more, 1)[:3]
    if len(more) > 2 or not options.keys() <= {"dtype", "device"} or type(step) is not int or step < 1:
        return NotImplemented
    if not isinstance(end, (int, SymInt)) or not isinstance(start, (int, SymInt)):
        return NotImplemented
    count = end - start
    if not isinstance(count, SymInt) or not symbols.from_on(count, 0):
        return NotImplemented
    return made(((count + step - 1) // step if step > 1 else count,), options.get("dtype") or torch.int64)


RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.diagonal, Tensor.diagonal), diagonal),
    **dict.fromkeys((torch.diag, Tensor.diag), diag),
    Tensor.unfold: windows,
    **dict.fromkeys((torch.permute, Tensor.permute), permute),
    **dict.fromkeys((torch.transpose, Tensor.transpose, torch.swapaxes, Tensor.swapaxes), transpose),
    Tensor.view: view,
    **dict.fromkeys((Tensor.reshape, torch.reshape), reshape),
    **dict.fromkeys((Tensor.unflatten, torch.unflatten), unflatten),
    **{part: divided(part) for part in (torch.narrow, Tensor.narrow)},
    **dict.fromkeys((torch.chunk, Tensor.chunk), chunk),
    **dict.fromkeys((torch.unbind, Tensor.unbind), unbind),
    **dict.fromkeys((torch.flatten, Tensor.flatten), flatten),
    **dict.fromkeys((torch.cat, torch.concat), cat),
    **dict.fromkeys((torch.roll, Tensor.roll), roll),
    Tensor.__setitem__: fill_part,
    **dict.fromkeys((torch.index_put, Tensor.index_put, torch.index_put_, Tensor.index_put_), put),
    torch.arange: arange,
}
