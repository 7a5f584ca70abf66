"""What a module's code can write to beside the module: whatever its functions name, close over or have as defaults.

The walk starts at a copy of the module. It follows attributes and containers, and from each function of the user's
the names in its code: globals, attributes of Python modules, closures, defaults. Of a class it follows the methods
whose names some code has, those that override torch's, and special ones; a constructor only where code names the class.
Code of torch, of Python's own library and of towers is not followed. The walk ends after MOST values.
"""

import dis
import functools
import gc
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import pairwise
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

MOST = 40_000
"""The largest number of values that are looked at."""

CACHED = type(functools.lru_cache(len))
"""What lru_cache and cache make of a function."""

PLAIN = {
    *(type(None), bool, int, float, complex, str, bytes, range, slice, type(...), type(NotImplemented)),
    *(torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format, torch.SymInt, CodeType),
    *(types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType),
}
"""Types of values that hold nothing that could change."""

_UNFOLLOWED = {
    *("torch", "numpy", "sympy", "jaxtyping", "beartype", "typing_extensions", "towers"),
    *sys.stdlib_module_names,
}
"""Packages whose code is not followed: what their caches hold (C code and its structs, here) stays theirs."""

_HOLDERS = ("collections", "weakref", "queue", "types", "argparse", "torch.optim")
"""Modules of Python and torch whose objects keep what a user puts into them."""

_METHODS: Any = (
    FunctionType,
    classmethod,
    staticmethod,
    property,
    cached_property,
    functools.partialmethod,
    CACHED,
    type,
)
_MAKING = ("__init__", "__new__", "__post_init__")


@cache
def foreign(file: str) -> bool:
    """Whether code is neither torch's nor Python's own nor the prover's."""
    package = file.partition(".")[0]
    return package != "torch" and package not in sys.stdlib_module_names and not file.startswith("towers.contracts")


@cache
def followed(file: str) -> bool:
    """Whether the names in some code are followed."""
    return foreign(file) and file.partition(".")[0] not in _UNFOLLOWED


def codes(code: CodeType) -> Iterator[CodeType]:
    """The code of a function and of those that are defined in it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from codes(inner)


@dataclass(frozen=True)
class Names:
    """Some names in a dict of globals or attributes of a Python module, which code may bind anew."""

    space: dict[str, Any]
    names: tuple[str, ...]

    def bound(self) -> dict[str, Any]:
        """Their values."""
        return {name: self.space[name] for name in self.names if name in self.space}

    def bind(self, before: dict[str, Any]) -> None:
        """Give them the values that they had."""
        for name in self.names:
            if name in before:
                self.space[name] = before[name]
            else:
                self.space.pop(name, None)


ABSENT: Any = object()
"""The value of what has none."""


def content(cell: types.CellType) -> Any:
    """The value of a variable that functions close over."""
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return ABSENT


def results(function: Any) -> dict[Any, Any] | None:
    """The dict in which CPython keeps the results of a function under lru_cache or cache; None if it is not found.

    Only if their number is not limited it has them as they are, and is as good as one of the user's; else each is in
    an object that is a link in a chain.
    """
    held = gc.get_referents(function)
    before = [one for one, next_one in pairwise(held) if next_one is getattr(function, "__wrapped__", None)]
    found = before[:1] if before and type(before[0]) is dict else []
    return found[0] if found and len(found[0]) == function.cache_info().currsize else None


@dataclass
class _Reached:
    """A walk; `found` has everything that can change, each with the name by which the user knows it."""

    found: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    cut: bool = False
    """Whether there was more than was looked at."""
    seen: dict[Any, Any] = field(default_factory=dict[Any, Any])
    waiting: deque[tuple[str, Any]] = field(default_factory=deque[tuple[str, Any]])
    mentioned: set[str] = field(default_factory=set[str])
    unmentioned: dict[str, list[tuple[str, Any]]] = field(default_factory=dict[str, list[tuple[str, Any]]])
    """Methods whose names no code has had so far."""

    def walk(self, roots: Iterable[Any]) -> None:
        """Follow everything from some values on."""
        self.look_all("", roots)
        while self.waiting and len(self.seen) <= MOST:
            name, value = self.waiting.popleft()
            if id(value) not in self.seen:
                self.seen[id(value)] = value  # kept, so that no other value gets its id
                follow = _follower(kind_of(value))
                if follow is not None:
                    self.found.append((name, value))
                    self.follow(follow, name, value)
        self.cut |= bool(self.waiting)

    def follow(self, follow: "_Follow", name: str, value: Any) -> None:
        """Follow a value now."""
        try:
            follow(self, name, value)
        except Exception:  # some objects have code of their own wherever one looks at them
            self.cut = True

    def look(self, name: str, value: Any) -> None:
        """Follow a value later."""
        if type(value) not in PLAIN:
            self.waiting.append((name, value))

    def look_all(self, name: str, values: Iterable[Any]) -> None:
        """Follow the items of a container."""
        self.waiting.extend((name, value) for value in values if type(value) not in PLAIN)

    def mention(self, names: Iterable[str]) -> None:
        """Some code has names: methods that are called so may be called."""
        for name in names:
            if name not in self.mentioned:
                self.mentioned.add(name)
                self.waiting.extend(self.unmentioned.pop(name, ()))

    def function(self, name: str, function: FunctionType) -> None:
        """The attributes of a function, its closure and defaults, and what its code names."""
        self.look_all(name, vars(function).values())
        free = function.__code__.co_freevars
        for kept, cell in zip(free, function.__closure__ or (), strict=False):
            self.look(kept, cell)
        arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
        for kept, value in zip(reversed(arguments), reversed(function.__defaults__ or ()), strict=False):
            self.look(kept, value)
        for kept, value in (function.__kwdefaults__ or {}).items():
            self.look(kept, value)
        space = function.__globals__
        if followed(space.get("__name__", "")):
            cells = zip(free, function.__closure__ or (), strict=False)
            closed = {kept: content(cell) for kept, cell in cells}
            for code in codes(function.__code__):
                self.code(code, space, closed)

    def code(self, code: CodeType, space: dict[str, Any], closed: dict[str, Any]) -> None:
        """The globals that code names, and what it names in Python modules among them; `closed`: its closure."""
        names = code.co_names
        self.mention(names)
        self.mention(text for text in code.co_consts if isinstance(text, str) and text.isidentifier())
        bound = bound_names(code)
        if bound:
            self.found.append(("", Names(space, bound)))
        stores = _STORE_ATTR in code.co_code[::2] or "setattr" in names
        for name in code.co_freevars:
            if isinstance(closed.get(name), (ModuleType, type)):
                self.named(name, closed[name], names, stores)
        for name in names:
            if name in space:
                self.named(name, space[name], names, stores)
            else:
                for module in (name, f"{space.get('__package__')}.{name}"):  # imported in the function itself
                    if module in sys.modules:
                        self.named(name, sys.modules[module], names, stores)

    def named(self, name: str, value: Any, names: tuple[str, ...], stores: bool) -> None:
        """What code calls by a name."""
        if isinstance(value, ModuleType):
            key = id(value), names
            if followed(value.__name__) and key not in self.seen:
                self.seen[key] = value
                if stores:
                    self.found.append((name, Names(vars(value), names)))
                for attribute in names:
                    if attribute in vars(value):
                        self.named(f"{name}.{attribute}", vars(value)[attribute], names, stores)
            return
        self.look(name, value)
        if isinstance(value, type):
            for kind in value.__mro__:
                if followed(kind.__module__):
                    self.look_all(name, (vars(kind)[making] for making in _MAKING if making in vars(kind)))

    def kind(self, name: str, kind: type) -> None:
        """The attributes of a class, and of its methods those that may be called."""
        self.look_all(kind.__name__, kind.__mro__[1:])
        self.look(kind.__name__, type(kind))
        other = next((base for base in kind.__mro__ if not followed(base.__module__)), object)
        for called, value in vars(kind).items():
            if not isinstance(value, _METHODS):
                self.look(f"{kind.__name__}.{called}", value)
            elif called in self.mentioned or (called not in _MAKING and (called[:2] == "__" or hasattr(other, called))):
                self.look(called, value)
            else:
                self.unmentioned.setdefault(called, []).append((called, value))

    def instance(self, name: str, value: Any) -> None:
        """The attributes of an object, and its class."""
        self.look(name, type(value))
        held = dict(attributes(value) or {}) | {slot.__name__: in_slot(slot, value) for slot in slots(kind_of(value))}
        for attribute, each in held.items():
            self.look(f"{name}.{attribute}".removeprefix("."), each)

    def items(self, name: str, value: Any) -> None:
        """The items of a container; of a dict the keys too."""
        held: Any = cast(Any, dict).copy(value) if issubclass(kind_of(value), dict) else list(value)
        self.look_all(name, held)
        if issubclass(kind_of(value), dict):
            self.look_all(name, held.values())
        if type(value).__module__ not in ("builtins", "collections"):
            self.instance(name, value)

    def weak(self, name: str, value: Any) -> None:
        """What a weak reference refers to."""
        self.look(name, value())

    def others(self, name: str, value: Any) -> None:
        """Methods, wrapped functions and whatever else Python's own garbage collector can look into."""
        self.look_all(name, gc.get_referents(value))

    def cached(self, name: str, function: Any) -> None:
        """A function that keeps results: those, and the function itself."""
        inside = results(function)
        if inside is None:
            self.instance(name, function)
        else:
            held = (each for each in gc.get_referents(function) if each is not inside)
            self.look_all(name, [*held, *inside.keys(), *inside.values()])

    def tensor(self, name: str, value: Tensor) -> None:
        """The gradient of a tensor and its attributes."""
        if value.is_leaf and value.grad is not None:
            self.look(f"{name}.grad", value.grad)
        self.instance(name, value)


_Follow = Callable[[_Reached, str, Any], None]
_STORE_ATTR, _STORE_GLOBAL = dis.opmap["STORE_ATTR"], dis.opmap["STORE_GLOBAL"]
_DELETE_GLOBAL = dis.opmap["DELETE_GLOBAL"]


def bound_names(code: CodeType) -> tuple[str, ...]:
    """The globals that code may bind anew."""
    if "globals" in code.co_names:
        return (*code.co_names, *(text for text in code.co_consts if isinstance(text, str)))
    if not {_STORE_GLOBAL, _DELETE_GLOBAL} & {*code.co_code[::2]}:
        return ()
    steps = dis.get_instructions(code)
    return tuple({step.argval for step in steps if step.opcode in (_STORE_GLOBAL, _DELETE_GLOBAL)})


@cache
def slots(kind: type) -> tuple[Any, ...]:
    """What reads and writes the attributes of an object that are not in its dict."""
    kinds = (base for base in kind.__mro__ if "__slots__" in vars(base))
    return tuple(each for base in kinds for each in vars(base).values() if isinstance(each, types.MemberDescriptorType))


def kind_of(value: Any) -> Any:
    """The type of a value, of which a type checker knows nothing."""
    return cast(Any, type(value))


def attributes(value: Any) -> dict[str, Any] | None:
    """The dict of an object's attributes; None where it has none. No code of the object's own is asked."""
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None


def in_slot(slot: Any, value: Any) -> Any:
    """An attribute that is not in the dict."""
    try:
        return slot.__get__(value)
    except AttributeError:
        return ABSENT


def has_attributes(kind: type) -> bool:
    """Whether what the user's code may write are attributes of such objects."""
    return _follower(kind) in (_Reached.instance, _Reached.function, _Reached.tensor, _Reached.items)


def reach(roots: Iterable[Any]) -> tuple[list[tuple[str, Any]], bool]:
    """What is reached from some values; whether that is not all."""
    reached = _Reached()
    reached.walk(roots)
    return reached.found, reached.cut


@cache
def _follower(kind: type) -> _Follow | None:
    """What follows values of a type; None where nothing can be reached from it, nor changed in it."""
    if issubclass(kind, type):
        return _of_class
    if issubclass(kind, torch._subclasses.FakeTensor) or issubclass(kind, ModuleType):
        return None
    if issubclass(kind, Tensor):
        return _Reached.tensor
    if issubclass(kind, FunctionType):
        return _Reached.function
    if issubclass(kind, (dict, list, tuple, set, frozenset, deque)):
        return _Reached.items
    gathered = (types.MethodType, types.CellType, types.BuiltinMethodType, partial)
    if (
        issubclass(kind, (*gathered, property, classmethod, staticmethod, functools.partialmethod))
        or kind is cached_property
    ):
        return _Reached.others
    if issubclass(kind, weakref.ref):
        return _Reached.weak
    if issubclass(kind, CACHED):
        return _Reached.cached
    if followed(kind.__module__) or issubclass(kind, nn.Module) or kind.__module__.startswith(_HOLDERS):
        return _Reached.instance
    return _functions


def _of_class(reached: _Reached, name: str, value: type) -> None:
    if followed(value.__module__):
        reached.kind(name, value)


def _functions(reached: _Reached, name: str, value: Any) -> None:
    """Of an object of torch's or Python's own: the functions that it has as attributes."""
    for held in dict(attributes(value) or {}).values():
        if isinstance(held, (FunctionType, partial, types.MethodType)):
            reached.look(name, held)
