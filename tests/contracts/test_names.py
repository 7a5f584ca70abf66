"""Names in annotations that cannot be resolved, or not yet: a call never raises for them, and what is known is checked."""

from __future__ import annotations

import gc
import linecache
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, no_type_check

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from towers.contracts import ShapeContractError, contract

if TYPE_CHECKING:
    from nowhere import Alias, Thing, module


def f(*shape):
    return torch.zeros(shape)


def refuses(call, *arguments):
    with pytest.raises(ShapeContractError):
        call(*arguments)


@contract
def imported_for_types(x: Float[Tensor, "n 3"], thing: Thing | None = None, *, how: module.Kind = None) -> Thing: ...


@contract
def inside(x: tuple[Float[Tensor, "n"], Thing], y: dict[str, Alias[int]] | Float[Tensor, "n"]) -> list[Thing]:
    return [3]


def test_what_is_imported_for_types_only_is_not_checked():
    for _ in range(2):
        imported_for_types(f(2, 3), 5, how=3)
        refuses(imported_for_types, f(2, 4))
        inside((f(2), 1), {})
        inside((f(2), 1), {"a": 5})
        inside((f(2), 1), f(2))
        refuses(inside, (f(2), 1), 5)
        refuses(inside, (f(2, 2), 1), {})


@contract(where=("n >= 2", "hidden <= 3"))
def bounded(x: Float[Tensor, "n"], y: Thing[Tensor, "hidden"]) -> None: ...


def test_a_condition_on_axes_of_what_is_unknown_does_not_apply():
    bounded(f(2), f(9))
    refuses(bounded, f(1), f(9))


def test_names_are_found_in_all_scopes_around():
    Width = Float[Tensor, "3"]

    def inner():
        Height = Float[Tensor, "2"]

        class Layer(nn.Module):
            Own = Float[Tensor, "4"]

            @contract
            def forward(self, x: Width, y: Height, z: Own) -> None: ...

        return Layer()

    layer = inner()
    layer(f(3), f(2), f(4))
    for sizes in ((2, 2, 4), (3, 3, 4), (3, 2, 3)):
        refuses(layer, *map(f, sizes))


def test_a_local_name_from_further_down():
    @contract
    def function(x: Later, y: Float[Tensor, "n"]) -> None: ...

    Later = Float[Tensor, "n 3"]
    function(f(2, 3), f(2))
    refuses(function, f(2, 4), f(2))
    refuses(function, f(2, 3), f(3))


def test_a_local_name_from_further_down_whose_scope_has_ended():
    def made():
        Early = Float[Tensor, "n 3"]

        @contract
        def function(x: tuple[Later, Early], y: Early) -> Later: ...

        Later = int
        return function

    function = made()
    function(("anything", f(2, 3)), f(2, 3))
    refuses(function, ("anything", f(2, 4)), f(2, 3))
    refuses(function, ("anything", f(2, 3)), f(1, 3))


def test_a_closure_is_looked_into():
    def made():
        Late = None

        @contract
        def function(x: Late) -> None:
            return Late and None

        Late = Float[Tensor, "3"]
        return function

    refuses(made(), f(2))


def test_a_class_may_name_itself():
    def made():
        class Node:
            @contract
            def link(self, other: Node, x: Float[Tensor, "n"]) -> Node:
                return other

        return Node

    Node = made()
    Node().link(Node(), f(2))
    refuses(Node().link, Node(), f(2, 2))


class ModuleNode(nn.Module):
    @contract
    def forward(self, other: ModuleNode | None, x: Float[Tensor, "n"]) -> None: ...


def test_a_module_may_name_itself():
    ModuleNode()(ModuleNode(), f(2))
    refuses(ModuleNode(), 3, f(2))


@dataclass
class Record:
    x: Float[Tensor, "n"]
    thing: Thing
    things: dict[str, Thing]
    next: Record | None = None


@contract
def recorded(record: Record, y: Float[Tensor, "n"]) -> None: ...


@contract
@dataclass
class MadeRecord:
    x: Float[Tensor, "n 3"]
    thing: Thing


def test_fields_of_dataclasses():
    recorded(Record(f(2), 1, {}), f(2))
    refuses(recorded, Record(f(2), 1, {}), f(3))
    MadeRecord(f(2, 3), 1)
    refuses(MadeRecord, f(2, 4), 1)

    Local = Float[Tensor, "n"]

    @dataclass
    class Inner:
        x: Local
        thing: Thing

    @contract
    def function(inner: Inner, y: Local) -> None: ...

    function(Inner(f(2), 1), f(2))
    refuses(function, Inner(f(3), 1), f(2))


@contract
def later_in_the_module(x: Afterwards) -> None: ...


def test_a_name_that_the_module_gets_after_the_first_call():
    later_in_the_module("anything")
    globals()["Afterwards"] = Float[Tensor, "3"]
    try:
        refuses(later_in_the_module, f(2))
    finally:
        del globals()["Afterwards"]


class Big: ...


@pytest.mark.parametrize("known", [True, False])
def test_nothing_of_the_callers_scope_is_kept(known):
    def made():
        big, Local = Big(), Float[Tensor, "3"]

        if known:

            @contract
            def function(x: Local) -> None: ...

        else:

            @contract
            def function(x: Local, y: Thing = None) -> None: ...

        return function, weakref.ref(big)

    gc.disable()  # nor does a cycle keep it
    try:
        function, big = made()
        assert big() is None
        function(f(3))
        assert big() is None
    finally:
        gc.enable()


def test_sources_go_with_their_functions():
    def made():
        @contract
        def function(x: Float[Tensor, "n"]) -> None: ...

        return function

    kept = made()
    gc.freeze()  # what is there stays: to look through a process full of other tests would take seconds
    before = len(linecache.cache)
    for _ in range(20):
        made()(f(2))
    gc.collect()
    assert len(linecache.cache) == before
    assert "_shape_0" in contract.source(kept)


def test_a_compiled_program_meets_them_too():
    @contract
    def function(x: Float[Tensor, "n"], y: Thing = None) -> Float[Tensor, "n"]:
        return x + 1

    torch._dynamo.reset()
    assert torch.compile(function, backend="eager", fullgraph=True)(f(3)).shape == (3,)


def test_an_annotation_that_is_wrong_is_still_an_error_when_decorating():
    with pytest.raises(ValueError, match="cannot be read"):

        @contract
        def function(x: Float[Tensor, "n+"], y: Any) -> None: ...


def test_no_type_check_below_leaves_a_function_unchecked():
    @contract
    @no_type_check
    def function(x: Float[Tensor, "3"]) -> int:
        return x

    assert function("anything") == "anything"


def test_the_frames_of_an_annotation_that_raises_have_no_names_of_their_own():
    """pytest asks each frame of a traceback for __tracebackhide__, and failed as a whole where every name was there."""

    def two(x: Float[Tensor, "*one *two"]) -> None: ...

    with pytest.raises(ValueError, match="variadic") as caught:
        contract(two)
    frames = [entry.frame for entry in caught.traceback]
    spaces = [space for frame in frames for space in (frame.f_locals, frame.f_globals)]
    assert not any("__tracebackhide__" in space for space in spaces)
    for space in spaces:
        with pytest.raises(KeyError):
            space["__tracebackhide__"]
