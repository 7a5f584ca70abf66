"""What the code of a module reads beside its arguments, such as the time or a global counter: a proof takes it so."""

import dis
import inspect
import os
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast

from torch import nn

from towers.contracts.proofs.reached import codes, content, followed, foreign

_OF_TENSORS = {"requires_grad", "is_leaf", "grad_fn", "__class__", "is_autocast_enabled", "get_default_dtype"}
_BUILTINS = {"type", "hash", "id", "str", "repr", "open", "input"}
_MODULES = {"time", "datetime", "random", "secrets", "uuid"}
_OF_OS = {"environ", "getenv", "listdir", "getcwd", "getpid", "urandom"}
_CHANGES = {"append", "add", "update", "pop", "setdefault", "insert", "extend", "clear", "remove", "__setitem__"}


def read_beside(module: nn.Module) -> tuple[str, ...]:
    """What `forward` of each part reads, and the functions of the same package that it uses; nothing of torch's code.

    One text, such as "Gate reads CALLS, and the verdict is for what it was in these runs"; none if there is nothing.
    Device and memory layout of the inputs, which every proof names, and modes that are run both ways are left out.
    """
    reads = {kind: _read_by(kind) for kind in dict.fromkeys(map(type, module.modules())) if foreign(kind.__module__)}
    names = list(dict.fromkeys(name for found in reads.values() for name in found))
    if not names:
        return ()
    readers = [kind.__name__ for kind, found in reads.items() if found]
    verb, were = "reads" if len(readers) == 1 else "read", "it was" if len(names) == 1 else "they were"
    return (f"{_listed(readers)} {verb} {_listed(names)}, and the verdict is for what {were} in these runs",)


@cache
def _read_by(kind: type[nn.Module]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    waiting: list[Any] = [inspect.unwrap(cast(Any, kind.forward))]
    seen: set[CodeType] = set()
    while waiting:
        function = waiting.pop(0)
        if not isinstance(function, FunctionType) or function.__code__ in seen:
            continue
        if not foreign(function.__module__) or not (_package(function) == _package(kind) or _own(function)):
            continue
        seen.add(function.__code__)
        for code in codes(function.__code__):
            names, used = _names(code, function.__globals__, _bound(function), kind)
            found |= dict.fromkeys(names)
            waiting += map(inspect.unwrap, used)
    return tuple(found)


def _names(code: CodeType, space: dict[str, Any], bound: dict[str, Any], kind: type) -> tuple[list[str], list[Any]]:
    """What a piece of code reads that is no argument, and the functions that it uses."""
    steps = [(step.opname, step.argval) for step in dis.get_instructions(code)]
    changes = any(name == "STORE_SUBSCR" or (name in _ATTRIBUTE and text in _CHANGES) for name, text in steps)
    stored = {text for name, text in steps if name in ("STORE_GLOBAL", "STORE_DEREF")}
    written = {text for name, text in steps if name == "STORE_ATTR"}
    methods = _methods(kind)
    found: list[str] = []
    used: list[Any] = []
    for at, (name, text) in enumerate(steps):
        after = [each for each in steps[at + 1 : at + 3] if each[0] != "COPY"][:1]  # which `+=` has between
        follows = after[0][1] if after and after[0][0] in (*_ATTRIBUTE, "STORE_ATTR") else ""
        if name in _ATTRIBUTE and text in _OF_TENSORS:
            found.append(text)
        elif name in _ATTRIBUTE:
            used.append(methods.get(text))
        elif name == "IMPORT_NAME" and text in _MODULES:
            found.append(text)
        elif name in _GLOBAL or (name in _LOCAL and text in bound):
            value = (space if name in _GLOBAL else bound).get(text)
            used.append(value)
            if text in _BUILTINS and text not in space:
                found.append(text)
            elif isinstance(value, ModuleType):
                found += _of_module(value.__name__, text, follows)
            elif text in stored or _kept(value, changes):
                found.append(text)
            elif follows in written and isinstance(value, (type, FunctionType)):
                found.append(f"{text}.{follows}")
    return found, used


def _own(function: FunctionType) -> bool:
    """Whether a function is of no installed package: a program may be several files beside each other."""
    return followed(function.__module__) and not {"site-packages", "dist-packages"} & {
        *Path(function.__code__.co_filename).parts
    }


def _bound(function: FunctionType) -> dict[str, Any]:
    """What a function closes over, and its defaults."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    given: dict[str, Any] = {name: one.default for name, one in inspect.signature(function).parameters.items()}
    changing: dict[str, Any] = {name: value for name, value in given.items() if type(value) in (dict, list, set)}
    return {name: content(cell) for name, cell in cells} | changing


def _kept(value: Any, changes: bool) -> bool:
    """Whether a global is more than a constant: a clock, a counter, or a record that this code may change."""
    clock = callable(value) and (getattr(value, "__module__", None) in _MODULES or value is os.getenv)
    drawn = isinstance(getattr(value, "__self__", None), random.Random) or value is os.environ
    return clock or drawn or hasattr(value, "__next__") or (changes and isinstance(value, (dict, list, set)))


_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
_LOCAL = ("LOAD_DEREF", "LOAD_FAST")


def _of_module(name: str, text: str, follows: str) -> list[str]:
    if name in _MODULES or (name == "os" and follows in _OF_OS) or (name == "numpy" and follows == "random"):
        return [f"{text}.{follows}"]
    return []


def _methods(kind: type) -> dict[str, Any]:
    """The methods of a class and of those that it comes from, without torch's."""
    return {
        name: value for base in reversed(kind.__mro__) if foreign(base.__module__) for name, value in vars(base).items()
    }


def _package(value: Any) -> str:
    return value.__module__.partition(".")[0]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
