"""Every public name has a docstring that says all: its arguments, its errors, and an example (which test_examples runs)."""

import inspect
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

import towers
from towers.answers import Model
from towers.ensemble import Ensemble

AS_IN_TORCH = {"device", "dtype"}  # they mean what they mean for every module of torch
PLAIN = {"self", "cls", "args", "kwargs"}


def names(module: ModuleType) -> dict[str, Any]:
    """The public names of a module: those of `__all__`, or those that it takes from its own files."""
    listed = getattr(module, "__all__", None)
    found = {name: getattr(module, name) for name in listed or vars(module) if not name.startswith("_")}
    return {
        name: value
        for name, value in found.items()
        if inspect.isclass(value) or (inspect.isroutine(value) and value.__module__.startswith(module.__name__))
        if listed or value.__module__.startswith(module.__name__)
    }


def public() -> Iterator[tuple[str, Any]]:
    """Each public class and function, and the public methods of each class."""
    modules = [name for name in towers.__all__ if inspect.ismodule(getattr(towers, name))]
    entries = [(name, getattr(towers, name)) for name in towers.__all__ if name not in modules]
    entries += [("answers.Model", Model), ("ensemble.Ensemble", Ensemble)]  # what towers.load and training give
    for module in modules:
        entries += [(f"{module}.{name}", value) for name, value in names(getattr(towers, module)).items()]
    for name, value in entries:
        yield name, value
        for method, found in vars(value).items() if inspect.isclass(value) else ():
            found = found.__func__ if isinstance(found, (classmethod, staticmethod)) else found
            if not method.startswith("_") and (inspect.isroutine(found) or isinstance(found, property)):
                yield f"{name}.{method}", found


PUBLIC = dict(public())
METHODS = {name for name in PUBLIC if inspect.isclass(PUBLIC.get(name.rpartition(".")[0]))}
CALLABLE = [name for name, value in PUBLIC.items() if not isinstance(value, property)]

SHOWN_ELSEWHERE = {"export.Exported"}  # in the example of `export`


def gaps(lacks: Callable[[str], object], found: list[str]) -> dict[str, object]:
    return {name: lack for name in found if (lack := lacks(name))}


def text(name: str) -> str:
    return inspect.getdoc(PUBLIC[name]) or ""


def arguments_without_a_word(name: str) -> list[str]:
    """Arguments that neither the docstring nor, of a method, that of its class names."""
    if inspect.isclass(PUBLIC[name]) and issubclass(PUBLIC[name], Exception):
        return []  # users do not make one
    owner = text(name.rpartition(".")[0]) if name in METHODS else ""
    given = set(inspect.signature(PUBLIC[name]).parameters) - PLAIN - AS_IN_TORCH
    return sorted(argument for argument in given if not re.search(rf"\b{argument}\b", text(name) + owner))


def errors_without_a_word(name: str) -> bool:
    value = inspect.unwrap(PUBLIC[name])
    return inspect.isfunction(value) and "raise " in inspect.getsource(value) and "Raises:" not in text(name)


def no_example(name: str) -> bool:
    """A class or function has an example in its docstring, or in that of its module; methods are in their class's."""
    home = getattr(towers, name.partition(".")[0]) if "." in name else towers
    shown = re.findall(r"^ *(?:>>>|\.\.\.) (.*)$", home.__doc__ or "", re.MULTILINE)
    called = any(re.search(rf"\b{name.rpartition('.')[2]}\b", line) for line in shown)
    return name not in METHODS and ">>>" not in text(name) and not called


def test_all_public_names_are_looked_at():
    assert {"Tower", "Tower.forward", "Ragged.lengths", "contracts.verify", "keras.load", "training.fit"} <= set(PUBLIC)
    assert {"answers.Model.score", "ensemble.Ensemble.load"} <= set(PUBLIC)
    assert {"data.SentencePairs", "data.SentencePairs.load", "search.Index", "optim.KerasAdam"} <= set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_there_is_a_docstring(name: str):
    assert text(name)


def test_every_argument_is_named():
    assert not gaps(arguments_without_a_word, CALLABLE)


def test_every_error_of_its_own_is_named():
    assert not gaps(errors_without_a_word, CALLABLE)


def test_there_is_an_example():
    assert gaps(no_example, CALLABLE).keys() == SHOWN_ELSEWHERE


def test_gaps_would_be_noticed(monkeypatch: pytest.MonkeyPatch):
    def bare(this: int) -> None:
        raise ValueError(this)

    monkeypatch.setitem(PUBLIC, "bare", bare)
    assert arguments_without_a_word("bare") == ["this"]
    assert errors_without_a_word("bare")
    assert no_example("bare")
