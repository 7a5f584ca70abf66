"""What a broken contract says, and where in the tree of modules it was broken."""

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from torch import nn

LONGEST = 2_000
"""The characters of a message; one is longer only where a key or an option of the caller is."""


class ShapeContractError(TypeError):
    """A tensor at a contracted boundary has another shape, dtype or kind than the annotation there promises.

    A TypeError, as jaxtyping's own error is. Its attributes say for programs what the message says for people:
    `argument` (its name, or "return"), `axis` (as written in the annotation, or None), `expected`, `actual`,
    `bindings` (the sizes that the axis names had), `module_path` ("left.lstm in TwoTowers") and `hint`.
    """

    argument: str = ""
    axis: str | None = None
    expected: Any = None
    actual: Any = None
    bindings: Mapping[str, int] = MappingProxyType({})
    module_path: str = ""
    hint: str | None = None


class ValueContractError(ValueError):
    """A value in a tensor breaks a rule that the contract sets on values."""


def module_path(owner: object) -> str:
    """Where a module stands in the outermost module that is being called: "left.lstm in TwoTowers"."""
    name = type(owner).__name__
    if not isinstance(owner, nn.Module):
        return name
    frame = inspect.currentframe()
    callers: list[nn.Module] = []
    while frame is not None:
        caller: object = frame.f_locals.get("self")
        if isinstance(caller, nn.Module):
            callers.append(caller)
        frame = frame.f_back
    for root in reversed(callers):
        paths: dict[nn.Module, str] = {module: path for path, module in cast(Any, root).named_modules()}
        if paths.get(owner):
            return f"{paths[owner]} in {type(root).__name__}"
    return name


def complaint(place: str, problem: str, rows: Sequence[tuple[str, str, str, str]] = (), hint: str | None = None) -> str:
    """The one form of every message: where and what; a line per axis; the likely cause.

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
