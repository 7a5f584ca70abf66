"""Lines of Python under way, with their indentation, their constants and names of their own."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from itertools import count
from typing import Any


class Writer:
    """The body of one function.

    Args:
        parameters: the function's own names; all others begin with an underscore that none of these begins with.
    """

    def __init__(self, parameters: Iterable[str]) -> None:
        self.parameters = tuple(parameters)
        self.mark = "_"
        while any(name.startswith(self.mark) for name in self.parameters):
            self.mark += "_"
        self.constants: dict[str, Any] = {}
        self.lines: list[str] = []
        self.start: dict[str, str] = {}
        """What must have a value before the first line runs, and which."""
        self.no = ""
        """What to do when something does not fit."""
        self.depth = 1
        self.certain = True
        """Whether what is written now runs in every call, and once."""
        self._count = count()

    def line(self, text: str, at: int | None = None) -> None:
        """A line at the present depth; `at`: in front of another."""
        self.lines.insert(len(self.lines) if at is None else at, "    " * self.depth + text)

    def refuse_if(self, *tests: str) -> None:
        """Refuse where all of some tests are true."""
        self.line(f"if {' and '.join(tests)}: {self.no}")

    @contextmanager
    def block(self, head: str, *, always: bool = False) -> Generator[None]:
        """The lines under a head such as `if …:`; `always`: they run whatever happens."""
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
        """A name for something that the source takes from Python, torch or here."""
        name = name if name not in self.parameters and not name.startswith("_") else self.mark + name.lstrip("_")
        self.constants[name] = value
        return name

    def constant(self, kind: str, value: Any) -> str:
        """A name for a constant of this signature: the same for the same value."""
        for name, known in self.constants.items():
            if known is value or (type(known) is type(value) is frozenset and known == value):
                return name
        name = self.local(kind)
        self.constants[name] = value
        return name
