"""TypedDicts, and what the type parameters of generic records stand for."""

from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, NotRequired, TypedDict, TypeVar

import pytest
import torch
import typing_extensions
from hypothesis import given
from jaxtyping import Float, Int
from torch import Tensor

from towers.contracts import ShapeContractError, contract
from towers.contracts.testing import assert_contract, valid_inputs

T = TypeVar("T")
Row = Float[Tensor, "n"]


def f(*shape):
    return torch.zeros(shape)


def i(*shape):
    return torch.zeros(shape, dtype=torch.int64)


class Batch(TypedDict):
    words: Float[Tensor, "batch words 3"]
    lengths: Int[Tensor, "batch"]
    names: NotRequired[list[str]]
    target: NotRequired[Float[Tensor, "batch"]]


class Written(typing_extensions.TypedDict, total=False):
    x: typing_extensions.Required[Row]
    y: Row
    inside: "typing_extensions.NotRequired[list[Written]]"


class Pair(NamedTuple, Generic[T]):
    x: T
    count: int


@dataclass
class Box(Generic[T]):
    x: T
    more: list[T]


class Keyed(TypedDict, Generic[T]):
    x: T


class Table(dict[str, T]): ...


class Width(TypedDict):
    x: Float[Tensor, "{self.width}"]


@contract
def step(batch: Batch, weight: Float[Tensor, "words"] | None = None) -> Batch:
    return {"words": batch["words"], "lengths": i(len(batch["words"]))}


@contract
def forgetful(x: Row) -> Batch:
    return {"words": f(2, 3, 3)}


@contract
def written(x: Written, y: Row) -> None: ...


@contract
def pair(x: Pair[Row], y: Row) -> None: ...


@contract
def box(x: Box[Pair[Row]], y: Row) -> None: ...


@contract
def keyed(x: list[Keyed[Row]] | None, y: Row) -> None: ...


@contract
def table(x: Table[Row]) -> None: ...


@pytest.mark.parametrize(
    "call",
    [
        lambda: step({"words": f(2, 5, 3), "lengths": i(2)}),
        lambda: step({"words": f(2, 5, 3), "lengths": i(2), "target": f(2), "names": ["a"], "a key too many": 3}, f(5)),
        lambda: written({"x": f(2)}, f(2)),
        lambda: written({"x": f(2), "y": f(2), "inside": [{"x": f(4)}]}, f(2)),
        lambda: pair(Pair(f(2), 3), f(2)),
        lambda: box(Box(Pair(f(2), 3), []), f(2)),
        lambda: keyed([{"x": f(2)}, {"x": f(2)}], f(2)),
        lambda: keyed(None, f(2)),
        lambda: table(Table(a=f(2))),
    ],
)
def test_what_fits_passes(call):
    call()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: step({"words": f(2, 5, 3), "lengths": i(3)}),
            r"^step: batch\['lengths'\]: batch is 3; expected 2 \(as in batch\['words'\]\)",
        ),
        (lambda: step({"words": f(2, 5, 3)}), r"step: batch has no 'lengths'; Batch needs 'words', 'lengths'$"),
        (
            lambda: step({"words": f(2, 5, 3), "lengths": i(2), "target": f(3)}),
            r"batch\['target'\]: batch is 3; expected 2",
        ),
        (
            lambda: step({"words": f(2, 5, 3), "lengths": i(2), "names": "ab"}),
            r"batch\['names'\] is a str; expected list\[str\]",
        ),
        (
            lambda: step({"words": f(2, 5, 3), "lengths": i(2)}, f(4)),
            r"weight: words is 4; expected 5 \(as in batch\['words'\]\)",
        ),
        (lambda: step([]), r"batch is a list; expected Batch"),
        (lambda: forgetful(f(2)), r"forgetful: the result has no 'lengths'; Batch needs 'words', 'lengths'"),
        (lambda: written({"y": f(2)}, f(2)), r"x has no 'x'; Written needs 'x'"),
        (lambda: written({"x": f(2), "y": f(3)}, f(2)), r"x\['y'\]: n is 3; expected 2"),
        (lambda: pair(Pair(f(2), 3), f(3)), r"y: n is 3; expected 2 \(as in x.x\)"),
        (lambda: pair(Pair(f(2), "3"), f(2)), r"x.count is a str; expected int"),
        (lambda: pair(Pair(2, 3), f(2)), r"x.x is an int; expected Float\[Tensor, \"n\"\]"),
        (lambda: box(Box(Pair(f(2), 3), [Pair(f(4), 3)]), f(2)), r"x.more\[0\].x: n is 4; expected 2 \(as in x.x.x\)"),
        (lambda: keyed([{"x": f(2)}, {"x": f(3)}], f(2)), r"x\[1\]\['x'\]: n is 3; expected 2 \(as in x\[0\]\['x'\]\)"),
        (lambda: table({"a": f(2)}), r"x is a dict; expected Table"),
    ],
)
def test_what_does_not_fit_is_refused(call, text):
    with pytest.raises(ShapeContractError, match=text):
        call()


def test_what_a_record_holds_of_its_own_class_is_checked_by_its_type():
    written({"x": f(2), "inside": [{"x": 3}]}, f(2))
    with pytest.raises(ShapeContractError, match=r"x\['inside'\] is a list; expected list\[.*Written\]"):
        written({"x": f(2), "inside": [3]}, f(2))


def test_a_key_has_no_instance():
    def function(self, a: Width) -> None: ...

    with pytest.raises(ValueError, match=r"'\{self.width\}': `self`, the instance that holds this field"):
        contract(function)


def test_tests_are_made_out_of_them():
    assert_contract(step, examples=10)

    @given(valid_inputs(keyed))
    def fits(inputs):
        keyed(*inputs.args, **inputs.kwargs)

    fits()


def test_under_compile():
    torch._dynamo.reset()
    compiled = torch.compile(step, backend="eager", fullgraph=True)
    compiled({"words": f(2, 5, 3), "lengths": i(2)})
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"batch has no 'lengths'"):
        compiled({"words": f(2, 5, 3)})


class Kept(typing_extensions.TypedDict, total=False):
    x: typing_extensions.ReadOnly[typing_extensions.Required[Float[Tensor, "n"]]]
    y: typing_extensions.ReadOnly[Float[Tensor, "n"]]
    z: "typing_extensions.Required[Float[Tensor, 'n']]"


def test_what_qualifies_a_type_does_not_hide_it():
    @contract
    @dataclass
    class Constant:
        x: Final[Float[Tensor, "n"]]
        y: Final[Float[Tensor, "n"]]

    @contract
    def kept(a: Kept) -> None: ...

    Constant(f(2), f(2))
    kept({"x": f(2), "y": f(2), "z": f(2)})
    kept({"x": f(2), "z": f(2)})
    with pytest.raises(ShapeContractError, match=r"self\.y: n is 3; expected 2 \(as in self\.x\)"):
        Constant(f(2), f(3))
    with pytest.raises(ShapeContractError, match=r"a\['y'\]: n is 3; expected 2"):
        kept({"x": f(2), "y": f(3), "z": f(2)})
    with pytest.raises(ShapeContractError, match=r"a\['z'\]: n is 3; expected 2"):
        kept({"x": f(2), "z": f(3)})
    with pytest.raises(ShapeContractError, match="a has no 'x'"):
        kept({"z": f(2)})
    with pytest.raises(ShapeContractError, match="a has no 'z'"):
        kept({"x": f(2)})
