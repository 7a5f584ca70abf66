"""What deepcopy leaves shared between a module and its copy, though it leads back to the module.

deepcopy takes a function as it is, and with it the variables that it closes over, its defaults and its globals: a hook
`lambda m, i, o: model.outputs.append(o)` on a copy would write into the original. Weak references, methods of lists
and the keys of a WeakKeyDictionary are such links too. In a copy each gets a counterpart that leads to the copy, and so
has all that lies between, such as an object that a hook keeps and that keeps the module. Whatever does not lead back
stays shared, as deepcopy has it.
"""

import copy
import functools
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any, cast

from torch import Tensor

from towers.contracts.proofs.kinds_of_state import with_article
from towers.contracts.proofs.reached import (
    ABSENT,
    CACHED,
    PLAIN,
    attributes,
    bound_names,
    codes,
    content,
    followed,
    in_slot,
    kind_of,
    slots,
)

MOST = 20_000
"""The largest number of values that are looked at."""

LARGE = 10_000
"""A container with more items holds data, and no modules."""

_REBUILT = (tuple, frozenset, MethodType)
"""What cannot be changed in place: whoever holds it gets another."""

_list, _tuple, _dict = cast(Any, list), cast(Any, tuple), cast(Any, dict)
"""Whose own methods are called: those of a class that comes from them may do anything."""

_WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)


class Rebinding:
    """What leads back, found once for a module; `apply` mends a copy. `memo`: that of a deepcopy of the module."""

    def __init__(self, memo: dict[int, Any]) -> None:
        self.own = {at for at, value in memo.items() if id(value) != at} - {id(memo)}
        self.way: dict[int, Any] = {}
        """What leads back without being copied, by its id."""
        self.holders: list[Any] = []
        """What is copied and holds such a thing."""
        self.stays: dict[str, None] = {}
        """What no copy can be made of: "a Trainer"."""
        originals = copied(memo)
        starts = [(each, inner) for each in originals for inner in held(each) if self._is_link(inner)]
        if starts:
            self._find([inner for _, inner in starts])
            found = {id(each): each for each, inner in starts if id(inner) in self.way}
            self.holders = [each for each in found.values() if not is_a(type(each), _REBUILT)]
        self.holders += [each for each in originals if is_a(type(each), _WEAK)]

    def _is_link(self, value: Any) -> bool:
        """Whether a value may lead back and does not belong to the copy."""
        kind = kind_of(value)
        if kind in PLAIN or is_a(kind, (type, Tensor, ModuleType)):
            return False
        return id(value) not in self.own or is_a(kind, _REBUILT)

    def _find(self, starts: list[Any]) -> None:
        """Follow links up to what is copied, and from there back."""
        seen = dict[int, Any]()
        holders = dict[int, list[int]]()
        ends = list[int]()
        waiting = deque(starts)
        while waiting and len(seen) < MOST:
            value = waiting.popleft()
            if id(value) in seen:
                continue
            seen[id(value)] = value
            for inner in held(value):
                if id(inner) in self.own and id(value) not in self.own:
                    ends.append(id(value))
                if self._is_link(inner):
                    holders.setdefault(id(inner), []).append(id(value))
                    waiting.append(inner)
        while ends:
            one = ends.pop()
            if one not in self.way:
                self.way[one] = seen[one]
                ends += holders.get(one, ())

    def apply(self, memo: dict[int, Any]) -> Callable[[Any], Any]:
        """Let what a copy holds lead to the copy; gives the counterpart of a value of the original.

        `memo`: that of the copy's deepcopy; it gets all counterparts.
        """
        one = _Counterparts(self, memo)
        for each in self.holders:
            if id(each) in memo:
                one.mend(memo[id(each)])
        one.finish()
        return one.of_late

    def assumptions(self) -> tuple[str, ...]:
        """What leads to the module itself, as no copy can be made of it."""
        through = " and ".join(self.stays)
        return (f"through {through} the code reaches the module itself, not the copy that is run",) if through else ()


class _Counterparts:
    """Those of one copy."""

    def __init__(self, found: Rebinding, memo: dict[int, Any]) -> None:
        self.found, self.memo = found, memo
        self.made: dict[int, Any] = {}
        self.unmended: deque[Any] = deque()
        self.cells: deque[tuple[CellType, CellType]] = deque()
        rebuilt = [each for at, each in found.way.items() if at in memo]
        self.rebuilt = {id(memo[id(each)]): each for each in rebuilt}
        """What deepcopy has made of such as lead back: by the id of its copy."""

    def of(self, value: Any) -> Any:
        """What stands for a value in the copy."""
        value = self.rebuilt.get(id(value), value)
        if id(value) not in self.found.way:
            return self.memo.get(id(value), value)
        if id(value) not in self.made:
            self.made[id(value)] = self._make(value)
        return self.made[id(value)]

    def of_late(self, value: Any) -> Any:
        """The same, once all is done."""
        found = self.of(value)
        self.finish()
        return found

    def finish(self) -> None:
        """Fill what was made."""
        while self.cells or self.unmended:
            while self.cells:
                cell, before = self.cells.popleft()
                if (value := content(before)) is not ABSENT:
                    cell.cell_contents = self.of(value)
            if self.unmended:
                self.mend(self.unmended.popleft())
        self.memo |= self.made

    def _make(self, value: Any) -> Any:
        kind = kind_of(value)
        if is_a(kind, FunctionType):
            return self._function(value)
        if is_a(kind, CellType):
            self.cells.append((cell := CellType(), value))
            return cell
        if is_a(kind, tuple):
            return _tuple.__new__(kind, map(self.of, value))
        if is_a(kind, frozenset):
            return kind(map(self.of, value))
        if is_a(kind, MethodType):
            return MethodType(self.of(value.__func__), self.of(value.__self__))
        if is_a(kind, BuiltinFunctionType):
            return getattr(self.of(value.__self__), value.__name__)
        if is_a(kind, weakref.ref):
            return self._weak(value)
        if kind in weakref.ProxyTypes:
            return weakref.proxy(self.of(_behind(value)))
        if is_a(kind, CACHED):
            return functools.lru_cache(**value.cache_parameters())(self.of(value.__wrapped__))
        try:
            made = copy.copy(value)
        except Exception:  # it has code of its own against it
            self.found.stays[with_article(kind)] = None
            return value
        if made is not value:
            self.unmended.append(made)
        return made

    def _weak(self, value: Any) -> Any:
        if is_a(type(value), weakref.WeakMethod):
            method: Any = value()
            return value if method is None else type(value)(self._make(method))
        return type(value)(self.of(value()))

    def _function(self, function: FunctionType) -> Any:
        names = named(function)
        inside = {name: now for name, each in names.items() if (now := self.of(each)) is not each}
        cells = tuple(map(self.of, function.__closure__ or ()))
        space = _Names(function.__globals__, inside) if inside else function.__globals__
        made = FunctionType(function.__code__, space, function.__name__, function.__defaults__, cells)
        made.__kwdefaults__ = function.__kwdefaults__
        made.__dict__.update(function.__dict__)
        made.__module__, made.__qualname__, made.__doc__ = function.__module__, function.__qualname__, function.__doc__
        made.__annotations__ = function.__annotations__
        self.unmended.append(made)
        return made

    def mend(self, value: Any) -> None:
        """Put counterparts in place of what a copy holds."""
        kind = kind_of(value)
        if is_a(kind, FunctionType):
            value.__defaults__ = value.__defaults__ and tuple(map(self.of, value.__defaults__))
            value.__kwdefaults__ = value.__kwdefaults__ and {k: self.of(v) for k, v in value.__kwdefaults__.items()}
        elif is_a(kind, partial):
            args, named = map(self.of, value.args), {k: self.of(v) for k, v in value.keywords.items()}
            value.__setstate__((self.of(value.func), tuple(args), named, vars(value)))
        elif is_a(kind, (dict, *_WEAK)):
            self._mend_items(value)
        elif is_a(kind, list):
            _list.__setitem__(value, slice(None), list(map(self.of, _list.__iter__(value))))
        elif is_a(kind, (set, deque)):
            held = list(map(self.of, value))
            value.clear()
            value.update(held) if is_a(kind, set) else value.extend(held)
        if not is_a(kind, _WEAK):
            self._mend_attributes(value)

    def _mend_items(self, value: Any) -> None:
        before = list(value.items())
        after = [(self.of(key), self.of(each)) for key, each in before]
        if any(key is not other for (key, _), (other, _) in zip(before, after, strict=True)):
            value.clear()
        for (_, each), (key, now) in zip(before, after, strict=True):
            if now is not each or key not in value:
                value[key] = now

    def _mend_attributes(self, value: Any) -> None:
        inside = attributes(value) or {}
        for name, each in list(inside.items()):
            if (now := self.of(each)) is not each:
                inside[name] = now
        for slot in slots(kind_of(value)):
            each = in_slot(slot, value)
            if each is not ABSENT and (now := self.of(each)) is not each:
                slot.__set__(value, now)


class _Names(dict[str, Any]):
    """The global names of a function, some of them with other values."""

    def __init__(self, names: dict[str, Any], inside: dict[str, Any]) -> None:
        super().__init__({name: value for name, value in names.items() if name[:2] == name[-2:] == "__"} | inside)
        self.names = names

    def __missing__(self, name: str) -> Any:
        if name in self.names:
            return self.names[name]
        space: Any = self.names["__builtins__"]
        return cast(Any, space if isinstance(space, dict) else vars(space))[name]


def named(function: FunctionType) -> dict[str, Any]:
    """The globals that a function of the user's names; none if it binds some, for others must see those."""
    space = function.__globals__
    if not followed(space.get("__name__", "")):
        return {}
    inside = list(codes(function.__code__))
    if any(map(bound_names, inside)):
        return {}
    return {name: space[name] for code in inside for name in code.co_names if name in space}


def is_a(kind: Any, kinds: Any) -> bool:
    """Whether a type is one of some kinds; what a type checker then knows of its values would be too little."""
    return issubclass(kind, kinds)


def copied(memo: dict[int, Any]) -> list[Any]:
    """What a deepcopy has copied."""
    return memo.get(id(memo), [])


def _behind(proxy: Any) -> Any:
    """What a weak proxy stands for; None if that is gone."""
    try:
        return proxy.__init__.__self__
    except ReferenceError:
        return None


def held(value: Any) -> Iterator[Any]:
    """What a value holds."""
    kind = kind_of(value)
    if is_a(kind, FunctionType):
        yield from value.__closure__ or ()
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        yield from named(value).values()
    elif is_a(kind, CellType):
        yield content(value)
    elif is_a(kind, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif is_a(kind, MethodType):
        yield from (value.__func__, value.__self__)
    elif is_a(kind, BuiltinFunctionType):
        yield value.__self__
    elif is_a(kind, weakref.WeakMethod):
        method: Any = value()
        yield from () if method is None else (method.__func__, method.__self__)
    elif is_a(kind, weakref.ref):
        yield value()
    elif kind in weakref.ProxyTypes:
        yield _behind(value)
    elif is_a(kind, dict) and len(value) <= LARGE:
        yield from list(_dict.keys(value))
        yield from list(_dict.values(value))
    elif is_a(kind, _WEAK):
        for pair in list(value.items()):
            yield from pair
        return
    elif is_a(kind, (list, tuple, set, frozenset, deque)):
        yield from () if len(value) > LARGE else list(value)
    yield from list((attributes(value) or {}).values())  # of a function kept by lru_cache: what it wraps
    for slot in slots(kind):
        yield in_slot(slot, value)
