"""Sets how much is checked: `checks("off" | "on" | "strict")`, or the environment variable TOWERS_CONTRACTS."""

import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import ModuleType, TracebackType
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

Mode = Literal["off", "on", "strict"]
Interceptor = Callable[[Any, dict[str, Any], Callable[[], Any]], Any]
"""Takes the place of every check: `interceptor(signature, arguments, call)` returns the result of the call."""

_OWN = "_towers_checks"
"""The attribute that keeps the mode of a module."""


class _Local(threading.local):
    """The state of a thread: a proof in one thread does not affect calls in another."""

    interceptor: Interceptor | None = None


_local = _Local()
_lock = threading.Lock()


class Switch:
    """The state of the modes. A generated check reads `unusual` first, and nothing else while it is False."""

    def __init__(self, mode: Mode) -> None:
        self.mode: Mode = mode
        self.packages: dict[str, Mode] = {}
        self.modules = 0
        """The number of active settings that are for modules."""
        self.proofs = 0
        """The number of threads that run a module on symbolic sizes."""
        self.update()

    @property
    def interceptor(self) -> Interceptor | None:
        """The interceptor of this thread; None outside of a symbolic run."""
        return _local.interceptor

    def update(self) -> None:
        """Set the two flags after a change."""
        own = bool(self.packages or self.modules or self.proofs)
        self.off = self.mode == "off" and not own
        self.unusual = self.mode == "off" or own

    def of(self, package: str, owner: object = None) -> Mode:
        """The mode of a function: of its nn.Module, else of the nearest package around it, else the general one."""
        if self.modules and isinstance(owner, nn.Module):
            own = getattr(owner, _OWN, None)
            if own is not None:
                return own
        while self.packages and package:
            if package in self.packages:
                return self.packages[package]
            package = package.rpartition(".")[0]
        return self.mode


def _valid(mode: str, source: str) -> Mode:
    if mode not in get_args(Mode):
        raise ValueError(f'{source} is {mode!r}; it must be one of "off", "on", "strict"')
    return cast(Mode, mode)


switch = Switch(_valid(os.environ.get("TOWERS_CONTRACTS", "on"), "the environment variable TOWERS_CONTRACTS"))


class checks:
    """Set how much contracts check, from now on or, in `with checks(…):`, until its end.

    "off" checks nothing. "on", the default, checks shapes and dtypes, and also values (such as lengths) if they are on
    the CPU and the code runs eagerly. "strict" reads values on other devices too, and has to wait for the device. In a
    compiled or exported program, conditions on values become assertions of torch; under vmap they are skipped.

    A mode holds for the whole process with all its threads. If it is "off" when a function is decorated, the decorator
    returns the function itself, and later settings have no effect on it.

    Args:
        mode: "off", "on" or "strict".
        target: an nn.Module with all its submodules, or a package or Python module (the object or its name) with
            everything below it. None: everything that has no setting of its own.

    Raises:
        ValueError: the mode is none of the three.
        TypeError: the target is neither of these.

    >>> import torch
    >>> from jaxtyping import Float
    >>> from towers.contracts import checks, contract
    >>> @contract
    ... def last(states: Float[torch.Tensor, "steps 6"]) -> Float[torch.Tensor, "6"]:
    ...     return states[-1]
    >>> with checks("off"):
    ...     last(torch.zeros(2, 5)).shape
    torch.Size([5])
    """

    def __init__(self, mode: Mode, target: nn.Module | ModuleType | str | None = None) -> None:
        mode = _valid(mode, "mode")
        if isinstance(target, nn.Module):
            self._undo = _set_module(mode, target)
        elif isinstance(target, (ModuleType, str)):
            self._undo = _set_package(mode, target if isinstance(target, str) else target.__name__)
        elif target is None:
            self._undo = _set_all(mode)
        else:
            raise TypeError(f"target is a {type(target).__name__}; it must be an nn.Module, a package or its name")
        switch.update()

    def __enter__(self) -> None:
        """Do nothing: the constructor has set the mode."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._undo()
        switch.update()


def _set_all(mode: Mode) -> Callable[[], None]:
    before, switch.mode = switch.mode, mode
    return lambda: setattr(switch, "mode", before)


def _set_package(mode: Mode, name: str) -> Callable[[], None]:
    before = switch.packages.get(name)
    switch.packages[name] = mode

    def undo() -> None:
        switch.packages.pop(name, None)
        if before is not None:
            switch.packages[name] = before

    return undo


def _set_module(mode: Mode, module: nn.Module) -> Callable[[], None]:
    before = {inner: inner.__dict__.get(_OWN) for inner in module.modules()}
    for inner in before:
        inner.__dict__[_OWN] = mode
    switch.modules += 1

    def undo() -> None:
        for inner, own in before.items():
            inner.__dict__.pop(_OWN, None)
            if own is not None:
                inner.__dict__[_OWN] = own
        switch.modules -= 1

    return undo


class Proxied(Exception):
    """A call that torch.fx.symbolic_trace records: its proxies have no sizes, and pass unchecked."""


def holds_proxy(value: object) -> bool:
    """Whether a value, or an item of a list or a dict, is a proxy of torch.fx."""
    if isinstance(value, (tuple, list)):
        return any(map(holds_proxy, cast(tuple[object, ...], value)))
    if isinstance(value, dict):
        return any(map(holds_proxy, cast(dict[object, object], value).values()))
    return isinstance(value, torch.fx.Proxy)


def enabled() -> bool:
    """Whether the general mode checks anything."""
    return switch.mode != "off"


def proving() -> bool:
    """Whether `verify` runs a module on symbolic sizes in this thread."""
    return switch.proofs > 0 and _local.interceptor is not None


@contextmanager
def watched(interceptor: Interceptor) -> Generator[None]:
    """While it is entered, an interceptor gets every contracted call of this thread, in every mode."""
    before, _local.interceptor = _local.interceptor, interceptor
    _count_proof(1)
    try:
        yield
    finally:
        _local.interceptor = before
        _count_proof(-1)


def _count_proof(change: int) -> None:
    with _lock:
        switch.proofs += change
        switch.update()


def has_values(tensor: Tensor) -> bool:
    """Whether Python can read the values of a tensor: not under vmap, on meta, or of a fake tensor."""
    return not (is_functorch_wrapped_tensor(tensor) or tensor.device.type == "meta" or type(tensor) is _fake())


def _fake() -> type | None:
    """The class FakeTensor, if it is imported already."""
    module = sys.modules.get("torch._subclasses.fake_tensor")
    return getattr(module, "FakeTensor", None)


def may_read(values: Tensor, mode: Mode | None = None) -> bool:
    """Whether a check may read the values of a tensor in a mode: only "strict" may wait for a device."""
    mode = mode or switch.mode
    if mode == "off" or torch.compiler.is_compiling() or type(values) is not Tensor or values.is_meta:
        return False
    if is_functorch_wrapped_tensor(values):
        return False
    return mode == "strict" or values.is_cpu


def autocast(device: torch.device) -> bool:
    """Whether autocast is on for a device; False for a device without autocast, such as meta."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def autocast_for(value: Any) -> bool:
    """Whether autocast is on for the device of a value."""
    return autocast(value.device if isinstance(value, Tensor) else getattr(value, "values", value).device)
