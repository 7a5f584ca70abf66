"""Braces: what is read from the arguments at a call, an item or a length among it, without running code."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from towers.contracts import ShapeContractError, contract


def f(*shape):
    return torch.zeros(shape)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.sizes, self.layers = (3, 4), nn.ModuleList([nn.Linear(4, 2), nn.Linear(5, 2)])

    @contract
    def forward(
        self,
        x: Float[Tensor, "batch {self.sizes[0]}"],
        y: Float[Tensor, "{len(self.layers)} {self.layers[1].in_features}"],
        z: Float[Tensor, "{x.shape[1]} 2*{len(x)}-1"],
    ) -> Float[Tensor, "{self.sizes[-1]}"]:
        return f(4)


FITTING = ((5, 3), (2, 5), (3, 9))


def test_items_and_lengths_are_read_at_each_call():
    layer = Layer()
    layer(*(f(*shape) for shape in FITTING))
    layer.sizes = (2, 4)
    layer(f(5, 2), f(2, 5), f(2, 9))


@pytest.mark.parametrize(
    ("argument", "shape", "said"),
    [
        (0, (5, 4), r"x: sizes\[0\] is 4; expected 3 \(self.sizes\[0\]\)"),
        (1, (3, 5), r"y: len\(layers\) is 3; expected 2 \(len\(self.layers\)\)"),
        (1, (2, 4), r"y: layers\[1\].in_features is 4; expected 5"),
        (2, (2, 9), r"z: x.shape\[1\] is 2; expected 3 \(x.shape\[1\]\)"),
        (2, (3, 8), r"z: 2\*len\(x\)-1 is 8; expected 9 \(len\(x\)=5\)"),
    ],
)
def test_what_does_not_fit_them_is_refused(argument, shape, said):
    shapes = [*FITTING]
    shapes[argument] = shape
    with pytest.raises(ShapeContractError, match=said):
        Layer()(*(f(*one) for one in shapes))


def test_an_item_that_is_not_there_is_a_refusal():
    layer = Layer()
    layer.sizes = ()
    with pytest.raises(ShapeContractError, match=r"can have no size: self.sizes\[0\]: self.sizes has 0 items"):
        layer(*(f(*shape) for shape in FITTING))


@contract
def third(x: Tensor, y: Float[Tensor, "{x.shape[-3]}"]) -> None: ...


def test_an_axis_that_an_argument_does_not_have():
    third(f(2, 3, 4), f(2))
    with pytest.raises(ShapeContractError, match=r"x.shape\[-3\]: x.shape has 2 items"):
        third(f(2, 3), f(2))


@contract(where="n <= {limits[1]}")
def limited(x: Float[Tensor, "n"], limits: tuple[int, int]) -> None: ...


def test_conditions_read_items_too():
    limited(f(3), (0, 3))
    with pytest.raises(ShapeContractError, match=r"n is 4.* at most 3"):
        limited(f(4), (0, 3))


@pytest.mark.parametrize("axis", ["{x.shape[n]}", "{x[0:1]}", "{f(x)}", "{len(x)+1}", "{x.size()}", "{len(len(x))}"])
def test_other_code_in_braces_is_refused_when_decorating(axis):
    def function(x: Float[Tensor, "n"], y: Float[Tensor, axis]) -> None: ...

    with pytest.raises(ValueError, match=r"cannot be read|may only hold|braces stand"):
        contract(function)


def test_a_root_that_is_no_parameter_is_refused_when_decorating():
    def function(x: Float[Tensor, "{len(z)}"], y: Float[Tensor, "{w.shape[0]}"]) -> None: ...

    with pytest.raises(ValueError, match="z is none of the parameters x, y"):
        contract(function)


def test_items_and_lengths_under_compile():
    layer = Layer()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    compiled(*(f(*shape) for shape in FITTING))
    with pytest.raises(Exception, match=r"x: sizes\[0\] is 4; expected 3"):
        compiled(f(5, 4), f(2, 5), f(3, 9))


@contract(where="x <= {most}")
def of_numbers(x: Float[Tensor, "{k} 2*{k}+1 x"], k: object, most: object = 9) -> Float[Tensor, "{k}"]:
    return f(int(k))


@pytest.mark.parametrize("kind", [int, float, np.int64, np.int32, np.uint8, np.float32, np.float64, Fraction])
def test_every_kind_of_number(kind):
    of_numbers(f(3, 7, 2), kind(3), kind(2))
    with pytest.raises(ShapeContractError, match=r"x: k is 3; expected 2"):
        of_numbers(f(3, 7, 2), kind(2))
    with pytest.raises(ShapeContractError, match=r"x is 3.*at most 2"):
        of_numbers(f(3, 7, 3), kind(3), kind(2))
    if kind is not Fraction:
        compiled = torch.compile(of_numbers, backend="eager")
        assert compiled(f(3, 7, 2), kind(3), kind(2)).shape == (3,)


@pytest.mark.parametrize("k", [torch.tensor(3), "3", None, [3], 3j])
def test_what_is_no_number_is_refused(k):
    with pytest.raises(ShapeContractError, match=r"x: k can have no size: k is .*not a number"):
        of_numbers(f(3, 7, 2), k)
