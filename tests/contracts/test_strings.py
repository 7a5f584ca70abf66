"""Annotations that are strings, all of them or some, and names that are defined further down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
import torch._dynamo.testing
from jaxtyping import Float, Int
from torch import Tensor, nn

from towers.contracts import ShapeContractError, contract


def f(*shape):
    return torch.zeros(shape)


class Layer(nn.Module):
    width = 3

    @contract
    def forward(self, x: Float[Tensor, "n {self.width}"], other: Layer | None = None) -> Float[Tensor, "n"]:
        return x[:, 0]

    @contract
    def of_something_later(self, x: Later, ids: Int[Tensor, "n"]) -> Later:
        return x


class Later(NamedTuple):
    x: Float[Tensor, "n"]


@contract
@dataclass
class Made:
    x: Float[Tensor, "n {self.width}"]
    width: int = 3
    next: Made | None = None


def test_all_annotations_may_be_strings():
    layer = Layer()
    layer(f(2, 3), layer)
    with pytest.raises(ShapeContractError, match=r"x: width is 4; expected 3"):
        layer(f(2, 4))
    with pytest.raises(ShapeContractError, match=r"other is an int; expected Layer or None"):
        layer(f(2, 3), 3)


def test_a_name_may_be_defined_further_down():
    layer = Layer()
    layer.of_something_later(Later(f(2)), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ShapeContractError, match=r"ids: n is 3; expected 2 \(as in x.x\)"):
        layer.of_something_later(Later(f(2)), torch.zeros(3, dtype=torch.int64))
    assert "_axis_n" in contract.source(Layer.of_something_later)


def test_a_dataclass_may_hold_its_own_kind():
    Made(f(2, 3), next=Made(f(5, 3)))
    with pytest.raises(ShapeContractError, match=r"Made: self.x: width is 4; expected 3 \(self.width\)"):
        Made(f(2, 4))
    with pytest.raises(ShapeContractError, match=r"self.next is an int; expected"):
        Made(f(2, 3), next=3)


def test_a_name_may_be_local():
    Width = Float[Tensor, "3"]

    @contract
    def function(x: Width) -> Width:
        return x

    with pytest.raises(ShapeContractError, match="x: axis 0 is 2; expected 3"):
        function(f(2))


def test_names_from_further_down_can_be_met_first_in_a_compiled_program():
    @contract
    def function(x: Float[Tensor, "n"], y: Further | None = None) -> Float[Tensor, "n"]:
        return x + 1

    torch._dynamo.reset()
    assert torch.compile(function, backend="eager")(f(2)).shape == (2,)
    assert torch.compile(function, backend="eager", fullgraph=True)(f(3)).shape == (3,)


class Further: ...


class FirstCompiled(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "n 3"], other: AfterIt | None = None) -> Float[Tensor, "n 3"]:
        return 2 * x


class FirstExported(FirstCompiled):
    @contract
    def forward(self, x: Float[Tensor, "n 3"], other: AfterIt | None = None) -> Float[Tensor, "n 3"]:
        return 2 * x


class AfterIt: ...


def test_the_first_call_may_be_that_of_the_compiler():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    whole = torch.compile(FirstCompiled(), backend=counter, fullgraph=True)
    for rows in (2, 4, 5, 6):
        assert whole(f(rows, 3)).shape == (rows, 3)
    assert counter.frame_count == 2  # the first size, then any
    with pytest.raises(torch._dynamo.exc.Unsupported, match="x: axis 1 is 4; expected 3"):
        whole(f(2, 4))
    program = torch.export.export(FirstExported(), (f(2, 3),), strict=True)
    assert program.module()(f(2, 3)).shape == (2, 3)
