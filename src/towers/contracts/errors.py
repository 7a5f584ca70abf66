"""The exceptions of contracts, the form of their messages, and the path of a module for them."""

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from torch import nn

LONGEST = 2_000
"""The characters of a message; one is longer only where a key or an option of the caller is."""


class ShapeContractError(TypeError):
    """An argument or a result has another shape, dtype or type than its annotation says.

    It is a TypeError, as jaxtyping's own error is. Its attributes give programs what the message tells people:
    `argument` (its name, or "return"), `axis` (as written in the annotation, or None), `expected`, `actual`,
    `bindings` (the sizes that the axis names had), `module_path` ("left.lstm in TwoTowers") and `hint`.

    >>> import torch, towers
    >>> try:
    ...     towers.FeaturePool(2)(torch.zeros(3, 4, 33))
    ... except towers.ShapeContractError as error:
    ...     print(error.argument, error.axis, error.expected, error.actual)
    phrases {self.filters} 32 33
    """

    argument: str = ""
    axis: str | None = None
    expected: Any = None
    actual: Any = None
    bindings: Mapping[str, int] = MappingProxyType({})
    module_path: str = ""
    hint: str | None = None


class ValueContractError(ValueError):
    """A value in a tensor does not fulfil a condition of the contract."""


def module_path(owner: object) -> str:
    """The path of a module in the outermost module that is being called: "left.lstm in TwoTowers"."""
    name = type(owner).__name__
    if not isinstance(owner, nn.Module):
        return name
    frame = inspect.currentframe()
    callers: list[nn.Module] = []
    while frame is not None:
        caller: object = frame.f_locals.get("self")
        if isinstance(caller, nn.Module) and "_modules" in vars(caller):  # not before its super().__init__()
            callers.append(caller)
        frame = frame.f_back
    for root in reversed(callers):
        paths: dict[nn.Module, str] = {module: path for path, module in cast(Any, root).named_modules()}
        if paths.get(owner):
            return f"{paths[owner]} in {type(root).__name__}"
    return name


def complaint(place: str, problem: str, rows: Sequence[tuple[str, str, str, str]] = (), hint: str | None = None) -> str:
    """The form of every message: the place and the problem, a line for each axis, the likely cause.

    A row is (axis, expected, came, remark).
    """
    lines = [f"{place}: {problem}"]
    if rows:
        table = [("axis", "expected", "came", ""), *rows]
        widths = [max(len(row[column]) for row in table) for column in range(3)]
        for row in table:
            cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
            lines.append("  " + "  ".join([*cells, row[3]]).rstrip())
    if hint:
        lines.append(f"hint: {hint}")
    text = "\n".join(lines)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
