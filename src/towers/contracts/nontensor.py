"""Types that have nothing to do with tensors: plain classes by isinstance, the rest by beartype."""

import typing
import warnings
from contextlib import suppress
from functools import cache
from typing import Any, Never, NoReturn

import torch

from towers.contracts.resolve import Unresolved


def is_anything(hint: Any) -> bool:
    """Whether every value is of this type."""
    return hint is Any or hint is object or hint is Unresolved


def is_class(hint: Any) -> bool:
    """Whether isinstance alone says if a value is of this type."""
    if not isinstance(hint, type) or typing.get_origin(hint) is not None:
        return False
    special = getattr(hint, "_is_protocol", False) or is_typed_dict(hint) or hint.__module__ == "jaxtyping"
    return not special


def is_typed_dict(hint: Any) -> bool:
    """Whether a type is a TypedDict, of typing or of typing_extensions."""
    return isinstance(hint, type) and hasattr(hint, "__required_keys__") and issubclass(hint, dict)


def class_kinds(hint: Any) -> tuple[type, ...]:
    """What isinstance is asked for a class: torch gives sizes that are symbols for an int, and numbers for a float."""
    return {int: (int, torch.SymInt), float: (float, torch.SymFloat)}.get(hint, (hint,))


def is_plain(value: object, hint: Any) -> bool:
    """Whether a value is of a type, as beartype says; in a compiled program every value is of more than a class's.

    A type that beartype cannot decide, such as a name that is not defined, is any.
    """
    if is_anything(hint):
        return True
    if hint is Never or hint is NoReturn:
        return False
    if is_class(hint):
        return isinstance(value, class_kinds(hint))
    return torch.compiler.is_compiling() or _by_beartype(value, hint)


def _by_beartype(value: object, hint: Any) -> bool:
    from beartype.door import is_bearable
    from beartype.roar import BeartypeException

    try:
        with suppress(TypeError):  # not every type can be a key
            _in_silence(hint)
        return is_bearable(value, hint)
    except BeartypeException:
        return True


@cache
def _in_silence(hint: Any) -> None:
    """Let beartype read a type for the first time, when it warns of `typing.Callable` and its like."""
    from beartype.door import is_bearable

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        is_bearable(None, hint)
