"""Every combination of kinds of parameters and annotations gives a source that Python can compile, and that checks."""

import asyncio
import functools
from typing import Annotated, Any, Never, NoReturn

import pytest
import torch
from beartype.vale import Is
from jaxtyping import Float
from torch import Tensor

from towers.contracts import ShapeContractError, contract

HINTS = {
    "none": None,
    "Any": "Any",
    "object": "object",
    "int": "int",
    "tensor": 'Float[Tensor, "n"]',
    "list of Any": "list[Any]",
    "dict to Any": "dict[str, Any]",
    "tuple": 'tuple[Any, Float[Tensor, "n"]]',
    "tensor or None": 'Float[Tensor, "n"] | None',
}
FITS = {
    "none": 1,
    "Any": 1,
    "object": 1,
    "int": 1,
    "tensor": torch.zeros(2),
    "list of Any": [1],
    "dict to Any": {"a": 1},
    "tuple": (1, torch.zeros(2)),
    "tensor or None": None,
}
KINDS = (
    "a, /",
    "a",
    "*a",
    "*, a",
    "**a",
    "a, /, b, *c, d, **e",
    "a, b=None, /, *, c=None",
    "a, *b",
    "*a, **b",
    "a=None",
)


def parameters(kinds: str, hint: str | None) -> str:
    names = [one.partition("=") for one in kinds.split(", ")]
    return ", ".join(
        f"{name}{equals}{default}" if hint is None or name in "/*" else f"{name}: {hint}{' = ' * bool(equals)}{default}"
        for name, equals, default in names
    )


def made(kinds: str, hint: str | None, result: str | None, *, is_async: bool = False) -> Any:
    arrow = f" -> {result}" if result else ""
    source = f"{'async ' if is_async else ''}def function({parameters(kinds, hint)}){arrow}: return RESULT\n"
    space: dict[str, Any] = {"Float": Float, "Tensor": Tensor, "Any": Any, "RESULT": torch.zeros(2)}
    exec(source, space)
    return contract(space["function"])


def arguments(kinds: str, value: object) -> tuple[list[object], dict[str, object]]:
    parts, after_star = kinds.split(", "), False
    args, kwargs = [], {}
    for part in parts:
        if part.startswith("**"):
            kwargs["more"] = value
        elif part.startswith("*"):
            after_star = True
            args += [value] * 2 * (len(part) > 1)
        elif part != "/":
            if after_star:
                kwargs[part.partition("=")[0]] = value
            else:
                args.append(value)
    return args, kwargs


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("hint", HINTS)
def test_every_kind_with_every_annotation(kinds, hint):
    args, kwargs = arguments(kinds, FITS[hint])
    for result in (None, "Any", 'Float[Tensor, "n"]'):
        assert made(kinds, HINTS[hint], result)(*args, **kwargs).shape == (2,)
        assert made(kinds, HINTS[hint], result, is_async=True)(*args, **kwargs).close() is None


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("hint", ["int", "tensor", "tuple", "list of Any"])
def test_what_does_not_fit_is_refused_whatever_the_kind(kinds, hint):
    args, kwargs = arguments(kinds, "a text")
    with pytest.raises(ShapeContractError):
        made(kinds, HINTS[hint], None)(*args, **kwargs)


def wrapped(kind, seen):
    """A function and a wrapper around it that notes how its arguments are given."""

    def plain(x: Float[Tensor, "n"], /, y: Float[Tensor, "n"] = None, *, option: int = 1):
        return x

    def call(*args, **kwargs):
        seen.append((len(args), sorted(kwargs)))
        return plain(*args, **kwargs)

    async def awaited(*args, **kwargs):
        return call(*args, **kwargs)

    def generated(*args, **kwargs):
        yield call(*args, **kwargs)

    async def both(*args, **kwargs):
        yield call(*args, **kwargs)

    return contract(functools.wraps(plain)({"call": call, "awaited": awaited, "list": generated, "next": both}[kind]))


@pytest.mark.parametrize(
    ("kind", "run"),
    [
        ("call", lambda result: result),
        ("awaited", asyncio.run),
        ("list", list),
        ("next", lambda result: asyncio.run(anext(result))),
    ],
)
def test_a_wrapper_gets_its_arguments_as_they_were_given(kind, run):
    seen: list[object] = []
    function, two = wrapped(kind, seen), torch.zeros(2)
    run(function(two))
    run(function(two, two))
    run(function(two, option=2, y=two))
    assert seen == [(1, []), (2, []), (1, ["option", "y"])]
    for args, kwargs in [((two,), {"y": torch.zeros(3)}), ((two, None), {}), ((two,), {"option": "2"})]:
        with pytest.raises(ShapeContractError):
            run(function(*args, **kwargs))
    with pytest.raises(TypeError, match=r"^plain\(\) got an unexpected keyword argument 'z'"):
        run(function(two, z=two))
    assert len(seen) == 3


def test_a_wrapper_in_a_compiled_program():
    def plain(x: Float[Tensor, "n"], halved: bool = False) -> Float[Tensor, "n"]:
        return x

    @contract
    @functools.wraps(plain)
    def halving(*args, **kwargs):
        return plain(*args) / (2 if kwargs.get("halved") else 1)

    compiled = torch.compile(halving, backend="eager", fullgraph=True)
    ones = torch.ones(2)
    assert compiled(ones, halved=True).tolist() == [0.5, 0.5]
    assert compiled(ones).tolist() == [1, 1]
    with pytest.raises(torch._dynamo.exc.Unsupported, match="x has 2 axes"):
        compiled(torch.ones(2, 2))


@pytest.mark.parametrize(
    "text",
    ["{k}0", "0{k}", "d{k}", "{k}d", "{k}{k}", "n {k}0", "*", "* n", "{", "}", "{}", "{k", "{k!r}"],
)
def test_an_axis_that_cannot_be_read_is_refused_when_decorating(text):
    def function(k: int, x: Any) -> None: ...

    function.__annotations__["x"] = Float[Tensor, text]
    with pytest.raises(ValueError, match=r"braces stand for a whole number|cannot be read|is no axis|may only hold"):
        contract(function)


@pytest.mark.parametrize("text", ["{k}+1", "2*{k}", "{k}*{k}", "min({k},n)", "n={k}"])
def test_braces_beside_operators_are_read(text):
    def function(k: int, x: Any) -> None: ...

    function.__annotations__["x"] = Float[Tensor, text]
    contract(function)


@pytest.mark.parametrize("never", [Never, NoReturn])
def test_nothing_is_of_type_never(never):
    def argument(x: Any) -> None: ...

    def result() -> Any: ...

    argument.__annotations__["x"] = result.__annotations__["return"] = never
    with pytest.raises(ShapeContractError, match="x is an int; expected N"):
        contract(argument)(3)
    with pytest.raises(ShapeContractError, match="the result is None; expected N"):
        contract(result)()


def test_validators_of_what_is_no_tensor_run():
    @contract
    def function(x: Annotated[int, Is[lambda value: value > 2]]) -> None: ...

    function(3)
    with pytest.raises(ShapeContractError, match="x is an int; expected Annotated"):
        function(1)
