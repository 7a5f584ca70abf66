"""Fast shape rules for common operations: on symbolic sizes torch's own are up to ten times slower."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch._C._functorch import maybe_current_level
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, in_kernel_invocation_manager

META = torch.device("meta")

Order = tuple[int, ...]
"""The axes of a tensor that lies in memory without gaps, from the outermost to the innermost."""

_ORDER = "_towers_order"
"""The attribute that holds it: asking torch how a tensor lies would add guards on its sizes."""


def made(shape: Sequence[Any], dtype: torch.dtype, order: Order | None = None) -> Tensor:
    """A fake tensor, as torch makes one, without the cost of its dispatch; contiguous unless an order is given."""
    fake = active_fake_mode()
    if order == tuple(range(len(shape))):
        order = None
    if fake is None or maybe_current_level() is not None:  # under vmap and grad torch wraps what is made
        return _laid(shape, dtype, order)
    known: dict[Any, Tensor] = {}
    if fake.shape_env is not None:
        known = cast(Any, vars(fake.shape_env)).setdefault("towers_laid", known)
    key = (tuple(size.node.expr if isinstance(size, torch.SymInt) else size for size in shape), dtype, order)
    if (inner := known.get(key)) is None:
        with torch._C.DisableTorchFunction(), in_kernel_invocation_manager(fake):  # no rule, which would come here
            inner = known[key] = _laid(shape, dtype, order)
    tensor = FakeTensor(fake, inner, META)
    setattr(tensor, _ORDER, order or tuple(range(len(shape))))
    return tensor


def _laid(shape: Sequence[Any], dtype: torch.dtype, order: Order | None) -> Tensor:
    if order is None:
        return torch.empty(shape, dtype=dtype, device=META)
    return torch.empty_permuted(shape, order, dtype=dtype, device=META)


_GAPS = "_towers_order_with_gaps"
"""The same of a part of a tensor, which has gaps between its rows."""


def _marks(tensor: Any) -> dict[str, Any]:
    return cast(Any, vars(tensor))


def lying(tensor: Any) -> Order | None:
    """As `order_of`, also where there are gaps."""
    order = order_of(tensor)
    return _marks(tensor).get(_GAPS) if order is None and plain(tensor) else order


def upright(tensor: Any) -> bool:
    """Whether the first axis of a tensor is its outermost one and so on; there may be gaps."""
    order = lying(tensor)
    return order is not None and order == tuple(range(len(order)))


def part_of(part: Any, whole: Any) -> Any:
    """A part of a tensor, with as many axes; it is noted how it lies."""
    order = lying(whole)
    fits = order is not None and plain(part) and part.dim() == whole.dim() and _ORDER not in vars(part)
    return with_gaps(part, order) if fits else part


def with_gaps(part: Any, order: Order | None) -> Any:
    """A part of a tensor, of which it is noted how it lies."""
    setattr(part, _GAPS, order)
    return part


def order_of(tensor: Any) -> Order | None:
    """How a tensor lies in memory; None where that is not known without a question about sizes."""
    if not plain(tensor):
        return None
    order: Order | None = _marks(tensor).get(_ORDER)
    if order is None and not any(isinstance(size, torch.SymInt) for size in tensor.shape):
        order = tuple(range(tensor.dim())) if tensor.is_contiguous() else None
    return order


def made_like(like: Tensor, *size: Any, dtype: torch.dtype | None = None) -> Tensor:
    """As `Tensor.new_empty`."""
    return made(size, dtype or like.dtype) if plain(like) else like.new_empty(size, dtype=dtype)


def forget(symbols: Any, tensor: Tensor, *args: Any, **options: Any) -> Any:
    """In-place operations that change the axes: the tensor need not be contiguous any more."""
    vars(tensor).pop(_ORDER, None)
    vars(tensor).pop(_GAPS, None)
    return NotImplemented


def empty(symbols: Any, *size: Any, **options: Any) -> Any:
    """torch.empty and torch.zeros."""
    shape = shape_of(size)
    if shape is None or not options.keys() <= {"dtype", "device"}:
        return NotImplemented
    return made(shape, options.get("dtype") or torch.get_default_dtype())


def new_empty(symbols: Any, like: Tensor, *size: Any, **options: Any) -> Any:
    """Tensor.new_empty and Tensor.new_zeros."""
    shape = shape_of(size)
    if shape is None or not plain(like) or not options.keys() <= {"dtype", "device"}:
        return NotImplemented
    return made(shape, options.get("dtype") or like.dtype)


def empty_like(symbols: Any, like: Tensor, **options: Any) -> Any:
    """torch.empty_like and torch.zeros_like."""
    return NotImplemented if options or not whole(like) else made(like.shape, like.dtype)


def linear(symbols: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """F.linear on plain tensors; sizes that do not fit are left to torch, which says why."""
    parts = [input, weight] if bias is None else [input, weight, bias]
    if input.dtype != weight.dtype and not any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
        # what real tensors get, and torch lets pass where sizes are symbols
        raise RuntimeError(f"mat1 and mat2 must have the same dtype, but got {input.dtype} and {weight.dtype}")
    if any(not plain(part) or part.dtype != input.dtype for part in parts):
        return NotImplemented
    if weight.dim() != 2 or input.dim() < 2 or input.shape[-1] != weight.shape[1]:
        return NotImplemented
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        return NotImplemented
    return made((*input.shape[:-1], weight.shape[0]), input.dtype)


def contiguous(symbols: Any, input: Tensor, **options: Any) -> Any:
    """Tensor.contiguous: the same shape, whether or not the tensor is contiguous, which torch would ask."""
    return NotImplemented if options or not plain(input) else made(input.shape, input.dtype)


def unsqueeze(symbols: Any, input: Tensor, dim: Any) -> Any:
    """Tensor.unsqueeze and torch.unsqueeze: the new axis lies outside of the one that it stands before."""
    order = order_of(input)
    if order is None or type(dim) is not int or not -input.dim() - 1 <= dim <= input.dim():
        return NotImplemented
    dim %= input.dim() + 1
    shape = list(input.shape)
    shape.insert(dim, 1)
    moved = [axis + (axis >= dim) for axis in order]
    moved.insert(moved.index(dim + 1) if dim < input.dim() else len(moved), dim)
    return made(shape, input.dtype, tuple(moved))


def squeeze(symbols: Any, input: Tensor, dim: Any = None) -> Any:
    """Tensor.squeeze and torch.squeeze of one axis that is 1 whatever the symbols are."""
    order = order_of(input)
    if order is None or type(dim) is not int or not -input.dim() <= dim < input.dim():
        return NotImplemented
    dim %= input.dim()
    shape: list[Any] = list(input.shape)
    if type(size := shape.pop(dim)) is not int or size != 1:
        return NotImplemented
    return made(shape, input.dtype, tuple(axis - (axis > dim) for axis in order if axis != dim))


def first_or_last(symbols: Any, input: Tensor, index: Any) -> Any:
    """Tensor.__getitem__ with one int, of an axis whose size is no symbol; with slices; or with new axes."""
    order = lying(input)
    if order is not None and slices(index):
        return part_of(input[index], input)
    parts = items_of(index) if isinstance(index, tuple) else [index]
    if any(each is None for each in parts):
        wider = _widened(symbols, input, parts)
        return NotImplemented if wider is None else wider
    numbers = [axis for axis, each in enumerate(parts) if type(each) is int]
    if order is None or len(numbers) != 1 or len(parts) > len(order):
        return NotImplemented
    [axis], shape = numbers, list[Any](input.shape)
    row, count = parts.pop(axis), shape.pop(axis)
    if type(count) is not int or not -count <= row < count or not _all_of_each(parts):
        return NotImplemented
    rest = tuple(each - (each > axis) for each in order if each != axis)
    if order[0] == axis and order_of(input) is not None:
        return made(shape, input.dtype, rest)
    return NotImplemented if order[-1] == axis else with_gaps(input[index], rest)  # its rows would lie scattered


def _all_of_each(index: list[Any]) -> bool:
    return all(isinstance(each, slice) and each == slice(None) for each in index)


def _widened(symbols: Any, input: Tensor, index: list[Any]) -> Tensor | None:
    """A tensor with new axes, as `x[:, None]` gives it; None where the index does more."""
    given = [each for each in index if each is not None and each is not Ellipsis]
    open_at = [place for place, each in enumerate(index) if each is Ellipsis]
    if order_of(input) is None or len(given) > input.dim() or len(open_at) > 1:
        return None
    if not _all_of_each(given):
        return None
    rest = input.dim() - len(given) - 1  # the axes for which the dots stand, beside one
    for place, each in enumerate(index):
        if each is None:
            input = unsqueeze(symbols, input, place + rest if open_at and place > open_at[0] else place)
    return input


def slices(index: Any) -> bool:
    """Whether an index consists of slices without steps."""
    parts: list[Any] = items_of(index) if isinstance(index, tuple) else [index]
    return all(each is Ellipsis or (isinstance(each, slice) and cast(Any, each).step in (None, 1)) for each in parts)


def items_of(value: Any) -> list[Any]:
    """The items of a tuple or list; of anything else itself."""
    return list(cast(Any, value)) if isinstance(value, (tuple, list)) else [value]


def shape_of(size: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The sizes of a new tensor, given one by one or as one; None where torch must say what is wrong with them."""
    shape: tuple[Any, ...] = tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else size  # pyright: ignore
    fine = all(isinstance(each, torch.SymInt) or (type(each) is int and each >= 0) for each in shape)
    return shape if fine else None


def plain(tensor: Any) -> bool:
    """Whether a tensor is a fake one with strides."""
    return isinstance(tensor, FakeTensor) and not tensor.is_nested and tensor.layout == torch.strided


def whole(tensor: Any) -> bool:
    """Whether a tensor is known to be contiguous."""
    order = order_of(tensor)
    return order is not None and order == tuple(range(len(order)))
