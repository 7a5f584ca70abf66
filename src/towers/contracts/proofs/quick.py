# pyright: reportUnknownMemberType=false
"""Shapes of operations on which torch's own way is slow where sizes are symbols: up to ten times as slow as these."""

from typing import Any

import torch
from torch import Tensor


def linear(symbols: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """F.linear on plain tensors; sizes that do not fit are left to torch, which says why."""
    parts = [input, weight] if bias is None else [input, weight, bias]
    if input.dtype != weight.dtype and not any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
        # what real tensors get, and torch lets pass where sizes are symbols
        raise RuntimeError(f"mat1 and mat2 must have the same dtype, but got {input.dtype} and {weight.dtype}")
    if any(part.is_nested or part.layout != torch.strided or part.dtype != input.dtype for part in parts):
        return NotImplemented
    if weight.dim() != 2 or input.dim() < 2 or input.shape[-1] != weight.shape[1]:
        return NotImplemented
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        return NotImplemented
    return torch.empty(*input.shape[:-1], weight.shape[0], dtype=input.dtype, device="meta")


def relu(symbols: Any, input: Tensor, inplace: bool = False) -> Any:
    """F.relu and torch.relu: shape and dtype stay."""
    plain = not inplace and not input.is_nested and input.layout == torch.strided and input.dtype.is_floating_point
    return torch.empty_like(input) if plain else NotImplemented


def new_empty(symbols: Any, like: Tensor, *size: Any, **options: Any) -> Any:
    """Tensor.new_empty."""
    plain = not like.is_nested and like.layout == torch.strided and options.keys() <= {"dtype"}
    return torch.empty(*size, dtype=options.get("dtype") or like.dtype, device="meta") if plain else NotImplemented
