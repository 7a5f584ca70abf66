"""Simpler quotients and remainders have the same values, and code that pads to a multiple is proven with them."""

import random

import sympy
from torch.utils._sympy.functions import FloorDiv, PythonMod

from towers.contracts.proofs.divide import by_remainder, divide, sure
from towers.contracts.proofs.implied import always
from towers.contracts.proofs.ranges import Span
from towers.contracts.proofs.remainders import reduced

TIME, WIDE = (sympy.Symbol(name, integer=True, positive=True) for name in ("time", "wide"))


def drawn(dice, depth):
    """A random expression of sizes."""
    if depth == 0:
        return dice.choice((TIME, WIDE, sympy.Integer(dice.randrange(9)), dice.randrange(-9, 9) * TIME))
    one, other, number = drawn(dice, depth - 1), drawn(dice, depth - 1), sympy.Integer(dice.randrange(1, 9))
    kinds = (one + other, one * number, FloorDiv(one, number), PythonMod(one, number), one - other)
    return dice.choice((*kinds, one + PythonMod((number - 1) * one, number)))


def test_the_values_stay():
    dice = random  # seeded for each test
    changed = 0
    for _ in range(50):
        before = drawn(dice, 3)
        after = reduced(before)
        changed += after != before
        for time, wide in ((1, 1), (2, 7), (8, 3), (13, 64)):
            at = {TIME: time, WIDE: wide}
            assert before.subs(at) == after.subs(at), (before, after, at)
    assert changed > 8


def test_what_they_become():
    padded = TIME + PythonMod(-TIME, 8)
    assert reduced(padded) == 8 * FloorDiv(TIME + 7, 8)
    assert reduced(TIME + PythonMod(4 - PythonMod(TIME, 4), 4)) == 4 * FloorDiv(TIME + 3, 4)
    assert reduced(FloorDiv(reduced(padded), 8)) == FloorDiv(TIME + 7, 8)
    assert reduced(PythonMod(8 * TIME + 11, 8)) == 3
    assert reduced(PythonMod(TIME, 8)) == PythonMod(TIME, 8)


def test_what_follows_for_padded_sizes():
    padded = reduced(TIME + PythonMod(-TIME, 8))
    assert always(padded >= TIME, {"time": Span(1)})
    assert not always(sympy.Eq(TIME, padded), {"time": Span(1)})
    assert always(sympy.Eq(padded, 8), {"time": Span(2, 8)})
    assert not always(sympy.Eq(padded, 8), {"time": Span(2, 9)})
    assert always(sympy.Ne(PythonMod(FloorDiv(TIME + 7, 8), padded), 0), {"time": Span(1)})


def test_a_quotient_that_only_grows_is_divided_where_it_changes():
    relation = sympy.Ne(FloorDiv(TIME + 3, 4), 1)
    assert by_remainder(Span(2), relation, TIME) == 0
    assert divide(Span(2), relation, TIME) == [Span(2, 4), Span(5)]
    assert by_remainder(Span(2), sympy.Eq(PythonMod(TIME, 4), 1), TIME) == 4


def test_a_quotient_of_fractions_is_computed():
    """sympy leaves 1 // (1/8); a polynomial with it has no roots that can be sorted."""
    inner = FloorDiv(PythonMod(-TIME, 8) + 25, 8) + TIME / 8 - sympy.Rational(25, 8)
    relation = sympy.Eq(8 * TIME + 8 * PythonMod(-TIME, 8), 8 * inner * FloorDiv(TIME + PythonMod(-TIME, 8), inner))
    assert divide(Span(33, None, 8), relation, TIME) == [Span(33, None, 8)]
    assert sure(Span(33, None, 8), relation, TIME)


def test_what_is_proven_of_a_quotient_by_a_size_holds_at_every_size():
    """Of two axes: (wide + time - 1) // time * time is never less than wide."""
    dice = random  # seeded for each test
    sizes = [(time, wide) for time in range(1, 10) for wide in range(1, 24)]
    proven = 0
    for _ in range(60):
        number = WIDE * dice.randrange(3) + TIME * dice.randrange(-1, 2) + dice.randrange(-2, 12)
        quotient = FloorDiv(number, dice.choice((TIME, TIME + 1, 2 * TIME))) + dice.randrange(2)
        side = dice.choice((TIME, quotient, TIME + 1)) * quotient + dice.randrange(2) * TIME
        relation = dice.choice((sympy.Ge, sympy.Gt, sympy.Le))(side, WIDE * dice.randrange(2) + dice.randrange(-1, 9))
        if relation not in (True, False) and always(relation, {"time": Span(1), "wide": Span(1)}):
            proven += 1
            assert all(relation.subs({TIME: time, WIDE: wide}) for time, wide in sizes), relation
    assert proven
    for divisor in (TIME, sympy.Integer(4)):
        rounded = FloorDiv(WIDE + divisor - 1, divisor) * divisor
        assert always(rounded >= WIDE, {"time": Span(1), "wide": Span(1)})
        assert not always(rounded > WIDE, {"time": Span(1), "wide": Span(1)})
