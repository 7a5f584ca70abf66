"""The walk of the shapes through a tree of modules, as text and as data."""

from dataclasses import dataclass
from typing import Any

WIDTH = 100


@dataclass(frozen=True)
class TraceRow:
    """One module or contract that was passed."""

    path: str
    kind: str
    """The module's class, or the function that has the contract."""
    came: str
    """The shapes of what it was given, in symbols."""
    went: str
    """The shapes of what it gave; empty where it never came to one."""
    demand: str
    """What its contract demands and promises; empty for a module without one."""
    numbers: str
    """The same shapes in numbers, where real inputs were given."""
    failed: bool


@dataclass(frozen=True)
class ShapeTrace:
    """What each boundary demanded beside what arrived, in the order of the calls."""

    module: str
    rows: tuple[TraceRow, ...]
    error: str = ""
    """What stopped it, if anything did."""

    def __str__(self) -> str:
        return "\n".join([*self.lines(), *([self.error] if self.error else [])])

    def lines(self) -> list[str]:
        """A line or more for each row, none longer than 98 letters."""
        lines: list[str] = []
        for row in self.rows:
            mark = "!" if row.failed else " "
            indented = "  " * row.path.count(".") + (row.path or "(itself)")
            arrow = f"{row.came} -> {row.went or '…'}"
            lines.append(_fitted(f"{mark} {indented}: {row.kind}  {arrow}"))
            lines += [_fitted(f"      {text}") for text in (row.demand, row.numbers) if text]
        return lines

    def to_json(self) -> list[dict[str, Any]]:
        """One object for each row."""
        return [dict(vars(row)) for row in self.rows]


def _fitted(text: str) -> str:
    return text if len(text) <= WIDTH - 2 else text[: WIDTH - 3] + "…"
