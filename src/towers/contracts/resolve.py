"""Turns annotations that are text into types. A name that is not defined becomes `Unresolved`, which every value fits.

Names are looked up in the order of Python: the scopes around the function, its closure, its module, the builtins. A
scope is read while it is on the stack, and is not kept after that.
"""

import builtins
import inspect
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import CodeType, FrameType, ModuleType, SimpleNamespace
from typing import Any, get_type_hints


class _Unresolved(type):
    """The type of `Unresolved`: its attributes and items are unresolved too."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __instancecheck__(cls, instance: object) -> bool:
        return True

    def __subclasscheck__(cls, subclass: type) -> bool:
        return True

    def __getitem__(cls, item: object) -> Any:
        return cls

    def __or__(cls, other: object) -> Any:
        return cls

    __ror__ = __or__


class Unresolved(metaclass=_Unresolved):
    """Stands in an annotation for a name that cannot be resolved."""


class Names:
    """Looks up the names in the annotations of one function or class.

    Args:
        annotated: the function or class.
        scopes: the code of the scopes that it is written in.
    """

    def __init__(self, annotated: Any, scopes: Iterable[CodeType] = ()) -> None:
        self.scopes = tuple(scopes)
        inner = inspect.unwrap(annotated)
        self.globals = module_names(inner)
        cells: tuple[Any, ...] = getattr(inner, "__closure__", None) or ()
        self.cells: dict[str, Any] = dict(zip(inner.__code__.co_freevars if cells else (), cells, strict=True))
        self.found: dict[str, Any] = {}
        """The local names that were looked up, with their values."""
        self.missing: set[str] = set()
        self.absent: list[tuple[ModuleType, str]] = []
        """Modules that lack a name that an annotation asks them for: they may not have been imported wholly."""
        self.running: list[dict[str, Any]] = []

    @contextmanager
    def reading(self, frame: FrameType | None, owner: object = None) -> Generator[None]:
        """While it is entered, local names are found in the scopes above a frame, and in the class of `owner`."""
        self.missing.clear()
        self.absent.clear()
        self.running = _running(self.scopes, frame)
        if owner is not None:
            kind = owner if isinstance(owner, type) else type(owner)
            self.running.append({base.__name__: base for base in reversed(kind.__mro__)})
        before = _names.set(self)
        try:
            yield
        finally:
            _names.reset(before)
            self.running = []

    def local(self, name: str) -> Any:
        """The value of a local name.

        Raises:
            LookupError: the name is not defined yet.
        """
        if name not in self.found:
            scope = next(filter(lambda scope: name in scope, self.running), None)
            if scope is None and name in self.cells:
                try:
                    return self.cells[name].cell_contents
                except ValueError:
                    raise LookupError(name) from None
            if scope is None:
                raise LookupError(name)
            self.found[name] = scope[name]
        return self.found[name]

    def may_be_known(self) -> bool:
        """Whether a module now defines a name that was missing."""
        return any(name in self.globals for name in self.missing) or any(
            hasattr(module, name) for module, name in self.absent
        )


_names: ContextVar[Names | None] = ContextVar("names", default=None)


def types_of(annotated: Any, near: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The annotations of a function, or of one class without its bases, each resolved by itself; `Annotated` is kept.

    Args:
        annotated: the function or class.
        near: names that are looked up first.
    """
    if getattr(annotated, "__no_type_check__", False):
        return {}
    own: Mapping[str, Any] = vars(annotated) if isinstance(annotated, type) else {}
    hints: dict[str, Any] = own.get("__annotations__", {}) if own else annotated.__annotations__
    names, module = _names.get() or Names(annotated), module_names(inspect.unwrap(annotated))
    in_class = isinstance(annotated, type)
    return {name: _resolved(hint, names, near or {}, module, in_class=in_class) for name, hint in hints.items()}


def types_of_fields(kind: type, near: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations of a class and of its bases."""
    return {name: hint for base in reversed(kind.__mro__) for name, hint in types_of(base, near).items()}


def module_names(annotated: Any) -> dict[str, Any]:
    """The names of the module that a function or a class was written in."""
    module = sys.modules.get(getattr(annotated, "__module__", None) or "")
    return getattr(annotated, "__globals__", None) or (vars(module) if module else {})


def scopes_around(frame: FrameType | None) -> list[CodeType]:
    """The code of the function or class body of a frame, and of the running functions around it."""
    scopes: list[CodeType] = []
    while frame is not None:
        if frame.f_code.co_name != "<module>" and (not scopes or scopes[-1] in frame.f_code.co_consts):
            scopes.append(frame.f_code)
        frame = frame.f_back if scopes else None
    return scopes


def _running(scopes: Iterable[CodeType], frame: FrameType | None) -> list[dict[str, Any]]:
    """The local names of the given scopes that are on the stack, innermost first."""
    wanted, found = set(scopes), list[dict[str, Any]]()
    while frame is not None and wanted:
        if frame.f_code in wanted:
            wanted.discard(frame.f_code)
            found.append(frame.f_locals)
        frame = frame.f_back
    return found


class _Lookup(dict[str, Any]):
    def __init__(self, names: Names, near: Mapping[str, Any], module: Mapping[str, Any]) -> None:
        super().__init__()
        self.names, self.scopes, self.missed = names, (near, module, vars(builtins)), False
        self.partly = False
        """Whether a module may lack what it is asked for."""

    def __missing__(self, name: str) -> Any:
        if name.startswith("__"):  # no annotation's: pytest asks a frame for __tracebackhide__
            raise KeyError(name)
        found = self.find(name)
        return _Partly(found, self) if self.partly and isinstance(found, ModuleType) else found

    def find(self, name: str) -> Any:
        """What a name stands for."""
        near, *others = self.scopes
        if name in near:
            return near[name]
        try:
            return self.names.local(name)
        except LookupError:
            pass
        for scope in others:
            if name in scope:
                return scope[name]
        self.names.missing.add(name)
        self.missed = True
        return Unresolved


class _Partly:
    """A module in an annotation. What it does not have, or not yet, is unresolved, as a name that is not defined."""

    def __init__(self, module: ModuleType, lookup: _Lookup) -> None:
        self._module, self._lookup = module, lookup

    def __getattr__(self, name: str) -> Any:
        if hasattr(self._module, name):
            found = getattr(self._module, name)
            return _Partly(found, self._lookup) if isinstance(found, ModuleType) else found
        self._lookup.names.missing.add(f"{self._module.__name__}.{name}")
        self._lookup.names.absent.append((self._module, name))
        self._lookup.missed = True
        return Unresolved


def _resolved(hint: Any, names: Names, near: Mapping[str, Any], module: Mapping[str, Any], *, in_class: bool) -> Any:
    lookup, only = _Lookup(names, near, module), {"__annotations__": {"it": hint}}
    in_class = in_class and isinstance(hint, str)  # a text that is ClassVar stands in classes alone
    holder: Any = type("Holder", (), only) if in_class else SimpleNamespace(**only)
    try:
        try:
            return get_type_hints(holder, {}, lookup, include_extras=True)["it"]
        except AttributeError:
            lookup.partly = True
            return get_type_hints(holder, {}, lookup, include_extras=True)["it"]
    except Exception:
        if lookup.missed:  # an annotation may do anything with the unresolved name
            return Unresolved
        if not isinstance(hint, str):
            raise
        try:
            return eval(hint, {}, lookup)  # what get_type_hints refuses because it is no type
        except SyntaxError:
            return hint  # a remark in plain words
