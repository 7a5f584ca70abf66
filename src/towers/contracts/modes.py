# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""How much is checked: `checks("off" | "on" | "strict")`, or the environment variable TOWERS_CONTRACTS."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore

Mode = Literal["off", "on", "strict"]


def _valid(mode: str, source: str) -> Mode:
    if mode not in get_args(Mode):
        raise ValueError(f'{source} is {mode!r}; it must be one of "off", "on", "strict"')
    return cast(Mode, mode)


Witness = Callable[[Any, dict[str, Any], Callable[[], Any]], Any]
"""What sees every contracted call in place of the check: `witness(signature, arguments, call)` gives its result."""

_witness: Witness | None = None
_mode = _valid(os.environ.get("TOWERS_CONTRACTS") or "on", "the environment variable TOWERS_CONTRACTS")


class checks:
    """Set how much every contract checks; as a context, until its end.

    "off" checks nothing. "on", the default, checks shapes and dtypes always, and values (of lengths) where they lie
    on the CPU in plain eager code. "strict" also reads values that lie on a device, which waits for it. The mode is
    one for the whole process, all its threads included; an object that no `with` ends stays in force.

    Raises:
        ValueError: the mode is none of the three.
    """

    def __init__(self, mode: Mode) -> None:
        global _mode
        self._previous = _mode
        _mode = _valid(mode, "mode")

    def __enter__(self) -> None:
        """Nothing more to do: the mode is set when the object is made."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        global _mode
        _mode = self._previous


def enabled() -> bool | Witness:
    """Whether anything is checked at all; or who looks at the calls instead (`verify`, while it runs)."""
    return _mode != "off" if _witness is None else _witness


def proving() -> bool:
    """Whether a symbolic run of `verify` is under way."""
    return _witness is not None


@contextmanager
def watched(witness: Witness) -> Generator[None]:
    """Give every contracted call to a witness, whatever the mode is."""
    global _witness
    before, _witness = _witness, witness
    try:
        yield
    finally:
        _witness = before


def may_read(values: Tensor) -> bool:
    """Whether a check may look at the numbers in a tensor: real ones, and without making a device wait."""
    if _mode == "off" or torch.compiler.is_compiling() or type(values) is not Tensor or values.device.type == "meta":
        return False
    if is_functorch_wrapped_tensor(values):
        return False
    return _mode == "strict" or values.device.type == "cpu"


def autocast(device: torch.device) -> bool:
    """Whether autocast is on for a device; never where it has none (meta)."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
