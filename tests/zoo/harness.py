"""The modules of the zoo and those of known truth, with a checker put on every annotated method."""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent
FILES = ("written", "reported")

Checker = Callable[[Any, tuple[str, ...]], Any]
"""Puts a checker on a function; the second argument is WHERE of its class."""


def specimens(checker: Checker | None = None, name: str = "plain") -> Iterator[Any]:
    """All specimens, from files loaded anew under a name of their own, checked by a checker."""
    for file in FILES:
        yield from loaded(file, checker, name).SPECIMENS


def loaded(file: str, checker: Checker | None, name: str) -> ModuleType:
    """A file loaded anew under a name of its own, with the checker in place of what it puts on its methods itself."""
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"zoo_{name}_{file}", FOLDER / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if checker is not None:
        classes = [each for each in vars(module).values() if inspect.isclass(each)]
        _check_methods([each for each in classes if each.__module__ == module.__name__], checker)
    return module


def _check_methods(owners: list[type], checker: Checker) -> None:
    """Each class gets checked methods of its own, inherited ones too, with its own WHERE."""
    plain = {
        (owner, name): inspect.unwrap(function)
        for owner in owners
        for name, function in inspect.getmembers(owner, inspect.isfunction)
        if function.__module__ == owner.__module__ and "return" in function.__annotations__
    }
    for (owner, name), function in plain.items():
        where = getattr(owner, "WHERE", ()) if name == "forward" else ()
        setattr(owner, name, checker(function, where))


def unchecked(function: Any, where: tuple[str, ...]) -> Any:
    """The function as it was written."""
    return function


def with_contract(function: Any, where: tuple[str, ...]) -> Any:
    """Our checker."""
    from towers.contracts import contract

    return contract(where=where)(function)


def with_jaxtyping(function: Any, where: tuple[str, ...]) -> Any:
    """What people use today, which has no bounds."""
    from beartype import beartype
    from jaxtyping import jaxtyped

    return jaxtyped(typechecker=beartype)(function)
