"""The sizes that an axis can have."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import lcm

PRIMES = (11, 17, 23, 31, 41, 53, 67, 83, 101, 127, 149, 173)
"""Example sizes, one for each axis, so far apart that they and sizes derived from them are not equal by chance."""


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

    def within(self, other: "Span") -> bool:
        """Whether another span has each of these sizes."""
        if self.last is None and other.last is not None:
            return False
        return self.first in other and (self.single or (self.step % other.step == 0 and self._end <= other._end))

    @property
    def _end(self) -> float:
        return float("inf") if self.last is None else self.last - (self.last - self.first) % self.step

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
        """One of the sizes, near the given prime, itself a prime where possible."""
        return _example(self, prime)

    def texts(self, name: str, lowest: int = 2) -> list[str]:
        """As conditions: "time >= 2", "time % 2 == 1"; none if it has every size.

        `lowest` is the smallest size of the whole axis, which need not be told.
        """
        if self.single:
            return [f"{name} == {self.first}"]
        found = [f"{name} % {self.step} == {self.first % self.step}"] if self.step > 1 else []
        if self.first - self.step >= lowest or (self.step == 1 and self.first > lowest):
            found.append(f"{name} >= {self.first}")
        return [*found, *([] if self.last is None else [f"{name} <= {self.last}"])]

    def text(self, name: str, lowest: int = 2) -> str:
        """As one condition, with the same arguments; empty if it has every size."""
        return " and ".join(self.texts(name, lowest))


@cache
def _example(span: Span, prime: int) -> int:
    near = span.first + max(0, (prime - span.first) // span.step) * span.step
    tries = [size for size in range(near, near + 40 * span.step, span.step) if size in span]
    if not tries:
        assert span.last is not None
        return span.last - (span.last - span.first) % span.step
    return next((size for size in tries if _prime(size)), tries[0])


def _prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


Spans = Mapping[str, Span]
