"""Collects lines of Python source, with indentation, constants and new names."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from itertools import count
from typing import Any


class Writer:
    """The body of one function.

    Args:
        parameters: the names of the function's parameters. New names get more underscores in front than any of these.
    """

    def __init__(self, parameters: Iterable[str]) -> None:
        self.parameters = tuple(parameters)
        self.mark = "_"
        while any(name.startswith(self.mark) for name in self.parameters):
            self.mark += "_"
        self.constants: dict[str, Any] = {}
        self.lines: list[str] = []
        self.start: dict[str, str] = {}
        """The locals that are set before the first line, with their values."""
        self.no = ""
        """The statement for a value that does not fit."""
        self.depth = 1
        self.certain = True
        """Whether the current line runs exactly once in every call."""
        self._count = count()

    def line(self, text: str, at: int | None = None) -> None:
        """Add a line at the current depth. `at`: before the line with this index."""
        self.lines.insert(len(self.lines) if at is None else at, "    " * self.depth + text)

    def refuse_if(self, *tests: str) -> None:
        """Refuse if all tests are true."""
        self.line(f"if {' and '.join(tests)}: {self.no}")

    @contextmanager
    def block(self, head: str, *, always: bool = False) -> Generator[None]:
        """The lines of a block such as `if …:`. `always`: the block runs in every call."""
        self.line(head)
        before = self.certain
        self.depth, self.certain = self.depth + 1, before and always
        lines = len(self.lines)
        yield
        if len(self.lines) == lines:
            self.line("pass")
        self.depth, self.certain = self.depth - 1, before

    def local(self, kind: str) -> str:
        """A new local name."""
        return f"{self.mark}{kind}_{next(self._count)}"

    def given(self, name: str, value: Any) -> str:
        """The name of an object of Python, torch or this package in the source."""
        name = name if name not in self.parameters and not name.startswith("_") else self.mark + name.lstrip("_")
        self.constants[name] = value
        return name

    def constant(self, kind: str, value: Any) -> str:
        """The name of a constant of this signature; the same name for the same value."""
        for name, known in self.constants.items():
            if known is value or (type(known) is type(value) is frozenset and known == value):
                return name
        name = self.local(kind)
        self.constants[name] = value
        return name
