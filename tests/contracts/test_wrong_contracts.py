"""Contracts that are wrong themselves: a parameter that is not there, a division by 0."""

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from towers.contracts import ShapeContractError, attach, contract, verify
from towers.contracts.testing import assert_contract


def f(*shape):
    return torch.zeros(shape)


def i(*values):
    return torch.tensor(values)


class Layer(nn.Module):
    chunk = 0

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3, bias=False)
        self.register_parameter("offset", None)

    @contract(dtype_of="linear.wieght")
    def forward(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        return self.linear(x)

    @contract(dtype_of="linear")
    def of_a_module(self, ids: Int[Tensor, "n"], x: Float[Tensor, "n 3"] | None = None) -> None: ...

    @contract(dtype_of="offset")
    def of_nothing(self, x: Float[Tensor, "n 3"]) -> None: ...

    @contract(where="n % {self.chunk} == 0")
    def chunks(self, x: Float[Tensor, "n 3"]) -> None: ...

    @contract
    def rows(self, x: Float[Tensor, "n"], y: Float[Tensor, "n//{self.chunk}"]) -> None: ...

    @contract(where="lengths % {self.chunk} == 0")
    def values(self, lengths: Int[Tensor, "n"]) -> None: ...

    @contract(where="n % lengths == 0")
    def by_values(self, x: Float[Tensor, "n"], lengths: Int[Tensor, "_"]) -> None: ...


class Plain:
    @contract(dtype_of="weight")
    def method(self, x: Float[Tensor, "n"]) -> None: ...


HAS = r"; Layer has linear\.weight$"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Layer()(f(2, 3)), r"^Layer.forward: dtype_of='linear.wieght': Layer has no such parameter" + HAS),
        (lambda: Layer().of_a_module(i(1), f(1, 3)), r"dtype_of='linear': that is a Linear, no parameter" + HAS),
        (lambda: Layer().of_a_module(f(1)), r"dtype_of='linear': that is a Linear, no parameter" + HAS),
        (lambda: Layer().of_nothing(f(1, 3)), r"dtype_of='offset': Layer has no such parameter" + HAS),
        (lambda: Plain().method(f(1)), r"^Plain.method: dtype_of='weight': Plain has no such parameter$"),
        (
            lambda: attach(nn.LSTM(8, 6, 3), "time batch 8 -> _ _ 6, (_ _ _, _ _ _)", dtype_of="weight"),
            r"^attach: LSTM.forward: dtype_of='weight': LSTM has no such parameter; "
            r"LSTM has weight_ih_l0, weight_hh_l0, .*bias_hh_l1, and 4 more$",
        ),
        (lambda: assert_contract(Layer()), r"dtype_of='linear.wieght': Layer has no such parameter"),
    ],
)
def test_a_parameter_that_is_not_there(call, text):
    with pytest.raises(ValueError, match=text) as caught:
        call()
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_verify_says_the_same():
    proof = verify(Layer())
    assert not proof
    assert "Layer.forward: dtype_of='linear.wieght': Layer has no such parameter; Layer has linear.weight" in str(proof)


def test_a_parameter_that_is_not_there_under_compile():
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"dtype_of='linear.wieght': Layer has no such parameter"):
        torch.compile(Layer(), backend="eager", fullgraph=True)(f(2, 3))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Layer().chunks(f(4, 3)), r"^Layer.chunks: n % \{self.chunk\} == 0 divides by 0 \(self.chunk=0\)$"),
        (lambda: Layer().rows(f(4), f(2)), r"y: n//chunk can have no size: it divides by 0 \(self.chunk=0\)$"),
        (lambda: Layer().values(i(4, 2)), r"lengths % \{self.chunk\} == 0 divides by 0 \(self.chunk=0\)$"),
        (lambda: Layer().by_values(f(4), i(4, 0)), r"n % lengths == 0 divides by 0 \(lengths\)$"),
    ],
)
def test_a_division_by_zero(call, text):
    with pytest.raises(ShapeContractError, match=text):
        call()


def test_a_division_by_what_is_not_zero():
    layer = Layer()
    layer.chunk = 2
    layer.chunks(f(4, 3))
    layer.rows(f(4), f(2))
    layer.values(i(4, 2))
    layer.by_values(f(4), i(4, 2))


@pytest.mark.parametrize("axis", ["n//0", "n%0", "4/(2-2)"])
def test_a_division_by_zero_whatever_comes(axis):
    with pytest.raises(ValueError, match="divides by 0"):

        @contract
        def function(x: Float[Tensor, "n"], y: Float[Tensor, axis]) -> None: ...

    with pytest.raises(ValueError, match=r"'n % 0 == 0' divides by 0"):

        @contract(where="n % 0 == 0")
        def other(x: Float[Tensor, "n"]) -> None: ...
