"""The nn.Module that a text such as "package.file:NAME" names, and what a text that names none was meant to be."""

import ast
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import nn


def load(name: str) -> "nn.Module":
    """The module with a name such as "package.file:NAME". The working directory is searched too.

    Raises:
        ValueError: the name is malformed, or it does not lead to a module; or imported or called code raises an error
            or ends the process.
    """
    from torch import nn

    place, colon, attributes = name.partition(":")
    first, *inner = attributes.split(".")  # a part of a Sequential is a number
    names = [*place.split("."), first, *(part for part in inner if not part.isdigit())]
    if not colon or not all(map(str.isidentifier, names)) or _is_file(place):
        raise ValueError(f"{name!r} must read PACKAGE.MODULE:NAME{_perhaps(_meant(name))}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        owner = found = cast(Any, import_module(place))
    except ModuleNotFoundError as error:
        raise ValueError(f"{place} cannot be imported: {_missing(place) or error}") from None
    except (Exception, SystemExit) as error:
        raise ValueError(f"{place} cannot be imported: {_told(error)}") from None
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            near = get_close_matches(attribute.lower(), map(str.lower, dir(found)), n=1)
            raise ValueError(
                f"{place} has no {attributes}{_perhaps([one for one in dir(found) if one.lower() in near])}"
            )
        owner, found = found, getattr(found, attribute)
    if isinstance(owner, type) and inspect.isfunction(found) and "self" in inspect.signature(found).parameters:
        raise ValueError(f"{name} is a method{_perhaps([name.rpartition('.')[0]])}")
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        kind = type(found).__name__
        article = "an" if kind[0].lower() in "aeio" else "a"
        raise ValueError(f"{name} is {article} {kind}; expected an nn.Module or what makes one")
    try:
        made = found()
    except TypeError as error:
        raise ValueError(
            f"{name} cannot be called without arguments: {error}; write a function that makes the module and name that"
        ) from None
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name}() raised {_told(error)}") from None
    if not isinstance(made, nn.Module):
        raise ValueError(f"{name}() is a {type(made).__name__}; expected an nn.Module")
    return made


def _told(error: BaseException) -> str:
    """An error of the user's code in one line, with file and line."""
    if isinstance(error, ImportError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (last.filename, last.lineno)
    return f"{type(error).__name__}: {getattr(error, 'msg', error)} ({os.path.basename(file or '?')}:{line})"


def _missing(place: str) -> str | None:
    """What to say of a Python module that is not there; None where it is another one that it imports."""
    from towers.contracts.import_hook import not_found

    return not_found(place)


# What was probably meant. Nothing is imported or run: the file is read as text.


def _perhaps(names: Sequence[str]) -> str:
    return f"; perhaps {' or '.join(names[:3])} is meant" if names else ""


def _is_file(place: str) -> bool:
    """Whether `mymodule.py` stands where a name must: it would be the module `py` of a package."""
    return place.endswith(".py") and Path(place).is_file()


def _meant(text: str) -> list[str]:
    """Well-formed names that a text may stand for: a file, a line of one, a call, or a dot in the place of a colon."""
    file, _, rest = text.partition(":") if len(text.partition(":")[0]) > 1 else (text, "", "")  # not C:/x.py
    if file.endswith(".py") or "/" in file or os.sep in file:
        path = Path(file if file.endswith(".py") else f"{file}.py")
        if not path.is_file() and path.parent.name:
            path = path.parent.with_suffix(".py")
        return [f"{_dotted(path)}:{name}" for name in _chosen(path, rest.partition(":")[0].strip("()"))]
    name = text.replace("::", ":").removesuffix("()").rstrip(":")
    place, colon, attribute = name.rpartition("." if ":" not in name else ":")
    if colon and all(map(str.isidentifier, [*place.split("."), *attribute.split(".")])):
        path = Path(*place.split(".")).with_suffix(".py")
        if ":" in name or attribute in [one for one, _, _ in _defined(path)]:
            return [f"{place}:{attribute}"]
    path = Path(*name.split(".")).with_suffix(".py")
    return [f"{_dotted(path)}:{one}" for one in _chosen(path, "")]


def _dotted(path: Path) -> str:
    """The name by which the file of a Python module is imported from the working directory."""
    inside = path if not path.is_absolute() or not path.is_relative_to(Path.cwd()) else path.relative_to(Path.cwd())
    steps = [step for step in inside.with_suffix("").parts if step not in (".", "..", path.anchor)]
    return ".".join(steps[-1:] if inside.is_absolute() else steps)


def _chosen(path: Path, rest: str) -> list[str]:
    """The names of a file that a text after the colon may stand for: a line is that of a class or a function."""
    defined = _defined(path)
    if rest.isdigit():
        return [name for name, first, last in defined if first <= int(rest) <= last] or [name for name, _, _ in defined]
    names = [name for name, _, _ in defined]
    return get_close_matches(rest, names, n=1) or names


def _defined(path: Path) -> list[tuple[str, int, int]]:
    """The classes of a file, with their first and last lines; its functions where it has no class."""
    try:
        tree = ast.parse(path.read_text("utf8"))
    except (OSError, ValueError, SyntaxError):
        return []
    classes: Iterable[ast.stmt] = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    found = classes or [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [(node.name, node.lineno, node.end_lineno or node.lineno) for node in found]
