"""Expressions of one axis in Python's numbers are what sympy says they are, its exceptions too."""

import random
from typing import Any

import pytest
import sympy
from torch.utils._sympy.functions import CleanDiv, FloorDiv, Max, Min, Mod, PythonMod

from towers.contracts.proofs.at_sizes import at

TIME = sympy.Symbol("time", integer=True, positive=True)
SIZES = (1, 2, 3, 7, 12, 2**40)


def number(deep: int) -> Any:
    if deep == 0:
        return random.choice(
            [TIME, TIME, sympy.Integer(random.randint(-4, 9)), sympy.Rational(1, random.randint(2, 8))]
        )
    one, other = number(deep - 1), number(random.randrange(deep))
    binary = [FloorDiv, CleanDiv, Mod, PythonMod, Max, Min, sympy.Add, sympy.Mul, lambda x, y: x - y]
    return random.choice([*binary, lambda x, _: x ** random.choice([2, -1, sympy.Rational(1, 2)])])(one, other)


def condition(deep: int) -> Any:
    compared = random.choice([sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge])(number(deep), number(1))
    return random.choice([compared, sympy.Not(compared), sympy.And(compared, TIME > 2), sympy.Or(compared, TIME > 2)])


def outcome(call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("make", [number, condition], ids=["numbers", "conditions"])
def test_the_same_as_by_substitution(make: Any):
    seen, evaluated = set[str](), 0
    for _ in range(80):
        expression = outcome(make, random.randint(1, 3))
        if not isinstance(expression, sympy.Basic):  # sympy cannot make it
            continue
        seen |= {type(node).__name__ for node in sympy.preorder_traversal(expression)}
        for size in SIZES:
            wanted = outcome(expression.subs, TIME, size)
            if make is condition and not isinstance(wanted, type):
                wanted = outcome(bool, wanted)
            assert outcome(at(expression, TIME), size) == wanted, (expression, size)
            evaluated += not isinstance(wanted, type)
    assert seen >= {"Add", "Mul", "Pow", "FloorDiv", "CleanDiv", "Mod", "PythonMod", "Max", "Min"}
    assert evaluated > 250


def test_of_another_axis_sympy_answers():
    other = sympy.Symbol("words", integer=True, positive=True)
    assert at(TIME + other, TIME)(3) == 3 + other
    with pytest.raises(TypeError):
        at(sympy.Gt(TIME, other), TIME)(3)
