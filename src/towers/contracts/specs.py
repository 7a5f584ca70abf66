"""What an annotation demands, as data: tensors with their axes, containers, records, and types without tensors."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar, cast

import torch

from towers.contracts.expressions import Expression
from towers.contracts.nontensor import Test, described, is_plain, traceable_test
from towers.contracts.resolve import Unresolved

T = TypeVar("T")


@dataclass(frozen=True)
class Axis:
    """One axis of an annotation."""

    text: str
    """As written."""
    label: str
    """For messages: `{self.hidden}` is shown as `hidden`."""
    size: Expression | None
    """None if every size fits: `_` and `...`."""
    name: str | None
    """The name that the axis binds; None if it is an expression."""
    variadic: bool
    broadcast: bool


@dataclass(frozen=True)
class Validated:
    """A specification that can have validators, as in `Annotated[Float[Tensor, "n"], Is[lambda x: …]]`."""

    validators: tuple[Any, ...] = field(default=(), kw_only=True)
    """The validators of beartype. All of them must accept the value."""


@dataclass(frozen=True)
class TensorSpec(Validated):
    """A jaxtyping annotation."""

    carriers: tuple[type, ...]
    """The types that the value may have: Tensor, Ragged, PackedSequence, …"""
    kind: str
    dtypes: frozenset[torch.dtype] | None
    """None: any."""
    text: str
    axes: tuple[Axis, ...]
    variadic: int | None
    """The index of the variadic axis, or None."""

    def takes_rank(self, rank: int) -> bool:
        """Whether a tensor may have this number of axes."""
        return rank == len(self.axes) if self.variadic is None else rank >= len(self.axes) - 1

    @property
    def floating(self) -> bool:
        """Whether it allows a floating dtype."""
        return self.dtypes is None or any(dtype.is_floating_point for dtype in self.dtypes)


@dataclass(frozen=True)
class TupleSpec(Validated):
    """`tuple[A, B]`: a specification for each item."""

    items: "tuple[Spec, ...]"
    rest: int | None = None
    """The index of the item that may stand any number of times, as in `tuple[A, *tuple[B, ...]]`, or None."""

    def takes_count(self, count: int) -> bool:
        """Whether a tuple may have this number of items."""
        return count == len(self.items) if self.rest is None else count >= len(self.items) - 1

    def each(self, count: int) -> "tuple[Spec, ...]":
        """The specification of each item of a tuple with this number of items."""
        if self.rest is None:
            return self.items
        several = (self.items[self.rest],) * (count - len(self.items) + 1)
        return (*self.items[: self.rest], *several, *self.items[self.rest + 1 :])


@dataclass(frozen=True)
class ItemsSpec(Validated):
    """`list[X]`, `tuple[X, ...]`, `Sequence[X]`: the same for every item."""

    kind: type
    item: "Spec"

    @property
    def once(self) -> bool:
        """Whether a value may be one that can be gone through once only; such a one is left alone: `Iterable[X]`."""
        return not issubclass(self.kind, Collection)

    def items(self, value: Any) -> Iterable[Any]:
        """The items of a value of this kind, as far as looking at them does not use them up."""
        return cast(Iterable[Any], value) if isinstance(value, Collection) else ()


@dataclass(frozen=True)
class TreeSpec(Validated):
    """`PyTree[X]`: the same for every leaf."""

    leaf: "Spec"


@dataclass(frozen=True)
class MappingSpec(Validated):
    """`dict[K, X]`: the same for every value."""

    kind: type
    key: "Spec"
    value: "Spec"


@dataclass(frozen=True)
class RecordSpec(Validated):
    """A dataclass or NamedTuple: a specification for each field."""

    kind: type
    fields: "tuple[tuple[str, Spec], ...]"
    unset: frozenset[str] = frozenset()
    """The fields that may not be set yet."""


@dataclass(frozen=True)
class KeyedSpec(Validated):
    """A TypedDict: a specification for each key."""

    kind: type
    fields: "tuple[tuple[str, Spec], ...]"
    required: frozenset[str]
    """The keys that may not be missing."""


@dataclass(frozen=True)
class PlainSpec:
    """A type without tensors, which beartype checks."""

    hint: Any
    traceable: Test = field(init=False, repr=False, compare=False)
    """The test that replaces beartype while a program is compiled."""
    text: str = field(init=False, repr=False, compare=False)
    """The type as text for messages. It is made here because Dynamo cannot convert every type to text."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "traceable", traceable_test(self.hint))
        object.__setattr__(self, "text", described(self.hint))

    def takes(self, value: object) -> bool:
        """Whether a value is of this type."""
        return self.traceable(value) if torch.compiler.is_compiling() else is_plain(value, self.hint)


@dataclass(frozen=True)
class DefaultSpec(PlainSpec):
    """The type of the default of a field, where the annotation does not allow it, such as None for a tensor."""


Container: TypeAlias = TupleSpec | ItemsSpec | TreeSpec | MappingSpec | RecordSpec | KeyedSpec
Alternative: TypeAlias = TensorSpec | Container | PlainSpec
Spec: TypeAlias = tuple[Alternative, ...]
"""The alternatives of a union, in order."""


def pair(spec: TensorSpec, came: Sequence[T]) -> list[tuple[Axis, T | tuple[T, ...], int]]:
    """(axis, size, index in the shape) for each axis; a variadic axis meets a tuple of sizes."""
    at = spec.variadic
    if at is None:
        return [(axis, size, index) for index, (axis, size) in enumerate(zip(spec.axes, came, strict=True))]
    end = len(came) - (len(spec.axes) - at - 1)
    front = [(axis, came[index], index) for index, axis in enumerate(spec.axes[:at])]
    back = [(axis, came[index], index) for index, axis in enumerate(spec.axes[at + 1 :], start=end)]
    return [*front, (spec.axes[at], tuple(came[at:end]), at), *back]


def parts(option: Alternative) -> list[Spec]:
    """The specifications of the items of a container or the fields of a record."""
    match option:
        case TupleSpec(items):
            return list(items)
        case ItemsSpec(_, item) | TreeSpec(item):
            return [item]
        case MappingSpec(_, key, value):
            return [key, value]
        case RecordSpec(_, fields) | KeyedSpec(_, fields):
            return [spec for _, spec in fields]
        case _:
            return []


def tensors(spec: Spec) -> Iterator[TensorSpec]:
    """Every specification of a tensor in it, in order."""
    for option in spec:
        if isinstance(option, TensorSpec):
            yield option
        for inner in parts(option):
            yield from tensors(inner)


def axis_names(spec: Spec) -> Iterator[str]:
    """The axis names in a specification, repeated as often as they occur."""
    for tensor in tensors(spec):
        for axis in tensor.axes:
            yield from axis.size.names if axis.size is not None and not axis.variadic else ()


def holds_tensors(spec: Spec) -> bool:
    """Whether there is a tensor anywhere in a specification."""
    return next(tensors(spec), None) is not None


def is_unresolved(spec: Spec) -> bool:
    """Whether a part of it was a name that is not defined."""
    return any(
        option.hint is Unresolved
        if isinstance(option, PlainSpec)
        else any(is_unresolved(part) for part in parts(option))
        for option in spec
    )
