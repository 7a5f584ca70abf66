"""Fast shape rules for products: of matrices, of a matrix and a sum, and einsum of two tensors.

As in `layer_rules`, the first argument is the symbols of the run.
"""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from towers.contracts.proofs.elementwise_rules import alike, autocast_on, floating, is_one
from towers.contracts.proofs.fast_meta import items_of, made
from towers.contracts.proofs.symbols import Symbols


def matmul(symbols: Symbols, one: Any, other: Any) -> Any:
    """torch.matmul and torch.bmm of stacks of matrices, of the same number of axes."""
    if not floating(one) or not floating(other) or one.dtype != other.dtype or autocast_on():
        return NotImplemented
    if one.dim() != other.dim() or one.dim() < 3 or not alike(one.shape[-1], other.shape[-2]):
        return NotImplemented
    if not all(map(alike, one.shape[:-2], other.shape[:-2])):
        return NotImplemented
    return made((*one.shape[:-1], other.shape[-1]), one.dtype)


def addmm(symbols: Symbols, bias: Any, one: Any, other: Any, **options: Any) -> Any:
    """torch.addmm of matrices that fit and a row that is added: the result is contiguous."""
    parts = (bias, one, other)
    if options or autocast_on() or not all(floating(part) and part.dtype == one.dtype for part in parts):
        return NotImplemented
    if (bias.dim(), one.dim(), other.dim()) != (1, 2, 2) or not alike(one.shape[1], other.shape[0]):
        return NotImplemented
    return made((one.shape[0], other.shape[1]), one.dtype) if alike(bias.shape[0], other.shape[1]) else NotImplemented


def einsum(symbols: Symbols, equation: Any, *operands: Any) -> Any:
    """torch.einsum of two tensors that sums over an axis of both.

    Torch makes it a product of stacks of matrices: the axes of both are the outermost ones of the result, then those
    of the first tensor, then those of the second.
    """
    parts = items_of(operands[0]) if len(operands) == 1 else list(operands)
    found = (
        re.fullmatch(r"([a-zA-Z]+),([a-zA-Z]+)->([a-zA-Z]*)", equation.replace(" ", "")) if _text(equation) else None
    )
    if found is None or len(parts) != 2 or not all(map(floating, parts)) or parts[0].dtype != parts[1].dtype:
        return NotImplemented
    left, right, out = found.groups()
    if any(len(set(letters)) < len(letters) for letters in found.groups()) or autocast_on():
        return NotImplemented
    summed = (set(left) | set(right)) - set(out)
    if not summed or not summed <= set(left) & set(right) or not set(out) <= set(left) | set(right):
        return NotImplemented
    if len(left) != parts[0].dim() or len(right) != parts[1].dim():
        return NotImplemented
    sizes: dict[str, Any] = dict(zip(left, parts[0].shape, strict=True))
    for letter, size in zip(right, parts[1].shape, strict=True):
        if not alike(sizes.setdefault(letter, size), size):
            return NotImplemented
    alone = any(map(is_one, sizes.values())) or not all(symbols.from_on(sizes[letter], 2) for letter in summed)
    if alone:  # such axes torch sums or turns in other ways
        return NotImplemented
    groups = [[each for each in out if (each in left, each in right) == kind] for kind in _KINDS]
    order = tuple(out.index(letter) for group in groups for letter in group)
    return made([sizes[letter] for letter in out], parts[0].dtype, order)


_KINDS = ((True, True), (True, False), (False, True))
"""Whether an axis is one of the first and of the second tensor, in the order of the result in memory."""


def _text(equation: Any) -> bool:
    return isinstance(equation, str)


RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__), matmul),
    torch.addmm: addmm,
    torch.einsum: einsum,
}
