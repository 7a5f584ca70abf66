"""How far a GPU's results may be from float64: bounds that follow from the arithmetic itself.

A case runs on the CPU in plain float32, and again with the products of three TF32 parts that the wide kernels use, and
with gates of approximate powers and reciprocals. A GPU's sums have another order: 8 times the largest error is allowed.
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


def _off(x: Tensor, most: float) -> Tensor:
    """Away from x by up to this share of it, somehow."""
    return x * (1 + most * torch.sin(1e4 * x.double())).float()


def power_of_2(x: Tensor, sign: float | None = None) -> Tensor:
    """As ex2.approx.ftz.f32 is documented: to 2^-22; with a sign, as far off as that."""
    exact = torch.exp2(x)
    return _off(exact, 2**-22) if sign is None else (exact.double() * (1 + sign * 2**-22)).float()


def reciprocal(x: Tensor, sign: float | None = None) -> Tensor:
    """As rcp.approx.ftz.f32 is documented: to 2^-23."""
    exact = 1 / x
    return _off(exact, 2**-23) if sign is None else (exact.double() * (1 + sign * 2**-23)).float()


def sigmoid(x: Tensor, *signs: float) -> Tensor:
    """The kernels' own formula, by those two."""
    return reciprocal(1 + power_of_2(x * -1.4426950408889634, *signs[:1]), *signs[1:])


def tanh(x: Tensor, *signs: float) -> Tensor:
    return 1 - 2 * reciprocal(1 + power_of_2(x * 2.8853900817779268, *signs[:1]), *signs[1:])


def simulated(case: Case, product: Callable[[Tensor, Tensor], Tensor], *, gates: bool = False) -> Result:
    """On the CPU in float32, with this product in every step, and with approximate gates."""
    with pytest.MonkeyPatch.context() as patch:
        conftest.replace_launchers(patch)
        patch.setattr(plain_lstm, "product", product)
        if gates:
            patch.setattr(plain_lstm, "sigmoid", sigmoid)
            patch.setattr(plain_lstm, "tanh", tanh)
        return run(case, CPU)


def bounds(case: Case, wanted: Result) -> tuple[float, float]:
    """Of results and of gradients, as `compare` takes them; `wanted` is the case in float64."""
    plain, parts = errors(simulated(case, torch.matmul), wanted), errors(simulated(case, product_tf32x3), wanted)
    found = [plain, parts, errors(simulated(case, product_tf32x3, gates=True), wanted)]
    return tuple(max(least, MARGIN * max(pair)) for least, pair in zip(LEAST, zip(*found, strict=True), strict=True))
