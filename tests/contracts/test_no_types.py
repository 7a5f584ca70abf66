"""Annotations that are no types: refused when decorating, as beartype does, with what was probably meant."""

import typing
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from typing import Annotated, Any, ClassVar, Concatenate, Final, Generic, Literal, NamedTuple, Protocol

import numpy as np
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeDecorHintException
from jaxtyping import Float, Float32, Int, jaxtyped
from torch import Tensor, nn

from towers.contracts import ShapeContractError, contract, install

X = Float[Tensor, "n"]
Q = typing.TypeVar("Q")
P = typing.ParamSpec("P")

NO_TYPES = {
    "torch.float32": (torch.float32, r'torch.float32 is no type; perhaps Float32\[Tensor, "…"\] is meant'),
    "torch.int64 in a list": (list[torch.int64], r'torch.int64 is no type; perhaps Int64\[Tensor, "…"\] is meant'),
    "Float": (Float, r'Float is no type; perhaps Float\[Tensor, "…"\] is meant'),
    "Float | None": (Float | None, r'Float is no type; perhaps Float\[Tensor, "…"\] is meant'),
    "a list": ([Float], r'\[Float\] is no type; perhaps list\[Float\[Tensor, "…"\]\] is meant'),
    "a list of annotations": ([X], r"no type; perhaps list\[Float\[Tensor, 'n'\]\] is meant"),
    "two in a list": ([int, str], r"\[int, str\] is no type; perhaps list\[int \| str\] is meant"),
    "a tuple": ((Float, int), r'\(Float, int\) is no type; perhaps tuple\[Float\[Tensor, "…"\], int\] or Float\['),
    "a set": ({int}, r"perhaps set\[int\] is meant"),
    "a dict": ({"a": X}, r"\{'a': Float\[Tensor, 'n'\]\} is no type"),
    "a value of a dict": (
        dict[str, (int, str)],
        r"\(int, str\) is no type; perhaps tuple\[int, str\] or int \| str is",
    ),
    "a number": (3, "3 is no type"),
    "a number of a tuple": (tuple[3, 4], "3 is no type"),
    "a tensor": (torch.zeros(2), r'a tensor of \(2,\) is no type; perhaps Float32\[Tensor, "…"\] is meant'),
    "any": (any, "the function any is no type; perhaps Any is meant"),
    "callable": (callable, "the function callable is no type; perhaps Callable is meant"),
    "torch.tensor": (torch.tensor, "the function tensor is no type; perhaps Tensor is meant"),
    "np.array": (np.array, "the function array is no type; perhaps np.ndarray is meant"),
    "a function": (nn.functional.relu, "the function relu is no type"),
    "a module": (torch, "the module torch is no type"),
    "...": (..., "Ellipsis is no type"),
    "a device": (torch.device("cpu"), "cpu is no type"),
    "Literal": (Literal, "Literal is no type"),
    "ClassVar": (ClassVar, "ClassVar is no type"),
    "ClassVar[int]": (ClassVar[int], r"ClassVar\[int\] is no type"),
    "Concatenate": (Concatenate, "Concatenate is no type"),
    "a ParamSpec": (P, "P is no type"),
}


def with_annotation(name: str, hint: Any) -> Any:
    def f(x, y=None):
        return x

    f.__annotations__ = {name: hint}
    return f


@pytest.mark.parametrize(("name", "place"), [("x", "x"), ("return", "the result")])
@pytest.mark.parametrize(("hint", "text"), NO_TYPES.values(), ids=NO_TYPES.keys())
def test_what_beartype_refuses_is_refused(hint: Any, text: str, name: str, place: str):
    with pytest.raises(BeartypeDecorHintException):
        jaxtyped(typechecker=beartype)(with_annotation(name, hint))
    with pytest.raises(ValueError, match=f"f: {place}: .*{text}"):
        contract(with_annotation(name, hint))


@pytest.mark.parametrize("hint", ["the input", "batch 3", (X, X)])
def test_text_and_tuples_are_refused_too(hint: Any):
    """beartype takes a tuple for a union, and text for a class that is never there."""
    jaxtyped(typechecker=beartype)(with_annotation("x", hint))
    with pytest.raises(ValueError, match=r"f: x: .* is no type"):
        contract(with_annotation("x", hint))


TYPES = [
    None, Any, int | None, X, list[X], tuple[X, ...], tuple[()], typing.Optional, typing.Union, Callable,
    Callable[..., int], Callable[P, int], Annotated[int, "x"], Final[X], Generic, Protocol, Literal["a"], Q, list[Q],
    typing.LiteralString, type[X], typing.NewType("N", int), InitVar[X], np.ndarray[Any, np.dtype[np.float32]],
    "X", "list[X]", "Any", "Missing", torch.dtype, nn.Module, typing.NoReturn,
]  # fmt: skip


@pytest.mark.parametrize("hint", TYPES, ids=map(str, TYPES))
def test_types_are_not(hint: Any):
    place = "return" if hint is typing.NoReturn else "x"
    jaxtyped(typechecker=beartype)(with_annotation(place, hint))
    contract(with_annotation(place, hint))


def test_text_that_stands_for_no_type():
    with pytest.raises(ValueError, match=r"f: x: torch.float32 is no type; perhaps Float32"):
        contract(with_annotation("x", "torch.float32"))
    with pytest.raises(ValueError, match=r"f: x: \[Float\] is no type"):
        contract(with_annotation("x", "[Float]"))


def test_every_kind_of_parameter():
    with pytest.raises(ValueError, match=r"f: rest: torch.float32 is no type"):

        @contract
        def f(*rest: torch.float32): ...

    with pytest.raises(ValueError, match="g: named: Int is no type"):

        @contract
        def g(*, x: X, **named: Int): ...


def test_fields():
    @dataclass
    class Loose:
        x: Float32[Tensor, "n"]
        kind: torch.float32 = torch.float32

    class Named(NamedTuple):
        x: Float32[Tensor, "n"]
        kind: any = 3

    @contract
    def f(a: Loose, b: Named): ...

    f(Loose(torch.zeros(2), "anything"), Named(torch.zeros(2), "anything"))
    with pytest.raises(ShapeContractError, match=r"b\.x: n is 3; expected 2"):
        f(Loose(torch.zeros(2)), Named(torch.zeros(3)))
    with pytest.raises(ValueError, match=r"Loose: self\.kind: torch.float32 is no type"):
        contract(Loose)


STRANGE = """
import torch
from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor

def plain(x: any) -> (int, str): return x
def scaled(x: Float[Tensor, "n"], y: any, z: Float[Tensor, "n"]) -> Float[Tensor, "n"]: return x
@dataclass
class Pair:
    x: Float[Tensor, "n"]
    y: "the other"
    z: Float[Tensor, "n"]
"""


def test_a_package_of_others_keeps_its_other_checks(tmp_path, monkeypatch):
    (tmp_path / "strange_types.py").write_text(STRANGE)
    monkeypatch.syspath_prepend(tmp_path)
    with install("strange_types"), pytest.warns(RuntimeWarning) as told:
        import strange_types
    assert [str(one.message) for one in told] == [
        "strange_types.scaled: y: the function any is no type; perhaps Any is meant, so it is not checked"
    ]
    two, three = torch.zeros(2), torch.zeros(3)
    assert strange_types.plain(3) == 3
    strange_types.scaled(two, "anything", two)
    with pytest.raises(ShapeContractError, match="z: n is 3; expected 2"):
        strange_types.scaled(two, "anything", three)
    with pytest.raises(ShapeContractError, match=r"z: n is 3; expected 2"):
        strange_types.Pair(two, "anything", three)
