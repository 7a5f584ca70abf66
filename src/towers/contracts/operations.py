"""Operations that `verify` takes as one: a loop, a kernel, anything that cannot be run on symbolic sizes."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from towers.contracts import modes

P = ParamSpec("P")
R = TypeVar("R")


def operation(rule: Callable[..., Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let `verify` see a function as one operation whose result `rule` makes, of the right shape and with no data.

    The rule gets the function's own arguments. It must raise what the function raises for sizes that do not fit; a
    rule that is wrong about a shape lets `verify` prove what is not so.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            return (rule if modes.proving() else function)(*args, **kwargs)

        return run

    return decorate


def unknown_size(values: Tensor) -> int:
    """For a rule: a size from 0 on that only the values of a tensor tell, such as how many words are real."""
    size: Any = values.new_empty(()).item()
    torch._check(size >= 0)  # pyright: ignore[reportPrivateUsage]
    return size
