"""The compiled check never accepts what the careful one refuses, nor leaves to it what plainly fits."""

import linecache
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from towers import Ragged
from towers.contracts import ShapeContractError, contract
from towers.contracts.bindings import Bindings
from towers.contracts.check import Check
from towers.contracts.compiled import compile_check
from towers.contracts.signature import Options, read_signature


class Parts(NamedTuple):
    x: Float[Tensor, "n m"]
    y: Int[Tensor, "n-m"] | int


def one(a: Float[Tensor, "batch time 3"]) -> None: ...
def two(a: Float[Tensor, "batch time"], b: Int[Tensor, "time"] | None = None) -> None: ...
def expression(a: Float[Tensor, "n"], b: Float[Tensor, "n-1 2*n"] | None = None) -> None: ...
def unknown(a: Float[Tensor, "2*n"], b: Float[Tensor, "n"] | None = None) -> None: ...
def argument(a: Float[Tensor, "{size} _"], size: int | None = 2) -> None: ...
def ragged(a: Float[Tensor | Ragged, "batch words 2"], b: Float[Tensor, "batch words"] | None = None) -> None: ...
def nested(a: tuple[Float[Tensor, "n"], Float[Tensor, "n 2"]] | None = None) -> None: ...
def bounded(a: Shaped[Tensor, "n m"], b: Int[Tensor, "n"] | None = None) -> None: ...
def either(a: Float[Tensor | Ragged, "n m 2"], *, b: Int[Tensor, "n"] | None = None) -> None: ...
def listed(a: list[Float[Tensor, "n-1"] | Int[Tensor, "n 2"]], b: Float[Tensor, "n"] | None = None) -> None: ...
def keyed(a: dict[str, Float[Tensor, "n _"]] | tuple[Float[Tensor, "*r"], ...], b: Int[Tensor, "n"] | int) -> None: ...
def chosen(a: Shaped[Tensor, "n 2*n"] | Shaped[Tensor, "n m-1"], b: Shaped[Tensor, "n+m"] | None = None) -> None: ...
def spread(a: Float[Tensor, "*#r n"], b: Float[Tensor, "*r n"] | Int[Tensor, "*#r"] | None = None) -> None: ...
def wide(a: Float[Tensor, "... n #m"] | None, b: Shaped[Tensor, "#n *r m"] | None = None) -> None: ...
def least(a: Shaped[Tensor, "n m"], b: Shaped[Tensor, "min(n,m) n//m"] | Shaped[Tensor, "k*n"]) -> None: ...
def parts(a: Parts, b: Shaped[Tensor, "m"] | None = None) -> None: ...
def either_part(a: tuple[Float[Tensor, "n"], Float[Tensor, "n"]] | tuple[Shaped[Tensor, "n"], Shaped[Tensor, "m"]],
                b: Shaped[Tensor, "m-n"] | Shaped[Tensor, "n"]) -> None: ...  # fmt: skip
def result(a: Float[Tensor, "n"], b: Any) -> tuple[Shaped[Tensor, "n-m"], Shaped[Tensor, "m"]] | Shaped[Tensor, "n"]:
    return b


FUNCTIONS = {
    one: (),
    two: ("time >= 2",),
    expression: (),
    unknown: (),
    argument: (),
    ragged: ("words >= 2", "batch <= 3"),
    nested: (),
    bounded: ("b < m", "n <= m"),
    either: ("b <= m", "m <= 2"),
    listed: ("n >= 1",),
    keyed: ("b >= 1", "n <= 2"),
    chosen: ("n + m <= 5", "m % 2 == 0"),
    spread: ("n <= 2",),
    wide: (),
    least: ("n % m == 0", "k <= n"),
    parts: ("n >= m",),
    either_part: (),
    result: (),
}
SIZES = st.integers(0, 3)
TENSORS = st.builds(
    lambda shape, dtype: torch.ones(shape, dtype=dtype),
    st.lists(SIZES, max_size=3),
    st.sampled_from([torch.float32, torch.int64]),
)
RAGGED = st.builds(
    lambda lengths, width: Ragged(torch.ones(sum(lengths), width), torch.tensor([0, *lengths]).cumsum(0)),
    st.lists(SIZES, max_size=3),
    SIZES,
)
VALUES = st.one_of(
    TENSORS, TENSORS, RAGGED, st.none(), st.tuples(TENSORS, TENSORS), SIZES, st.lists(TENSORS, max_size=3),
    st.dictionaries(st.sampled_from(["a", "b", 1]), TENSORS, max_size=3), st.builds(Parts, TENSORS, SIZES | TENSORS),
)  # fmt: skip


@cache
def compiled_once(function):
    signature = read_signature(function, Options(FUNCTIONS[function]))
    return signature, compile_check(function, signature)


def whole(check: Check) -> None:
    check.check_arguments()
    if check.signature.name == "result":
        check.check_result(check.names.arguments["b"])


def verdict(check) -> str | None:
    try:
        check()
    except (ShapeContractError, ValueError) as error:
        return str(error)
    return None


@settings(max_examples=300)  # for each function: drawing values takes longer than all checks of them
@given(VALUES, VALUES)
def test_both_checks_give_the_same_verdict(a, b):
    for function in FUNCTIONS:
        names = ("a", "size" if function is argument else "b")
        given_values = dict(zip(names, (a, b), strict=True)) if function not in (one, nested) else {"a": a}
        signature, compiled = compiled_once(function)
        careful = verdict(lambda signature=signature, values=given_values: whole(Check(Bindings(signature, values))))
        assert verdict(lambda compiled=compiled, values=given_values: compiled(**values)) == careful, function.__name__


def test_the_source_can_be_read_and_stands_in_tracebacks():
    checked = contract(one)
    assert "if _size_3 != 3: raise _refused(a)" in contract.source(checked)
    with pytest.raises(ShapeContractError) as caught:
        checked(torch.zeros(2, 3, 4))
    [_, frame] = caught.traceback
    assert frame.path == checked.__code__.co_filename or "contract of" in str(frame.path)
    assert "raise _refused(a)" in linecache.getline(checked.__code__.co_filename, frame.lineno + 1)


def test_a_condition_about_nothing_is_refused_when_decorating():
    with pytest.raises(ValueError, match=r"bounded: 'words >= 2': words is none of a, b, m, n"):
        contract(where=("words >= 2",))(bounded)


def test_every_kind_of_parameter_stays_what_it_is():
    @contract
    def function(a: Float[Tensor, "n"], /, b: Float[Tensor, "n"], *, c: Float[Tensor, "n"] | None = None, d: int = 2):
        return a, b, c, d

    x = torch.zeros(2)
    assert function(x, b=x, d=3)[3] == 3
    assert function(x, x)[2:] == (None, 2)
    with pytest.raises(TypeError, match="positional-only"):
        function(a=x, b=x)
    with pytest.raises(ShapeContractError, match="c: n is 3; expected 2"):
        function(x, x, c=torch.zeros(3))
