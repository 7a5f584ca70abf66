"""Proves by the signs of coefficients that a comparison holds for all sizes of a region, where torch could not."""

from typing import Any, cast

import sympy
from sympy.core.relational import Relational

from towers.contracts.proofs.ranges import Spans


def always(relation: Any, spans: Spans) -> bool:
    """Whether a comparison of sizes is proven to hold in a whole region; False if it is not proven.

    Each axis is written as its first size and something that is not negative, and so is each quotient. A polynomial in
    those has the sign that all of its coefficients have.
    """
    if not isinstance(relation, Relational):
        return False
    left, right = cast(tuple[Any, Any], relation.args)
    if type(relation).__name__ == "Unequality" and type(left).__name__ in ("Mod", "PythonMod") and right == 0:
        number, divisor = left.args  # what is less than the divisor and not 0 is its own remainder
        return _sign(number, spans) > 0 and _sign(divisor - number, spans) > 0
    low = _sign(left - right, spans)
    return {
        "Unequality": low != 0,
        "StrictGreaterThan": low > 0,
        "GreaterThan": low > 0,
        "StrictLessThan": low < 0,
        "LessThan": low < 0,
    }.get(type(relation).__name__, False)


def _sign(difference: Any, spans: Spans) -> int:
    """1 or -1 if an expression is always more or less than 0, else 0."""
    rests: dict[Any, Any] = {}

    def at_least(low: int, step: int = 1) -> Any:
        rest = sympy.Dummy(nonnegative=True, integer=True)
        rests[rest] = rest
        return low + step * rest

    axes: dict[Any, Any] = {}
    for axis in difference.free_symbols:
        if str(axis) not in spans:
            return 0
        span = spans[str(axis)]
        axes[axis] = sympy.Integer(span.first) if span.single else at_least(span.first, span.step)
    polynomial = _polynomial(difference, axes, at_least)
    if polynomial is None:
        return 0
    terms = sympy.expand(polynomial).as_coefficients_dict()
    constant = terms.pop(sympy.S.One, 0)
    values = list(terms.values())
    if constant > 0 and all(value >= 0 for value in values):
        return 1
    return -1 if constant < 0 and all(value <= 0 for value in values) else 0


def _polynomial(node: Any, axes: dict[Any, Any], at_least: Any) -> Any:
    """An expression with axes and quotients replaced; None if something else is in it."""
    if node.is_Symbol:
        return axes[node]
    if node.is_Rational:
        return node
    parts = [_polynomial(part, axes, at_least) for part in node.args]
    if any(part is None for part in parts):
        return None
    if node.is_Add or node.is_Mul:
        return node.func(*parts)
    if type(node).__name__ in ("FloorDiv", "CleanDiv") and parts[1].is_Integer and parts[1] > 0:
        terms = sympy.expand(parts[0]).as_coefficients_dict()
        constant = terms.pop(sympy.S.One, 0)
        return at_least(int(constant // parts[1])) if all(value >= 0 for value in terms.values()) else None
    return None
