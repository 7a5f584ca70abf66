"""Fast shape rules for common operations: on symbolic sizes torch's own are up to ten times slower."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import maybe_current_level  # pyright: ignore
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, in_kernel_invocation_manager

META = torch.device("meta")

_WHOLE = "_towers_whole"
"""Marks a contiguous tensor: asking torch whether it is one would add a guard on its sizes."""


def made(shape: Sequence[Any], dtype: torch.dtype) -> Tensor:
    """A fake tensor, as torch makes one, without the cost of its dispatch."""
    fake = active_fake_mode()
    if fake is None or maybe_current_level() is not None:  # under vmap and grad torch wraps what is made
        return torch.empty(shape, dtype=dtype, device=META)
    with in_kernel_invocation_manager(fake):
        inner = torch.empty(shape, dtype=dtype, device=META)
    tensor = FakeTensor(fake, inner, META)
    setattr(tensor, _WHOLE, True)
    return tensor


def made_like(like: Tensor, *size: Any, dtype: torch.dtype | None = None) -> Tensor:
    """As `Tensor.new_empty`."""
    return made(size, dtype or like.dtype) if _plain(like) else like.new_empty(size, dtype=dtype)


def forget(symbols: Any, tensor: Tensor, *args: Any, **options: Any) -> Any:
    """In-place operations that change the axes: the tensor need not be contiguous any more."""
    vars(tensor).pop(_WHOLE, None)
    return NotImplemented


def empty(symbols: Any, *size: Any, **options: Any) -> Any:
    """torch.empty and torch.zeros."""
    shape = _shape(size)
    if shape is None or not options.keys() <= {"dtype", "device"}:
        return NotImplemented
    return made(shape, options.get("dtype") or torch.get_default_dtype())


def new_empty(symbols: Any, like: Tensor, *size: Any, **options: Any) -> Any:
    """Tensor.new_empty and Tensor.new_zeros."""
    shape = _shape(size)
    if shape is None or not _plain(like) or not options.keys() <= {"dtype", "device"}:
        return NotImplemented
    return made(shape, options.get("dtype") or like.dtype)


def empty_like(symbols: Any, like: Tensor, **options: Any) -> Any:
    """torch.empty_like and torch.zeros_like."""
    return NotImplemented if options or not _whole(like) else made(like.shape, like.dtype)


def linear(symbols: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """F.linear on plain tensors; sizes that do not fit are left to torch, which says why."""
    parts = [input, weight] if bias is None else [input, weight, bias]
    if input.dtype != weight.dtype and not any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
        # what real tensors get, and torch lets pass where sizes are symbols
        raise RuntimeError(f"mat1 and mat2 must have the same dtype, but got {input.dtype} and {weight.dtype}")
    if any(not _plain(part) or part.dtype != input.dtype for part in parts):
        return NotImplemented
    if weight.dim() != 2 or input.dim() < 2 or input.shape[-1] != weight.shape[1]:
        return NotImplemented
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        return NotImplemented
    return made((*input.shape[:-1], weight.shape[0]), input.dtype)


def relu(symbols: Any, input: Tensor, inplace: bool = False) -> Any:
    """F.relu and torch.relu: shape and dtype stay."""
    if inplace or not _plain(input) or not input.dtype.is_floating_point:
        return NotImplemented
    return made(input.shape, input.dtype) if _whole(input) else torch.empty_like(input)


def contiguous(symbols: Any, input: Tensor, **options: Any) -> Any:
    """Tensor.contiguous: the same shape, whether or not the tensor is contiguous, which torch would ask."""
    return NotImplemented if options or not _plain(input) else made(input.shape, input.dtype)


def unsqueeze(symbols: Any, input: Tensor, dim: Any) -> Any:
    """Tensor.unsqueeze and torch.unsqueeze."""
    if not _whole(input) or type(dim) is not int or not -input.dim() - 1 <= dim <= input.dim():
        return NotImplemented
    shape = list(input.shape)
    shape.insert(dim % (input.dim() + 1), 1)
    return made(shape, input.dtype)


def squeeze(symbols: Any, input: Tensor, dim: Any = None) -> Any:
    """Tensor.squeeze and torch.squeeze of one axis that is 1 whatever the symbols are."""
    if not _whole(input) or type(dim) is not int or not -input.dim() <= dim < input.dim():
        return NotImplemented
    shape: list[Any] = list(input.shape)
    return made(shape, input.dtype) if type(size := shape.pop(dim)) is int and size == 1 else NotImplemented


def first_or_last(symbols: Any, input: Tensor, index: Any) -> Any:
    """Tensor.__getitem__ with one int, of an axis whose size is no symbol."""
    if not _whole(input) or type(index) is not int or not input.dim():
        return NotImplemented
    count: Any = input.shape[0]
    return made(input.shape[1:], input.dtype) if type(count) is int and -count <= index < count else NotImplemented


def _shape(size: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The sizes, given one by one or as one; None where torch must say what is wrong with them."""
    shape: tuple[Any, ...] = tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else size  # pyright: ignore
    fine = all(isinstance(each, torch.SymInt) or (type(each) is int and each >= 0) for each in shape)
    return shape if fine else None


def _plain(tensor: Tensor) -> bool:
    return isinstance(tensor, FakeTensor) and not tensor.is_nested and tensor.layout == torch.strided


def _whole(tensor: Any) -> bool:
    return isinstance(tensor, FakeTensor) and _WHOLE in vars(tensor)
