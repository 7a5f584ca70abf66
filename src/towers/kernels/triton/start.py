"""What starting any kernel takes."""

from typing import Any

import torch
from torch import Tensor


def start(kernel: Any, grid: tuple[int, ...], first: Tensor, *others: Any, **options: Any) -> None:
    """Start a kernel on the device of its first argument; nothing, where there is nothing to do.

    Triton gets no type of what is not known when a kernel is built (batch, lengths, rows): none is ever built again.
    """
    if 0 in grid:
        return
    with torch.cuda.device_of(first):
        kernel[grid](first, *others, **options, enable_fp_fusion=True)


def torch_precision() -> str:
    """As torch's own products are set: three products of TF32 parts for "ieee", which is the default, or one."""
    backends: Any = torch.backends
    setting = backends.cuda.matmul.fp32_precision
    if setting == "none":
        setting = backends.fp32_precision
    return "tf32" if setting == "tf32" else "tf32x3"
