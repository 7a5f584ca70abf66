"""All that one signature demands, read once when the function is decorated."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from towers.contracts.expressions import Condition, conditions
from towers.contracts.specs import Spec, axis_names, holds_tensors, read_annotation


@dataclass(frozen=True)
class Signature:
    """What the annotations and the options of `contract` demand of a call."""

    name: str
    parameters: tuple[str, ...]
    """Those that may be given by position, in order."""
    defaults: Mapping[str, Any]
    arguments: Mapping[str, Spec]
    result: Spec | None
    where: tuple[Condition, ...]
    dtype_of: str | None


def read_signature(function: Callable[..., Any], where: Sequence[str], dtype_of: str | None) -> Signature:
    """Read the annotations of a function.

    Raises:
        ValueError: an axis string or a condition cannot be read, or a condition names no axis and no parameter.
    """
    hints = {name: read_annotation(hint) for name, hint in get_type_hints(function).items()}
    result = hints.pop("return", None)
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    bounds = tuple(condition for text in where for condition in conditions(text))
    _check_names(function, bounds, hints.values(), parameters)
    if dtype_of is not None and "self" not in parameters:
        raise ValueError(
            f"{function.__qualname__}: dtype_of ({dtype_of!r}) is a path from `self`, which it does not have"
        )
    return Signature(
        name=function.__qualname__.rpartition("<locals>.")[2],
        parameters=tuple(name for name, parameter in parameters.items() if parameter.kind != parameter.KEYWORD_ONLY),
        defaults={name: p.default for name, p in parameters.items() if p.default is not p.empty},
        arguments={name: hint for name, hint in hints.items() if name in parameters},
        result=result if result is not None and holds_tensors(result) else None,
        where=bounds,
        dtype_of=dtype_of,
    )


def _check_names(
    function: Callable[..., Any], bounds: Iterable[Condition], specs: Iterable[Spec], parameters: Iterable[str]
) -> None:
    """Refuse a condition that speaks of what no argument has: it would never apply."""
    known = {*parameters, *(name for spec in specs for name in axis_names(spec))}
    for condition in bounds:
        for name in (*condition.subject.names, *condition.bound.names):
            if name not in known:
                listed = ", ".join(sorted(known))
                raise ValueError(f"{function.__qualname__}: {condition.text!r}: {name} is none of {listed}")
