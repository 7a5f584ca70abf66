"""The bounds that the GPU's tests use: float32 can meet them, and coarser arithmetic cannot."""

import dataclasses

import pytest
import torch

from . import real_cases
from .cases import Case, errors, expect
from .conftest import INTERPRETED
from .rounding import bounds, product_tf32, product_tf32x3, sigmoid, simulated, tanh, tf32

pytestmark = pytest.mark.skipif(INTERPRETED, reason="nothing of it is Triton's")


def test_tf32_keeps_ten_bits():
    x = torch.tensor([1 + 2**-10, 1 + 2**-11, 1 + 2**-12, -1 - 2**-11, 3.0, 0.0])
    assert tf32(x).tolist() == [1 + 2**-10, 1 + 2**-10, 1.0, -1 - 2**-10, 3.0, 0.0]


@pytest.mark.parametrize("signs", [(a, b) for a in (-1.0, 1.0) for b in (-1.0, 1.0)], ids=str)
def test_gates_by_approximate_units_are_as_near_as_their_docstrings_say(signs):
    """Both units as far off as they may be. Near 0, where tanh is x, the error is absolute: no small part of x."""
    x = torch.cat([torch.linspace(-30, 30, 200_001), torch.linspace(-1e-3, 1e-3, 20_001), torch.tensor([-1e4, 1e4])])
    of_sigmoid = (sigmoid(x, *signs).double() - x.double().sigmoid()).abs().max()
    of_tanh = (tanh(x, *signs).double() - x.double().tanh()).abs().max()
    assert of_sigmoid <= 3.2e-7
    assert of_tanh <= 6.4e-7
    assert (tanh(x[200_001:220_002], *signs).double() - x[200_001:220_002].double().tanh()).abs().max() > 1e-8


def test_three_parts_are_nearly_float32():
    a, b = (torch.randn(64, 64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    exact = a.double() @ b.double()
    one, three, plain = (
        (found.double() - exact).abs().max() for found in (product_tf32(a, b), product_tf32x3(a, b), a @ b)
    )
    assert three < 4 * plain < one / 50


@pytest.mark.parametrize("case", [real_cases.SIZES[f"hidden {hidden}, end to end"] for hidden in (6, 64, 128)], ids=str)
def test_the_bounds_of_real_sizes_are_small_and_refuse_coarse_products(case):
    case = dataclasses.replace(case, lengths=case.lengths[:12])
    wanted = expect(case)
    result, gradient = bounds(case, wanted)
    assert result <= 2e-5, "a state of at most 1, in float32"
    assert gradient <= 2e-4
    coarse = errors(simulated(case, product_tf32), wanted)
    assert coarse[0] > result
    assert coarse[1] > gradient


def test_numbered_weights_are_chaotic_at_hidden_128():
    """What made a fixed bound fail: plain float32 itself is far away."""
    case = dataclasses.replace(real_cases.SIZES["hidden 128, end to end"], contractive=False)
    case = dataclasses.replace(case, lengths=(60,) * 6)
    assert errors(simulated(case, torch.matmul), expect(case))[0] > 1e-3


@pytest.mark.parametrize("seed", [56])
def test_a_random_batch_that_a_fixed_bound_refused(seed):
    case = real_cases.drawn(seed)
    wanted = expect(case)
    result, gradient = bounds(case, wanted)
    assert result <= 2e-5
    assert gradient <= 2e-4


def test_approximate_gates_come_near_the_bounds_of_exact_ones():
    """A GPU has them, with another order of sums besides: it is held to the bounds of the arithmetic that it has."""
    case = Case(33, (3, 0, 1, 5, 5, 2), gaps=True, state=True, options={"bidirectional": True, "bias": "single"})
    wanted = expect(case)
    assert errors(simulated(case, torch.matmul, gates=True), wanted)[0] > 0.7e-6
    assert bounds(case, wanted)[0] <= 1e-5
