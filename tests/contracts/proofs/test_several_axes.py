"""Conditions on several axes at once, beside those on one: each is compared with real runs at every small size."""

import time
from itertools import product

import pytest
import sympy
import torch
from torch import Tensor, nn

from towers.contracts import attach, verify
from towers.contracts.proofs.explore import Coverage
from towers.contracts.proofs.guesses import _beyond, supposed
from towers.contracts.proofs.reality import RealityCheck, holds_at
from towers.contracts.proofs.symbolic_inputs import read_subject
from towers.contracts.proofs.verdicts import as_equalities
from towers.contracts.subjects import subject


class Positions(nn.Module):
    """Adds a table of 24 positions to an image whose pixels are in one line."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(3, 24))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2) + self.table[:, : x.shape[2] * x.shape[3]]


class Of(nn.Module):
    """Takes images of one size only."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] != 9 or x.shape[3] != 9:
            raise ValueError(f"images of 9 by 9 are wanted, not {x.shape[2]} by {x.shape[3]}")
        return x * 2


class Net(nn.Module):
    """Halves an image and makes it as large again: what is left out at the edge is missed."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.AvgPool2d(2), nn.InstanceNorm2d(3))
        self.up = nn.ConvTranspose2d(3, 3, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.down(x))


CASES = {
    "net": (Net(), "Float batch 3 height width -> Float batch 3 height width"),
    "positions": (Positions(), "Float batch 3 height width -> Float batch 3 pixels"),
    "square": (Of(), "Float batch 3 height width -> Float batch 3 height width"),
}
CONDITIONS = {
    "net": ("height % 2 == 0", "width % 2 == 0", "(height >= 4 or width >= 4)"),
    "positions": ("height*width <= 24",),
    "square": ("height == 9", "width == 9"),
}


@pytest.mark.parametrize("name", CASES)
def test_conditions_on_several_axes(name: str):
    module, text = CASES[name]
    attach(module, text)
    proof = verify(module, seconds=60)
    assert {*proof.conditions} == {*CONDITIONS[name]}, proof
    axes = [axis for axis in proof.axes if axis not in ("pixels",)]
    for sizes in product(range(1, 4), *[range(1, 13)] * (len(axes) - 1)):
        names = dict(zip(axes, sizes, strict=True))
        try:
            module(torch.randn(sizes[0], 3, *sizes[1:]))
            passes = True
        except (RuntimeError, ValueError):
            passes = False
        assert holds_at(proof.conditions, names) == passes, names


def test_two_bounds_that_leave_one_size_are_told_as_one():
    bounds = ["time >= 3", "height >= 32", "height <= 32", "width <= 32"]
    assert as_equalities(bounds) == ["time >= 3", "height == 32", "width <= 32"]


class Numbered(nn.Module):
    """Positions are indices into a table of 20 rows."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(torch.arange(x.shape[1]))


def test_positions_beyond_a_table_are_found_however_little_time_there_is():
    attach(module := Numbered(), "Float batch words 4 -> Float batch words 4")
    check = RealityCheck(module, {}, 0.0, 0.0)
    case = read_subject(module, subject(module).signature, (), (), {}).cases()[0]
    table = check.table(case, few=False)
    assert {trial.sizes["words"] for trial in table if trial.error} == {21}


def test_each_axis_that_is_enough_is_found():
    """With three axes no usual size may have only one of them large: such sizes are tried."""
    attach(module := nn.InstanceNorm3d(3), "Float batch 3 height width depth -> Float batch 3 height width depth")
    case = read_subject(module, subject(module).signature, (), (), {}).cases()[0]
    check = RealityCheck(module, {}, 1.0, time.perf_counter() + 20)
    table = check.further(case, [], [dict.fromkeys(case.spans(), size) for size in (1, 2)])
    _, guesses = supposed(check, Coverage(case, case.spans()), table, ())
    assert [{*guess.texts[0].split(" or ")} for guess in guesses[:1]] == [{"height >= 2", "width >= 2", "depth >= 2"}]


class OfArea(nn.Module):
    """Takes images of six pixels beside a margin."""

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape) < 5:
            raise ValueError("smaller than the margin")
        return x[4:, 4:].reshape(6)


def test_bounds_on_two_axes_are_tried_the_other_way_round():
    attach(module := OfArea(), "Float high wide -> Float 6")
    case = read_subject(module, subject(module).signature, (), (), {}).cases()[0]
    check = RealityCheck(module, {}, 1.0, time.perf_counter() + 20)
    sizes = [(6, 7), (6, 6), (6, 8), (5, 7), (7, 7), (1, 1), (9, 9)]
    table = check.further(case, [], [{"high": high, "wide": wide} for high, wide in sizes])
    table, guesses = supposed(check, Coverage(case, case.spans()), table, ())
    assert {(6, 7), (7, 6)} <= {(*trial.sizes.values(),) for trial in table if trial.error is None}
    assert not any("high" in text and "wide" not in text for guess in guesses for text in guess.texts), guesses


def test_an_equation_is_tried_beyond_the_bounds_beside_it():
    attach(module := OfArea(), "Float high wide -> Float 6")
    case = read_subject(module, subject(module).signature, (), (), {}).cases()[0]
    check = RealityCheck(module, {}, 1.0, time.perf_counter() + 20)
    table = check.further(case, [], [{"high": 6, "wide": 7}, {"high": 7, "wide": 6}])
    high, wide = (sympy.Symbol(name, integer=True, positive=True) for name in ("high", "wide"))
    alone = ["high >= 6", "high <= 7", "wide >= 6", "wide <= 7"]
    found = list(_beyond(table, alone, [sympy.Eq((high - 4) * (wide - 4), 6)], case.spans()))
    assert found == [{"high": high, "wide": wide} for high, wide in ((1, 2), (2, 1), (5, 10), (10, 5))]
