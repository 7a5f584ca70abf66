# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What an annotation demands, read once: `Float[Tensor, "batch words 300"]` -> axes, dtypes and the types allowed."""

import re
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, TypeVar, Union, cast, get_args, get_origin

import torch
from jaxtyping import AbstractArray

from towers.contracts.expressions import Expression, expression
from towers.contracts.layouts import has_layout

T = TypeVar("T")


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

    @property
    def origin(self) -> str:
        """Who says how large it is: the instance, other axes, or the annotation alone."""
        spoken = self.size is not None and (self.size.braces or self.size.names)
        return self.text.replace("{", "").replace("}", "") if spoken else "as annotated"


@dataclass(frozen=True)
class TensorSpec:
    """A jaxtyping annotation."""

    array_type: type
    kind: str
    dtypes: frozenset[torch.dtype] | None
    """None: any."""
    text: str
    axes: tuple[Axis, ...]
    variadic: int | None
    """Where the variadic axis stands, if there is one."""

    def takes_rank(self, rank: int) -> bool:
        """Whether a tensor may have so many axes."""
        return rank == len(self.axes) if self.variadic is None else rank >= len(self.axes) - 1


@dataclass(frozen=True)
class TupleSpec:
    """`tuple[…]` with a specification for each item."""

    items: "tuple[Spec, ...]"


@dataclass(frozen=True)
class PlainSpec:
    """A type that has nothing to do with tensors; beartype checks it."""

    hint: Any


Alternative: TypeAlias = TensorSpec | TupleSpec | PlainSpec
Spec: TypeAlias = tuple[Alternative, ...]
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


def pair(spec: TensorSpec, came: Sequence[T]) -> list[tuple[Axis, T | tuple[T, ...], int]]:
    """(axis, size, index in the shape) for each axis; a variadic axis meets a tuple of sizes."""
    at = spec.variadic
    if at is None:
        return [(axis, size, index) for index, (axis, size) in enumerate(zip(spec.axes, came, strict=True))]
    end = len(came) - (len(spec.axes) - at - 1)
    front = [(axis, came[index], index) for index, axis in enumerate(spec.axes[:at])]
    back = [(axis, came[index], index) for index, axis in enumerate(spec.axes[at + 1 :], start=end)]
    return [*front, (spec.axes[at], tuple(came[at:end]), at), *back]


def is_kind(value: object, option: TensorSpec | TupleSpec | PlainSpec) -> bool:
    """Whether a value is of the type that an alternative names; what is no tensor is asked of beartype."""
    if isinstance(option, TensorSpec):
        return isinstance(value, option.array_type) and has_layout(value)
    if isinstance(option, TupleSpec):
        return isinstance(value, tuple) and len(cast(tuple[object, ...], value)) == len(option.items)
    if option.hint is type(None):
        return value is None
    if option.hint is Any or torch.compiler.is_compiling():
        return True
    from beartype.door import is_bearable

    return is_bearable(value, option.hint)


def axis_names(spec: Spec) -> Iterator[str]:
    """The axis names that a specification binds or speaks of, each as often as it stands there."""
    for option in spec:
        if isinstance(option, TensorSpec):
            for axis in option.axes:
                yield from axis.size.names if axis.size is not None and not axis.variadic else ()
        elif isinstance(option, TupleSpec):
            for item in option.items:
                yield from axis_names(item)


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
    dtypes = _torch_dtypes(tuple(hint.dtypes)) if isinstance(hint.dtypes, (tuple, list)) else None
    kind = hint.dtype.__name__
    return TensorSpec(hint.array_type, kind, dtypes, hint.dim_str, axes, variadic[0] if variadic else None)


@cache
def _torch_dtypes(known: tuple[str | re.Pattern[str], ...]) -> frozenset[torch.dtype]:
    """The dtypes of torch among those that jaxtyping knows by name or pattern."""
    return frozenset(
        dtype
        for name, dtype in vars(torch).items()
        if isinstance(dtype, torch.dtype)
        and any(name == one if isinstance(one, str) else one.fullmatch(name) for one in known)
    )


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


def _label(braces: Iterable[str], text: str) -> str:
    for path in braces:
        text = text.replace("{" + path + "}", path.rpartition(".")[2])
    return text
