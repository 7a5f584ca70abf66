"""Generators and coroutines with a contract are still such functions: for who asks, and in what arrives in them."""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Container, Iterable, Iterator, Reversible
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from towers.contracts import ShapeContractError, contract


def f(*shape):
    return torch.zeros(shape)


@contract
def generator(x: Float[Tensor, "n"], /, y: Float[Tensor, "n"] = None, *, more: int = 2) -> Iterator[Any]:
    try:
        for at in range(more):
            try:
                told = yield x, at
            except KeyError as error:
                told = error
            if told is not None:
                yield told
    finally:
        x.add_(1)
    return "returned"


@contract
async def asynchronous(x: Float[Tensor, "n"], more: int = 2) -> AsyncIterator[Any]:
    try:
        for at in range(more):
            try:
                told = yield x, at
            except KeyError as error:
                told = error
            if told is not None:
                yield told
    finally:
        x.add_(1)


@contract
async def coroutine(x: Float[Tensor, "n"], y: "Later" = None) -> Float[Tensor, "n"]:
    return x


@contract
def waiting(x: Float[Tensor, "n"], y: "Later" = None) -> Iterator[Any]:
    yield x


def test_they_are_what_they_were():
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isgeneratorfunction(waiting)
    assert inspect.isasyncgenfunction(asynchronous)
    assert inspect.iscoroutinefunction(coroutine)
    assert not inspect.isgeneratorfunction(contract(f))
    assert str(inspect.signature(generator)).startswith("(x: ")
    assert "yield from" in contract.source(generator)


def test_what_does_not_fit_is_refused_before_the_first_item():
    for call in (generator, waiting):
        with pytest.raises(ShapeContractError, match="x"):
            next(call(f(2, 2)))
    with pytest.raises(ShapeContractError, match="n is"):
        next(generator(f(2), f(3)))
    with pytest.raises(ShapeContractError, match="x"):
        asyncio.run(anext(asynchronous(f(2, 2))))
    with pytest.raises(ShapeContractError, match="x"):
        asyncio.run(coroutine(f(2, 2)))
    with pytest.raises(TypeError, match="generator"):
        generator()
    with pytest.raises(TypeError, match="asynchronous"):
        asynchronous()


def test_what_is_sent_thrown_and_returned_arrives():
    x = f(2)
    running = generator(x, more=3)
    assert next(running) == (x, 0)
    assert running.send("told") == "told"
    assert next(running) == (x, 1)
    assert isinstance(running.throw(KeyError("thrown")), KeyError)
    assert next(running) == (x, 2)
    with pytest.raises(StopIteration) as ended:
        next(running)
    assert ended.value.value == "returned"
    running = generator(x)
    next(running)
    running.close()
    assert x.tolist() == [2, 2]
    with contextlib.contextmanager(generator)(x, more=1) as (same, _):
        assert same is x


def test_what_is_sent_and_thrown_into_an_asynchronous_one_arrives():
    async def run() -> None:
        x = f(2)
        running = asynchronous(x, 3)
        assert await anext(running) == (x, 0)
        assert await running.asend("told") == "told"
        assert await anext(running) == (x, 1)
        assert isinstance(await running.athrow(KeyError("thrown")), KeyError)
        assert await anext(running) == (x, 2)
        with pytest.raises(StopAsyncIteration):
            await anext(running)
        running = asynchronous(x)
        await anext(running)
        await running.aclose()
        assert x.tolist() == [2, 2]
        assert [at async for _, at in asynchronous(x)] == [0, 1]
        running = asynchronous(x)
        await anext(running)
        with pytest.raises(ZeroDivisionError):
            await running.athrow(ZeroDivisionError())
        assert x.tolist() == [4, 4]

    asyncio.run(run())


def test_a_generator_is_compiled():
    def total(x: Tensor) -> Tensor:
        return sum(item * at for item, at in generator(x))

    torch._dynamo.reset()
    assert torch.compile(total, backend="eager")(torch.ones(3)).tolist() == total(torch.ones(3)).tolist()


@pytest.mark.parametrize("kind", [Iterable, Reversible, Container])
@pytest.mark.parametrize("make", [list, tuple, dict.fromkeys], ids=["list", "tuple", "dict"])
def test_the_items_of_an_iterable_are_checked_where_that_does_not_use_them_up(kind: Any, make: Any):
    @contract
    def function(xs: kind[Float[Tensor, "n"]], y: Float[Tensor, "n"]) -> None: ...

    function(make([f(2), f(2)]), f(2))
    with pytest.raises(ShapeContractError, match=r"xs\[2\]: n is 3"):
        function(make([f(2), f(2), f(3)]), f(2))
    with pytest.raises(ShapeContractError, match="xs"):
        function(5, f(2))
    if kind is Iterable:
        once = iter([f(3)])
        function(once, f(2))
        assert len(list(once)) == 1


def test_the_items_of_an_iterable_are_checked_under_compile():
    @contract
    def function(xs: Iterable[Float[Tensor, "n"]]) -> Tensor:
        return sum(xs)

    torch._dynamo.reset()
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    assert compiled([torch.ones(2), torch.ones(2)]).tolist() == [2, 2]
    torch._dynamo.reset()
    with pytest.raises(ShapeContractError, match="xs"):
        torch.compile(function, backend="eager")([torch.ones(2), torch.ones(3)])
