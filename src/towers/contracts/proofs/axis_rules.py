"""Fast rules for changes of axes: permute, view, flatten, parts of a tensor, cat.

They serve tensors of which it is known how they lie in memory. As in `layer_rules`, the first argument is the symbols
of the run.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import SymInt, Tensor

from towers.contracts.proofs.elementwise_rules import alike, hinted, is_one
from towers.contracts.proofs.fast_meta import items_of, lying, made, order_of, part_of, plain, whole
from towers.contracts.proofs.symbols import Symbols


def permute(symbols: Symbols, input: Any, *dims: Any) -> Any:
    """Tensor.permute and torch.permute."""
    axes = items_of(dims[0]) if len(dims) == 1 else list(dims)
    order = order_of(input)
    if order is None or not all(type(axis) is int and -len(order) <= axis < len(order) for axis in axes):
        return NotImplemented
    axes = [axis % len(order) for axis in axes]
    if sorted(axes) != list(range(len(order))):
        return NotImplemented
    return made([input.shape[axis] for axis in axes], input.dtype, tuple(axes.index(axis) for axis in order))


def transpose(symbols: Symbols, input: Any, one: Any, other: Any) -> Any:
    """Tensor.transpose and torch.transpose."""
    rank = input.dim() if plain(input) else 0
    if type(one) is not int or type(other) is not int or not (-rank <= one < rank and -rank <= other < rank):
        return NotImplemented
    axes = list(range(rank))
    axes[one], axes[other] = axes[other], axes[one]
    return permute(symbols, input, axes)


def view(symbols: Symbols, input: Any, *sizes: Any) -> Any:
    """Tensor.view and Tensor.reshape of a contiguous tensor, where the sizes cancel out; of others where axes split."""
    wanted = items_of(sizes[0]) if len(sizes) == 1 else list(sizes)
    if not whole(input):
        return _split_axes(input, wanted)
    if not any(isinstance(size, SymInt) for size in input.shape):
        return NotImplemented
    numbers = [size for size in (*wanted, *input.shape) if not isinstance(size, SymInt)]
    if not all(type(size) is int and size and size >= -1 for size in numbers):
        return NotImplemented
    missing = [place for place, size in enumerate(wanted) if type(size) is int and size == -1]
    given = [size for place, size in enumerate(wanted) if place not in missing]
    if len(missing) > 1 or (missing and not all(symbols.from_on(size, 1) for size in given)):
        return NotImplemented
    rest = _without_common(list(input.shape), given)
    if rest is None and not missing and alike(prod(input.shape), prod(wanted)):
        rest = 1
    if rest is None or (not missing and not is_one(rest)):
        return NotImplemented
    if missing:
        wanted[missing[0]] = rest
    return made(wanted, input.dtype)


def _split_axes(input: Any, wanted: list[Any]) -> Any:
    """A view in which each axis stays or becomes several, as in `view(batch, heads, …)` of an axis batch * heads."""
    order = order_of(input)
    if order is None:
        return NotImplemented
    left, parts = list(wanted), dict[int, list[int]]()
    for axis, size in enumerate(input.shape):
        product: Any = None
        parts[axis] = []
        while left and not (parts[axis] and alike(product, size)):
            parts[axis].append(len(wanted) - len(left))
            product = left[0] if product is None else product * left[0]
            del left[0]
        if not alike(product, size):
            return NotImplemented
    return NotImplemented if left else made(wanted, input.dtype, tuple(at for axis in order for at in parts[axis]))


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
    if not isinstance(size, SymInt) or not 1 < chunks <= MOST_CHUNKS:
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
    count: Any = input.shape[0] if whole(input) and input.dim() else None
    if type(count) is not int or type(dim) is not int or dim % input.dim():
        return NotImplemented
    return tuple(made(input.shape[1:], input.dtype) for _ in range(count))


def flatten(symbols: Symbols, input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Tensor.flatten and torch.flatten of a contiguous tensor."""
    if not whole(input) or not input.dim() or type(start_dim) is not int or type(end_dim) is not int:
        return NotImplemented
    rank = input.dim()
    if not (-rank <= start_dim < rank and -rank <= end_dim < rank) or start_dim % rank >= end_dim % rank:
        return NotImplemented
    first, last = start_dim % rank, end_dim % rank
    size: Any = 1
    for each in input.shape[first : last + 1]:
        size = each if is_one(size) else size if is_one(each) else size * each
    return made([*input.shape[:first], size, *input.shape[last + 1 :]], input.dtype)


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
    """torch.cat of tensors that lie alike."""
    if options or not isinstance(tensors, (tuple, list)) or not tensors or type(dim) is not int:
        return NotImplemented
    parts = items_of(tensors)
    orders = [lying(part) for part in parts]
    if orders[0] is None or any(order != orders[0] for order in orders):
        return NotImplemented
    first, rank = parts[0], len(orders[0])
    if orders[0] not in (tuple(range(rank)), channels_last(rank)) or not -rank <= dim < rank:
        return NotImplemented
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


def channels_last(rank: int) -> tuple[int, ...]:
    """The layout in which the second axis is the innermost."""
    return (0, *range(2, rank), 1)


RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.permute, Tensor.permute), permute),
    **dict.fromkeys((torch.transpose, Tensor.transpose, torch.swapaxes, Tensor.swapaxes), transpose),
    **dict.fromkeys((Tensor.view, Tensor.reshape, torch.reshape), view),
    **dict.fromkeys((Tensor.unflatten, torch.unflatten), unflatten),
    **{part: divided(part) for part in (torch.narrow, Tensor.narrow)},
    **dict.fromkeys((torch.chunk, Tensor.chunk), chunk),
    **dict.fromkeys((torch.unbind, Tensor.unbind), unbind),
    **dict.fromkeys((torch.flatten, Tensor.flatten), flatten),
    **dict.fromkeys((torch.cat, torch.concat), cat),
}
