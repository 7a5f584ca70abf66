"""Dataclasses under the decorator: the arguments of `__init__` that are no fields, then every field, with one set of axes."""

import gc
import typing
from dataclasses import InitVar, dataclass, field, replace
from typing import ClassVar, Final

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from towers.contracts import ShapeContractError, contract


def f(*shape):
    return torch.zeros(shape)


@contract
@dataclass
class Plain:
    count: int
    name: str = "x"


@contract
@dataclass
class Batch:
    width: int
    x: Float[Tensor, "batch {width}"]
    weights: InitVar[Float[Tensor, "batch"]]
    mask: Float[Tensor, "batch"] = None
    mean: Float[Tensor, "{width}"] = field(init=False)

    def __post_init__(self, weights):
        self.x = torch.as_tensor(self.x)


@contract(where="batch >= 2")
@dataclass(init=False)
class Own:
    x: Float[Tensor, "batch 3"]
    later: Float[Tensor, "batch"]

    def __init__(self, start: Float[Tensor, "batch 1"], *more: int, scale: float = 1.0):
        self.x = start.expand(-1, 3 + sum(more)) * scale


@contract
def holds(batch: Batch, y: Float[Tensor, "batch"]) -> None: ...


FITTING = (
    lambda: Plain(3),
    lambda: Plain(3, name="y"),
    lambda: Batch(3, f(2, 3), f(2)),
    lambda: Batch(3, [[1.0, 2.0, 3.0]], f(1)),
    lambda: Batch(3, f(2, 3), f(2), f(2)),
    lambda: Own(f(2, 1)),
    lambda: Own(f(2, 1), 1, -1, scale=2.0),
    lambda: holds(Batch(3, f(2, 3), f(2)), f(2)),
)


@pytest.mark.parametrize("made", FITTING)
def test_what_fits_is_made(made):
    made()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Plain("3"), r"Plain: self.count is a str; expected int"),
        (lambda: Plain(3, 4), r"Plain: self.name is an int; expected str"),
        (lambda: Batch("3", f(2, 3), f(2)), r"self.width is a str"),
        (lambda: Batch(3, f(2, 4), f(2)), r"self.x: width is 4; expected 3 \(self.width\)"),
        (lambda: Batch(3, f(2, 3), f(4)), r"self.x: batch is 2; expected 4 \(as in weights\)"),
        (lambda: Batch(3, f(2, 3), f(2, 2)), r"Batch: weights has 2 axes"),
        (lambda: Batch(3, f(2, 3), f(2), f(3)), r"self.mask: batch is 3; expected 2"),
        (lambda: Batch(3, [[1.0, 2.0]], f(1)), r"self.x: width is 2; expected 3"),
        (lambda: Own(f(2, 2)), r"start: axis 1 is 2; expected 1"),
        (lambda: Own(f(2, 1), "4"), r"more\[0\] is a str; expected int"),
        (lambda: Own(f(2, 1), 1), r"self.x: axis 1 is 4; expected 3"),
        (lambda: Own(f(1, 1)), r"batch is 1; .* at least 2"),
        (lambda: holds(Batch(3, f(2, 3), f(2)), f(3)), r"y: batch is 3; expected 2 \(as in batch.x\)"),
    ],
)
def test_what_does_not_fit_is_refused(made, said):
    with pytest.raises(ShapeContractError, match=said):
        made()


def test_a_field_that_is_set_later_is_checked_where_the_object_passes_a_contract():
    batch = Batch(3, f(2, 3), f(2))
    holds(batch, f(2))
    batch.mean = f(3)
    holds(batch, f(2))
    batch.mean = f(4)
    with pytest.raises(ShapeContractError, match=r"batch.mean: width is 4; expected 3 \(batch.width\)"):
        holds(batch, f(2))


def test_the_arguments_of_an_own_init_are_checked_before_it_runs():
    ran = []

    @contract
    @dataclass(init=False)
    class Kept:
        x: Float[Tensor, "n"]

        def __init__(self, x: Float[Tensor, "n"]):
            ran.append(x)

    with pytest.raises(ShapeContractError, match="x has 2 axes"):
        Kept(f(2, 2))
    assert not ran


def test_frozen_slots_inheritance_and_the_signature_are_as_without():
    @contract
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Point:
        x: Float[Tensor, "n"]
        y: Float[Tensor, "n"] = None

    Point(x=f(2))
    with pytest.raises(TypeError, match="positional"):
        Point(f(2))
    with pytest.raises(ShapeContractError, match=r"self.y: n is 3"):
        Point(x=f(2), y=f(3))

    @dataclass
    class More(Plain):
        extra: int = 0

    More(3, "x", 4)


def test_an_argument_left_out_is_pythons_own_error():
    with pytest.raises(TypeError, match=r"__init__\(\) missing 1 required positional argument: 'count'"):
        Plain()


def test_what_belongs_to_the_class_is_no_field_when_it_is_written_as_text():
    @contract
    @dataclass
    class Kept:
        x: "Float[Tensor, 'batch']"
        weights: "Float[Tensor, 'batch']"
        number: "ClassVar[int]" = 3
        any: "ClassVar" = 4
        sizes: "typing.ClassVar[tuple[int, ...]]" = ()
        last: "Final[int]" = 3

    @contract
    def first(kept: Kept) -> Float[Tensor, "batch"]:
        return kept.x

    assert first(Kept(f(2), f(2))).shape == (2,)
    with pytest.raises(ShapeContractError, match=r"self.weights: batch is 3; expected 2"):
        Kept(f(2), f(3))


def test_a_dataclass_leaves_nothing_to_collect():
    def make() -> type:
        @contract
        @dataclass
        class Kept:
            n: int
            x: Float[Tensor, "n"]

        Kept(3, f(3))
        return Kept

    make()
    gc.collect()
    gc.disable()
    try:
        kept = make()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert [each for each in gc.garbage if isinstance(each, type)] == []
        assert kept is not None
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@contract
@dataclass
class Loose:
    x: Float[Tensor, "n"]
    mask: Float[Tensor, "n"] = None
    scale: Float[Tensor, ""] | None = None
    filled: Float[Tensor, "n"] = None
    names: list[Float[Tensor, "n"]] = ()

    def __post_init__(self):
        if self.filled is None:
            self.filled = self.x


def test_a_default_of_another_type_is_let_through_where_it_is_left_out():
    made = Loose(f(2))
    assert made.mask is None
    assert made.names == ()
    Loose(f(2), f(2), None, None, [f(2)])
    for arguments, said in [
        ((f(2), None), r"(?m)self.mask is None; expected Float\[Tensor, \"n\"\]$"),
        ((f(2), f(3)), "self.mask: n is 3; expected 2"),
        ((f(2), f(2), 3), "self.scale is an int"),
        ((f(2), f(2), None, f(3)), "self.filled: n is 3; expected 2"),
        ((f(2), f(2), None, None, ()), r"self.names is a tuple; expected list\[Float\[Tensor, \"n\"\]\]$"),
    ]:
        with pytest.raises(ShapeContractError, match=said):
            Loose(*arguments)
    holds_loose(made)
    assert replace(Loose(f(2), f(2), names=[]), x=f(2)).scale is None


@contract
def holds_loose(made: Loose) -> None: ...


def test_a_default_of_an_own_init_under_a_contract_is_let_through():
    @contract
    @dataclass
    class Own:
        x: Float[Tensor, "n"] | None

        @contract
        def __init__(self, x: Float[Tensor, "n"] = None):
            self.x = x

    assert Own().x is None
    assert Own(x=f(2)).x.shape == (2,)
    with pytest.raises(ShapeContractError, match="x is None"):
        Own(None)
