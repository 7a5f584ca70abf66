"""Which GPUs, sizes and dtypes the fused kernels support; Triton itself is imported when a kernel is first launched."""

from importlib.util import find_spec

import torch
from torch import Tensor

from towers.kernels.batch import Batch, Weights

WIDEST = 128
"""The largest hidden size."""

NARROW = 8
"""Up to this hidden size and input size, `lstm_narrow` multiplies the inputs within the steps."""

DTYPES = (torch.float32, torch.bfloat16)
"""Dtypes of values and weights, which the kernels read without conversion; the state is always float32."""


def serves(batch: Batch, weights: Weights) -> bool:
    """Whether the LSTM kernels support this call.

    They do for a hidden size of at most 128, without projection, in float32 or bfloat16, where `runs_on` is true.
    """
    dtypes = (batch.values.dtype, weights.flat[0].dtype)
    fits = weights.hidden <= WIDEST and not weights.projected and all(dtype in DTYPES for dtype in dtypes)
    return fits and runs_on(batch.values.device)


def serves_phrases(values: Tensor, weight: Tensor, pool: int) -> bool:
    """Whether the phrase kernels support this convolution, of weight "positions filters width", and pool.

    They do for powers of two: filters from 16 on, the pool, and at most 128 filters times positions (rounded up).
    """
    if not runs_on(values.device):
        return False
    positions, filters, _ = weight.shape
    fits = all(size & (size - 1) == 0 for size in (filters, pool)) and filters >= 16
    fits = fits and filters << (positions - 1).bit_length() <= 128
    return fits and all(part.dtype in DTYPES for part in (values, weight))


def serves_search(device: torch.device, dtype: torch.dtype, items: int, k: int) -> bool:
    """Whether the search kernel supports this: float32, at most 1,024 of fewer than 2^31 items for each query."""
    return dtype == torch.float32 and k <= 1024 and 0 < items < 1 << 31 and runs_on(device)


def runs_on(device: torch.device) -> bool:
    """Whether this is an NVIDIA GPU of compute capability 8.0 or higher, and Triton is installed."""
    if device.type != "cuda" or torch.version.cuda is None or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


# What `torch.compiler.assume_constant_result` does. That function loads the compiler (150 MB) for every user.
runs_on.__dict__["_dynamo_marked_constant"] = True
