"""Proves by the signs of coefficients that a comparison holds for all sizes of a region, where torch could not."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import sympy
from sympy.core.relational import Relational

from towers.contracts.proofs.at_sizes import at
from towers.contracts.proofs.divide import divide, sure
from towers.contracts.proofs.ranges import Span, Spans
from towers.contracts.proofs.remainders import reduced


def always(relation: Any, spans: Spans) -> bool:
    """Whether a comparison of sizes is proven to hold in a whole region; False if it is not proven.

    Each axis is written as its first size and something that is not negative, and so is each quotient. A polynomial in
    those has the sign that all of its coefficients have. With `max(1, time-2)` it holds if it does with 1 and `time-2`.
    """
    if not isinstance(relation, Relational):
        return False
    for node in sympy.preorder_traversal(relation):
        if type(node).__name__ in ("Min", "Max") and _constant_quotients(node, spans) == node:
            with_each = (relation.xreplace({node: part}) for part in node.args)
            return all(each == True or always(each, spans) for each in with_each)  # noqa: E712
    known = {str(axis) for axis in relation.free_symbols} <= spans.keys()
    left, right = (_constant_quotients(side, spans) if known else side for side in cast(Any, relation.args))
    if type(relation).__name__ in ("Equality", "Unequality") and type(left).__name__ in ("Mod", "PythonMod"):
        axes = {axis: _from(spans[str(axis)]) for axis in relation.free_symbols if str(axis) in spans}
        parts = [_polynomial(part, axes) for part in left.args] if len(axes) == len(relation.free_symbols) else [None]
        if None not in parts and right.is_Integer:
            rest = _remainder(*parts)
            if rest is not None:
                return (rest == right) == (type(relation).__name__ == "Equality")
        found = None if None in parts or right != 0 else _divided(*parts)
        if found is not None:
            return (found[1] == 0) == (type(relation).__name__ == "Equality")
    sign = _sign(left - right, spans)
    return {
        "Equality": abs(sign) != 2 and _same(left - right, spans),
        "Unequality": abs(sign) == 2,
        "StrictGreaterThan": sign == 2,
        "GreaterThan": sign > 0,
        "StrictLessThan": sign == -2,
        "LessThan": sign < 0,
    }.get(type(relation).__name__, False)


def always_of_multiples(relation: Any, spans: Spans, multiples: Mapping[str, str], known: Sequence[Any]) -> bool:
    """As `always`, where some axes are multiples of others, and comparisons are known.

    Such an axis is written as the other one times a number, which is 1 only where both are equal.
    """
    axes = {str(axis): axis for axis in relation.free_symbols}
    wide = dict(spans)
    for name, divisor in multiples.items():
        if name not in axes or spans[name].single or spans[name].first < 1:
            continue
        by = axes.get(divisor, sympy.Symbol(divisor, integer=True, positive=True))
        last = spans[divisor].last
        low = max(1, 1 if not last else -(-spans[name].first // last))
        if low == 1 and any(_says(each, axes[name], by) for each in known):
            low = 2
        times = sympy.Symbol(f"{name}/{divisor}", integer=True, positive=True)
        wide[str(times)] = Span(low)
        relation = relation.subs(axes[name], by * times)
        if relation in (True, False):
            return bool(relation)
    return always(relation, wide)


def _says(known: Any, one: Any, other: Any) -> bool:
    """Whether a comparison that is known says that two axes differ."""
    difference = known.args[0] - known.args[1] if isinstance(known, sympy.Ne) else 0
    return difference in (one - other, other - one)


def never(relation: Any, spans: Spans) -> bool:
    """Whether a comparison is proven to hold nowhere in a region."""
    relation = relation.subs(
        {axis: spans[str(axis)].first for axis in relation.free_symbols if spans[str(axis)].single}
    )
    if isinstance(relation, Relational):
        relation = relation.func(*(_constant_quotients(side, spans) for side in cast(Any, relation.args)))
    if not relation.free_symbols:
        return not bool(relation)
    if len(relation.free_symbols) == 1:
        [axis] = relation.free_symbols
        span = spans[str(axis)]
        parts = divide(span, relation, axis)
        return all(sure(part, relation, axis) and not at(relation, axis)(part.first) for part in parts)
    return always(sympy.Not(relation), spans)


def _sign(difference: Any, spans: Spans) -> int:
    """2 or -2 if an expression is always more or less than 0, 1 or -1 if it may be 0 too; 0 where that is not known."""
    if any(str(axis) not in spans for axis in difference.free_symbols):
        return 0
    difference = _constant_quotients(reduced(difference), spans)
    axes = {axis: _from(spans[str(axis)]) for axis in difference.free_symbols}
    polynomial = _polynomial(difference, axes)
    if polynomial is not None and (sign := _sign_of(polynomial)):
        return sign
    bounds = _bounds(cast(Any, sympy.expand(difference)), axes)
    if bounds is None:
        return 0
    low, high = (cast(Any, sympy.expand(bound)) for bound in bounds)
    return 1 if low.is_zero else -1 if high.is_zero else max(_sign_of(low), 0) or min(_sign_of(high), 0)


def _same(difference: Any, spans: Spans) -> bool:
    """Whether an expression is always 0."""
    difference = reduced(difference)
    axes = {axis: _from(spans[str(axis)]) for axis in difference.free_symbols if str(axis) in spans}
    polynomial = _polynomial(difference, axes) if len(axes) == len(difference.free_symbols) else None
    return polynomial is not None and bool(sympy.expand(polynomial).is_zero)


def _constant_quotients(node: Any, spans: Spans) -> Any:
    """An expression in which a quotient that is the same for all sizes of a region is its number.

    Of `max(1, time-3)` the part is left that is the largest for all sizes, if there is one.
    """
    if type(node).__name__ in ("Min", "Max") and {str(axis) for axis in node.free_symbols} <= spans.keys():
        way = 1 if type(node).__name__ == "Max" else -1
        for part in node.args:
            if all(other is part or _sign(way * (part - other), spans) > 0 for other in node.args):
                return part
    if type(node).__name__ == "FloorDiv" and len(node.free_symbols) == 1:
        [axis] = node.free_symbols
        span = spans[str(axis)]
        linear = node.args[0].is_polynomial(axis) and sympy.degree(node.args[0], axis) == 1 and node.args[1].is_Integer
        if linear and span.last is not None:
            ends = {node.subs(axis, size) for size in (span.first, span.last)}
            return ends.pop() if len(ends) == 1 else node
    return node.func(*(_constant_quotients(part, spans) for part in node.args)) if node.args else node


def _from(span: Span) -> Any:
    return sympy.Integer(span.first) if span.single else _at_least(span.first, span.step)


def _at_least(low: int, step: int = 1) -> Any:
    return low + step * sympy.Dummy(nonnegative=True, integer=True)


def _sign_of(polynomial: Any) -> int:
    """As `_sign`, of a polynomial in what is not negative."""
    terms = sympy.expand(polynomial).as_coefficients_dict()
    constant = terms.pop(sympy.S.One, 0)
    values = list(terms.values())
    if not values and constant == 0:
        return 0
    if constant >= 0 and all(value >= 0 for value in values):
        return 2 if constant > 0 else 1
    if constant <= 0 and all(value <= 0 for value in values):
        return -2 if constant < 0 else -1
    return 0


def _bounds(node: Any, axes: dict[Any, Any]) -> tuple[Any, Any] | None:
    """A polynomial that is never more and one that is never less: `time//2` is between (time-1)/2 and time/2."""
    if node.is_Symbol or node.is_Rational:
        value = axes.get(node, node)
        return value, value
    if type(node).__name__ in ("TruncToInt", "FloorToInt"):
        return _bounds_of_float(node, axes)
    for quotient in node.args if node.is_Mul and len(node.args) == 2 else ():
        if type(quotient).__name__ == "FloorDiv" and quotient.args[1] * quotient == node:
            number, divisor = quotient.args  # (words+11)//words * words is more than 11 and at most words+11
            ends = _bounds(number - divisor + 1, axes), _bounds(number, axes), _bounds(divisor, axes)
            if ends[0] and ends[1] and ends[2] and _sign_of(cast(Any, sympy.expand(ends[2][0]))) == 2:
                return ends[0][0], ends[1][1]
    parts = [_bounds(part, axes) for part in node.args]
    if any(part is None for part in parts):
        return None
    found = cast(list[tuple[Any, Any]], parts)
    if node.is_Add:
        return sum(low for low, _ in found), sum(high for _, high in found)
    if node.is_Mul:
        number, rest = node.as_coeff_Mul()
        if number != 1:
            inner = _bounds(rest, axes)
            if inner is None:
                return None
            low, high = inner if number > 0 else (inner[1], inner[0])
            return number * low, number * high
        fine = all(low == 0 or _sign_of(low) > 0 for low, _ in found)
        return (sympy.prod(low for low, _ in found), sympy.prod(high for _, high in found)) if fine else None
    if type(node).__name__ in ("FloorDiv", "CleanDiv") and node.args[1].is_Integer and node.args[1] > 0:
        divisor = node.args[1]
        return (found[0][0] - divisor + 1) / divisor, found[0][1] / divisor
    if type(node).__name__ == "FloorDiv":  # by 1 or more
        number, divisor = (_sign_of(cast(Any, sympy.expand(low))) for low, _ in found)
        return (sympy.S.Zero, found[0][1]) if number > 0 and divisor == 2 else None
    return None


def _bounds_of_float(node: Any, axes: dict[Any, Any]) -> tuple[Any, Any] | None:
    """The same of `int(time * 0.3)`: rounding changes a product of a size, which is far below 2**33, by less than 1."""
    product = node.args[0]
    if not product.is_Mul or len(product.args) != 2 or not product.args[0].is_Float or product.args[0] <= 0:
        return None
    factor, size = product.args
    inner = _bounds(size.args[0], axes) if type(size).__name__ == "ToFloat" and factor < 2**10 else None
    if inner is None or _sign_of(sympy.expand(inner[0])) <= 0:
        return None
    near, more = sympy.Rational(int(factor * 2**40), 2**40), sympy.Rational(1, 2**40)
    return (near - more) * inner[0] - 1, (near + more) * inner[1]


def _polynomial(node: Any, axes: dict[Any, Any]) -> Any:
    """An expression with axes and quotients replaced; None if something else is in it."""
    if node.is_Symbol:
        return axes[node]
    if node.is_Rational:
        return node
    parts = [_polynomial(part, axes) for part in node.args]
    if any(part is None for part in parts):
        return None
    if node.is_Add or node.is_Mul or (node.is_Pow and parts[1].is_Integer and parts[1] > 0):
        return node.func(*parts)
    if type(node).__name__ in ("FloorDiv", "CleanDiv") and parts[1].is_Integer and parts[1] > 0:
        terms = sympy.expand(parts[0]).as_coefficients_dict()
        constant = terms.pop(sympy.S.One, 0)
        if all((value / parts[1]).is_Integer for value in terms.values()):  # 2*k + 4 by 2, as where an axis is even
            return sum(value / parts[1] * term for term, value in terms.items()) + constant // parts[1]
        fine = all(value >= 0 for value in terms.values())
        return axes.setdefault(node, _at_least(int(constant // parts[1]))) if fine else None
    if type(node).__name__ in ("FloorDiv", "CleanDiv") and parts[1].free_symbols and _sign_of(parts[1]) == 2:
        found = _divided(*parts)
        return None if found is None else found[0]
    return None


def _remainder(number: Any, divisor: Any) -> Any:
    """The remainder of a polynomial by a number, where it is the same everywhere: 4*i*j + 2*i + 1 is odd."""
    if not divisor.is_Integer or divisor <= 0:
        return None
    terms = cast(Any, sympy.expand(number)).as_coefficients_dict()
    rest = {term: value for term, value in terms.items() if value.is_Integer and value % divisor}
    whole = all(value.is_Integer for value in terms.values()) and rest.keys() <= {sympy.S.One}
    return rest.get(sympy.S.One, sympy.S.Zero) % divisor if whole else None


def _divided(number: Any, divisor: Any) -> tuple[Any, Any] | None:
    """Quotient and remainder of polynomials, where both are known: 4*words - 1 by words is 3, and words - 1 is left.

    The remainder is 0 or known to be more than 0 and less than the divisor.
    """
    number, divisor = sympy.expand(number), sympy.expand(divisor)
    if not divisor.free_symbols or _sign_of(divisor) != 2:
        return None
    if _sign_of(number) == 2 and _sign_of(divisor - number) == 2:
        return sympy.S.Zero, number
    for symbol in sorted(divisor.free_symbols, key=sympy.default_sort_key):
        found, rest = sympy.div(number, divisor, symbol)
        if _sign_of(rest) < 0:
            found, rest = found - 1, rest + divisor
        whole = all(each.is_Integer for each in sympy.expand(found).as_coefficients_dict().values())
        fits = rest == 0 or (_sign_of(rest) == 2 and _sign_of(divisor - rest) == 2)
        if whole and fits:
            return found, rest
    return None
