"""Reads an annotation such as `Float[Tensor, "batch words 300"]` into the types, dtypes and axes that it allows."""

import collections.abc
import dataclasses
import re
import types
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, NewType, Self, TypeVar, Union, cast, get_args, get_origin

import torch
from jaxtyping import AbstractArray

from towers.contracts.expressions import expression
from towers.contracts.no_types import NoType, check_type
from towers.contracts.nontensor import is_typed_dict, items_of_tuple
from towers.contracts.resolve import types_of_fields
from towers.contracts.specs import (
    Alternative,
    Axis,
    DefaultSpec,
    ItemsSpec,
    KeyedSpec,
    MappingSpec,
    PlainSpec,
    RecordSpec,
    Spec,
    TensorSpec,
    TreeSpec,
    TupleSpec,
    holds_tensors,
)
from towers.contracts.trees import PyTree


def read_annotation(hint: Any, value: str | None, root: str | None = "self") -> Spec:
    """The alternatives that an annotation allows; `X | None` has two.

    Args:
        hint: the annotation.
        value: the source of the annotated value: the name of an argument, "return", or None inside of containers.
        root: what `self` means in the annotation: for the fields of an argument's class, that argument.

    Raises:
        ValueError: an axis string cannot be read.
    """
    options = [option for alternative in _alternatives(hint) for option in _read(alternative, value, root)]
    merged: list[Alternative] = []
    for option in options:
        last = merged[-1] if merged else None
        if isinstance(option, TensorSpec) and isinstance(last, TensorSpec) and _same_sizes(option, last):
            merged[-1] = dataclasses.replace(last, carriers=last.carriers + option.carriers)
        else:
            merged.append(option)
    return tuple(merged)


def _alternatives(hint: Any) -> Iterable[Any]:
    if isinstance(hint, TypeVar):
        return hint.__constraints__ or _alternatives(Any if hint.__bound__ is None else hint.__bound__)
    if hasattr(hint, "__value__"):  # type X = …
        return _alternatives(_meant(hint.__value__, _arguments(hint, hint.__type_params__)))
    if _form(hint) in _QUALIFIERS or (get_origin(hint) is Annotated and not _validators(hint)):
        return _alternatives(get_args(hint)[0])
    if isinstance(hint, NewType):
        return _alternatives(hint.__supertype__)
    if _form(hint) in ("TypeGuard", "TypeIs"):
        return (bool,)
    if get_origin(hint) in (Union, types.UnionType):
        return [inner for option in get_args(hint) for inner in _alternatives(option)]
    return (Any,) if hint is Self else (hint,)


def _form(hint: Any) -> str | None:
    """The name of a special form with arguments, of typing or of typing_extensions: "Final" for `Final[int]`."""
    return getattr(get_origin(hint), "_name", None)


_QUALIFIERS = ("Final", "NotRequired", "ReadOnly", "Required")


def _qualifiers(hint: Any) -> set[str | None]:
    """The special forms around the type of a field."""
    found = {_form(hint)}
    while get_args(hint) and (_form(hint) in _QUALIFIERS or get_origin(hint) is Annotated):
        hint = get_args(hint)[0]
        found.add(_form(hint))
    return found


def _validators(hint: Any) -> tuple[Any, ...]:
    """The validators of beartype's in an Annotated."""
    return tuple(one for one in hint.__metadata__ if type(one).__module__.startswith("beartype."))


def _validated(option: Alternative, validators: tuple[Any, ...]) -> Alternative:
    if isinstance(option, PlainSpec):
        return PlainSpec(Annotated[(option.hint, *validators)])
    return dataclasses.replace(option, validators=(*option.validators, *validators))


def _arguments(hint: Any, parameters: Iterable[Any]) -> dict[Any, Any]:
    """The values of the type parameters of a generic class or alias, as in `Pair[Float[Tensor, "n"]]`."""
    return dict(zip(parameters, get_args(hint), strict=False))


def _meant(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    """An annotation inside of a generic class or alias, with the values of its type parameters."""
    if isinstance(hint, TypeVar):
        return arguments.get(hint, hint)
    inside = () if isinstance(hint, type) else getattr(hint, "__parameters__", ())
    return cast(Any, hint)[tuple(arguments.get(one, one) for one in inside)] if arguments and inside else hint


def _same_sizes(one: TensorSpec, other: TensorSpec) -> bool:
    return (one.text, one.kind, one.dtypes, one.validators) == (other.text, other.kind, other.dtypes, other.validators)


def _read(hint: Any, value: str | None, root: str | None) -> Spec:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return (_read_tensor(hint, root),)
    if get_origin(hint) is Annotated:
        validators = _validators(hint)
        return tuple(_validated(option, validators) for option in read_annotation(get_args(hint)[0], value, root))
    kind, inner = cast(Any, get_origin(hint)), get_args(hint)
    if hint is PyTree or kind is PyTree:
        return (TreeSpec(read_annotation(inner[0] if inner else Any, None, root)),)
    if "leaftype" in getattr(cast(object, hint), "__dict__", ()):  # jaxtyping's own PyTree, which is there beside jax
        return _read_their_tree(hint, root)
    fields = _fields(kind or hint)
    if fields:
        return _unless_plain(hint, _read_fields(hint, fields, value))
    if not isinstance(kind, type):
        check_type(hint)
        return (PlainSpec(hint),)
    if kind is tuple:
        items, rest = items_of_tuple(inner)
        specs = tuple(read_annotation(item, None, root) for item in items)
        return _unless_plain(
            hint, ItemsSpec(tuple, *specs) if items and rest == 0 == len(items) - 1 else TupleSpec(specs, rest)
        )
    if issubclass(kind, collections.abc.Mapping) and len(inner) == 2:
        keys, values = (read_annotation(item, None, root) for item in inner)
        return _unless_plain(hint, MappingSpec(cast(type, kind), keys, values))
    inner = tuple(item for item in inner if item is not Ellipsis)
    if kind is collections.abc.ItemsView and len(inner) == 2:
        inner = (cast(Any, tuple)[inner],)
    listed = kind in LOOKED_AT or (
        issubclass(kind, collections.abc.Collection) and not issubclass(kind, collections.abc.Mapping)
    )
    if listed and len(inner) == 1:
        return _unless_plain(hint, ItemsSpec(cast(type, kind), read_annotation(inner[0], None, root)))
    if any(isinstance(item, (list, tuple)) or _speaks_of_tensors(item, root) for item in inner):
        return (PlainSpec(kind),)  # a Callable or an Iterator: its results cannot be checked without using it up
    return (PlainSpec(hint),)


def _speaks_of_tensors(item: Any, root: str | None) -> bool:
    """Whether an argument of a class, which may take what is no type, names tensors."""
    try:
        return holds_tensors(read_annotation(item, None, root))
    except NoType:
        return False


LOOKED_AT = (collections.abc.Iterable, collections.abc.Reversible, collections.abc.Container)
"""Of these the items are checked where the value is a collection, and not where it would be used up."""


def _read_their_tree(hint: Any, root: str | None) -> Spec:
    if getattr(hint, "structure", None) is not None:
        raise ValueError(f"PyTree[…, {hint.structure!r}]: structures have no names here; PyTree[…] is any of them")
    return (TreeSpec(read_annotation(getattr(hint, "leaftype", Any), None, root)),)


def _unless_plain(hint: Any, option: Alternative) -> Spec:
    return (option,) if holds_tensors((option,)) else (PlainSpec(hint),)


# Dataclasses, NamedTuples and TypedDicts.

_reading: list[type] = []
"""The classes whose fields are being read: a class with a field of its own type would never end."""


def read_record(kind: type, value: str, *, strictly: bool) -> RecordSpec:
    """A dataclass field by field, whether or not one of them is a tensor.

    Args:
        kind: the dataclass.
        value: the source of the object.
        strictly: whether a field whose annotation is no type is refused; else it is not checked.

    Raises:
        NoType: the annotation of a field is no type.
    """
    return cast(RecordSpec, _read_fields(kind, _fields(kind), value, strictly=strictly))


def _fields(hint: Any) -> tuple[str, ...]:
    if not isinstance(hint, type) or hint in _reading:
        return ()
    return _field_names(hint)


def _field_names(hint: type) -> tuple[str, ...]:
    if is_typed_dict(hint):
        return tuple(hint.__annotations__)
    if dataclasses.is_dataclass(hint):
        return tuple(field.name for field in dataclasses.fields(hint))
    return getattr(cast(type, hint), "_fields", ()) if issubclass(hint, tuple) else ()


def _read_fields(
    hint: Any, names: Iterable[str], value: str | None, *, strictly: bool = False
) -> RecordSpec | KeyedSpec:
    kind: type = get_origin(hint) or hint
    meant = _arguments(hint, getattr(kind, "__parameters__", ()))
    _reading.append(kind)
    try:
        inside = {**vars(kind), **{inner.__name__: inner for inner in _reading}}
        full = types_of_fields(kind, inside)
        hints = {name: _meant(one, meant) for name, one in full.items()}
        if is_typed_dict(kind):
            # What is text is not among the keys that Python knows to be required, or not.
            said = {name: _qualifiers(one) for name, one in full.items()}
            known: frozenset[str] = cast(Any, kind).__required_keys__
            required = frozenset(
                name
                for name, forms in said.items()
                if "NotRequired" not in forms and (name in known or "Required" in forms)
            )
            return KeyedSpec(kind, tuple((name, _read_field(hints[name], None, None)) for name in names), required)
        paths = {name: f"{value}.{name}" if value else None for name in names}
        specs = {name: _read_field(hints.get(name, Any), paths[name], value, strictly=strictly) for name in names}
        unset: set[str] = set()
        record: Any = kind
        if dataclasses.is_dataclass(record):
            made = cast(Any, kind).__dataclass_params__.init
            for field in dataclasses.fields(record):
                if field.default is not dataclasses.MISSING:
                    specs[field.name] = _with_default(specs[field.name], field.default)
                elif field.default_factory is dataclasses.MISSING and not (made and field.init):
                    unset.add(field.name)
        return RecordSpec(kind, tuple(specs.items()), frozenset(unset))
    finally:
        _reading.pop()


def _read_field(hint: Any, value: str | None, root: str | None, *, strictly: bool = False) -> Spec:
    """The annotation of a field. Unless `strictly`, one that is no type is not checked: the class is someone else's."""
    try:
        return read_annotation(hint, value, root)
    except NoType as error:
        if strictly:
            raise NoType(f"{value}: {error}") from None
        return (PlainSpec(Any),)


def _with_default(spec: Spec, default: object) -> Spec:
    """Allow the default of a field too, if it has another type, such as None for a tensor."""
    kinds = [_kind_of(option) for option in spec if not isinstance(option, PlainSpec)]
    plain = any(option.takes(default) for option in spec if isinstance(option, PlainSpec))
    return spec if plain or any(isinstance(default, kind) for kind in kinds) else (*spec, DefaultSpec(type(default)))


def _kind_of(option: Alternative) -> Any:
    match option:
        case TensorSpec():
            return option.carriers
        case TupleSpec():
            return tuple
        case TreeSpec() | PlainSpec():
            return object
        case _:
            return option.kind


# Tensors.


def _read_tensor(hint: Any, root: str | None) -> TensorSpec:
    text = hint.dim_str
    fields = _field_names(_reading[-1]) if _reading else ()

    def from_root(braces: re.Match[str]) -> str:
        own = braces["name"] in fields
        if not own and braces["name"] != "self":
            return braces[0]
        if root is None:
            raise ValueError(
                f"{text!r}: `self`, the instance that holds this field, cannot be reached inside of a list or a dict"
            )
        return f"{braces['start']}{root}{'.' + braces['name'] if own else ''}"

    axes = tuple(_read_axis(_BRACES.sub(from_root, axis)) for axis in text.split())
    variadic = [index for index, axis in enumerate(axes) if axis.variadic]
    known = cast(object, hint.dtypes)
    dtypes = _torch_dtypes(tuple(cast(list[str], known))) if isinstance(known, (tuple, list)) else None
    carrier = object if hint.array_type is Any else hint.array_type
    return TensorSpec((carrier,), hint.dtype.__name__, dtypes, text, axes, variadic[0] if variadic else None)


_BRACES = re.compile(r"(?P<start>\{(?:len\()?)(?P<name>\w+)")


@cache
def _torch_dtypes(known: tuple[str | re.Pattern[str], ...]) -> frozenset[torch.dtype]:
    """The torch dtypes that match the names and patterns of a jaxtyping class."""
    return frozenset(
        dtype
        for name, dtype in vars(torch).items()
        if isinstance(dtype, torch.dtype)
        and any(name == one if isinstance(one, str) else one.match(name) for one in known)
    )


_AXIS = re.compile(r"(?P<modifiers>[*#_]*)([^=]*=(?P<more>[*#_]*))?(?P<rest>.*)")
"""`name=4` means `4`; modifiers can stand on both sides."""


@cache
def _read_axis(text: str) -> Axis:
    if text == "...":
        return Axis(text, text, None, None, variadic=True, broadcast=False)
    match = _AXIS.fullmatch(text)
    assert match is not None
    modifiers, rest = match["modifiers"] + (match["more"] or ""), match["rest"]
    variadic, broadcast = "*" in modifiers, "#" in modifiers
    if "_" in modifiers:
        return Axis(text, text, None, None, variadic, broadcast)
    if not rest:
        raise ValueError(f"{text!r} is no axis: a name or a size is missing; `...` stands for any number of axes")
    size = expression(rest)
    if not (size.names or size.braces or size.divisors) and size.evaluate(int, int) < 0:
        raise ValueError(f"{text!r}: no axis has a size below 0; `_` is an axis of any size")
    name = rest if rest.isidentifier() else None
    return Axis(text, _label(size.braces, rest), size, name, variadic, broadcast)


def _label(braces: Iterable[str], text: str) -> str:
    for path in braces:
        short = path.replace("self.", "") if "[" in path or "(" in path else path.rpartition(".")[2]
        text = text.replace("{" + path + "}", short)
    return text
