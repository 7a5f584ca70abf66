"""isinstance of an annotation, and print_bindings, in the body of a contracted function."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import jaxtyping
import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from towers.contracts import ShapeContractError, checks, contract, print_bindings

Pair = Float[Tensor, "rows 2"]


def f(*shape):
    return torch.zeros(shape)


@contract
def chosen(x: Float[Tensor, "n m"], y: object) -> Float[Tensor, "k"]:
    if isinstance(y, Float[Tensor, "n k"]):
        return y[0]
    return f(9) if isinstance(y, Int[Tensor, "m k"]) else f(1)


def test_isinstance_compares_with_the_axes_of_the_call():
    assert chosen(f(2, 3), f(2, 5)).shape == (5,)
    assert chosen(f(2, 3), f(3, 5)).shape == (1,)
    assert isinstance(f(3, 5), Float[Tensor, "n k"])  # outside of a call there is nothing to compare with


def test_what_isinstance_binds_holds_for_the_result():
    assert chosen(f(2, 3), f(3, 9).long()).shape == (9,)
    with pytest.raises(ShapeContractError, match=r"the result: k is 9; expected 8 \(as in the body of the function\)"):
        chosen(f(2, 3), f(3, 8).long())


@contract
def several(x: Float[Tensor, "*rows 3"], y: object, k: int = 2) -> Float[Tensor, "*others"]:
    assert isinstance(y, Float[Tensor, "*rows"])
    assert not isinstance(y, Float[Tensor, "*rows {k}"])
    assert isinstance(f(2, 7), Float[Tensor, "{k} *others"])
    return f(7)


def test_names_of_several_axes_and_braces():
    several(f(4, 5, 3), f(4, 5))
    with pytest.raises(AssertionError):
        several(f(4, 5, 3), f(4, 6))


def test_bindings_are_printed(capsys):
    @contract
    def printing(x: Float[Tensor, "n *rest"]) -> None:
        print_bindings()

    printing(f(2, 3, 4))
    out = capsys.readouterr().out
    assert "n=2" in out
    assert "rest=(3, 4)" in out


def alias(x: Float[Tensor, "rows"], y: object) -> bool:
    return isinstance(y, Pair)


def module_attribute(x: Float[Tensor, "rows"], y: object) -> bool:
    return isinstance(y, jaxtyping.Float[Tensor, "rows 2"])


def nested(x: Float[Tensor, "rows"], y: object) -> bool:
    return all(isinstance(one, Float[Tensor, "rows 2"]) for one in [y])


def closed_over():
    mine = Float[Tensor, "rows 2"]

    def inner(x: Float[Tensor, "rows"], y: object) -> bool:
        return isinstance(y, mine)

    return inner


def local_import(x: Float[Tensor, "rows"], y: object) -> bool:
    from jaxtyping import Shaped

    return isinstance(y, Shaped[Tensor, "rows 2"])


@pytest.mark.parametrize("function", [alias, module_attribute, nested, closed_over(), local_import])
def test_annotations_are_found_however_they_are_named(function):
    checked = contract(function)
    assert checked(f(3), f(3, 2))
    assert not checked(f(3), f(4, 2))
    with checks("off"):
        assert checked(f(3), f(4, 2))


def test_only_functions_that_ask_pay_for_it():
    @contract
    def plain(x: Float[Tensor, "n"], y: object) -> Float[Tensor, "n"]:
        return x if isinstance(y, (int, Tensor)) else x + 1

    assert "as _shared" not in contract.source(plain)
    assert "as _shared" in contract.source(chosen)


def test_calls_in_calls_and_in_threads_have_their_own_axes():
    @contract
    def outer(x: Float[Tensor, "n m"]) -> Float[Tensor, "n"]:
        assert chosen(f(7, 3), f(7, 5)).shape == (5,)
        assert isinstance(f(2), Float[Tensor, "n"])
        return f(2)

    outer(f(2, 6))
    with ThreadPoolExecutor(4) as pool:
        shapes = list(pool.map(lambda n: chosen(f(n, 3), f(n, n + 1)).shape[0], [2, 4, 5, 6] * 10))
    assert shapes == [3, 5, 6, 7] * 10


def test_an_error_in_the_body_leaves_nothing_behind():
    @contract
    def broken(x: Float[Tensor, "n"]) -> None:
        assert isinstance(f(4), Float[Tensor, "m"])
        raise KeyError("own")

    with pytest.raises(KeyError):
        broken(f(3))
    assert isinstance(f(9), Float[Tensor, "m"])
    assert isinstance(f(8), Float[Tensor, "m"])


def test_async_functions_see_no_axes():
    @contract
    async def later(x: Float[Tensor, "n"], y: object) -> bool:
        return isinstance(y, Float[Tensor, "n"])

    assert asyncio.run(later(f(3), f(4)))


def test_compiled_programs_never_take_isinstance_for_false():
    torch._dynamo.reset()

    def program(x, y):
        return chosen(x + 1, y) * 2

    assert torch.compile(program, backend="eager")(f(2, 3), f(2, 5)).shape == (5,)
    torch._dynamo.reset()
    with pytest.raises(Exception, match="chosen asks for axes in its body"):
        torch.compile(program, backend="eager", fullgraph=True)(f(2, 3), f(2, 5))
