"""What an annotation demands, read once: `Float[Tensor, "batch words 300"]` -> axes, dtypes and the types allowed."""

import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, Union, get_args, get_origin

from jaxtyping import AbstractArray

from towers.contracts.expressions import Expression, expression


@dataclass(frozen=True)
class Axis:
    """One axis of an annotation."""

    text: str
    """As written."""
    label: str
    """As shown to people: `{self.hidden}` is `hidden`."""
    size: Expression | None
    """None where any size will do: `_` and `...`."""
    name: str | None
    """The name that the axis binds; None if it is an expression."""
    variadic: bool
    broadcast: bool


@dataclass(frozen=True)
class TensorSpec:
    """A jaxtyping annotation."""

    array_type: type
    kind: str
    dtypes: tuple[str | re.Pattern[str], ...] | None
    text: str
    axes: tuple[Axis, ...]
    variadic: int | None
    """Where the variadic axis stands, if there is one."""

    def allows(self, dtype: str) -> bool:
        """Whether a dtype, by its name, is one of those named."""
        if self.dtypes is None:
            return True
        return any(dtype == known if isinstance(known, str) else known.fullmatch(dtype) for known in self.dtypes)


@dataclass(frozen=True)
class TupleSpec:
    """`tuple[…]` with a specification for each item."""

    items: "tuple[Spec, ...]"


@dataclass(frozen=True)
class PlainSpec:
    """A type that has nothing to do with tensors; beartype checks it."""

    hint: Any


Spec: TypeAlias = tuple[TensorSpec | TupleSpec | PlainSpec, ...]
"""The alternatives of a union, in order."""


def read_annotation(hint: Any) -> Spec:
    """The alternatives that an annotation allows; `X | None` has two.

    Raises:
        ValueError: an axis string cannot be read.
    """
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(spec for option in get_args(hint) for spec in read_annotation(option))
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return (_read_tensor(hint),)
    if get_origin(hint) is tuple and Ellipsis not in get_args(hint):
        return (TupleSpec(tuple(read_annotation(item) for item in get_args(hint))),)
    return (PlainSpec(hint),)


def holds_tensors(spec: Spec) -> bool:
    """Whether a specification speaks of tensors anywhere."""
    return any(
        isinstance(option, TensorSpec)
        or (isinstance(option, TupleSpec) and any(holds_tensors(item) for item in option.items))
        for option in spec
    )


def _read_tensor(hint: Any) -> TensorSpec:
    axes = tuple(_read_axis(text) for text in hint.dim_str.split())
    variadic = [index for index, axis in enumerate(axes) if axis.variadic]
    dtypes = hint.dtypes if isinstance(hint.dtypes, (tuple, list)) else None
    kind = hint.dtype.__name__
    return TensorSpec(hint.array_type, kind, dtypes, hint.dim_str, axes, variadic[0] if variadic else None)


_MODIFIERS = re.compile(r"(?P<modifiers>[*#_]*)(?P<rest>.*)")


def _read_axis(text: str) -> Axis:
    if text == "...":
        return Axis(text, text, None, None, variadic=True, broadcast=False)
    match = _MODIFIERS.fullmatch(text)
    assert match is not None
    modifiers, rest = match["modifiers"], match["rest"].split("=")[-1]
    variadic, broadcast = "*" in modifiers, "#" in modifiers
    if "_" in modifiers:
        return Axis(text, text, None, None, variadic, broadcast)
    size = expression(rest)
    name = rest if rest.isidentifier() else None
    return Axis(text, _label(size.braces, rest), size, name, variadic, broadcast)


def _label(braces: Mapping[str, str], text: str) -> str:
    for path in braces.values():
        text = text.replace("{" + path + "}", path.rpartition(".")[2])
    return text
