"""Sizes computed by floating point, as whole numbers where both are equal: int(time * 0.5) is time // 2."""

from fractions import Fraction
from typing import Any

import sympy
from torch.utils._sympy.functions import FloorDiv

EXACT = 2**20
"""The largest denominator: a size times such a factor is exact in floating point, for sizes up to 2**33."""


def whole(expression: Any) -> Any:
    """An expression with `int(a / b)`, `ceil(a / b)`, `int(a * 0.5)` and their like as divisions of whole numbers.

    A quotient of sizes is never rounded across a whole number, since these are far below 2**53.
    """
    if not expression.args:
        return expression
    parts = [whole(part) for part in expression.args]
    same = all(new is old for new, old in zip(parts, expression.args, strict=True))
    node = expression if same else expression.func(*parts)
    name = type(node).__name__
    if name in ("TruncToInt", "FloorToInt", "CeilToInt") and (quotient := _quotient(node.args[0])) is not None:
        number, divisor = quotient
        if name != "TruncToInt" or number.is_nonnegative:  # which rounds the other way below 0
            return FloorDiv(number + divisor - 1, divisor) if name == "CeilToInt" else FloorDiv(number, divisor)
    return node


def _quotient(value: Any) -> tuple[Any, Any] | None:
    """The whole numbers whose quotient a float is; None where it is no exact one."""
    if type(value).__name__ == "IntTrueDiv":
        return value.args if value.args[1].is_positive else None
    if type(value).__name__ == "ToFloat":
        return (value.args[0], sympy.S.One) if value.args[0].is_nonnegative else None
    if type(value).__name__ == "FloatTrueDiv" and value.args[1].is_number and value.args[1] > 0:
        inner, divisor = _quotient(value.args[0]), Fraction(float(value.args[1]))
        if (
            inner is None
            or not inner[0].is_nonnegative
            or not inner[1].is_Integer
            or inner[1] & (inner[1] - 1)
            or not all(part * each <= EXACT for part, each in ((divisor.numerator, inner[1]), (divisor.denominator, 1)))
        ):  # two quotients would be rounded twice
            return None
        return inner[0] * divisor.denominator, inner[1] * divisor.numerator
    if value.is_Mul and len(value.args) == 2 and value.args[0].is_Float:
        factor = Fraction(float(value.args[0]))
        inner = _quotient(value.args[1])
        if (
            inner is not None
            and inner[0].is_nonnegative
            and inner[1] == 1
            and factor >= 0
            and factor.denominator <= EXACT
        ):
            return inner[0] * factor.numerator, sympy.Integer(factor.denominator)
    return None
