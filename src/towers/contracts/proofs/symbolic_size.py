"""A size that is not known, as a contract meets it: it computes, compares by proof, and prints in axis names."""

import re
from collections.abc import Callable, Mapping
from math import lcm
from typing import Any

from torch import SymInt

Decide = Callable[[Any], bool]
"""Decides a comparison of symbolic sizes (a SymBool), or takes down that it could not."""


class SymbolicSize:
    """A torch.SymInt that never adds a guard: a comparison goes to `decide`, and text speaks of axes."""

    __slots__ = ("_decide", "_spell", "value")

    def __init__(self, value: SymInt, decide: Decide, spell: Callable[[Any], str]) -> None:
        self.value, self._decide, self._spell = value, decide, spell

    def _with(self, value: Any) -> Any:
        return SymbolicSize(value, self._decide, self._spell) if isinstance(value, SymInt) else value

    def __add__(self, other: Any) -> Any:
        return self._with(self.value + bare(other))

    def __sub__(self, other: Any) -> Any:
        return self._with(self.value - bare(other))

    def __mul__(self, other: Any) -> Any:
        return self._with(self.value * bare(other))

    def __floordiv__(self, other: Any) -> Any:
        return self._with(self.value // bare(other))

    def __mod__(self, other: Any) -> Any:
        return self._with(self.value % bare(other))

    def __radd__(self, other: Any) -> Any:
        return self._with(bare(other) + self.value)

    def __rsub__(self, other: Any) -> Any:
        return self._with(bare(other) - self.value)

    def __rmul__(self, other: Any) -> Any:
        return self._with(bare(other) * self.value)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._with(bare(other) // self.value)

    def __rmod__(self, other: Any) -> Any:
        return self._with(bare(other) % self.value)

    def __truediv__(self, other: Any) -> Any:
        return self // other if self % other == 0 else float("nan")  # what is no whole number is no size

    def __rtruediv__(self, other: Any) -> Any:
        return other // self if other % self == 0 else float("nan")

    def __neg__(self) -> Any:
        return self._with(-self.value)

    def _compare(self, truth: Any) -> bool:
        return truth if isinstance(truth, bool) else self._decide(truth)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (int, SymInt, SymbolicSize)):
            return False
        size = bare(other)
        same = isinstance(size, SymInt) and size.node.expr == self.value.node.expr  # which needs no proof
        return same or self._compare(self.value == size)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> bool:
        return self._compare(self.value < bare(other))

    def __le__(self, other: Any) -> bool:
        return self._compare(self.value <= bare(other))

    def __gt__(self, other: Any) -> bool:
        return self._compare(self.value > bare(other))

    def __ge__(self, other: Any) -> bool:
        return self._compare(self.value >= bare(other))

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return self._spell(self.value.node.expr)

    def __format__(self, specification: str) -> str:
        return format(repr(self), specification)


def bare(size: Any) -> Any:
    """The SymInt or int inside."""
    return size.value if isinstance(size, SymbolicSize) else size


def spelled(expression: Any) -> str:
    """A sympy expression as annotations write it: `words-1`, `2*(time//2)`."""
    return _spell(expression, 0)


_RELATIONS = {
    "Equality": "==",
    "Unequality": "!=",
    "StrictLessThan": "<",
    "LessThan": "<=",
    "StrictGreaterThan": ">",
    "GreaterThan": ">=",
}
_ROUNDINGS = {"TruncToInt": "int", "FloorToInt": "floor", "CeilToInt": "ceil"}
_DIVISIONS = {"FloorDiv": "//", "CleanDiv": "//", "Mod": "%", "PythonMod": "%"}


def _spell(node: Any, tight: int) -> str:
    kind = type(node).__name__
    if kind in _RELATIONS:
        left, right = (_spell(side, 0) for side in node.args)
        return f"{left} {_RELATIONS[kind]} {right}"
    if kind in _DIVISIONS:
        left, right = (_spell(side, 3) for side in node.args)
        return _wrapped(f"{left}{_DIVISIONS[kind]}{right}", tight > 1)
    if kind in _ROUNDINGS:
        return f"{_ROUNDINGS[kind]}({_spell(node.args[0], 0)})"
    if kind == "ToFloat":
        return _spell(node.args[0], tight)
    if kind in ("IntTrueDiv", "FloatTrueDiv"):
        left, right = (_spell(side, 3) for side in node.args)
        return _wrapped(f"{left}/{right}", tight > 1)
    if node.is_Float:
        return repr(float(node))
    if kind in ("Min", "Max"):
        return f"{kind.lower()}({', '.join(sorted(_spell(part, 0) for part in node.args))})"
    if node.is_Add:
        divisor = lcm(*(int(term.as_coeff_Mul()[0].q) for term in node.args))
        if divisor > 1:  # (time-1)//2, which has no remainder, not time/2-1/2
            return _wrapped(f"{_spell((node * divisor).expand(), 2)}//{divisor}", tight > 1)
        terms = sorted(node.args, key=lambda term: bool(term.is_number))
        terms.sort(key=lambda term: _spell(term, 1).startswith("-"))
        return _wrapped("+".join(_spell(term, 1) for term in terms).replace("+-", "-"), tight > 1)
    if node.is_Mul:
        number, rest = node.as_coeff_Mul()
        if number.is_Rational and not number.is_Integer:
            return _wrapped(f"{_spell((node * number.q).expand(), 2)}//{number.q}", tight > 1)
        if number == -1:
            return _wrapped("-" + _spell(rest, 2), tight > 1)
        factors = [] if number == 1 else [_spell(number, 0)]
        factors += sorted(_spell(factor, 2) for factor in rest.as_ordered_factors())
        return _wrapped("*".join(factors), tight > 2)
    return str(node)


def _wrapped(text: str, needed: bool) -> str:
    return f"({text})" if needed else text


_SYMBOL = re.compile(r"\b[suz]\d+\b")


def renamed(text: str, names: Mapping[str, str]) -> str:
    """torch's own messages with axis names in the place of symbols."""
    return _SYMBOL.sub(lambda match: _grouped(names.get(match[0], match[0])), text)


def _grouped(text: str) -> str:
    return text if text.isidentifier() else f"({text})"
