"""Caches outside of a module's copy: fake tensors in globals, class attributes and lru_caches are taken out again."""

import sys
from collections.abc import Iterator
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import Any, cast

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

_CACHE = type(lru_cache(len))
_KEEPS = (FunctionType, _CACHE)

Space = type | ModuleType
"""A class or a Python module: its attributes outlive a call."""


class Outside:
    """The classes and the Python modules that a module's code comes from, as they were before any run."""

    def __init__(self, module: nn.Module) -> None:
        self.before = {space: dict(vars(space)) for space in _spaces(module)}
        self.held = {id(value): _entries(value) for names in self.before.values() for value in names.values()}
        self.cached = {id(value): _size(value) for names in self.before.values() for value in names.values()}

    def put_back(self) -> None:
        """Take out every fake tensor and every size that is a symbol."""
        for space, before in self.before.items():
            for name, value in list(vars(space).items()):
                if _symbolic(value):
                    setattr(space, name, before[name]) if name in before else delattr(space, name)
                elif isinstance(value, (dict, list)):
                    self._put_back_entries(cast(Any, value))
                elif _size(value) > self.cached.get(id(value), 0):
                    value.cache_clear()

    def _put_back_entries(self, value: dict[Any, Any] | list[Any]) -> None:
        held = self.held.get(id(value))
        if held is None or not any(_symbolic(item) for item in _items(value)):
            return
        value.clear()
        value.update(held) if isinstance(value, dict) else value.extend(held)


def _spaces(module: nn.Module) -> list[Space]:
    """The classes of all parts, the files that define them, and those of the functions that these use."""
    kinds = {kind for part in module.modules() for kind in type(part).__mro__ if foreign(kind.__module__)}
    files = {kind.__module__ for kind in kinds}
    for file in list(files):
        used = vars(sys.modules[file]).values() if file in sys.modules else ()
        functions = [vars(value).get("__wrapped__", value) for value in used if isinstance(value, _KEEPS)]
        files |= {each.__module__ for each in functions if isinstance(each, FunctionType) and foreign(each.__module__)}
    return [*kinds, *(sys.modules[file] for file in files if file in sys.modules)]


def foreign(file: str) -> bool:
    """Whether code is neither torch's nor Python's own nor the prover's."""
    package = file.partition(".")[0]
    return package not in ("torch", *sys.stdlib_module_names) and not file.startswith("towers.contracts")


def _symbolic(value: Any, deep: bool = True) -> bool:
    if isinstance(value, (FakeTensor, torch.SymInt)):
        return True
    return deep and isinstance(value, tuple) and any(_symbolic(item, deep=False) for item in cast(Any, value))


def _entries(value: Any) -> Any:
    return type(value)(value) if type(value) in (dict, list) else None


def _items(value: dict[Any, Any] | list[Any]) -> Iterator[Any]:
    return iter(value.values()) if isinstance(value, dict) else iter(value)


def _size(value: Any) -> int:
    """The number of results that an lru_cache keeps; 0 of what is none."""
    return value.cache_info().currsize if isinstance(value, _CACHE) else 0
