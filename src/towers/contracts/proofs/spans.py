# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The sizes that an axis can have, and how a condition divides them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import lcm
from typing import Any

PRIMES = (11, 17, 23, 31, 41, 53, 67, 83, 101, 127, 149, 173)
"""Examples, one for each axis: far apart, so that neither they nor sizes made of them are equal by chance."""


@dataclass(frozen=True)
class Span:
    """first, first + step, … up to last (None: no end)."""

    first: int
    last: int | None = None
    step: int = 1

    @property
    def single(self) -> bool:
        """Whether only one size is left."""
        return self.last is not None and self.last < self.first + self.step

    def __contains__(self, size: int) -> bool:
        return size >= self.first and (self.last is None or size <= self.last) and (size - self.first) % self.step == 0

    def part(self, low: int, high: int | None) -> "Span | None":
        """The sizes from low to high; None if there are none."""
        first = self.first + max(0, -(-(low - self.first) // self.step)) * self.step
        last = self.last if high is None else high if self.last is None else min(self.last, high)
        return None if last is not None and last < first else replace(self, first=first, last=last)

    def around(self, size: int) -> "list[Span]":
        """The size alone, what is below it and what is above it."""
        parts = [self.part(size, size), self.part(self.first, size - 1), self.part(size + 1, None)]
        return [part for part in parts if part is not None]

    def residues(self, divisor: int) -> "list[Span]":
        """One span for each remainder of a division."""
        step = lcm(self.step, divisor)
        starts = range(self.first, self.first + step, self.step)
        return [Span(start, self.last, step) for start in starts if self.last is None or start <= self.last]

    def example(self, prime: int) -> int:
        """One of the sizes, near the prime and rather a prime."""
        near = self.first + max(0, (prime - self.first) // self.step) * self.step
        tries = [size for size in range(near, near + 40 * self.step, self.step) if size in self]
        if not tries:
            assert self.last is not None
            return self.last - (self.last - self.first) % self.step
        return next((size for size in tries if _prime(size)), tries[0])

    def text(self, name: str, lowest: int = 2) -> str:
        """As a condition: "time >= 2", "time % 2 == 1"; empty if it is none.

        `lowest` is the smallest size of the whole axis, which need not be told.
        """
        if self.single:
            return f"{name} == {self.first}"
        parts = [f"{name} % {self.step} == {self.first % self.step}"] if self.step > 1 else []
        if self.first - self.step >= lowest or (self.step == 1 and self.first > lowest):
            parts.append(f"{name} >= {self.first}")
        return " and ".join([*parts, *([] if self.last is None else [f"{name} <= {self.last}"])])


def _prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def divide(span: Span, relation: Any, axis: Any, *, alone: bool = True) -> list[Span]:
    """The parts of a span on which a condition can be decided; the span itself if none is found.

    `alone`: whether the condition is on this axis alone; if it is not, only divisions by a number are looked at.
    """
    divisor = lcm(1, *_divisors(relation, axis))
    if 1 < divisor <= 12 and span.step % divisor:
        return span.residues(divisor)
    if not alone or span.single:
        return [span]
    sides = relation.args
    if len(sides) != 2:
        return [span]
    difference = (sides[0] - sides[1]).expand()
    if difference.is_polynomial(axis) and difference.as_poly(axis).degree() == 1:
        slope, start = difference.coeff(axis, 1), difference.coeff(axis, 0)
        return span.around(int(-start // slope)) if slope.is_Integer and start.is_Integer else [span]
    return _first_change(span, lambda size: bool(relation.subs(axis, size)))


def _first_change(span: Span, holds: Callable[[int], bool]) -> list[Span]:
    sizes = [size for size in range(span.first, span.first + 256 * span.step, span.step) if size in span]
    truths = [holds(size) for size in sizes]
    change = next(
        (size for size, now, before in zip(sizes[1:], truths[1:], truths, strict=False) if now != before), None
    )
    if change is None:
        return [span]
    parts = [span.part(span.first, change - 1), span.part(change, None)]
    return [part for part in parts if part is not None]


def _divisors(expression: Any, axis: Any) -> list[int]:
    """What sizes of the axis are divided by in an expression: by `//` or `%`."""
    found: list[int] = []
    for node in _nodes(expression):
        if type(node).__name__ in ("FloorDiv", "Mod", "PythonMod", "CleanDiv", "CeilDiv"):
            base, divisor = node.args
            if divisor.is_Integer and base.has(axis):
                found.append(int(divisor))
    return found


def _nodes(expression: Any) -> list[Any]:
    return [expression, *(node for argument in expression.args for node in _nodes(argument))]


Spans = Mapping[str, Span]
