"""The code of a module as a proof runs it: where Python makes a number of a size, its functions keep the symbol.

`len(x)`, `math.sqrt(x.size(1))` and a cache with a size as its key ask for a Python int. The copy of a module gets
functions of the same code that find others under these names; the functions themselves are left alone.
"""

import dis
import functools
import inspect
import math
import random
from collections.abc import Callable
from itertools import pairwise
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any, cast

import torch
from torch import SymFloat, SymInt, Tensor, nn

from towers.contracts.proofs.reached import foreign
from towers.contracts.proofs.split_parts import Parts

_CACHE = type(functools.lru_cache(len))


class SeenNames(dict[str, Any]):
    """The global names of functions; a function of the same package behind a name is one that is seen too."""

    def __init__(self, names: dict[str, Any], made: "Seen", package: str) -> None:
        super().__init__()
        self.names, self.made, self.package = names, made, package
        self.checked: dict[str, Any] = {}
        """Of the check of a contract, the function that it checks: the check hands it on."""
        self.forget()

    def forget(self) -> None:
        """What a run has stored is gone for the next."""
        self.clear()
        self.update({name: value for name, value in self.names.items() if name[:2] == name[-2:] == "__"})
        self.update(self.checked)

    def __missing__(self, name: str) -> Any:
        value: Any
        called, name = name.endswith(CALLED), name.removesuffix(CALLED)
        if name in self.names:
            value = self.names[name]
        else:
            space: Any = self.names["__builtins__"]
            value = cast(Any, space if isinstance(space, dict) else vars(space))[name]
        found = self.made.of(value, self.package) if called else _MODULES.get(id(value), value)
        if called:  # a function stays what it is
            self[name + CALLED] = found
        return found


class Seen:
    """The functions that a proof has made of others."""

    def __init__(self) -> None:
        self.functions: dict[Any, FunctionType] = {}
        self.names: dict[int, SeenNames] = {}

    def of(self, value: Any, package: str) -> Any:
        """What is called in place of a value under a global name of a package."""
        inner: Any = getattr(value, "__wrapped__", None) if type(value) is _CACHE else None
        if inner is not None and _package(inner) == package:
            value = inner  # what a cache keeps would be a size of the proof's
        if isinstance(value, FunctionType):
            return self.function(value) if _package(value) == package and _may_be_seen(value) else value
        known = isinstance(value, (BuiltinFunctionType, MethodType)) or value is int or value is float
        return _KEPT.get(value, value) if known else value

    def function(self, function: FunctionType) -> FunctionType:
        """A function of the same code."""
        if function not in self.functions:
            names = self.names.get(id(function.__globals__))
            if names is None:
                names = SeenNames(function.__globals__, self, _package(function))
                self.names[id(function.__globals__)] = names
            code = _seen_code(function.__code__)
            made = FunctionType(code, names, function.__name__, function.__defaults__, function.__closure__)
            made.__kwdefaults__ = function.__kwdefaults__
            made.__dict__.update(function.__dict__)
            made.__module__, made.__qualname__ = function.__module__, function.__qualname__
            self.functions[function] = made
            if "__contract__" in vars(function) and isinstance(
                inner := vars(function).get("__wrapped__"), FunctionType
            ):
                places = [name for name, value in function.__globals__.items() if value is inner]
                names.checked |= dict.fromkeys(places, self.of(inner, _package(inner)))
                names.forget()
        return self.functions[function]

    def see(self, module: nn.Module) -> None:
        """Give each part of a copy the methods of its class as they are run in a proof."""
        for names in self.names.values():
            names.forget()
        for part in cast(Any, module).modules():
            for name, value in _methods(part.__class__).items():
                own: Any = part.__dict__.get(name, value)
                if own is not value and not isinstance(own, MethodType):
                    continue  # what an object keeps under the name of a method is not bound to it
                inner: Any = getattr(own, "__func__", own)
                function = self.of(inner, _package(inner))
                if isinstance(function, FunctionType) and function is not inner:
                    part.__dict__[name] = function if isinstance(own, staticmethod) else MethodType(function, part)


def _package(value: Any) -> str:
    function = getattr(value, "__wrapped__", value) if type(value) is _CACHE else value
    home = getattr(function, "__globals__", {}).get("__name__") or getattr(function, "__module__", None) or ""
    return home.partition(".")[0]


def _may_be_seen(function: FunctionType) -> bool:
    """Whether it is not torch's, Python's or of those that know symbols; and makes no class."""
    code = function.__code__.co_code[::2]
    package = _package(function)
    return foreign(package) and package not in _KNOW_SYMBOLS and _CLASS not in code


_KNOW_SYMBOLS = ("einops", "towers")

_CLASS = dis.opmap["LOAD_BUILD_CLASS"]
"""The body of a class finds global names in another way."""


CALLED = "()"
"""Ends a global name that a piece of code only calls. A function that is compared or handed on is the program's own."""


def _seen_code(code: CodeType) -> CodeType:
    """Code in which `size in {37, 50}` compares the size with each, and that asks for others to call."""
    constants: list[Any] = []
    for each in code.co_consts:
        seen = _seen_code(each) if isinstance(each, CodeType) else each
        constants.append(tuple(cast(Any, seen)) if isinstance(seen, frozenset) else seen)
    called, other = dict[str, list[dis.Instruction]](), set[str]()
    for step, after in pairwise([*dis.get_instructions(code), None]):
        if step is not None and step.opcode in dis.hasname:
            pushed = step.opname == "LOAD_GLOBAL" and (step.arg or 0) & 1  # it, or its attribute, is to be called
            if pushed and (after is None or after.opname not in ("LOAD_ATTR", "LOAD_METHOD")):
                called.setdefault(step.argval, []).append(step)
            else:
                other.add(step.argval)
    names = [name + CALLED if name in called and name not in other else name for name in code.co_names]
    steps = bytearray(code.co_code)
    for name in called.keys() & other:  # max(1, lengths.max()): the one that is called gets a name of its own
        if (place := 2 * len(names) + 1) < 256 and all((step.arg or 0) < 256 for step in called[name]):
            names.append(name + CALLED)
            for step in called[name]:
                steps[step.offset + 1] = place
    return code.replace(co_code=bytes(steps), co_consts=tuple(constants), co_names=tuple(names))


@functools.cache
def _methods(kind: type) -> dict[str, Any]:
    """The methods that `forward` uses, as far as names tell: of a class and of those it comes from, not torch's."""
    known: dict[str, Any] = {
        name: value
        for base in reversed(kind.__mro__)
        if foreign(base.__module__)
        for name, value in vars(base).items()
        if not name.startswith("__") and isinstance(value, (FunctionType, staticmethod, _CACHE))
    }
    found: dict[str, Any] = {}
    waiting = ["forward"]
    while waiting:
        name = waiting.pop()
        if name in known and name not in found:
            found[name] = known[name]
            function: Any = inspect.unwrap(getattr(known[name], "__func__", known[name]))
            waiting += _names_in(function.__code__)
    return found


def _names_in(code: CodeType) -> list[str]:
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return [*code.co_names, *(name for each in inner for name in _names_in(each))]


# What stands for the functions that take a size for a number.


def _len(value: Any, /) -> Any:
    if isinstance(value, Tensor) and not value.is_nested and value.dim():
        return value.shape[0]
    return value.count_all() if isinstance(value, Parts) else len(value)


_NUMBERS = (int, float, SymInt, SymFloat)


def _number(value: Any) -> Any:
    """What `int` and `float` take for a value: of a tensor its number, which only real values tell."""
    if isinstance(value, Tensor) and value.dim() == 0 and value.dtype != torch.bool and not value.is_complex():
        return value.item()
    return value


def _int(*args: Any, **options: Any) -> Any:
    value = _number(args[0]) if len(args) == 1 and not options else None
    return torch.sym_int(value) if isinstance(value, (SymInt, SymFloat)) else int(*args, **options)


def _float(*args: Any) -> Any:
    value = _number(args[0]) if len(args) == 1 else None
    return torch.sym_float(value) if isinstance(value, (SymInt, SymFloat)) else float(*args)


def _of_values(function: Callable[..., Any], symbolic: Callable[..., Any]) -> Callable[..., Any]:
    """max and min: of a number that only values tell no comparison can be decided, and the result is a symbol."""

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        told = any(isinstance(each, (SymInt, SymFloat)) and not cast(Any, each).node.has_hint() for each in args)
        return (
            functools.reduce(symbolic, args) if told and len(args) > 1 and not options else function(*args, **options)
        )

    return called


def _of_sizes(function: Any, symbolic: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def called(*args: Any) -> Any:
        return (symbolic if any(isinstance(each, (SymInt, SymFloat)) for each in args) else function)(*args)

    return called


_torch: Any = torch


def _sqrt(value: Any) -> Any:
    return _torch._sym_sqrt(torch.sym_float(value))


def _log2(value: Any) -> Any:
    symbolic = isinstance(value, (SymInt, SymFloat))
    return _torch._sym_log2(torch.sym_float(value)) if symbolic else math.log2(value)


def _log(value: Any, base: Any = math.e) -> Any:
    return _log2(value) / _log2(base)


def _log10(value: Any) -> Any:
    return _log(value, 10)


def _log1p(value: Any) -> Any:
    return _log(1 + value)


_SYMBOLIC = {"sqrt": _sqrt, "log": _log, "log2": _log2, "log10": _log10, "log1p": _log1p}

_KEPT: dict[Any, Any] = {
    len: _len,
    int: _int,
    float: _float,
    max: _of_values(max, torch.sym_max),
    min: _of_values(min, torch.sym_min),
    **{getattr(math, name): _of_sizes(getattr(math, name), symbolic) for name, symbolic in _SYMBOLIC.items()},
}


class _Module:
    """A module of Python some functions of which keep symbols."""

    def __init__(self, module: Any, kept: dict[Any, Any]) -> None:
        self._module, self._kept = module, kept

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        return self._kept.get(name, value)


def _drawn(low: Any, high: Any) -> Any:
    """random.randint of numbers one of which is a size: any number of its range."""
    size = next((each for each in (low, high) if isinstance(each, SymInt)), None)
    if size is None:
        return random.randint(low, high)
    if high < low:
        raise ValueError(f"empty range in randrange({low}, {high + 1})")
    return size.node.shape_env.fresh("a random number", low, high)


def _drawn_below(start: Any, stop: Any = None, step: int = 1) -> Any:
    if step == 1 and any(isinstance(each, SymInt) for each in (start, stop)):
        return _drawn(0 if stop is None else start, (start if stop is None else stop) - 1)
    return random.randrange(start, stop, step)


_KEPT.update({random.randint: _drawn, random.randrange: _drawn_below})

_MODULES = {
    id(math): _Module(math, {value.__name__: kept for value, kept in _KEPT.items()}),
    id(random): _Module(random, {"randint": _drawn, "randrange": _drawn_below}),
}
"""By the id of a module, for a global name may be anything."""
