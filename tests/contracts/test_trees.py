"""`PyTree[X]`: every leaf of lists, tuples, dicts and dataclasses."""

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from towers.contracts import PyTree, ShapeContractError, contract
from towers.contracts.testing import assert_contract


def f(*shape):
    return torch.zeros(shape)


@dataclass
class Box:
    left: Any
    right: Any


class Named(NamedTuple):
    first: Any
    second: Any


@contract
def tree(t: PyTree[Float[Tensor, "n ..."]], u: Float[Tensor, "n"] | None = None) -> PyTree[Float[Tensor, "n ..."]]:
    return t


FITTING = [
    f(2),
    [f(2), f(2, 3)],
    (f(2), [f(2), (f(2),)]),
    {"a": f(2), "b": {"c": [f(2, 5)]}},
    Box(f(2), [Box(f(2, 1), f(2))]),
    Named(f(2), {"x": f(2)}),
    OrderedDict(a=f(2)),
    deque([f(2), f(2)]),
    [],
    {},
]


@pytest.mark.parametrize("value", FITTING, ids=lambda value: type(value).__name__)
def test_trees_that_fit(value):
    assert tree(value, f(2)) is value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([f(2), f(3)], r"t\[1\]: n is 3; expected 2 \(as in t\[0\]\)"),
        ({"a": f(2), "b": [f(2), {"c": f(4)}]}, r"t\['b'\]\[1\]\['c'\]: n is 4"),
        (Box(f(2), [f(2), f(3)]), r"t\.right\[1\]: n is 3"),
        (Named(f(2), f(3)), r"t\[1\]: n is 3"),
        ([f(2), 3], r"t\[1\] is an int; expected Float\[Tensor"),
        (None, "t is None"),
        ([f(2), None], r"t\[1\] is None"),
        ({"a": f(2).long()}, r"t\['a'\] is int64; expected Float"),
        ([f()], r"t\[0\] has 0 axes"),
    ],
)
def test_trees_that_do_not_fit(value, said):
    with pytest.raises(ShapeContractError, match=said):
        tree(value)
    torch._dynamo.reset()


def test_axes_are_shared_with_the_other_arguments_and_the_result():
    with pytest.raises(ShapeContractError, match=r"u: n is 3; expected 2 \(as in t\['a'\]\)"):
        tree({"a": f(2)}, f(3))

    @contract
    def other(t: PyTree[Float[Tensor, "n"]]) -> PyTree[Float[Tensor, "n"]]:
        return [f(5)]

    other([f(5)])
    with pytest.raises(ShapeContractError, match=r"the result\[0\]: n is 5; expected 4"):
        other([f(4)])


def test_leaves_of_other_types():
    @contract
    def function(
        a: PyTree[int], b: PyTree[Float[Tensor, "n"] | None], c: PyTree[tuple[Float[Tensor, "n"], Int[Tensor, "n"]]],
        d: PyTree, e: PyTree[Float[PackedSequence, "batch words 2"]],
    ) -> None: ...  # fmt: skip

    pair = (f(2), f(2).long())
    function([1, {"a": 2}], [None, f(2)], [pair, {"x": pair}], object(), [pack_sequence([f(3, 2)])])
    with pytest.raises(ShapeContractError, match=r"a\[1\]\['a'\] is a str; expected int"):
        function([1, {"a": "2"}], [None], [pair], 0, [])
    with pytest.raises(ShapeContractError, match=r"c\[0\]\[0\] is a Tensor; expected \(Float"):
        function(1, None, [(f(2), f(2), f(2))], 0, [])


def test_compiled():
    torch._dynamo.reset()
    compiled = torch.compile(tree, backend="eager", fullgraph=True)
    compiled({"a": [f(2), f(2, 3)]})
    with pytest.raises(Exception, match=r"n is 3; expected 2"):
        compiled({"a": [f(2), f(3)]})


def test_tested_by_drawn_inputs():
    assert_contract(tree)


def test_jaxtypings_own_tree_is_read_the_same():
    pytest.importorskip("jax")
    from jaxtyping import PyTree as Theirs

    @contract
    def function(t: Theirs[Float[Tensor, "n"]]) -> None: ...

    function({"a": f(2), "b": [f(2)]})
    with pytest.raises(ShapeContractError, match=r"t\['b'\]\[0\]: n is 3"):
        function({"a": f(2), "b": [f(3)]})
    with pytest.raises(ValueError, match="structures have no names here"):

        @contract
        def named(t: Theirs[Float[Tensor, "n"], "T"]) -> None: ...
