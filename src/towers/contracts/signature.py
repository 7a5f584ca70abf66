"""Reads the signature of a function once, when it is decorated: what it demands of arguments and result."""

import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from types import NotImplementedType
from typing import Any, Unpack, cast, get_args, get_origin

from towers.contracts.annotations import read_annotation, read_record
from towers.contracts.expressions import Condition, conditions, path_root
from towers.contracts.no_types import NoType
from towers.contracts.resolve import Names, types_of, types_of_fields
from towers.contracts.specs import (
    DefaultSpec,
    ItemsSpec,
    MappingSpec,
    PlainSpec,
    Spec,
    axis_names,
    holds_tensors,
    is_unresolved,
    tensors,
)
from towers.contracts.spelling import check_spelling

OPERATORS = re.compile(
    r"__(eq|ge|gt|le|lt|ne|[ir]?(add|and|divmod|floordiv|lshift|matmul|mod|mul|or|pow|rshift|sub|truediv|xor))__"
)
"""The methods of operators with two sides. Each may return NotImplemented, whatever its annotation says."""


@dataclass(frozen=True)
class Options:
    """The options of `contract`."""

    where: tuple[str, ...] = ()
    dtype_of: str | None = None
    vocabulary: tuple[str, ...] = ()
    only_tensors: bool = False
    """Whether functions without tensors, and those that cannot be read, are left alone, as `install` does."""


@dataclass(frozen=True)
class Signature:
    """What annotations and options demand of a call."""

    name: str
    formal: tuple[inspect.Parameter, ...]
    """The function's own parameters."""
    arguments: Mapping[str, Spec]
    result: Spec | None
    where: tuple[Condition, ...]
    dtype_of: str | None
    package: str
    """The Python module of the function."""
    given: Mapping[str, Spec] = field(default_factory=dict[str, Spec])
    """Of a dataclass: the fields whose default is of another type, with what holds where they are given."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that can be given by position, in order."""
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return tuple(p.name for p in self.formal if p.kind in by_position)

    @property
    def speaks_of_tensors(self) -> bool:
        """Whether the annotation of an argument or of the result names tensors."""
        return any(holds_tensors(spec) for spec in (*self.arguments.values(), *([self.result] if self.result else [])))

    @property
    def defaults(self) -> dict[str, Any]:
        """The default values of parameters."""
        return {p.name: p.default for p in self.formal if p.default is not p.empty}


def several(where: str | Iterable[str], what: str) -> tuple[str, ...]:
    """One text or several, as a tuple.

    Raises:
        TypeError: it is neither.
    """
    texts: tuple[Any, ...] = (where,) if isinstance(where, str) or not isinstance(where, Iterable) else tuple(where)  # pyright: ignore[reportUnnecessaryIsInstance]
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{what} is {text!r}; expected a text such as 'words >= 2', or several")
    return texts


def read_signature(function: Callable[..., Any], options: Options, names: Names | None = None) -> Signature:
    """Read the annotations of a function. An annotation with a name that is not defined is not checked.

    Args:
        function: the function.
        options: the options of `contract`.
        names: given if the annotations can be read again later; then a missing name is an error.

    Raises:
        NameError: an annotation names what is not defined yet.
        ValueError: an axis string or a condition cannot be read, names something that the call does not have, or
            uses a name that is not in the vocabulary.
    """
    where = function.__qualname__.rpartition("<locals>.")[2]
    parameters = tuple(inspect.signature(function).parameters.values())
    hints = types_of(function)
    specs: dict[str, Spec] = {}
    unread: list[str] = []
    for parameter in parameters:
        if parameter.name in hints:
            specs[parameter.name] = _of_all(parameter, hints[parameter.name], unread)
    result = _read("the result", hints["return"], "return", unread) if "return" in hints else None
    if result is not None and OPERATORS.fullmatch(function.__name__):
        result = (*result, PlainSpec(NotImplementedType))
    if unread and not options.only_tensors:
        raise ValueError(f"{where}: {unread[0]}")
    if names is not None and names.missing:
        raise NameError(", ".join(sorted(names.missing)))
    everything = [*specs.values(), *([] if result is None else [result])]
    bounds = tuple(condition for text in options.where for condition in conditions(text))
    own = [parameter.name for parameter in parameters]
    known = {*own, *(name for spec in specs.values() for name in axis_names(spec))}
    if any(is_unresolved(spec) for spec in everything):  # an axis may be named there
        bounds = tuple(one for one in bounds if {*one.subject.names, *one.bound.names} <= known)
    if unread and any(map(holds_tensors, everything)):
        warnings.warn(f"{function.__module__}.{where}: {unread[0]}, so it is not checked", RuntimeWarning, stacklevel=2)
    _check_names(where, bounds, known)
    _check_braces(where, bounds, everything, own)
    check_spelling(where, specs.values(), result, options.vocabulary)
    if options.dtype_of is not None and "self" not in own:
        raise ValueError(f"{where}: dtype_of ({options.dtype_of!r}) is a path from `self`, which it does not have")
    return Signature(where, parameters, specs, result, bounds, options.dtype_of, function.__module__ or "")


def read_made(kind: type, initialise: Callable[..., Any], options: Options, names: Names | None = None) -> Signature:
    """Read the contract of a dataclass: first the annotations of its own `__init__`, or its InitVars; then its fields.

    The arguments of a generated `__init__` are not checked themselves, because `__post_init__` may convert them.
    """
    first, *others = inspect.signature(initialise).parameters.values()
    if cast(Any, kind).__dataclass_params__.init:
        fields = types_of_fields(kind, {kind.__name__: kind})
        hints = {name: cast(Any, hint).type for name, hint in fields.items() if isinstance(hint, InitVar)}
    else:
        hints = types_of(initialise)
    hints.pop("return", None)

    def made() -> None: ...

    made.__dict__["__signature__"] = inspect.Signature(
        [*others, first.replace(name="self")], __validate_parameters__=False
    )
    made.__annotations__ = {**hints, "self": kind}
    made.__qualname__, made.__module__ = kind.__qualname__, kind.__module__
    signature = read_signature(made, options, names)
    try:
        own = read_record(kind, "self", strictly=not options.only_tensors)
    except NoType as error:
        raise ValueError(f"{signature.name}: {error}") from None
    arguments = {**signature.arguments, "self": (own,)}
    formal = (first.replace(name="self"), *others)
    narrow = {name: tuple(one for one in spec if not isinstance(one, DefaultSpec)) for name, spec in own.fields}
    wider = {name for name, spec in own.fields if spec != narrow[name]}
    made_by_python = cast(Any, kind).__dataclass_params__.init
    given = {one.name: narrow[one.name] for one in others if made_by_python and one.name in wider}
    return replace(signature, arguments=arguments, formal=formal, given=given)


def _of_all(parameter: inspect.Parameter, hint: Any, unread: list[str]) -> Spec:
    """The specification of one parameter. The annotation of `*args` and `**kwargs` is that of each item."""
    name, unpacked = parameter.name, get_origin(hint) is Unpack or getattr(hint, "__unpacked__", False)
    if parameter.kind == parameter.VAR_POSITIONAL:  # `*args: *tuple[X, Y]`: all of them at once
        return (
            _read(name, tuple[hint], name, unread) if unpacked else (ItemsSpec(tuple, _read(name, hint, None, unread)),)
        )
    if parameter.kind == parameter.VAR_KEYWORD:  # and `**kwargs: Unpack[Options]`
        if unpacked:
            return _read(name, get_args(hint)[0], name, unread)
        return (MappingSpec(dict, (PlainSpec(Any),), _read(name, hint, None, unread)),)
    return _read(name, hint, name, unread)


def _read(name: str, hint: Any, value: str | None, unread: list[str]) -> Spec:
    """The specification of one annotation; one that is no type is noted, and any value fits it."""
    try:
        return read_annotation(hint, value)
    except NoType as error:
        unread.append(f"{name}: {error}")
        return (PlainSpec(Any),)


def _check_names(where: str, bounds: Iterable[Condition], known: set[str]) -> None:
    """Refuse a condition with a name that no argument has: it would never apply."""
    for condition in bounds:
        for name in (*condition.subject.names, *condition.bound.names):
            if name not in known:
                raise ValueError(f"{where}: {condition.text!r}: {name} is none of {', '.join(sorted(known))}")


def _check_braces(where: str, bounds: Iterable[Condition], specs: Iterable[Spec], parameters: Sequence[str]) -> None:
    """Refuse a path in braces that does not start from a parameter."""
    sizes = [axis.size for spec in specs for tensor in tensors(spec) for axis in tensor.axes if axis.size is not None]
    for size in (*sizes, *(side for condition in bounds for side in (condition.subject, condition.bound))):
        for path in size.braces:
            if path_root(path) not in (*parameters, "return"):
                listed = ", ".join(parameters)
                raise ValueError(f"{where}: {{{path}}}: {path_root(path)} is none of the parameters {listed}")
