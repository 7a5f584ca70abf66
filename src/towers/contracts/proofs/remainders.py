"""Quotients and remainders by a number, without what divides evenly: (8*k+1) % 8 is 1, and 3*time//2 is time + time//2.

torch leaves them as they are, and then asks many questions about them that have one answer.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import sympy
from torch.utils._sympy.functions import FloorDiv, PythonMod

_ZERO: Any = sympy.S.Zero
_QUOTIENTS, _REMAINDERS = ("FloorDiv", "CleanDiv"), ("Mod", "PythonMod")


@cache
def reduced(node: Any) -> Any:
    """An expression of sizes with simpler quotients and remainders, which has the same values."""
    if not node.args:
        return node
    parts = [reduced(part) for part in node.args]
    if any(new is not old for new, old in zip(parts, node.args, strict=True)):
        node = node.func(*parts)
    if node.is_Add:
        return _rounded_up(node)
    kind = type(node).__name__
    if kind not in (*_QUOTIENTS, *_REMAINDERS) or not node.args[1].is_Integer or node.args[1] <= 0:
        return node
    number, divisor = node.args
    terms = _terms(number)
    if kind in _REMAINDERS:
        terms = _terms(sum(each * (term.args[0] if _inside(term, divisor) else term) for term, each in terms.items()))
    if not all(each.is_Integer and term.is_integer for term, each in terms.items()):
        return node
    rest: Any = sum((each % divisor * term for term, each in terms.items()), _ZERO)
    if kind in _REMAINDERS:
        return rest % divisor if rest.is_Integer else PythonMod(rest, divisor)
    if (inner := _quotient_and_number(rest)) is not None:  # ((time+1)//2 + 1)//2 is (time+3)//4
        quotient, more = inner
        rest, divisor = quotient.args[0] + more * quotient.args[1], divisor * quotient.args[1]
        return sum(each // node.args[1] * term for term, each in terms.items()) + reduced(FloorDiv(rest, divisor))
    return sum(each // divisor * term for term, each in terms.items()) + FloorDiv(rest, divisor)


def _quotient_and_number(rest: Any) -> tuple[Any, Any] | None:
    """The parts of `time//2 + 1`, a quotient by a number and a number; None of anything else."""
    more, quotient = rest.as_coeff_Add()
    known = type(quotient).__name__ in _QUOTIENTS and quotient.args[1].is_Integer and quotient.args[1] > 0
    return (quotient, more) if known and more.is_Integer else None


def _terms(number: Any) -> dict[Any, Any]:
    """The terms of a sum with their factors."""
    return cast(Any, sympy.expand(number)).as_coefficients_dict()


def with_constants(node: Any, ends: Mapping[Any, tuple[int, int]]) -> Any:
    """An expression in which a quotient that has one value for all values of its symbol is that value."""
    if type(node).__name__ in _QUOTIENTS and len(node.free_symbols) == 1 and node.args[1].is_Integer:
        [symbol] = node.free_symbols
        number = node.args[0]
        if symbol in ends and number.is_polynomial(symbol) and number.diff(symbol).is_number:
            first, last = (node.subs(symbol, value) for value in ends[symbol])
            return first if first == last else node
    if not node.args or not node.free_symbols & ends.keys():
        return node
    return node.func(*(with_constants(part, ends) for part in node.args))


def _inside(node: Any, divisor: Any) -> bool:
    """Whether a node is a remainder by a multiple of a number: in a remainder by that number it changes nothing."""
    return type(node).__name__ in _REMAINDERS and node.args[1].is_Integer and node.args[1] % divisor == 0


def _rounded_up(total: Any) -> Any:
    """A sum with `time + -time % 4`, which is how code pads to a multiple, as `4 * ((time + 3) // 4)`."""
    for part in total.args:
        if type(part).__name__ in _REMAINDERS and part.args[1].is_Integer:
            divisor = part.args[1]
            factor, axis = part.args[0].as_coeff_Mul()
            if axis.is_Symbol and factor == divisor - 1 and total.coeff(axis) == total.coeff(part) == 1:
                return total - axis - part + divisor * FloorDiv(axis + divisor - 1, divisor)
    return total
