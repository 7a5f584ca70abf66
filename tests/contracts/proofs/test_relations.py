"""What is said of sizes without trying them all, beside trying them: on random relations, floats and code."""

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._sympy.functions import CeilToInt, FloorDiv, IntTrueDiv, Mod, ToFloat, TruncToInt

from towers.contracts import contract, verify
from towers.contracts.proofs.float_sizes import whole
from towers.contracts.proofs.implied import always, never
from towers.contracts.proofs.ranges import Span
from towers.contracts.proofs.relations import implied, negation, some_sizes, truth, usable

ONE, TWO = (sympy.Symbol(name, integer=True, positive=True) for name in ("one", "two"))
EXPRESSIONS = st.recursive(
    st.sampled_from([ONE, TWO]) | st.integers(0, 9).map(sympy.Integer),
    lambda inner: (
        st.tuples(inner, inner).map(lambda pair: pair[0] + pair[1])
        | st.tuples(inner, inner).map(lambda pair: pair[0] - pair[1])
        | st.tuples(inner, inner).map(lambda pair: pair[0] * pair[1])
        | st.tuples(inner, st.integers(2, 5) | st.sampled_from([ONE, TWO])).map(lambda pair: FloorDiv(*pair))
        | st.tuples(inner, st.integers(2, 5) | st.sampled_from([ONE, TWO])).map(lambda pair: Mod(*pair))
    ),
    max_leaves=5,
)
KINDS = st.sampled_from([sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge])
SPANS = st.builds(Span, st.integers(1, 4), st.none() | st.integers(5, 9), st.integers(1, 3))


OPERATIONS: dict[Any, Callable[..., Any]] = {
    sympy.Add: lambda *some: sum(some),
    sympy.Mul: lambda *some: math.prod(some),
    sympy.Pow: operator.pow,
    FloorDiv: operator.floordiv,
    Mod: lambda number, by: number % by if number >= 0 else math.nan,  # torch's is of no negative number
    sympy.Eq: operator.eq,
    sympy.Ne: operator.ne,
    sympy.Lt: operator.lt,
    sympy.Le: operator.le,
    sympy.Gt: operator.gt,
    sympy.Ge: operator.ge,
}


def value(expression: Any, sizes: dict[str, int]) -> Any:
    """A sum, a relation and all between for these sizes, in Python's own numbers."""
    if expression.is_Symbol:
        return sizes[expression.name]
    if expression.is_Rational:
        return Fraction(int(expression.p), int(expression.q))
    return OPERATIONS[expression.func](*(value(part, sizes) for part in expression.args))


def holds(relation: Any, sizes: dict[str, int], undefined: bool) -> bool:
    """Whether it does; `undefined` where a remainder of a negative number is in it, of which nothing is said."""
    if any(value(part.args[0], sizes) < 0 for part in relation.atoms(Mod)):
        return undefined
    return bool(value(relation, sizes))


def choices(spans: dict[str, Span]) -> list[dict[str, int]]:
    sizes = [[size for size in range(1, 13) if size in span] for span in spans.values()]
    return [dict(zip(spans, some, strict=True)) for some in product(*sizes)]


@settings(max_examples=60, deadline=None)
@given(left=EXPRESSIONS, right=EXPRESSIONS, kind=KINDS, one=SPANS, two=SPANS)
def test_what_always_or_never_holds(left: Any, right: Any, kind: Any, one: Span, two: Span):
    try:
        relation, spans = kind(left, right), {"one": one, "two": two}
    except (TypeError, AssertionError):  # sympy cannot compare these; torch takes no remainder of a negative number
        return
    if not getattr(relation, "free_symbols", None):
        return
    if always(relation, spans):
        assert all(holds(relation, sizes, True) for sizes in choices(spans))
    if never(relation, spans):
        assert not any(holds(relation, sizes, False) for sizes in choices(spans))


LINEAR = st.tuples(*[st.integers(-3, 3)] * 3).map(lambda some: some[0] * ONE + some[1] * TWO + some[2])


@settings(max_examples=60, deadline=None)
@given(goal=LINEAR, fact=LINEAR, kinds=st.tuples(KINDS, KINDS))
def test_what_follows_from_another_relation(goal: Any, fact: Any, kinds: Any):
    goal, fact = kinds[0](goal, 0), kinds[1](fact, 0)
    if not goal.free_symbols or not fact.free_symbols or not implied(goal, [fact]):
        return
    sizes = choices({"one": Span(1), "two": Span(1)})
    assert all(holds(goal, each, True) for each in sizes if holds(fact, each, False))


@pytest.mark.parametrize(
    "relation",
    [sympy.Eq(7 * ONE + TWO, 37), ONE * TWO > 4000, sympy.Eq(Mod(ONE, TWO), 0), FloorDiv(ONE, 2) < TWO],
    ids=str,
)
def test_sizes_for_which_relations_hold(relation: Any):
    spans = {"one": Span(1), "two": Span(1)}
    for each in (relation, negation(relation)):
        assert usable(each)
        found = next(some_sizes((each,), spans))
        assert truth(each, found)
        assert holds(each, found, False)


@pytest.mark.parametrize("factor", [0.5, 0.25, 1.5, 2.0, 3.75])
def test_floats_that_are_whole_numbers(factor: float):
    size = torch.arange(1, 300)
    for made, real in (
        (TruncToInt(factor * ToFloat(ONE)), lambda n: int(n * factor)),
        (CeilToInt(factor * ToFloat(ONE)), lambda n: math.ceil(n * factor)),
        (TruncToInt(IntTrueDiv(ONE, 7)), lambda n: int(n / 7)),
        (CeilToInt(IntTrueDiv(ONE, 7)), lambda n: math.ceil(n / 7)),
    ):
        same = whole(made)
        assert "Float" not in str(same)
        assert "ToInt" not in str(same)
        assert [int(same.subs(ONE, n)) for n in size.tolist()] == [real(n) for n in size.tolist()]


def test_a_share_that_floats_round_is_left_alone():
    assert "ToFloat" in str(whole(TruncToInt(0.1 * ToFloat(ONE))))


# Questions that a run answers.


class Typed(nn.Module):
    @contract
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        size = x.shape[1]
        return x if type(size) is int else x[:, 1:]


def test_code_that_asks_for_a_type_is_never_proven_by_another():
    assert verify(Typed(), seconds=600).verdict == "not provable"


class ByValue(nn.Module):
    def __init__(self, cut: bool):
        super().__init__()
        self.cut = cut

    @contract
    def forward(self, x: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        if mask.all():
            return x
        return x[:, 1:] if self.cut else x * mask


def test_both_answers_to_a_question_about_values_are_run():
    assert verify(ByValue(cut=False), seconds=600).verdict == "proven"
    proof = verify(ByValue(cut=True), seconds=600)
    assert proof.verdict == "failed"
    assert not proof


class PadTo(nn.Module):
    """A shorter mask becomes as long as the words."""

    def forward(
        self, mask: Float[Tensor, "batch time"], x: Float[Tensor, "batch words 4"]
    ) -> Float[Tensor, "batch words"]:
        if mask.size(1) < x.size(1):
            mask = F.pad(mask, (0, x.size(1) - mask.size(1)))
        return mask


def test_what_where_says_and_what_was_answered_give_an_equation():
    assert verify(PadTo(), where="time <= words").verdict == "proven"
    assert verify(PadTo(), where="time <= words + 1").verdict == "holds if"
    one, other = (sympy.Symbol(name, integer=True, positive=True) for name in "tw")
    assert implied(sympy.Eq(one, other), [one <= other, other < one + 1])
    assert not implied(sympy.Eq(one, other), [one <= other, other < one + 2])
    assert not implied(sympy.Eq(one, other), [one <= other, one < other + 1])
