"""Torch without what callers have set for their own computations."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def plain_torch() -> Generator[None]:
    """Without torch.autocast, and with new tensors on the CPU; both are as they were afterwards.

    Bounds of rounding hold in the dtype that is asked for, and C code reads memory of the CPU.
    """
    with ExitStack() as stack:
        if torch.is_autocast_enabled("cpu"):
            stack.enter_context(torch.autocast("cpu", enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield
