"""What an expression of one axis is at many sizes: in Python's numbers, hundreds of times as fast as by `subs`."""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from math import prod
from typing import Any, cast

import sympy

Value = int | Fraction | bool
At = Callable[[int], Value]

_COMPARED: dict[str, Callable[[Value, Value], bool]] = {
    "Equality": lambda one, other: one == other,
    "Unequality": lambda one, other: one != other,
    "StrictGreaterThan": lambda one, other: one > other,
    "GreaterThan": lambda one, other: one >= other,
    "StrictLessThan": lambda one, other: one < other,
    "LessThan": lambda one, other: one <= other,
}
_OF_ALL: dict[str, Callable[[list[Value]], Value]] = {
    "Add": sum,
    "Mul": prod,
    "Min": min,
    "Max": max,
    "And": all,
    "Or": any,
}
_QUOTIENTS, _REMAINDERS = ("FloorDiv", "CleanDiv"), ("Mod", "PythonMod")


class _Unusual(Exception):
    """A value that sympy alone knows, such as (7/2) // (3/2)."""


@cache
def at(expression: Any, axis: Any) -> Callable[[int], Any]:
    """`expression.subs(axis, size)` as a function of the size: a number, or whether a condition holds.

    What Python's whole numbers and fractions do not say is asked of sympy, with the exceptions that it raises.
    """
    found = _of(expression, axis)

    def by_sympy(size: int) -> Any:
        value = expression.subs(axis, size)
        return value if isinstance(expression, sympy.Expr) else bool(value)

    def value(size: int) -> Any:
        try:
            return cast(At, found)(size)
        except _Unusual:
            return by_sympy(size)

    return by_sympy if found is None else value


def _of(node: Any, axis: Any) -> At | None:
    """None where a part of an expression is not known here."""
    if node == axis:
        return lambda size: size
    if node.is_Rational:
        number = int(node) if node.is_Integer else Fraction(int(node.p), int(node.q))
        return lambda _: number
    if node in (sympy.true, sympy.false):
        truth = bool(node)
        return lambda _: truth
    parts = [_of(part, axis) for part in node.args]
    if not parts or None in parts:
        return None
    known = cast(list[At], parts)
    kind = type(node).__name__
    if kind in _OF_ALL:
        together = _OF_ALL[kind]
        return lambda size: together([part(size) for part in known])
    if kind == "Not":
        return lambda size: not known[0](size)
    if kind == "Pow" and node.args[1].is_Integer and node.args[1] > 0:
        power = int(node.args[1])
        return lambda size: known[0](size) ** power
    if len(known) != 2:
        return None
    one, other = known
    if kind in _COMPARED:
        compare = _COMPARED[kind]
        return lambda size: compare(one(size), other(size))
    if kind in (*_QUOTIENTS, *_REMAINDERS):
        return lambda size: _divided(kind, one(size), other(size))
    return None


def _divided(kind: str, number: Value, divisor: Value) -> int:
    if number.denominator != 1 or divisor.denominator != 1 or divisor < 1 or (kind == "Mod" and number < 0):
        raise _Unusual
    number, divisor = number.numerator, divisor.numerator
    return number // divisor if kind in _QUOTIENTS else number % divisor
