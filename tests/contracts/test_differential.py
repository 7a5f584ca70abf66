"""The same verdicts as jaxtyping + beartype, on random signatures and random calls of them.

What differs stands in two short lists: STRICTER, where we refuse on purpose, and UNDECIDED, where we accept and
jaxtyping gives no verdict. There is no third list: nothing that jaxtyping refuses is accepted.
"""

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

import pytest
import torch
from beartype import beartype
from jaxtyping import AnnotationError, Bool, Float, Int, Shaped, TypeCheckError, jaxtyped
from torch import Tensor

from towers.contracts import ShapeContractError, checks, contract

from . import signatures
from .signatures import Call, Refused, Signature, oracle

CALLS = 24  # of each signature
SEEDS = range(1100)
MORE_SEEDS = range(10_000, 21_000)

Decorate = Callable[[Callable[..., Any]], Callable[..., Any]]


def verdict(function: Callable[..., Any], call: tuple[tuple[Any, ...], dict[str, Any], Any], result: list[Any]) -> str:
    args, kwargs, result[0] = call
    try:
        function(*args, **kwargs)
    except (Refused, ShapeContractError):
        return "refuses"
    except AnnotationError:
        return "does not know"
    return "accepts"


def disagreements(seeds: range, decorate: Decorate = contract, most: int = 5) -> tuple[Counter[str], list[str]]:
    """How often the oracle gave each verdict, and the first calls on which another was given than its own."""
    counts: Counter[str] = Counter()
    found: list[str] = []
    for seed in seeds:
        rng = Random(seed)
        signature = signatures.signature(rng)
        theirs = oracle(signature.theirs)
        scoped = signature.scoped if decorate is contract else None
        ours = decorate(signature.function) if scoped is None else scoped(decorate)
        for _ in range(CALLS):
            call = signatures.call(rng, signature)
            wanted, got = verdict(theirs, call.theirs, signature.result), verdict(ours, call.ours, signature.result)
            counts[wanted] += 1
            if wanted not in (got, "does not know"):
                found.append(described(seed, signature, call, wanted, got))
                if len(found) == most:
                    return counts, found
    return counts, found


def described(seed: int, signature: Signature, call: Call, wanted: str, got: str) -> str:
    args, kwargs, result = call.ours
    values = {**dict(enumerate(args)), **kwargs, "return": result}
    shown = [f"  {name} = {_shown(value)}" for name, value in values.items()]
    return "\n".join([f"seed {seed}: jaxtyping {wanted}, contract {got}", signature.shown, *shown])


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{type(value).__name__}({list(value.shape)}, {value.dtype})"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({', '.join(map(_shown, value))})"
    return f"{ {key: _shown(item) for key, item in value.items()} }" if isinstance(value, dict) else repr(value)


@pytest.mark.long
def test_the_same_verdicts_as_jaxtyping():
    counts, found = disagreements(SEEDS)
    assert not found, "\n\n".join(found)
    assert counts["accepts"] + counts["refuses"] >= 20_000
    assert min(counts["accepts"], counts["refuses"]) >= 8_000


@pytest.mark.slow
def test_the_same_verdicts_as_jaxtyping_at_length():
    counts, found = disagreements(MORE_SEEDS)
    assert not found, "\n\n".join(found)
    assert counts["accepts"] + counts["refuses"] >= 200_000


# That this comparison can fail.


def with_other_annotations(change: Callable[[Any], Any]) -> Decorate:
    """A checker that is right about another annotation."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name, hint in inspect.get_annotations(function, eval_str=True).items():
            arrays = isinstance(hint, type) and hasattr(hint, "dim_str")
            function.__annotations__[name] = change(hint) if arrays else hint
        return contract(function)

    return decorate


WRONG = {
    "accepts everything": lambda function: function,
    "any dtype": with_other_annotations(lambda hint: Shaped[hint.array_type, hint.dim_str]),
    "another number": with_other_annotations(lambda hint: hint.dtype[hint.array_type, hint.dim_str.replace("3", "2")]),
    "one axis for another": with_other_annotations(lambda hint: hint.dtype[hint.array_type, hint.dim_str.replace("m", "n")]),
    "no axis of 1": with_other_annotations(lambda hint: hint.dtype[hint.array_type, hint.dim_str.replace("#n", "n")]),
    "no results": lambda function: contract(without_result(function)),
}  # fmt: skip


def without_result(function: Callable[..., Any]) -> Callable[..., Any]:
    function.__annotations__.pop("return", None)
    return function


@pytest.mark.parametrize("decorate", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_checker_is_caught(decorate: Decorate):
    _, found = disagreements(range(150), decorate, most=1)
    assert found


def test_dtypes_are_read_as_jaxtyping_reads_them():
    every = [torch.empty(0, dtype=dtype, device="meta") for dtype in signatures.EVERY_DTYPE]
    for kind in signatures.EVERY_KIND:
        hint = kind[Tensor, "n"]

        def function(a: hint) -> None: ...

        checked = contract(function)
        for value in every:
            wanted = "accepts" if isinstance(value, hint) else "refuses"
            assert verdict(checked, ((value,), {}, None), [None]) == wanted, (kind.__name__, value.dtype)


def masked(
    x: Float[Tensor, "n"], mask: Bool[Tensor, "n"] = None, *, y: Float[Tensor, "n"] = None
) -> Float[Tensor, "n"]:
    return x if mask is None and y is None else x + 1


def test_the_oracle_says_what_jaxtyping_and_beartype_say():
    """Without their messages, which it does not write."""
    for seed in range(30):
        rng = Random(seed)
        signature, again = signatures.signature(rng), signatures.signature(Random(seed))  # a class is changed in place
        whole, ours = jaxtyped(typechecker=beartype)(again.theirs), oracle(signature.theirs)
        for _ in range(CALLS):
            args, kwargs, result = signatures.call(rng, signature).theirs
            wanted = verdict(ours, (args, kwargs, result), signature.result)
            again.result[0] = result
            try:
                whole(*args, **kwargs)
                found = "accepts"
            except TypeCheckError:
                found = "refuses"
            except AnnotationError:
                found = "does not know"
            assert found == wanted, described(
                seed, signature, signatures.Call((args, kwargs, result), ()), wanted, found
            )


def test_a_default_of_another_type_is_no_argument():
    checked = contract(masked)
    for decorated in (oracle(masked), checked):
        assert decorated(f(2)).sum() == 0
        assert decorated(f(2), y=f(2)).sum() == 2
        assert verdict(decorated, ((f(2), None), {}, None), [None]) == "refuses"
        assert verdict(decorated, ((f(2),), {"y": None}, None), [None]) == "refuses"
    with pytest.raises(ShapeContractError, match=r"y: n is 3; expected 2 \(as in x\)"):
        checked(f(2), y=f(3))
    with checks("off"):
        assert checked(f(2)).sum() == 0
    assert torch.compile(checked, backend="eager", fullgraph=True)(f(2)).sum() == 0


# Where we refuse what jaxtyping accepts, on purpose.


def f(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


@dataclass
class Pair:
    left: Float[Tensor, "batch"]
    right: Float[Tensor, "batch"]


class Named(NamedTuple):
    values: Float[Tensor, "batch"]


def items(a: list[Float[Tensor, "n"]]) -> None: ...
def entries(a: dict[str, Float[Tensor, "n"]]) -> None: ...
def dataclass_field(a: Pair, b: Float[Tensor, "batch"]) -> None: ...
def named_field(a: Named, b: Float[Tensor, "batch"]) -> None: ...


STRICTER = {
    "every item of a list": (items, ([f(2)] * 9 + [f(3)],), r"a\[9\]: n is 3; expected 2"),
    "every value of a dict": (entries, ({"x": f(2), "y": f(3)},), r"n is 3; expected 2"),
    "fields of a dataclass": (dataclass_field, (Pair(f(2), f(2)), f(3)), r"b: batch is 3; expected 2 \(as in a\.left\)"),
    "fields of a NamedTuple": (named_field, (Named(f(2)), f(3)), r"b: batch is 3; expected 2 \(as in a\.values\)"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "args", "text"), STRICTER.values(), ids=STRICTER.keys())
def test_stricter_on_purpose(function: Callable[..., Any], args: tuple[Any, ...], text: str):
    theirs, checked = oracle(function), contract(function)
    assert "accepts" in [
        verdict(theirs, (args, {}, None), [None]) for _ in range(200)
    ]  # it looks at one item by chance
    with pytest.raises(ShapeContractError, match=text):
        checked(*args)


def test_an_axis_that_is_python_code_is_refused_when_decorating():
    def distance(a: Float[Tensor, "n m"], b: Float[Tensor, "abs(n-m)"]) -> None: ...

    oracle(distance)(f(2, 3), f(1))
    with pytest.raises(ValueError, match=r"'abs\(n-m\)' may only hold ints, names"):
        contract(distance)


def test_a_space_in_an_expression_is_refused_when_decorating():
    def spaced(a: Float[Tensor, "t + s"]) -> None: ...

    oracle(spaced)  # three axes to jaxtyping, which it says when it is called
    with pytest.raises(ValueError, match=r"'\+' cannot be read"):
        contract(spaced)


# Where jaxtyping gives no verdict.


def before(a: Float[Tensor, "n-1"], b: Float[Tensor, "n"]) -> None: ...
def never(a: Float[Tensor, "2*n"]) -> None: ...
def quotient(a: Float[Tensor, "n//2 n//3"]) -> None: ...
def after_none(a: Float[Tensor, "n"] | None, b: Float[Tensor, "n+1"]) -> None: ...
def after_one(a: Float[Tensor, "#n"], b: Float[Tensor, "n+1"]) -> None: ...


UNDECIDED = {
    "an expression before its names": (before, (f(2), f(3)), (f(3), f(3)), r"a: n-1 is 3; expected 2"),
    "an expression of a name that nothing else has": (never, (f(4),), (f(5),), r"a: 2\*n is 5, which it is for no whole n"),
    "an expression of a name that is absent": (after_none, (None, f(3)), (None, f(3, 1)), "b has 2 axes"),
    "a quotient of a name that nothing else has": (quotient, (f(2, 1),), (f(2),), "a has 1 axis"),
    "an expression of a name that an axis of 1 left open": (after_one, (f(1), f(3)), (f(2), f(4)), r"b: n\+1 is 4; expected 3"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "fits", "other", "text"), UNDECIDED.values(), ids=UNDECIDED.keys())
def test_decided_where_jaxtyping_cannot(function: Callable[..., Any], fits: Any, other: Any, text: str):
    assert verdict(oracle(function), (fits, {}, None), [None]) == "does not know"
    contract(function)(*fits)
    with pytest.raises(ShapeContractError, match=text):
        contract(function)(*other)


def test_packed_sequences_are_read_where_jaxtyping_crashes():
    packed = torch.nn.utils.rnn.pack_sequence([f(3, 4), f(2, 4)])

    def function(a: Float[torch.nn.utils.rnn.PackedSequence, "batch words 4"], b: Int[Tensor, "batch"]) -> None: ...

    with pytest.raises(AttributeError):
        isinstance(packed, Float[torch.nn.utils.rnn.PackedSequence, "batch words 4"])
    contract(function)(packed, f(2, dtype=torch.int64))
    with pytest.raises(ShapeContractError, match=r"b: batch is 3; expected 2"):
        contract(function)(packed, f(3, dtype=torch.int64))
