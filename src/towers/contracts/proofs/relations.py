"""Conditions between axes, such as `time <= words`: they divide a region of sizes where no single axis does."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from math import gcd
from types import CodeType
from typing import Any, cast

import sympy
import torch
from sympy.core.relational import Relational

from towers.contracts.proofs.ranges import PRIMES, Spans
from towers.contracts.proofs.symbolic_size import spelled

Relations = tuple[Any, ...]
"""Comparisons of sizes, in axes, all of which are taken for granted."""

MOST_RELATIONS = 3
"""A region is not divided further than by this number of them."""

MOST_TRIES = 20_000
"""Choices of sizes that are looked at to find one for which all relations hold."""


def negation(relation: Any) -> Any:
    """The opposite."""
    return sympy.Not(relation)


def turned(relation: Any, order: Sequence[str]) -> Any:
    """The same relation with the axis on the left that comes first in an order."""
    left, right = cast(tuple[Any, Any], relation.args)
    places = [min((order.index(str(axis)) for axis in side.free_symbols), default=len(order)) for side in (left, right)]
    return relation.reversed if places[1] < places[0] else relation


def usable(relation: Any) -> bool:
    """Whether a relation can be computed with whole numbers."""
    return isinstance(relation, Relational) and all(map(_computed, sympy.preorder_traversal(relation)))


def _computed(node: Any) -> bool:
    kind = type(node).__name__
    if node.is_Pow:
        return bool(node.exp.is_Integer and node.exp > 0)
    return node.is_Rational or node.is_Symbol or node.is_Add or node.is_Mul or node.is_Relational or kind in _KINDS


_KINDS = ("FloorDiv", "CleanDiv", "Mod", "PythonMod", "Min", "Max")


def one_number(relation: Any) -> bool:
    """Whether it asks if quotients of several axes have one number: (high//4)*(wide//4) == 9.

    Such a relation stands for itself. For each remainder of both axes there would be another one.
    """
    if not isinstance(relation, (sympy.Eq, sympy.Ne)) or len(relation.free_symbols) < 2 or not usable(relation):
        return False
    remainders = any(type(node).__name__ in ("Mod", "PythonMod") for node in sympy.preorder_traversal(relation))
    return not remainders and any(side.is_Integer for side in relation.args)


def truth(relation: Any, sizes: Mapping[str, Any]) -> Any:
    """Whether it holds for sizes: a bool for ints, a SymBool for symbols. A remainder by an empty axis has no truth."""
    try:
        return eval(_compiled(relation), {"min": torch.sym_min, "max": torch.sym_max}, dict(sizes))
    except ZeroDivisionError:
        return False


@cache
def _compiled(relation: Any) -> CodeType:
    text = re.sub(r"(?<!/)/(?!/)", "//", spelled(relation))  # a quotient that is a size has no remainder
    return compile(text, "relation", "eval")


def some_sizes(relations: Relations, spans: Spans) -> Iterator[dict[str, int]]:
    """Sizes of the axes that relations name, for which all of them hold; none where none is found."""
    names = sorted({str(axis) for relation in relations for axis in relation.free_symbols})
    choices: list[list[int]] = []
    for name in names:
        span = spans[name]
        near = [span.first + step * span.step for step in (*range(2, 41), 0, 1)]
        far = [span.example(prime) for prime in (*PRIMES, 257, 1009, 4099, 65537)]
        choices.append([size for size in dict.fromkeys([*near, *far]) if size in span])
    for count, sizes in enumerate(product(*choices)):
        if count > MOST_TRIES:
            return
        found = dict(zip(names, sizes, strict=True))
        if all(truth(relation, found) for relation in relations):
            yield found


def multiples_told(relations: Relations) -> dict[str, str]:
    """The axes that are a multiple of another one by a relation such as `heads % groups == 0`, each with that."""
    found: dict[str, str] = {}
    for relation in relations:
        if isinstance(relation, sympy.Eq):
            left, right = cast(tuple[Any, Any], relation.args)
            if type(left).__name__ in ("Mod", "PythonMod") and right == 0 and all(side.is_Symbol for side in left.args):
                found[str(left.args[0])] = str(left.args[1])
    return found


def plainer(relation: Any) -> Any:
    """A comparison of whole numbers where there are several axes: `2*t == r+1` for `t == (r+1)/2`.

    `min(t, r) == t` is `t <= r`. An axis that was divided by another is a multiple of it.
    """
    if not isinstance(relation, Relational):
        return relation
    left, right = cast(tuple[Any, Any], relation.args)
    if isinstance(relation, (sympy.Eq, sympy.Ne)):
        for one, other in ((left, right), (right, left)):
            if type(one).__name__ in ("Min", "Max") and len(one.args) == 2 and other in one.args:
                rest = next(each for each in one.args if each != other)
                order = sympy.Le(other, rest) if type(one).__name__ == "Min" else sympy.Ge(other, rest)
                return order if isinstance(relation, sympy.Eq) else sympy.Not(order)
    if len(relation.free_symbols) < 2:
        return relation
    if isinstance(relation, (sympy.Eq, sympy.Ne)) and (common := _common_factor(left, right)) is not None:
        parts = (sum(term / common for term in sympy.Add.make_args(side)) for side in (left, right))
        return relation.func(*parts)  # of batch*time == 2*batch and 16*high*wide == 64 it is time == 2, high*wide == 4
    if not any(each.is_Pow and each.exp.is_negative for each in sympy.preorder_traversal(relation)) and not any(
        term.is_Rational and not term.is_Integer
        for side in (left, right)
        for term in side.as_coefficients_dict().values()
    ):
        return relation
    number, divisor = cast(tuple[Any, Any], sympy.fraction(sympy.together(left - right)))
    if not divisor.is_positive:
        return relation
    terms = [term * factor for term, factor in sympy.expand(number).as_coefficients_dict().items()]
    negative = [term for term in terms if term.as_coeff_Mul()[0] < 0]
    return relation.func(sum(term for term in terms if term not in negative), -sum(negative))


@cache
def _common_factor(left: Any, right: Any) -> Any:
    """The product of the axes and the number that both sides of an equation are multiples of; None where it is 1."""
    terms = [term for side in (left, right) for term in sympy.Add.make_args(side) if term != 0]
    common = set[Any].intersection(*(set(sympy.Mul.make_args(term)) for term in terms))
    axes = [factor for factor in common if factor.is_Symbol and factor.is_positive]
    numbers = [term.as_coeff_Mul()[0] for term in terms]
    number = gcd(*map(int, numbers)) if all(each.is_Integer for each in numbers) else 1
    return number * sympy.prod(axes) if axes or number > 1 else None


def implied(relation: Any, known: Sequence[Any]) -> bool:
    """Whether a relation follows from one that is known, up to a constant; or an equation from two bounds."""
    facts = [fact for each in known if (fact := _normal(each)) is not None]
    goal = _normal(relation) if facts else None
    if goal is None or any(_follows(goal, fact) for fact in facts):
        return goal is not None
    wanted, difference = goal
    bounds = [(">", difference + 1), (">", 1 - difference)]
    return wanted == "==" and all(any(_follows(bound, fact) for fact in facts) for bound in bounds)


def _normal(relation: Any) -> tuple[str, Any] | None:
    """The relation as an expression that is "> 0", "== 0" or "!= 0"; all are whole numbers."""
    if not isinstance(relation, Relational):
        return None
    left, right = cast(tuple[Any, Any], relation.args)
    difference = sympy.expand(left - right)
    return {
        "StrictGreaterThan": (">", difference),
        "GreaterThan": (">", difference + 1),
        "StrictLessThan": (">", -difference),
        "LessThan": (">", 1 - difference),
        "Equality": ("==", difference),
        "Unequality": ("!=", difference),
    }.get(type(relation).__name__)


@cache
def _multiple(expression: Any, known: Any) -> bool:
    """Whether an expression is another one times axes and a number, none of which is 0."""
    if not expression.free_symbols >= known.free_symbols:
        return False
    factor = cast(Any, sympy.cancel(expression / known))
    return bool(factor.is_nonzero) and sympy.fraction(factor)[1].is_Integer


def _follows(goal: tuple[str, Any], fact: tuple[str, Any]) -> bool:
    wanted, expression = goal
    kind, known = fact
    if wanted == kind and kind != ">" and _multiple(expression, known):
        return True
    if wanted == kind and expression in (known, -known) and kind != ">":
        return True
    same, other = sympy.expand(expression - known), sympy.expand(expression + known)
    if kind == ">" and wanted == ">":
        return bool(same.is_Integer and same >= 0)
    if kind == ">" and wanted == "!=":  # known >= 1, so that it is no number below
        return bool((same.is_Integer and same >= 0) or (other.is_Integer and other <= 0))
    if kind == "==":
        value = next((int(cast(Any, each)) for each in (same, other) if each.is_Integer), None)
        return value is not None and {">": value > 0, "!=": value != 0, "==": value == 0}[wanted]
    return False
