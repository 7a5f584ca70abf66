"""How a condition divides the sizes of an axis: into parts on each of which it is either true or false."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from math import lcm
from typing import Any, cast

import sympy
from sympy.core.relational import Relational

from towers.contracts.proofs.at_sizes import at
from towers.contracts.proofs.ranges import Span

_FAR = 2**40
"""No size is larger."""


@cache
def divide(span: Span, relation: Any, axis: Any, *, alone: bool = True) -> list[Span]:
    """The parts of a span on which a condition can be decided; the span itself if none is found.

    `alone`: whether the condition is on this axis alone; if it is not, only divisions by a number are looked at.
    """
    if divisor := by_remainder(span, relation, axis):
        return span.residues(divisor)
    if not alone or span.single:
        return [span]
    last = _FAR if span.last is None else span.last
    cuts = sorted(cut for cut in _changes(span, last, relation, axis) if span.first < cut <= last)
    starts = [span.first, *cuts]
    ends = [*(cut - 1 for cut in cuts), span.last]
    parts = [span.part(start, end) for start, end in zip(starts, ends, strict=True)]
    return [part for part in parts if part is not None]


@cache
def by_remainder(span: Span, relation: Any, axis: Any) -> int:
    """The number by whose remainders a condition divides a span; 0 if it does not."""
    divisor = lcm(1, *_divisors(relation, axis))
    if not 1 < divisor <= 12 or span.step % divisor == 0 or span.single:
        return 0
    difference = _difference(relation) if len(relation.free_symbols) == 1 else None
    return 0 if difference is not None and _direction(difference, axis) else divisor  # where it changes is found


@cache
def sure(span: Span, relation: Any, axis: Any) -> bool:
    """Whether a condition on one axis is known to be the same on all of a part that `divide` gives."""
    if span.single:
        return True
    settled = _settled(span, relation, axis)
    if not settled.free_symbols:
        return True
    difference = _difference(settled)
    return difference is not None and (_poly(difference, axis) is not None or _direction(difference, axis) != 0)


def _changes(span: Span, last: int, relation: Any, axis: Any) -> Iterator[int]:
    """The sizes at which a condition becomes true or false: all of them where it is `sure`, else those found."""
    relation = _settled(span, relation, axis)
    if not relation.free_symbols:
        return
    for node in _nodes(relation):  # from where on a number is its own remainder
        if _is_mod(node) and node.args[0].is_Integer and _direction(node.args[1], axis) == 1:
            found = _first(span.first, last, lambda size, node=node: at(node.args[1], axis)(size) > abs(node.args[0]))
            if found is not None:
                yield found
    difference, holds = _difference(relation), at(relation, axis)

    if difference is not None and (poly := _poly(difference, axis)) is not None:
        roots: list[Any] = [] if poly.degree() < 1 else poly.real_roots()
        near = {int(sympy.floor(root)) + more for root in roots for more in (0, 1, 2)}
        yield from (size for size in near if holds(size) != holds(size - 1))
    elif difference is not None and (direction := _direction(difference, axis)):
        for least in (0, 1):  # from where on it is 0, and from where on more
            found = _first(span.first, last, lambda size: direction * at(difference, axis)(size) >= least)  # noqa: B023
            if found is not None:
                yield found
    else:
        tried = [*range(256), *(2**power for power in range(8, 41))]  # steps: between them sizes are no whole numbers
        for low, high in pairwise(tried):
            if span.first + high * span.step > last:
                return
            if (before := holds(span.first + low * span.step)) != holds(span.first + high * span.step):
                found = _first(low, high, lambda step: holds(span.first + step * span.step) != before)
                if found is not None:
                    yield span.first + found * span.step


def _first(low: int, high: int, holds: Callable[[int], Any]) -> int | None:
    """The first size for which a condition holds that then holds for all larger ones."""
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _difference(relation: Any) -> Any:
    """Left side minus right side of a comparison; None if it is no comparison."""
    if not isinstance(relation, Relational):
        return None
    left, right = cast(tuple[Any, Any], relation.args)
    return (left - right).expand()


def _poly(difference: Any, axis: Any) -> Any:
    """An expression as a polynomial with rational coefficients; None if it is none."""
    poly: Any = difference.as_poly(axis) if difference.is_polynomial(axis) else None
    return poly if poly is not None and (poly.domain.is_ZZ or poly.domain.is_QQ) else None


def _direction(node: Any, axis: Any) -> int:
    """1 if an expression never falls as the axis grows, -1 if it never rises, 0 if neither is known.

    Its values are ints, so that between 0 and 1 there is none.
    """
    if not node.has(axis):
        return 1
    if node == axis:
        return 1
    if node.is_Add:
        found = {_direction(part, axis) for part in node.args if part.has(axis)}
        whole = all(part.is_integer for part in node.args)
        return found.pop() if len(found) == 1 and whole else 0
    if node.is_Mul:
        number, rest = node.as_coeff_Mul()
        return _direction(rest, axis) * (1 if number > 0 else -1) if number.is_Integer and rest.args != node.args else 0
    if type(node).__name__ in ("FloorDiv", "CleanDiv") and node.args[1].is_Integer and node.args[1] > 0:
        return _direction(node.args[0], axis)
    if type(node).__name__ in ("TruncToInt", "FloorToInt", "CeilToInt"):
        return _direction_of_float(node.args[0], axis)
    if type(node).__name__ in ("Min", "Max"):
        found = {_direction(part, axis) for part in node.args if part.has(axis)}
        return found.pop() if len(found) == 1 else 0
    return 0


def _direction_of_float(node: Any, axis: Any) -> int:
    """The same of a size in floating point, times or by a number: rounding changes no order."""
    kind = type(node).__name__
    if kind == "ToFloat":
        return _direction(node.args[0], axis)
    number, rest = node.args if len(node.args) == 2 else (None, None)
    if kind in ("IntTrueDiv", "FloatTrueDiv"):
        inner = _direction_of_float if kind == "FloatTrueDiv" else _direction
        return inner(number, axis) * (1 if rest > 0 else -1) if rest is not None and rest.is_number else 0
    if node.is_Mul and number is not None and number.is_Float:
        return _direction_of_float(rest, axis) * (1 if number > 0 else -1)
    return 0


def _settled(span: Span, relation: Any, axis: Any) -> Any:
    """The relation, with each remainder that is the same for all sizes of a span replaced by its number."""
    known: dict[Any, Any] = {}
    for node in _nodes(relation):
        if not _is_mod(node):
            continue
        base, divisor = node.args
        if sympy.cancel(base / divisor).is_Integer:
            known[node] = sympy.S.Zero
        elif base.is_Integer and base >= 0 and _direction(divisor, axis) == 1 and divisor.subs(axis, span.first) > base:
            known[node] = base
        elif divisor.is_Integer:
            slope = base.diff(axis) if base.is_polynomial(axis) else None
            if slope is not None and slope.is_Integer and slope * span.step % divisor == 0:
                known[node] = base.subs(axis, span.first) % divisor
    settled = relation.xreplace(known)
    numbers = filter(_of_numbers, _nodes(settled)) if known else ()
    return settled.xreplace({node: sympy.floor(node.args[0] / node.args[1]) for node in numbers})


def _of_numbers(node: Any) -> bool:
    """Whether a node is a quotient of numbers, such as 1 // (1/8), which sympy leaves as it is."""
    return type(node).__name__ == "FloorDiv" and all(part.is_Rational for part in node.args) and node.args[1] != 0


def _is_mod(node: Any) -> bool:
    return type(node).__name__ in ("Mod", "PythonMod")


def _divisors(expression: Any, axis: Any) -> list[int]:
    """The divisors of the axis in an expression, of `//` and of `%`."""
    found: list[int] = []
    for node in _nodes(expression):
        if type(node).__name__ in ("FloorDiv", "Mod", "PythonMod", "CleanDiv", "CeilDiv"):
            base, divisor = node.args
            if divisor.is_Integer and base.has(axis):
                found.append(int(divisor))
    return found


def _nodes(expression: Any) -> list[Any]:
    return [expression, *(node for argument in expression.args for node in _nodes(argument))]
