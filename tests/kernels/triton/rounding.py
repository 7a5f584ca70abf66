"""How far a GPU's results may be from float64: bounds that follow from the arithmetic itself.

A case runs on the CPU in plain float32, and again with the products of three TF32 parts that the wide kernels use. A
GPU's sums have another order, and its exponential function another rounding: 8 times the larger error is allowed.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from . import conftest, plain_lstm
from .cases import Case, Result, errors, run

CPU = torch.device("cpu")
MARGIN = 8.0
LEAST = (1e-6, 1e-6)  # 8 units in the last place of 1, where a case is too small to err


def tf32(x: Tensor) -> Tensor:
    """Rounded to 10 bits of mantissa, ties away from 0."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def product_tf32(a: Tensor, b: Tensor) -> Tensor:
    return tf32(a) @ tf32(b)


def product_tf32x3(a: Tensor, b: Tensor) -> Tensor:
    """The products of the larger and the smaller parts; that of the two smaller ones is left out."""
    a_large, b_large = tf32(a), tf32(b)
    a_small, b_small = tf32(a - a_large), tf32(b - b_large)
    return a_small @ b_large + a_large @ b_small + a_large @ b_large


def simulated(case: Case, product: Callable[[Tensor, Tensor], Tensor]) -> Result:
    """On the CPU in float32, with this product in every step."""
    with pytest.MonkeyPatch.context() as patch:
        conftest.replace_launchers(patch)
        patch.setattr(plain_lstm, "product", product)
        return run(case, CPU)


def bounds(case: Case, wanted: Result) -> tuple[float, float]:
    """Of results and of gradients, as `compare` takes them; `wanted` is the case in float64."""
    found = [errors(simulated(case, product), wanted) for product in (torch.matmul, product_tf32x3)]
    return tuple(max(least, MARGIN * max(pair)) for least, pair in zip(LEAST, zip(*found, strict=True), strict=True))
