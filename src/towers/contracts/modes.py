"""How much is checked: `checks("off" | "on" | "strict")`, or the environment variable TOWERS_CONTRACTS."""

import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import ModuleType, TracebackType
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore

Mode = Literal["off", "on", "strict"]
Interceptor = Callable[[Any, dict[str, Any], Callable[[], Any]], Any]
"""What sees every contracted call in place of the check: `interceptor(signature, arguments, call)` gives its result."""

_OWN = "_towers_checks"
"""The attribute of a module that has a mode of its own."""


class _Local(threading.local):
    """What each thread has of its own: a proof in one never touches calls in another."""

    interceptor: Interceptor | None = None


_local = _Local()
_lock = threading.Lock()


class Switch:
    """What the generated checks look at first, and all that they look at while nothing is set."""

    def __init__(self, mode: Mode) -> None:
        self.mode: Mode = mode
        self.packages: dict[str, Mode] = {}
        self.modules = 0
        """How many of the settings in force are for modules."""
        self.proofs = 0
        """How many threads run a module on symbolic sizes."""
        self.update()

    @property
    def interceptor(self) -> Interceptor | None:
        """What sees every contracted call of this thread in place of the check; None but in a symbolic run."""
        return _local.interceptor

    def update(self) -> None:
        """Set the two flags after a change."""
        own = bool(self.packages or self.modules or self.proofs)
        self.off = self.mode == "off" and not own
        self.unusual = self.mode == "off" or own

    def of(self, package: str, owner: object = None) -> Mode:
        """The mode of a function: its module's, else that of the nearest package around it, else everyone's."""
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
    """Set how much contracts check; as a context, until its end.

    "off" checks nothing. "on", the default, checks shapes and dtypes always, and values (of lengths) where they lie
    on the CPU in plain eager code. "strict" also reads values that lie on a device, which waits for it. In a compiled
    or exported program rules on values are asserts of torch's own; under vmap they are left out.

    The mode is one for the whole process, all its threads included; an object that no `with` ends stays in force.
    Where it is "off" while a function is decorated, the decorator gives back the function itself, which no later
    setting reaches.

    Args:
        mode: "off", "on" or "strict".
        target: what it is for: an nn.Module with all that is in it, or a package or Python module (itself or its
            name) with all that is in it; None: everything that has no setting of its own.

    Raises:
        ValueError: the mode is none of the three.
        TypeError: the target is nothing that can have a mode.
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
        """Nothing more to do: the mode is set when the object is made."""

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
    """Whether anything is checked where nothing has a setting of its own."""
    return switch.mode != "off"


def proving() -> bool:
    """Whether a symbolic run of `verify` is under way in this thread."""
    return switch.proofs > 0 and _local.interceptor is not None


@contextmanager
def watched(interceptor: Interceptor) -> Generator[None]:
    """Give every contracted call of this thread to an interceptor, whatever the mode is."""
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
    """Whether a tensor has values that Python may look at: not under vmap, on meta, or fake."""
    return not (is_functorch_wrapped_tensor(tensor) or tensor.device.type == "meta" or type(tensor) is _fake())


def _fake() -> type | None:
    """FakeTensor, if anything has imported it."""
    module = sys.modules.get("torch._subclasses.fake_tensor")
    return getattr(module, "FakeTensor", None)


def may_read(values: Tensor, mode: Mode | None = None) -> bool:
    """Whether a check may look at the numbers in a tensor: real ones, and without making a device wait."""
    mode = mode or switch.mode
    if mode == "off" or torch.compiler.is_compiling() or type(values) is not Tensor or values.device.type == "meta":
        return False
    if is_functorch_wrapped_tensor(values):
        return False
    return mode == "strict" or values.device.type == "cpu"


def autocast(device: torch.device) -> bool:
    """Whether autocast is on for a device; never where it has none (meta)."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def autocast_for(value: Any) -> bool:
    """Whether autocast is on where a value lies."""
    return autocast(value.device if isinstance(value, Tensor) else getattr(value, "values", value).device)
