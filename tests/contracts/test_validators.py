"""Validators of beartype's on tensors, what can be decorated beside functions, and plain types in compiled programs."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, NewType

import pytest
import torch
from beartype.vale import Is
from jaxtyping import Float
from torch import Tensor

from towers.contracts import ShapeContractError, checks, contract


def f(*shape):
    return torch.zeros(shape)


Positive = Is[lambda x: bool((x >= 0).all())]
Several = Is[lambda items: len(items) > 1]


@contract
def validated(
    x: Annotated[Float[Tensor, "n"], Positive] | None,
    y: Annotated[list[Float[Tensor, "n"]], Several] | None = None,
    *more: Annotated[Float[Tensor, "n"], Positive],
) -> Annotated[Float[Tensor, "n"], Positive]:
    return f(2) if x is None else x + (len(more) == 1) * -1


def test_what_validators_accept_passes():
    validated(f(2), [f(2), f(2)], f(2), f(2))
    validated(None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((f(2) - 1,), r"x does not fulfil .*Is\["),
        ((f(2), [f(2)]), "y does not fulfil"),
        ((f(2), None, f(2), f(2) - 1), r"more\[1\] does not fulfil"),
        ((f(2), None, f(2)), "the result does not fulfil"),
        ((f(2), [f(2), f(3)]), r"y\[1\]: n is 3"),
        ((f(2, 2) - 1,), "x has 2 axes"),
    ],
)
def test_what_they_do_not_accept_is_refused(arguments, said):
    with pytest.raises(ShapeContractError, match=said):
        validated(*arguments)


def test_of_two_alternatives_the_one_whose_validator_accepts_is_taken():
    @contract
    def function(
        x: Annotated[Float[Tensor, "n 2"], Positive] | Float[Tensor, "2 n"], y: Float[Tensor, "n"]
    ) -> None: ...

    function(f(3, 2), f(3))
    function(f(2, 2) - 1, f(2))
    with pytest.raises(ShapeContractError):
        function(f(3, 2) - 1, f(3))


def test_validators_are_left_out_where_no_values_can_be_read():
    validated(torch.zeros(2, device="meta"))
    torch.vmap(lambda x: validated(x - 1))(f(3, 2))
    with checks("off"):
        validated(f(2) - 1)
    compiled = torch.compile(validated, backend="eager", fullgraph=True)
    compiled(f(2) - 1)
    with pytest.raises(Exception, match="x has 2 axes"):
        compiled(f(2, 2))


class Box:
    def __init__(self):
        self.kept = f(3)

    @contract
    @property
    def size(self) -> Float[Tensor, "3"]:
        """The size."""
        return self.kept

    @size.setter
    def size(self, value):
        self.kept = value

    @contract
    @functools.cached_property
    def once(self) -> Float[Tensor, "3"]:
        return self.kept

    def plain(self, x: Float[Tensor, "3"]) -> None: ...


def test_properties_and_bound_methods_are_decorated():
    box = Box()
    assert box.size is box.kept is box.once
    assert Box.size.__doc__ == "The size."
    box.size = f(2)
    with pytest.raises(ShapeContractError, match=r"Box.size: the result: axis 0 is 2"):
        _ = box.size
    other = Box()
    other.kept = f(2)
    with pytest.raises(ShapeContractError, match="the result"):
        _ = other.once
    method = contract(box.plain)
    assert method.__self__ is box
    method(f(3))
    with pytest.raises(ShapeContractError, match="x: axis 0 is 4"):
        method(f(4))


Id = NewType("Id", int)


@contract
def plain(
    x: Float[Tensor, "n"],
    a: Literal["u", "v", 1] = "u",
    b: list[int] | None = None,
    c: Callable[[int], int] = abs,
    d: int | str | None = None,
    e: tuple[int, str] = (1, "a"),
    m: Mapping[str, float] | None = None,
    q: Sequence[int] = (),
    o: type[int] = int,
    i: Id = 1,
    t: tuple[int, ...] = (),
) -> Float[Tensor, "n"]:
    return x * 2


@pytest.mark.parametrize("compiled", [False, True])
def test_plain_types_are_checked_in_compiled_programs_as_in_eager_ones(compiled):
    torch._dynamo.reset()
    function = torch.compile(plain, backend="eager", fullgraph=True) if compiled else plain
    function(f(2), 1, [1, 2], len, "s", (3, "b"), {"a": 1.0}, [2], bool, Id(3), (1, 2))


WRONG = {
    "a": "w",
    "b": [1, "2"],
    "c": 3,
    "d": 2.5,
    "e": (1, 2),
    "m": {"a": "b"},
    "q": ["a"],
    "o": str,
    "i": "3",
    "t": ("a",),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_of_another_plain_type_is_refused_in_compiled_programs(name):
    torch._dynamo.reset()
    with pytest.raises(Exception, match=rf"{name} is an? \w+; expected|a is .w.; expected"):
        torch.compile(plain, backend="eager", fullgraph=True)(f(2), **{name: WRONG[name]})


@pytest.mark.parametrize("name", sorted(set(WRONG) - {"b"}))  # of a list beartype looks at one item, by chance
def test_what_is_of_another_plain_type_is_refused(name):
    with pytest.raises(ShapeContractError, match=rf"{name} is an? \w+; expected|a is .w.; expected"):
        plain(f(2), **{name: WRONG[name]})
