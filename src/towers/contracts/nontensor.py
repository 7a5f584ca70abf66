"""Checks types without tensors: classes by isinstance, all other types by beartype."""

import collections.abc
import re
import types
import typing
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, Literal, Never, NoReturn, TypeAlias, Union, cast

import torch

from towers.contracts import modes
from towers.contracts.resolve import Unresolved

ITERABLES = (collections.abc.Iterable, collections.abc.Collection, collections.abc.Reversible)
"""What a tensor is too: a type of them asks for its rows."""


def is_anything(hint: Any) -> bool:
    """Whether every value is of this type."""
    return hint is Any or hint is object or hint is Unresolved


def is_class(hint: Any) -> bool:
    """Whether isinstance is enough to check this type."""
    if not isinstance(hint, type) or typing.get_origin(hint) is not None:
        return False
    special = getattr(hint, "_is_protocol", False) or is_typed_dict(hint) or hint.__module__ == "jaxtyping"
    return not special


def is_typed_dict(hint: Any) -> bool:
    """Whether a type is a TypedDict, of typing or of typing_extensions."""
    return isinstance(hint, type) and hasattr(hint, "__required_keys__") and issubclass(hint, dict)


def class_kinds(hint: Any) -> tuple[type, ...]:
    """The classes for isinstance: torch also uses SymInt as an int and SymFloat as a float."""
    return {int: (int, torch.SymInt), float: (float, torch.SymFloat)}.get(hint, (hint,))


def is_plain(value: object, hint: Any) -> bool:
    """Whether beartype says that a value has a type.

    If beartype cannot decide, for instance because a name is not defined, the answer is True. Of what is unpacked, as
    in `tuple[int, *tuple[str, ...]]`, it takes any items; such types are checked as in a compiled program.
    """
    if is_anything(hint):
        return True
    if hint is Never or hint is NoReturn:
        return False
    if is_class(hint):
        return isinstance(value, class_kinds(hint))
    return _by_beartype(value, hint)


def described(hint: Any) -> str:
    """A type as text for a message."""
    if hint in (type(None), types.NotImplementedType):
        return "None" if hint is type(None) else "NotImplemented"
    plain = isinstance(hint, type) and not typing.get_args(hint)
    return hint.__name__ if plain else re.sub(r"\b(typing|jaxtyping)\.", "", str(hint))


Test: TypeAlias = Callable[[Any], bool]


def traceable_test(hint: Any) -> Test:
    """A test for a type in plain Python, which Dynamo can trace, while a program is compiled.

    All items of a container are tested. For a type that is not known here, the test is always True.
    """
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Never or hint is NoReturn:
        return lambda value: False
    if hint is None or hint is type(None):
        return lambda value: value is None
    if not is_anything(hint) and is_class(hint):
        kinds = class_kinds(hint)
        return lambda value: isinstance(value, kinds)
    if isinstance(hint, typing.NewType):
        return traceable_test(hint.__supertype__)
    if kind is Annotated:
        return traceable_test(inner[0])
    if kind is Literal:
        return lambda value: any(isinstance(value, type(one)) and value == one for one in inner)
    if kind in (Union, types.UnionType):
        tests = [traceable_test(one) for one in inner]
        return lambda value: any(test(value) for test in tests)
    if kind is cast(Any, collections.abc.Callable):
        return callable
    if kind is type and all(is_class(one) for one in inner):
        return lambda value: isinstance(value, type) and issubclass(value, inner)
    return _traceable_container(kind, inner) if isinstance(kind, type) else lambda value: True


def items_of_tuple(inner: tuple[Any, ...]) -> tuple[tuple[Any, ...], int | None]:
    """The types of the items of `tuple[…]`, and the index of the one that may stand any number of times, or None.

    `tuple[X, ...]` has one item, which may stand any number of times; what is unpacked, as in `tuple[X, *tuple[Y, Z]]`,
    is there item by item.

    Raises:
        ValueError: more than one may stand any number of times: no tuple says which is which.
    """
    if len(inner) == 2 and inner[1] is Ellipsis:
        return inner[:1], 0
    items: list[Any] = []
    rest: int | None = None
    for item in inner:
        unpacked = _unpacked(item)
        own, own_rest = ((item,), None) if unpacked is None else unpacked
        if own_rest is not None:
            if rest is not None:
                raise ValueError(f"{described(tuple[inner])}: only one item of a tuple can stand any number of times")
            rest = len(items) + own_rest
        items += own
    return tuple(items), rest


def _unpacked(item: Any) -> tuple[tuple[Any, ...], int | None] | None:
    """The items of `*tuple[…]` and of `*Ts`, whose items are of any type; None for what is not unpacked."""
    if getattr(item, "__unpacked__", False):  # *tuple[…]
        return items_of_tuple(typing.get_args(item))
    if getattr(typing.get_origin(item), "_name", None) != "Unpack":
        return None
    (whole,) = typing.get_args(item)
    return items_of_tuple(typing.get_args(whole)) if typing.get_origin(whole) is tuple else ((Any,), 0)


def _traceable_tuple(inner: tuple[Any, ...]) -> Test:
    items, rest = items_of_tuple(inner)
    tests, least = [traceable_test(one) for one in items], len(items) - (rest is not None)

    def test(value: Any) -> bool:
        if not isinstance(value, tuple):
            return False
        count = len(cast(tuple[Any, ...], value))
        if count < least or (rest is None and count > least):
            return False
        each = tests if rest is None else [*tests[:rest], *[tests[rest]] * (count - least), *tests[rest + 1 :]]
        return all(one(item) for one, item in zip(each, cast(tuple[Any, ...], value), strict=True))

    return test


def _traceable_container(kind: type, inner: tuple[Any, ...]) -> Test:
    if kind is tuple:
        return _traceable_tuple(inner)
    parts = [traceable_test(one) for one in inner if one is not Ellipsis]
    if issubclass(kind, collections.abc.Mapping) and len(parts) == 2:
        key_of, value_of = parts
        return lambda value: (
            isinstance(value, kind) and all(key_of(key) and value_of(item) for key, item in cast(Any, value).items())
        )
    if issubclass(kind, collections.abc.Collection) and len(parts) == 1:
        item_of = parts[0]
        return lambda value: isinstance(value, kind) and all(item_of(item) for item in cast(Any, value))
    return lambda value: isinstance(value, kind)


def is_valid(value: object, validators: tuple[Any, ...]) -> bool:
    """Whether the validators of beartype accept a value.

    They are skipped where they could not read values: in a compiled or exported program, under vmap, and for tensors
    without values (meta, fake).
    """
    if not validators or torch.compiler.is_compiling() or modes.proving():
        return True
    if isinstance(value, torch.Tensor) and not modes.has_values(value):
        return True
    return all(validator.is_valid(value) for validator in validators)


def _by_beartype(value: object, hint: Any) -> bool:
    from beartype.door import is_bearable
    from beartype.roar import BeartypeException

    try:
        with suppress(TypeError):  # not every type can be a key
            test = _in_silence(hint)
            if test is not None:
                return test(value)
        return is_bearable(_first_row(value, hint), hint)
    except BeartypeException:
        return True


def refused_by_beartype(hint: Any) -> bool:
    """Whether beartype says that something is no type."""
    from beartype.roar import BeartypeDecorHintException

    try:
        with suppress(TypeError):
            _in_silence(hint)
            return False
        from beartype.door import is_bearable

        is_bearable(None, hint)
    except BeartypeDecorHintException:
        return True
    return False


def _first_row(value: object, hint: Any) -> object:
    """A tensor of one row in place of a tensor of many, where beartype looks at the first item; None for a number.

    It would ask for `iter(value)`, for which torch makes a tensor of every row: 1.2 GB for two million rows. A tensor
    without axes is no iterable, though its class has the methods.
    """
    if type(value) not in (torch.Tensor, torch.nn.Parameter) or typing.get_origin(hint) not in ITERABLES:
        return value
    tensor = cast(torch.Tensor, value)
    if tensor.layout is not torch.strided or tensor.is_nested:
        return tensor
    return tensor[:1] if tensor.dim() else None


@cache
def _in_silence(hint: Any) -> Test | None:
    """Let beartype read a type for the first time, without its warnings about types such as `typing.Callable`.

    Returns:
        What takes the place of beartype where something is unpacked in the type; else None.
    """
    from beartype.door import is_bearable

    if _holds_unpacked(hint):
        return traceable_test(hint)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        is_bearable(None, hint)
    return None


def _holds_unpacked(hint: Any) -> bool:
    return any(_unpacked(inner) is not None or _holds_unpacked(inner) for inner in typing.get_args(hint))
