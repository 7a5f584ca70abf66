"""Writes source for the conditions of `where=`: bounds on sizes, and rules on values if these may be read."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor

from towers.contracts import modes
from towers.contracts.codegen.size_checks import NUMBERS, AxisWriter
from towers.contracts.codegen.writer import Writer
from towers.contracts.expressions import Condition, Expression
from towers.contracts.layouts import FEW, RaggedAxis
from towers.contracts.specs import PlainSpec, Spec


class ConditionWriter:
    """The conditions of one signature.

    Args:
        writer: where the lines go.
        axes: the axis names, all bound.
        ragged: the locals that hold the ragged axis of a name, should it be one.
        arguments: what is known of the parameters.
        place: the name of the function, its package and the source of its instance.
    """

    def __init__(
        self,
        writer: Writer,
        axes: AxisWriter,
        ragged: Mapping[str, str],
        arguments: Mapping[str, Spec],
        place: tuple[str, str, str],
    ) -> None:
        self.writer, self.axes, self.ragged, self.arguments = writer, axes, ragged, arguments
        self.name, self.package, self.owner = place
        self.operands: dict[str, str] = {}
        """The locals that hold a size or, if there is none, a ragged axis."""

    def conditions(self, conditions: Iterable[Condition]) -> None:
        """Each of them; `0 <= lengths <= steps` are two, which are asked together first."""
        waiting = list(conditions)
        while waiting:
            first = waiting.pop(0)
            if waiting and self._are_bounds(first, waiting[0]):
                second = waiting.pop(0)
                values = first.subject.text
                low, high = (self._bound(one.bound.text, values) for one in (first, second))
                with self.writer.block(f"if not {self.writer.given('_between', between)}({values}, {low}, {high}):"):
                    self.condition(first)
                    self.condition(second)
            else:
                self.condition(first)

    def _are_bounds(self, low: Condition, high: Condition) -> bool:
        """Whether these are the two bounds of an argument's values, each a number or the size of an axis."""
        values = low.subject.text
        if (low.relation, high.relation, high.subject.text) != (">=", "<=", values):
            return False
        if values not in self.arguments or values in self.axes.seen or self._is_int(values):
            return False
        return all(one.bound.text.isdecimal() or one.bound.text in self.axes.seen for one in (low, high))

    def _bound(self, bound: str, values: str) -> str:
        return bound if bound.isdecimal() else self._operands((values, bound))[bound]

    def condition(self, condition: Condition) -> None:
        """One comparison. It does not apply if a value in it is None."""
        sides = (condition.subject, condition.bound)
        names = list(dict.fromkeys(name for side in sides for name in side.names))
        given = [f"{self.axes.path(path)} is not None" for side in sides for path in side.braces]
        given = list(dict.fromkeys(given))
        sizes = [name for name in names if name in self.axes.seen]
        plain = all(name in sizes or self._is_int(name) for name in names)
        if plain:
            known = [f"{self._source(name)} is not None" for name in names if name not in self.axes.bound]
            self._compare(condition, [*known, *given])
        if not plain or any(name in self.ragged for name in sizes):
            self._rule(condition, names, given, lengths=plain)

    def _is_int(self, name: str) -> bool:
        """Whether the annotation of an argument is int or None, so that it is checked already."""
        spec = self.arguments.get(name, ())
        return bool(spec) and all(isinstance(one, PlainSpec) and one.hint in (int, type(None)) for one in spec)

    def _source(self, name: str) -> str:
        if name not in self.axes.seen:
            return name
        local = self.axes.local(name)
        if name not in self.axes.bound:
            self.writer.start.setdefault(local, "None")
        return local

    def _compare(self, condition: Condition, given: Sequence[str]) -> None:
        names = {name: self._source(name) for name in (*condition.subject.names, *condition.bound.names)}
        subject, bound = (self.axes.spoken(side, **names) for side in (condition.subject, condition.bound))
        test = f"{subject} {condition.relation} {bound}"
        for side in (condition.subject, condition.bound):
            test = "".join(f"({self.axes.spoken(one, **names)}) and " for one in side.divisors) + test
        wrong = f"not {test}" if " and " not in test else f"not ({test})"
        self.writer.refuse_if(*given, wrong)

    def _rule(self, condition: Condition, names: Sequence[str], given: Sequence[str], *, lengths: bool) -> None:
        """A condition on something other than sizes: any argument, or the lengths of a ragged axis."""
        operands = self._operands(names)
        if lengths:  # the sizes were compared already
            ragged = [f"{self._source(name)} is None" for name in names if name in self.ragged]
            given = [*given, ragged[0] if len(ragged) == 1 else f"({' or '.join(ragged)})"]
        text = f"{self.name}: {condition.text}"
        compare = self.writer.constant("compare", condition.compare)
        alone = names == [condition.subject.text] and not condition.bound.names and not condition.bound.divisors
        if alone and names[0] in self.ragged:
            place = f"{self.package!r}, {self.owner}, {text!r}"
            asked = f"{compare}, {operands[names[0]]}, {self._value(condition.bound, {})}, {place}"
            self.writer.refuse_if(*given, f"not {self.writer.given('_fits', fits)}({asked})")
            return
        applying = self.writer.given("_applies", applies)
        listed = ", ".join(dict.fromkeys(operands.values()))
        given = [*given, f"{applying}({self.package!r}, {self.owner}, {listed})"]
        counted = self.writer.given("_counts", counts)
        spoken = {name: f"{counted}({source})" for name, source in operands.items()}
        subject, bound = (self._value(side, spoken) for side in (condition.subject, condition.bound))
        holding = f"{self.writer.given('_holds', holds)}({compare}, {subject}, {bound}, {text!r})"
        with self.writer.block(f"if {' and '.join(given)}:"):
            for divisor in (*condition.subject.divisors, *condition.bound.divisors):
                unequal = self.writer.given("_ne", operator.ne)
                asked = f"{unequal}, {self._value(divisor, spoken)}, 0, {text + ': a division by 0'!r}"
                self.writer.refuse_if(f"not {self.writer.given('_holds', holds)}({asked})")
            self.writer.refuse_if(f"not {holding}")

    def _operands(self, names: Sequence[str]) -> dict[str, str]:
        """The source for the value of each name; the locals for ragged axes are set where they are first needed."""
        operands: dict[str, str] = {}
        for name in names:
            operands[name] = source = self._source(name)
            if name in self.ragged:
                if name not in self.operands:
                    self.operands[name] = self.writer.local("operand")
                    self.writer.line(f"{self.operands[name]} = {self.ragged[name]} if {source} is None else {source}")
                operands[name] = self.operands[name]
        return operands

    def _value(self, side: Expression, names: Mapping[str, str]) -> str:
        return self.axes.spoken(side, **names)


def bounded_names(conditions: Iterable[Condition]) -> frozenset[str]:
    """The names in conditions."""
    return frozenset(name for one in conditions for side in (one.subject, one.bound) for name in side.names)


# What the generated source calls.


def applies(package: str, owner: object, *operands: object) -> bool:
    """Whether a condition on these operands can be checked: on ints always, on values if no device has to wait.

    In a graph an assertion of torch checks the values. Under vmap they are skipped, because one row cannot raise.
    """
    switch = modes.switch
    mode = switch.of(package, owner) if switch.unusual else switch.mode
    for operand in operands:
        values = operand.offsets if isinstance(operand, RaggedAxis) else operand
        if isinstance(values, Tensor):
            if not (_in_graph(values) or modes.may_read(values, mode)):
                return False
        elif not isinstance(values, NUMBERS):
            return False
    return True


def counts(operand: Any) -> Any:
    """The operand of a comparison: a number, values, or the lengths of a ragged axis."""
    return operand.lengths if isinstance(operand, RaggedAxis) else operand


def holds(compare: Callable[[Any, Any], Any], subject: Any, bound: Any, text: str) -> bool:
    """Whether a condition holds, for every value of a tensor; in a graph an assert of torch's says so later.

    A few values on the CPU are compared by Python: row "a few lengths" of `python benchmarks/run.py quick-paths`.
    """
    if type(subject) is Tensor and type(bound) is int and _are_few(subject):
        return all(map(compare, subject.tolist(), repeat(bound)))
    fine = compare(subject, bound)
    if not isinstance(fine, Tensor):
        return bool(fine)
    if torch.compiler.is_compiling():
        torch.ops.aten._assert_async.msg(fine.all(), f"{text} does not hold")
        return True
    return bool(fine.all())


def between(values: Any, low: Any, high: Any) -> bool:
    """Whether whole numbers on the CPU lie between two; False: they do not, or each condition must say it.

    What it gains: row "two bounds at once" of `python benchmarks/run.py quick-paths`.
    """
    if type(values) is not Tensor or type(low) is not int or type(high) is not int or torch.compiler.is_compiling():
        return False
    if values.dtype not in (torch.int64, torch.int32) or not values.is_cpu or is_batchedtensor(values):
        return False
    if 0 < values.numel() <= FEW and values.dim() == 1:
        known = values.tolist()
        return low <= min(known) and max(known) <= high
    if not values.numel():
        return True
    least, largest = values.aminmax()
    return low <= least.item() and largest.item() <= high


def fits(compare: Callable[[Any, Any], Any], operand: Any, bound: Any, package: str, owner: object, text: str) -> bool:
    """What the three above say of an operand, alone on its side, and a bound.

    Of a few lengths on the CPU it takes a tenth of their time: row "towers, ids" at batch 1 of
    `python benchmarks/run.py tower`.
    """
    if type(operand) is RaggedAxis and not modes.switch.unusual and type(bound) is int:
        few = operand.few_lengths()
        if few is not None:
            return all(map(compare, few, repeat(bound)))
    return not applies(package, owner, operand) or holds(compare, counts(operand), bound, text)


def _are_few(values: Tensor) -> bool:
    if torch.compiler.is_compiling() or not values.is_cpu or is_batchedtensor(values):
        return False
    return values.dim() == 1 and values.shape[0] <= FEW and not values.is_floating_point()


def _in_graph(values: Tensor) -> bool:
    return torch.compiler.is_compiling() and not is_batchedtensor(values)
