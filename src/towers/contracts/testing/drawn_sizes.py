"""Sizes for the names of a signature that fulfil all of its conditions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hypothesis import strategies as st

from towers.contracts.expressions import Condition, Expression
from towers.contracts.specs import PlainSpec, TensorSpec, axis_names, tensors
from towers.contracts.subjects import Subject

Assigned = Mapping[str, int]
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Unknown(Exception):
    """An expression speaks of what has no size here, such as a field of an argument, or of something that is None."""


@dataclass(frozen=True)
class Rule:
    """One demand on the sizes, which can be looked at once all of its names have one."""

    names: frozenset[str]
    holds: Callable[[Assigned], bool]
    condition: Condition | None = None
    """What states it; None for an expression, which only has to be large enough."""


@dataclass
class Sizes:
    """The names of a signature (its axes, and its int arguments where a size depends on them) and the rules on them."""

    subject: Subject
    smallest: int
    largest: int
    names: list[str] = field(default_factory=list[str])
    rules: list[Rule] = field(default_factory=list[Rule])
    domains: dict[str, list[int]] = field(default_factory=dict[str, list[int]])

    def __post_init__(self) -> None:
        signature = self.subject.signature
        specs = list(signature.arguments.values())
        self.names = list(dict.fromkeys(name for spec in specs for name in axis_names(spec)))
        self.names += [name for name in self._spoken_arguments() if name not in self.names]
        for condition in self.subject.where:
            names = names_in(condition.subject) | names_in(condition.bound)
            self.rules.append(Rule(names, partial(self.fulfils, condition), condition))
        result = signature.result or ()
        for spec in [*specs, result]:
            for tensor in tensors(spec):
                self._add_expressions(tensor)
        self.rules = [rule for rule in self.rules if rule.names <= set(self.names)]
        self.domains = {name: self._domain(name) for name in self.names}

    def value(self, expression: Expression, assigned: Assigned) -> int:
        """An expression's value.

        Raises:
            Unknown: it has none.
        """
        try:
            return expression.evaluate(
                lambda name: _known(assigned.get(name)), lambda path: self.braces(path, assigned)
            )
        except ZeroDivisionError:
            raise Unknown from None

    def braces(self, path: str, assigned: Assigned) -> int:
        """What stands in braces: an int of the instance, or an int argument.

        Raises:
            Unknown: it is neither.
        """
        value = self.subject.read(path)
        return _known(assigned.get(path) if value is None else value)

    def fulfils(self, condition: Condition, assigned: Assigned) -> bool:
        """Whether a condition holds; one that meets a None does not apply."""
        try:
            return bool(
                condition.compare(self.value(condition.subject, assigned), self.value(condition.bound, assigned))
            )
        except Unknown:
            return True

    def drawn(self, draw: Draw, rules: Sequence[Rule] | None = None) -> dict[str, int] | None:
        """A size for every name, so that the rules hold; None where there is none such."""
        rules = self.rules if rules is None else rules
        assigned: dict[str, int] = {}
        for name in self.names:
            options = [size for size in self.domains[name] if self._leads_on({**assigned, name: size}, rules)]
            if not options:
                return None
            assigned[name] = draw(st.sampled_from(options))
        return assigned

    def others(self, name: str, assigned: Assigned) -> list[int]:
        """The sizes that one name could have as well, the others staying as they are: those of ragged rows."""
        return [size for size in self.domains[name] if self._holds({**assigned, name: size}, self.rules)]

    def _leads_on(self, assigned: Assigned, rules: Sequence[Rule]) -> bool:
        if not self._holds(assigned, rules):
            return False
        name = next((name for name in self.names if name not in assigned), None)
        return name is None or any(self._leads_on({**assigned, name: size}, rules) for size in self.domains[name])

    @staticmethod
    def _holds(assigned: Assigned, rules: Sequence[Rule]) -> bool:
        return all(rule.holds(assigned) for rule in rules if rule.names <= assigned.keys())

    def _domain(self, name: str) -> list[int]:
        """The usual small sizes, and what lies around the numbers that the signature and the instance speak of."""
        around = [number + step for number in self._numbers(name) for step in (-1, 0, 1)]
        usual = range(self.smallest, self.largest + 1)
        return sorted({*usual, *(size for size in around if size >= self.smallest)})

    def _numbers(self, name: str) -> Iterable[int]:
        for condition in self.subject.where:
            if name in (*condition.subject.names, *condition.bound.names):
                for side in (condition.subject, condition.bound):
                    if not side.names:
                        try:
                            yield self.value(side, {})
                        except Unknown:
                            continue

    def _add_expressions(self, tensor: TensorSpec) -> None:
        """A size is at least the smallest, that of a result too."""
        for axis in tensor.axes:
            if axis.size is not None and not axis.variadic and axis.name is None:
                self.rules.append(Rule(names_in(axis.size), partial(self._large_enough, axis.size)))

    def _large_enough(self, size: Expression, assigned: Assigned) -> bool:
        try:
            return self.value(size, assigned) >= self.smallest
        except Unknown:
            return True

    def _spoken_arguments(self) -> list[str]:
        """The int arguments that sizes or conditions depend on."""
        signature = self.subject.signature
        specs = [*signature.arguments.values(), signature.result or ()]
        sizes = [axis.size for spec in specs for tensor in tensors(spec) for axis in tensor.axes if axis.size]
        sides = [side for condition in self.subject.where for side in (condition.subject, condition.bound)]
        spoken = {name for expression in [*sizes, *sides] for name in names_in(expression)}
        return [name for name, spec in signature.arguments.items() if name in spoken and PlainSpec(int) in spec]


def names_in(expression: Expression) -> frozenset[str]:
    """The axes and the arguments that an expression depends on, but not what it reads from an instance."""
    return frozenset(expression.names) | {path for path in expression.braces if "." not in path}


def _known(value: Any) -> int:
    if not isinstance(value, int):
        raise Unknown
    return value
