# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What is said when something does not fit: one function for each way not to."""

from collections.abc import Sequence
from typing import Any, Never, cast, get_args

import torch

from towers.contracts.bindings import Bindings, Bound
from towers.contracts.errors import ShapeContractError, complaint
from towers.contracts.expressions import Condition
from towers.contracts.hints import likely_cause
from towers.contracts.layouts import RaggedAxis, Size, has_layout, shown, sized
from towers.contracts.specs import Axis, PlainSpec, Spec, TensorSpec, TupleSpec, pair

Rows = Sequence[tuple[str, str, str, str]]


def refuse_kind(call: Bindings, name: str, value: object, spec: Spec) -> Never:
    """Something that is not of a type named in the annotation."""
    wanted = " or ".join(_describe(option) for option in spec)
    hint = None
    if type(value) in (list, tuple) and any(isinstance(option, TensorSpec) for option in spec):
        items = cast(Sequence[object], value)
        tensors = bool(items) and all(isinstance(item, torch.Tensor) for item in items)
        hint = "torch.stack joins tensors of one length, Ragged.from_list those of different lengths"
        hint = hint if tensors else "torch.tensor makes one of numbers"
    kind = type(value).__name__
    if not has_layout(value):
        kind, hint = "nested tensor of layout torch.strided", "torch.nested.nested_tensor(…, layout=torch.jagged)"
    _refuse(call, name, f"{_subject(name)} is a {kind}; expected {wanted}", None, wanted, type(value), hint)


def refuse_dtype(call: Bindings, name: str, dtype: torch.dtype, spec: TensorSpec, wanted: torch.dtype | None) -> Never:
    """A dtype that the annotation does not name, or (`wanted`) not that of the parameter named by `dtype_of`."""
    came = dtype_name(dtype)
    expected, why, hint = spec.kind, "", None
    if wanted is not None:
        expected, why = dtype_name(wanted), f" (the dtype of {call.signature.dtype_of})"
        hint = f"convert the input, .to(torch.{expected}), or the module, .to(torch.{came})"
    _refuse(call, name, f"{_subject(name)} is {came}; expected {expected}{why}", None, expected, came, hint)


def refuse_rank(call: Bindings, name: str, spec: TensorSpec, came: Sequence[Size]) -> Never:
    """Too few or too many axes."""
    expected = [call.expected(axis) for axis in spec.axes]
    count = len(spec.axes) - (spec.variadic is not None)
    least = "" if spec.variadic is None else "at least "
    axes = ", ".join(
        axis.label if size is None or axis.label == str(size) else f"{axis.label}={size}"
        for axis, size in zip(spec.axes, expected, strict=True)
    )
    sizes = ", ".join(shown(size) for size in came)
    problem = f"{_subject(name)} has {len(came)} axes ({sizes}); expected {least}{count}: ({axes})"
    hint = likely_cause(expected, sized(came)) if spec.variadic is None else None
    _refuse(call, name, problem, None, len(spec.axes), len(came), hint)


def refuse_size(
    call: Bindings, name: str, spec: TensorSpec, came: Sequence[Size], index: int, expected: int, why: str
) -> Never:
    """An axis of another size than expected; `why` is who expects it."""
    axes = {at: axis for axis, size, at in pair(spec, came) if not isinstance(size, tuple)}
    own = {axis for axis, bound in call.axes.items() if bound.source == name}
    free = {at for at, axis in axes.items() if axis.name in own and at != index}
    wanted = {at: None if at in free else call.expected(axis) for at, axis in axes.items()} | {index: expected}
    rows = [
        (
            axis.label,
            "any" if wanted[at] is None else str(wanted[at]),
            shown(came[at]),
            f"<- {why}" if at == index else "",
        )
        for at, axis in axes.items()
    ]
    axis, actual = axes[index], came[index]
    hint = likely_cause([wanted.get(at) for at in range(len(came))], sized(came))
    problem = f"{_subject(name)}: {axis.label} is {shown(actual)}; expected {expected} ({why})"
    _refuse(call, name, problem, axis.text, expected, actual, hint, rows)


def refuse_unsolvable(call: Bindings, name: str, axis: Axis, size: int) -> Never:
    """A size that an expression of one unknown name has for no whole number, such as 5 for `2*n`."""
    problem = (
        f"{_subject(name)}: {axis.label} is {size}, which it is for no whole {axis.size.names[0] if axis.size else ''}"
    )
    _refuse(call, name, problem, axis.text, None, size)


def refuse_variadic(call: Bindings, name: str, axis: Axis, known: Bound, came: tuple[int, ...]) -> Never:
    """Several axes at once that are not, or do not broadcast with, those of another argument."""
    how = "broadcastable with" if axis.broadcast else "as in"
    problem = f"{_subject(name)}: {axis.label} is {came}; expected {known.size} ({how} {known.source})"
    _refuse(call, name, problem, axis.text, known.size, came)


def refuse_condition(
    call: Bindings, condition: Condition, value: int, bound: int, position: tuple[int, ...] | None
) -> Never:
    """A size, or (`position`) a value in a tensor, that breaks a condition."""
    subject, source = condition.subject.text, condition.subject.text
    unit = condition.unit
    axis = call.axes.get(subject)
    if axis is not None:
        unit, source = subject, axis.source
        subject = f"{source}.lengths" if isinstance(axis.size, RaggedAxis) else f"{source}: {subject}"
    if position is not None:
        subject = f"{subject}{list(position)}"
    unit = unit.removesuffix("s") if bound == 1 else unit
    relation = {"<=": "at most", "<": "less than", ">=": "at least", ">": "more than", "==": "exactly"}
    problem = f"{subject} is {value}; {call.owner()} needs {relation[condition.relation]} {bound} {unit}".rstrip()
    if position is not None:
        raise ValueError(complaint(call.place(), problem)) from None
    _refuse(call, source, problem, condition.subject.text, bound, value)


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def _refuse(
    call: Bindings,
    name: str,
    problem: str,
    axis: str | None,
    expected: Any,
    actual: Any,
    hint: str | None = None,
    rows: Rows = (),
) -> Never:
    error = ShapeContractError(complaint(call.place(), problem, rows, hint))
    error.argument, error.axis, error.expected, error.actual, error.hint = name, axis, expected, actual, hint
    error.bindings, error.module_path = call.sizes(), call.module_path()
    raise error from None


def _subject(name: str) -> str:
    return name.replace("return", "the result", 1) if name.startswith("return") else name


def _describe(option: TensorSpec | TupleSpec | PlainSpec) -> str:
    match option:
        case TensorSpec():
            return f'{option.kind}[{option.array_type.__name__}, "{option.text}"]'
        case TupleSpec(items):
            return f"({', '.join(' or '.join(_describe(inner) for inner in item) for item in items)})"
        case PlainSpec(hint):
            plain = isinstance(hint, type) and not get_args(hint)
            return "None" if hint is type(None) else hint.__name__ if plain else str(hint).replace("typing.", "")
