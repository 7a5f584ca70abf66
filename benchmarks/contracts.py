"""What a contract costs: a call that is accepted, a call that is refused, a compiled call, checks off, and decorating.

The measured functions return their argument, so that the check takes all of the time. `over_plain_us` in the results is
the time of a call minus that of the undecorated function, in microseconds. For compiled functions the suite also counts
the operations that remain in the graph. Public packages with annotations of jaxtyping have rows where installed.
"""

import functools
import unittest.mock
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

import public_code
import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from report import Row
from timing import interleaved
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch.nn import functional as F

from towers.contracts import checks, contract
from towers.contracts.codegen.size_checks import NUMBERS, AxisWriter
from towers.contracts.expressions import Expression
from towers.contracts.specs import Axis

TITLE = "What a contract costs"
LOOP = 200  # calls in one measured call, so that the cost of calling the loop does not matter
WIDTH = 32

Function = Callable[..., Tensor]


def one(x: Float[Tensor, "batch time 32"]) -> Float[Tensor, "batch time 32"]:
    return x


def three(
    x: Float[Tensor, "batch time width"], y: Float[Tensor, "batch source width"], z: Float[Tensor, "batch source"]
) -> Float[Tensor, "batch time width"]:
    return x


def linear(x: Float[Tensor, "batch time 32"], weight: Float[Tensor, "out 32"]) -> Float[Tensor, "batch time out"]:
    return F.linear(x, weight).relu()


# The same checks, as a careful person writes them by hand.


class Layer:
    width, out = WIDTH, WIDTH

    def braces(self, x: Float[Tensor, "batch time {self.width}"]) -> Float[Tensor, "batch time {self.out}"]:
        return x


def offsets(x: Float[Tensor, "batch 32"], ends: Float[Tensor, "rows+1"]) -> Float[Tensor, "batch 32"]:
    return x


def one_by_hand(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[2] != WIDTH or not x.is_floating_point():
        raise TypeError(f"x is {describe(x)}; expected a floating (batch, time, {WIDTH})")
    result = x
    if not isinstance(result, Tensor) or result.shape != x.shape or not result.is_floating_point():
        raise TypeError(f"the result is {describe(result)}; expected a floating {tuple(x.shape)}")
    return result


def three_by_hand(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    for name, value, rank in (("x", x, 3), ("y", y, 3), ("z", z, 2)):
        if not isinstance(value, Tensor) or value.ndim != rank or not value.is_floating_point():
            raise TypeError(f"{name} is {describe(value)}; expected {rank} axes, floating")
    batch, _, width = x.shape
    if y.shape[0] != batch or y.shape[2] != width:
        raise TypeError(f"y is {describe(y)}; expected ({batch}, source, {width})")
    if z.shape[0] != batch or z.shape[1] != y.shape[1]:
        raise TypeError(f"z is {describe(z)}; expected ({batch}, {y.shape[1]})")
    result = x
    if not isinstance(result, Tensor) or result.shape != x.shape or not result.is_floating_point():
        raise TypeError(f"the result is {describe(result)}; expected a floating {tuple(x.shape)}")
    return result


def linear_by_hand(x: Tensor, weight: Tensor) -> Tensor:
    if x.ndim != 3 or weight.ndim != 2 or x.shape[2] != WIDTH or weight.shape[1] != WIDTH:
        raise TypeError(f"x is {describe(x)}; expected (batch, time, {WIDTH})")
    return F.linear(x, weight).relu()


def describe(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


# The suite.


def cases(quick: bool) -> list[str]:
    return [
        "1 tensor + result",
        "3 tensors + result",
        "1 tensor, refused",
        "off",
        "off before decorating",
        "compiled",
        "decorating",
        *(f"quick path: {name}" for name in QUICK_PATHS),
        *public_code.installed(),
    ]


def measure(case: str, device: torch.device, *, quick: bool) -> list[Row]:
    if case in public_code.CASES:
        return public(case, device, quick)
    prepare = {"compiled": compiled, "decorating": decorating}.get(case, off if case.startswith("off") else eager)
    prepare = quick_path if case.startswith("quick path") else prepare
    candidates, loop, operations = prepare(case, device, quick)
    timings = interleaved(candidates, device, seconds=0.4 if quick else 6.0)
    plain = next(iter(timings.values())).milliseconds / loop
    return [
        Row(
            "contracts", case, name, "call", timing.milliseconds / loop, timing.time_ratio,
            details={
                "over_plain_us": 1e3 * (timing.milliseconds / loop - plain),
                "spread": timing.spread,
                "rounds": timing.rounds,
                **({"operations": operations[name]} if name in operations else {}),
            },
        )
        for name, timing in timings.items()
    ]  # fmt: skip


def public(case: str, device: torch.device, quick: bool) -> list[Row]:
    """A forward and backward pass of a public package, each hook in a process of its own."""
    candidates = public_code.processes(case)
    try:
        timings = interleaved(candidates, device, seconds=0.4 if quick else 20.0)
    finally:
        for one in candidates.values():
            one.close()
    return [
        Row(
            "contracts", case, name, "call", timing.milliseconds, timing.time_ratio,
            details={
                "functions": candidates[name].about["functions"], "spread": timing.spread, "rounds": timing.rounds
            },
        )
        for name, timing in timings.items()
    ]  # fmt: skip


Prepared = tuple[Mapping[str, Callable[[], object]], int, Mapping[str, int]]
"""What is timed, the number of calls in each, and the number of operations that each runs, where known."""


def eager(case: str, device: torch.device, quick: bool) -> Prepared:
    """A call with each kind of check, accepted or refused; the plain function refuses nothing."""
    function, by_hand = (three, three_by_hand) if case.startswith("3") else (one, one_by_hand)
    refused = case.endswith("refused")
    paths: dict[str, Function] = {
        "plain": function,
        "towers.contracts": contract(function),
        "hand-written ifs": by_hand,
        "jaxtyping + beartype": jaxtyped(typechecker=beartype)(function),
    }
    fits = [torch.zeros(4, 7, WIDTH, device=device)]
    fits += [torch.zeros(4, 5, WIDTH, device=device), torch.zeros(4, 5, device=device)] if function is three else []
    wrong = [*fits[:-1], fits[-1][..., :-1]]
    check(paths, fits, wrong)
    times = 1 if refused else LOOP
    return {name: looped(path, wrong if refused else fits, times) for name, path in paths.items()}, times, {}


def check(paths: Mapping[str, Function], fits: list[Tensor], wrong: list[Tensor]) -> None:
    """Every path returns the function's result, and all but the plain one refuse the wrong arguments."""
    for name, path in paths.items():
        if path(*fits) is not fits[0]:
            raise AssertionError(f"{name}: not the function's own result")
        try:
            path(*wrong)
        except TypeError:
            continue
        if name != "plain":
            raise AssertionError(f"{name} accepts a tensor of {tuple(wrong[-1].shape)}")


def looped(path: Function, arguments: list[Tensor], times: int) -> Callable[[], None]:
    def call() -> None:
        for _ in repeat(None, times):
            try:  # noqa: SIM105  # a context manager costs more than what is measured
                path(*arguments)
            except TypeError:
                pass

    return call


def off(case: str, device: torch.device, quick: bool) -> Prepared:
    """Checks switched off around the calls, or before the function was decorated."""
    arguments = [torch.zeros(4, 7, WIDTH, device=device)]
    with checks("off" if case == "off before decorating" else "on"):
        paths = {"plain": one, "towers.contracts": contract(one)}

    def switched_off(path: Function) -> Callable[[], None]:
        call = looped(path, arguments, LOOP)

        def without_checks() -> None:
            with checks("off"):
                call()

        return without_checks

    return {name: switched_off(path) for name, path in paths.items()}, LOOP, {}


def compiled(case: str, device: torch.device, quick: bool) -> Prepared:
    """With torch.compile(fullgraph=True), under which jaxtyping + beartype fail; by inductor, unless quick."""
    paths = {"plain": linear, "towers.contracts": contract(linear), "hand-written ifs": linear_by_hand}
    arguments = [torch.randn(4, 7, WIDTH, device=device), torch.randn(16, WIDTH, device=device)]
    operations = {name: operations_of(path, arguments) for name, path in paths.items()}
    if len(set(operations.values())) > 1:
        raise AssertionError(f"the checks left operations in the graph: {operations}")
    calls: dict[str, Callable[[], object]] = {}
    for name, path in paths.items():
        torch._dynamo.reset_code_caches()
        one_compiled = torch.compile(path, fullgraph=True, backend="aot_eager" if quick else "inductor")
        torch.testing.assert_close(one_compiled(*arguments), linear(*arguments))
        calls[name] = looped(one_compiled, arguments, LOOP)
    return calls, LOOP, operations


def operations_of(path: Function, arguments: list[Tensor]) -> int:
    """The number of operations that torch.compile gives a backend to run."""
    counts: list[int] = []

    def keep(graph: torch.fx.GraphModule, inputs: Any) -> torch.fx.GraphModule:
        counts.append(sum(node.op.startswith("call") for node in graph.graph.nodes))
        return graph

    torch._dynamo.reset()
    torch.compile(path, fullgraph=True, backend=aot_autograd(fw_compiler=keep))(*arguments)
    torch._dynamo.reset()
    return sum(counts)


def decorating(case: str, device: torch.device, quick: bool) -> Prepared:
    """The time to decorate a function once; plain: a wrapper that does nothing."""

    def wrapped(function: Function) -> Function:
        return functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs))

    decorators = {"plain": wrapped, "towers.contracts": contract}
    decorators["jaxtyping + beartype"] = jaxtyped(typechecker=beartype)
    return {name: lambda decorate=decorate: decorate(fresh_three()) for name, decorate in decorators.items()}, 1, {}


def fresh_three() -> Function:
    """A new function of three tensors for each call, because beartype caches by function."""

    def function(
        x: Float[Tensor, "batch time width"], y: Float[Tensor, "batch source width"], z: Float[Tensor, "batch source"]
    ) -> Float[Tensor, "batch time width"]:
        return x

    return function


# What the generated source does only to be quick, each beside the source without it.


def each_axis(axes: AxisWriter, shape: str, of: Sequence[Axis]) -> None:
    axes.each(shape, of)


def every_test(axes: AxisWriter, expression: Expression) -> list[str]:
    is_number, numbers = axes.writer.given("isinstance", isinstance), axes.writer.given("_numbers", NUMBERS)
    return [f"not {is_number}({axes.path(path)}, {numbers})" for path in expression.braces]


QUICK_PATHS = {
    "whole shapes": (one, lambda x: (x,), "fixed_rank", each_axis),
    "a path alone in braces": (Layer.braces, lambda x: (Layer(), x), "impossible", every_test),
    "a linear expression": (offsets, lambda x: (x[0], x[0, 0]), "constants", lambda *_: None),
}


def quick_path(case: str, device: torch.device, quick: bool) -> Prepared:
    """A call whose check has a quick path, and the same call without that path."""
    function, arguments_of, method, instead = QUICK_PATHS[case.removeprefix("quick path: ")]
    arguments = list(arguments_of(torch.zeros(4, 7, WIDTH, device=device)))
    paths = {"plain": function, "towers.contracts": contract(function)}
    with unittest.mock.patch.object(AxisWriter, method, instead):
        paths["without the quick path"] = contract(function)
    if contract.source(paths["towers.contracts"]) == contract.source(paths["without the quick path"]):
        raise AssertionError(f"{case}: the source is the same with and without it")
    return {name: looped(path, arguments, LOOP) for name, path in paths.items()}, LOOP, {}
