"""`operation`: functions that `verify` does not run, such as loops and kernels, because sizes are symbols."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from towers.contracts import modes

P = ParamSpec("P")
R = TypeVar("R")


def operation(rule: Callable[..., Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let `verify` call `rule` in place of a function. The rule returns a result of the right shape, without data.

    The rule gets the arguments of the function. It must raise the errors that the function raises for wrong sizes. If
    a rule returns a wrong shape, `verify` proves something false.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            return (rule if modes.proving() else function)(*args, **kwargs)

        return run

    return decorate


def unknown_size(values: Tensor) -> int:
    """For a rule: a size of at least 0 that depends on the values of a tensor, such as the number of real words."""
    size: Any = values.new_empty(()).item()
    torch._check(size >= 0)  # pyright: ignore[reportPrivateUsage]
    return size
