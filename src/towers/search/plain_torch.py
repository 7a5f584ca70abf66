"""Torch without what callers have set for their own computations."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def plain_torch(function: Callable[P, R]) -> Callable[P, R]:
    """The function without torch.autocast, and with new tensors on the CPU; both are as they were afterwards.

    Bounds of rounding hold in the dtype that is asked for, and C code reads memory of the CPU.
    """

    @wraps(function)
    def plainly(*args: P.args, **kwargs: P.kwargs) -> R:
        autocast, elsewhere = torch.is_autocast_enabled("cpu"), torch.get_default_device().type != "cpu"
        if not autocast and not elsewhere:
            return function(*args, **kwargs)
        with ExitStack() as stack:
            if autocast:
                stack.enter_context(torch.autocast("cpu", enabled=False))
            if elsewhere:
                stack.enter_context(torch.device("cpu"))
            return function(*args, **kwargs)

    return plainly
