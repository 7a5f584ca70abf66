"""What must never be proven: faults far from the sizes that are tried, in calls of a kind, in the second call."""

from typing import Any

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._sympy.functions import FloorDiv, Mod

from towers.contracts import contract, verify
from towers.contracts.proofs.divide import divide, sure
from towers.contracts.proofs.ranges import Span


class Cut(nn.Module):
    """Loses a step at some lengths."""

    def __init__(self, wrong: Any):
        super().__init__()
        self.wrong = wrong

    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        return x[:, 1:] if self.wrong(x.shape[1]) else x


@pytest.mark.parametrize(
    ("wrong", "verdict", "conditions"),
    [
        (lambda time: time * time > 10**6, "holds if", ("time <= 1000",)),
        (lambda time: (time - 300) ** 2 < 100, "holds if", ("not 291 <= time <= 309",)),
        (lambda time: time // 64 > 70, "holds if", ("time <= 4543",)),
        (lambda time: time % 64 == 63, "failed", ()),
        (lambda time: int(time * 0.5) > 100, "failed", ()),
    ],
    ids=["square", "window", "blocks", "remainder", "float"],
)
def test_lengths_far_away(wrong: Any, verdict: str, conditions: tuple[str, ...]):
    proof = verify(Cut(wrong))
    assert (proof.verdict, proof.conditions) == (verdict, conditions), str(proof)


class TwoOfThree(nn.Module):
    @contract
    def forward(
        self,
        x: Float[Tensor, "batch time 8"],
        a: Float[Tensor, "batch"] | None = None,
        b: Float[Tensor, "batch"] | None = None,
        c: Float[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch time 8"]:
        return x[:, 1:] if a is not None and b is not None and c is None else x


def test_some_of_the_optional_arguments():
    proof = verify(TwoOfThree())
    assert proof.verdict == "failed"
    assert proof.worst.label == "with a, with b, without c"


class Kept(nn.Module):
    def __init__(self, grows: bool):
        super().__init__()
        self.mask, self.grows = None, grows

    @contract
    def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
        if self.mask is None or (self.grows and self.mask.shape[0] < x.shape[1]):
            self.mask = torch.zeros(x.shape[1], 8)
        return x + self.mask[: x.shape[1]]


def test_the_second_call():
    proof = verify(Kept(grows=False))
    assert proof.verdict == "failed"
    assert proof.message.startswith("in a call after one of batch = 2, time = 3: ")
    assert verify(Kept(grows=True))


def test_one_sentence_of_one_word():
    class Squeezed(nn.Module):
        @contract
        def forward(self, x: Float[Tensor, "batch time 8"]) -> Float[Tensor, "batch time 8"]:
            flat = x.reshape(-1, 8)
            return flat.squeeze(0) if flat.shape[0] == 1 else x

    assert verify(Squeezed()).conditions == ("not (batch == 1 and time == 1)",)


TIME = sympy.Symbol("time", integer=True, positive=True)
NUMBERS = st.integers(-20, 20)
EXPRESSIONS = st.recursive(
    st.just(TIME) | st.integers(0, 20).map(sympy.Integer),
    lambda inner: (
        st.tuples(inner, inner).map(lambda two: two[0] + two[1])
        | st.tuples(inner, inner).map(lambda two: two[0] * two[1])
        | st.tuples(inner, st.integers(2, 20)).map(lambda two: FloorDiv(*two))
        | st.tuples(inner, st.integers(2, 20)).map(lambda two: Mod(two[0], two[1]))
    ),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(
    left=EXPRESSIONS,
    right=NUMBERS,
    relation=st.sampled_from([sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge]),
    span=st.builds(Span, st.integers(0, 5), st.none() | st.integers(300, 400), st.integers(1, 4)),
)
def test_a_condition_is_the_same_on_each_part(left: Any, right: int, relation: Any, span: Span):
    condition = relation(left, right)
    if not getattr(condition, "free_symbols", None):
        return
    parts = divide(span, condition, TIME)
    near = [size for size in range(420) if size in span]
    assert all(sum(size in part for part in parts) == 1 for size in near)
    for part in parts:
        if part.step == span.step and sure(part, condition, TIME):
            assert len({bool(condition.subs(TIME, size)) for size in near if size in part}) <= 1
