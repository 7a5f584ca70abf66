# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Shapes of max_pool1d, which on symbolic sizes takes the example for all."""

from typing import Any

import torch
from torch import Tensor

from towers.contracts.proofs.fast_meta import made_like


def max_pool1d(
    symbols: Any,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """F.max_pool1d and torch.max_pool1d."""
    kernel, padding, dilation = _one(kernel_size), _one(padding), _one(dilation)
    stride = kernel if stride is None or stride == [] else _one(stride)
    if input.dim() not in (2, 3):
        raise RuntimeError(f"max_pool1d() Expected 2D or 3D input tensor, but got {list(input.shape)}")
    if padding > kernel // 2:
        raise RuntimeError("max_pool1d() padding should be at most half of kernel size")
    reach = dilation * (kernel - 1) + 1
    length = input.shape[-1] + 2 * padding - reach
    out = (length + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode:  # the last window must start inside of the input or its left padding
        out = torch.sym_ite((out - 1) * stride >= input.shape[-1] + padding, out - 1, out)
    if out < 1:
        raise RuntimeError(f"max_pool1d() Invalid computed output size: {out}")
    result = made_like(input, *input.shape[:-1], out)
    return (result, made_like(result, *result.shape, dtype=torch.int64)) if return_indices else result


def max_pool1d_with_indices(symbols: Any, input: Tensor, kernel_size: Any, *rest: Any, **options: Any) -> Any:
    """F.max_pool1d(return_indices=True)."""
    if len(rest) > 4:
        rest = rest[:4]
    return max_pool1d(symbols, input, kernel_size, *rest, **{**options, "return_indices": True})


def _one(size: Any) -> Any:
    return size[0] if isinstance(size, (list, tuple)) else size
