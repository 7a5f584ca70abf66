"""Makes the errors of a call that does not fit: one function for each kind of error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Never, cast, get_origin

import torch

from towers.contracts.bindings import Bindings, Bound, is_result
from towers.contracts.errors import ShapeContractError, ValueContractError, complaint
from towers.contracts.expressions import Condition, Expression
from towers.contracts.hints import Case, likely_cause
from towers.contracts.layouts import RaggedAxis, Size, has_layout, number, shown, sized
from towers.contracts.specs import (
    Alternative,
    Axis,
    ItemsSpec,
    KeyedSpec,
    MappingSpec,
    PlainSpec,
    RecordSpec,
    Spec,
    TensorSpec,
    TreeSpec,
    TupleSpec,
    Validated,
    pair,
)

Row = tuple[str, str, str, str]


@dataclass
class Problem:
    """What does not fit: the text of the message, and the attributes of the exception."""

    argument: str
    text: str
    axis: str | None
    expected: Any
    actual: Any
    rows: Sequence[Row] = ()


def refuse_kind(call: Bindings, name: str, value: object, spec: Spec) -> Never:
    """The value has another type than the annotation names."""
    wanted = " or ".join(_describe(option) for option in spec)
    several = any(isinstance(option, (TupleSpec, ItemsSpec, TreeSpec)) for option in spec)
    case = Case(value=value, wants_tensor=not several and any(isinstance(option, TensorSpec) for option in spec))
    case.wants_int = any(_describe(option) == "int" for option in spec)
    problem = f"{_subject(name)} is {_came(value, spec)}; expected {wanted}"
    _refuse(call, Problem(name, problem, None, wanted, type(value)), case)


def refuse_key(call: Bindings, name: str, key: str, spec: KeyedSpec) -> Never:
    """A required key of a TypedDict is missing."""
    listed = ", ".join(repr(one) for one, _ in spec.fields if one in spec.required)
    problem = f"{_subject(name)} has no {key!r}; {spec.kind.__name__} needs {listed}"
    _refuse(call, Problem(name, problem, None, key, None))


def refuse_validators(call: Bindings, name: str, value: object, option: Validated) -> Never:
    """A validator of the annotation does not accept the value."""
    wrong = next((one for one in option.validators if not one.is_valid(value)), option.validators[0])
    _refuse(call, Problem(name, f"{_subject(name)} does not fulfil {wrong!r}", None, repr(wrong), type(value)))


def refuse_dtype(
    call: Bindings, name: str, dtype: torch.dtype | None, spec: TensorSpec, wanted: torch.dtype | None
) -> Never:
    """The dtype is not in the annotation, or it is not `wanted`, the dtype of the parameter in `dtype_of`."""
    came = "of no dtype of torch" if dtype is None else dtype_name(dtype)
    expected, why = spec.kind, ""
    if spec.dtypes is not None and dtype not in spec.dtypes and wanted not in spec.dtypes:
        wanted = None  # it is the annotation that refuses
    if wanted is not None:
        expected, why = dtype_name(wanted), f" (the dtype of {call.signature.dtype_of})"
    parameter = None if wanted is None else call.signature.dtype_of
    case = Case(value=call.tensors[name], kind=expected, parameter=parameter, devices=_devices(call, name))
    problem = f"{_subject(name)} is {came}; expected {expected}{why}"
    _refuse(call, Problem(name, problem, None, expected, came), case)


def refuse_rank(call: Bindings, name: str, spec: TensorSpec, came: Sequence[Size]) -> Never:
    """The tensor has too few or too many axes."""
    expected = [_expected(call, axis) for axis in spec.axes]
    count = len(spec.axes) - (spec.variadic is not None)
    least = "" if spec.variadic is None else "at least "
    axes = ", ".join(
        axis.label if size is None or axis.label == str(size) else f"{axis.label}={size}"
        for axis, size in zip(spec.axes, expected, strict=True)
    )
    sizes = ", ".join(shown(size) for size in came)
    had = f"{len(came)} axis" if len(came) == 1 else f"{len(came)} axes"
    wanted = f"{least}{count}: ({axes})" if spec.axes else "none, a single number"
    problem = f"{_subject(name)} has {had} ({sizes}); expected {wanted}"
    case = Case(value=call.tensors[name], devices=_devices(call, name))
    if spec.variadic is None:
        case.expected, case.came = expected, sized(came)
    _refuse(call, Problem(name, problem, None, len(spec.axes), len(came)), case)


def refuse_size(
    call: Bindings, name: str, spec: TensorSpec, came: Sequence[Size], index: int, expected: int, why: str
) -> Never:
    """An axis has another size than expected. `why` says where the expected size comes from."""
    expected = number(expected)
    axes = {at: axis for axis, size, at in pair(spec, came) if not isinstance(size, tuple)}
    own = {axis for axis, bound in call.axes.items() if bound.source == name}
    free = {at for at, axis in axes.items() if axis.name in own and at != index}
    wanted = {at: None if at in free else _expected(call, axis) for at, axis in axes.items()} | {index: expected}
    rows: list[Row] = []
    for at, axis in axes.items():
        size = wanted[at]
        remark = f"<- {why}" if at == index else _origin(call, axis) if size is not None else ""
        rows.append((axis.label, _or_one(axis, size), shown(came[at]), remark))
    axis, actual = axes[index], came[index]
    sizes = sized(came)
    case = Case(value=call.tensors[name], devices=_devices(call, name))
    case.expected = [wanted.get(at) for at in range(len(came))]
    case.came = [None if one is None else number(one) for one in sizes]
    fixed = axis.size is not None and not (axis.size.names or axis.size.braces)
    label = f"axis {index}" if fixed else axis.label  # "3 is 4" would be no help
    problem = f"{_subject(name)}: {label} is {shown(actual)}; expected {_or_one(axis, expected)} ({why})"
    _refuse(call, Problem(name, problem, axis.text, expected, actual, rows), case)


def refuse_unsolvable(call: Bindings, name: str, axis: Axis, size: int) -> Never:
    """No whole number gives an expression this size: 5 cannot be `2*n`."""
    names = () if axis.size is None else axis.size.names
    unknown = [one for one in names if call.axes[one].solved and call.axes[one].source == name]
    whole = f"no whole {' and '.join(unknown)} of at least 0"
    problem = f"{_subject(name)}: {axis.label} is {shown(size)}, which it is for {whole}"
    _refuse(call, Problem(name, problem, axis.text, None, size))


def refuse_impossible(call: Bindings, name: str, axis: Axis, why: str) -> Never:
    """The expression of an axis has no value in this call."""
    problem = f"{_subject(name)}: {axis.label} can have no size: {why}"
    _refuse(call, Problem(name, problem, axis.text, None, None))


def refuse_variadic(call: Bindings, name: str, axis: Axis, known: Bound, came: Sequence[int | None]) -> Never:
    """A variadic name has other sizes than in another argument, or the sizes do not broadcast."""
    sizes, expected = (tuple(None if one is None else number(one) for one in many) for many in (came, _many(known)))
    wanted = {
        (True, True): f"what broadcasts with {expected}",
        (True, False): f"what broadcasts to {expected}",
        (False, True): f"what {expected} broadcasts to",
        (False, False): f"{expected}",
    }[axis.broadcast, known.broadcast]
    problem = f"{_subject(name)}: {axis.label} is {sizes}; expected {wanted} (as in {known.source})"
    _refuse(call, Problem(name, problem, axis.text, expected, sizes))


def refuse_condition(call: Bindings, condition: Condition, position: tuple[int, ...] | None) -> Never:
    """A condition of `where=` does not hold for a size or, if `position` is given, for a value in a tensor."""

    def value_of(side: Expression) -> int:
        value = side.evaluate(call.axis_or_values, call.braces)
        return number(value) if position is None or not isinstance(value, torch.Tensor) else int(value[position])

    counted, bounding = condition.parts or (condition.subject, condition.bound)
    value, bound, subject = value_of(counted), value_of(bounding), counted.text
    named = counted.names[0] if counted.names else subject
    axis, source, unit = call.axes.get(named), subject, condition.unit
    if axis is not None:
        unit, source = named if subject == named else "", axis.source
        subject = f"{source}.lengths" if isinstance(axis.size, RaggedAxis) else f"{source}: {subject}"
    if position is not None:
        subject = f"{subject}{list(position)}"
    if condition.parts is not None:
        demand = f"a multiple of {bound}"
        unit = f"({bounding.text})".translate({123: None, 125: None}) if bounding.names or bounding.braces else ""
    else:
        demand = f"{_RELATIONS[condition.relation]} {bound}"
        unit = unit.removesuffix("s") if bound == 1 else unit
    problem = f"{subject} is {value}; {call.owner()} needs {demand} {unit}".rstrip()
    if position is not None:
        raise ValueContractError(complaint(call.place(), problem)) from None
    _refuse(call, Problem(source, problem, condition.subject.text, bound, value))


_RELATIONS = {"<=": "at most", "<": "less than", ">=": "at least", ">": "more than", "==": "exactly"}


def refuse_division(call: Bindings, condition: Condition, divisor: Expression) -> Never:
    """A condition divides by 0."""
    problem = f"{condition.text} divides by 0 ({call.spoken(divisor)})"
    _refuse(call, Problem(condition.subject.names[0], problem, condition.subject.text, None, 0))


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def _refuse(call: Bindings, problem: Problem, case: Case | None = None) -> Never:
    hint = None
    if case is not None:
        case.package = call.signature.package
        hint = likely_cause(case)
    others = [_either(spec) for name, spec in call.others.items() if _is_in(problem.argument, name)]
    text = f"{problem.text}; it may also be {others[-1]}" if others else problem.text
    error = ShapeContractError(complaint(call.place(), text, problem.rows, hint))
    error.argument, error.axis, error.hint = problem.argument, problem.axis, hint
    error.expected, error.actual = problem.expected, problem.actual
    error.bindings, error.module_path = call.sizes(), call.module_path()
    raise error from None


def _or_one(axis: Axis, size: float | None) -> str:
    """The expected size as text: `any`, `4`, or `1 or 4` if the axis broadcasts."""
    if isinstance(size, float) and math.isnan(size):  # of symbols
        return "no whole number"
    return "any" if size is None else f"1 or {size}" if axis.broadcast and size != 1 else str(size)


def _is_in(place: str, name: str) -> bool:
    """Whether a place is an argument or a part of it: `x[0]` is a part of `x`."""
    return place == name or place.startswith((f"{name}[", f"{name}."))


def _expected(call: Bindings, axis: Axis) -> int | None:
    size = call.expected_or_any(axis)
    return None if size is None else number(size)


def _origin(call: Bindings, axis: Axis) -> str:
    bound = call.axes.get(axis.name) if axis.name is not None else None
    return call.origin(axis) if bound is None else bound.origin


def _many(bound: Bound) -> tuple[int | None, ...]:
    return bound.size if isinstance(bound.size, tuple) else ()


def _devices(call: Bindings, name: str) -> list[tuple[str, torch.device]]:
    others = [(other, value.device) for other, value in call.tensors.items() if isinstance(value, torch.Tensor)]
    path = call.signature.dtype_of
    weight = [] if path is None else [(path, call.parameter(path).device)]
    return [*weight, *((other, device) for other, device in others if other != name)]


def _subject(name: str) -> str:
    return name.replace("return", "the result", 1) if is_result(name) else name


def _came(value: Any, spec: Spec) -> str:
    """The value as text: its type; its length too for a tuple; the value itself if the annotation is a Literal."""
    if value is None or any(isinstance(one, PlainSpec) and get_origin(one.hint) is Literal for one in spec):
        return repr(value) if isinstance(value, (str, int, type(None))) else _kind(value)
    if isinstance(cast(object, value), tuple) and any(isinstance(option, TupleSpec) for option in spec):
        return f"{_kind(value)} of {len(value)}"
    return _kind(value)


def _kind(value: object) -> str:
    kind = type(value).__name__
    if isinstance(value, torch.Tensor) and not has_layout(value):
        kind = "nested tensor of layout torch.strided"
    return f"{'an' if kind[0].lower() in 'aeio' or kind == 'ndarray' else 'a'} {kind}"


def _describe(option: Alternative) -> str:
    match option:
        case TensorSpec():
            carriers = " | ".join(carrier.__name__ for carrier in option.carriers)
            return f'{option.kind}[{carriers}, "{option.text}"]'
        case TupleSpec(items, rest):
            said = [f"*tuple[{_either(item)}, ...]" if at == rest else _either(item) for at, item in enumerate(items)]
            return f"({', '.join(said)})"
        case ItemsSpec(kind, item):
            return f"{kind.__name__}[{_either(item)}{', ...' if kind is tuple else ''}]"
        case TreeSpec(leaf):
            return f"PyTree[{_either(leaf)}]"
        case MappingSpec(kind, key, value):
            return f"{kind.__name__}[{_either(key)}, {_either(value)}]"
        case RecordSpec(kind) | KeyedSpec(kind):
            return kind.__name__
        case PlainSpec():
            return option.text


def _either(spec: Spec) -> str:
    return " or ".join(_describe(option) for option in spec)
