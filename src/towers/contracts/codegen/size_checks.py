"""Writes source that binds axis names to sizes and compares sizes with names and expressions."""

import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from towers.contracts.codegen.writer import Writer
from towers.contracts.expressions import Expression, indexed, path_root, rooted
from towers.contracts.layouts import merged
from towers.contracts.specs import Axis, TensorSpec

NUMBERS = (int, float, torch.SymInt, torch.SymFloat, numbers.Real)
"""The types of what may stand for a size. The last one is that of numpy's numbers."""


@dataclass(frozen=True)
class Waiting:
    """A size that must equal an expression whose names may not be bound yet."""

    local: str
    """The local that holds the size, or None if there is no value; a tuple of sizes if `many`."""
    expression: Expression
    certain: bool
    many: bool


class AxisWriter:
    """The axes of one signature: a local for each name.

    Args:
        writer: where the lines go.
        spread: the variadic names that broadcast anywhere in the signature.
        result: the local that holds the result.
    """

    def __init__(self, writer: Writer, spread: Iterable[str], result: str) -> None:
        self.writer, self.spread, self.result = writer, frozenset(spread), result
        self.seen: dict[str, None] = {}
        self.bound: set[str] = set()
        """The names that have a size at this line in every call."""
        self.modules: dict[str, str] = {}
        """The locals that hold modules which were looked up in the instance."""
        self.waiting: list[Waiting] = []
        self.whole: dict[tuple[str, ...], str] = {}
        """The local with the shape of an earlier tensor, by its axes: a tensor of the same axes has the same shape."""
        self.again: set[str] = set()
        """The names that are set in more than one place."""
        self.touched: list[dict[str, None]] = []
        """The locals that the alternatives being written set; they are set back if an alternative does not fit."""

    def local(self, name: str) -> str:
        """The local that holds a name's size, or None."""
        return f"{self.writer.mark}axis_{name}"

    # The axes of one tensor.

    def axes(self, shape: str, spec: TensorSpec) -> None:
        """Compare a shape with an annotation."""
        at, count = spec.variadic, len(spec.axes)
        if at is None:
            self.fixed_rank(shape, spec.axes)
            return
        if count > 1:
            self.writer.refuse_if(f"{self.writer.given('len', len)}({shape}) < {count - 1}")
        for index, axis in enumerate(spec.axes):
            if index == at:
                end = at + 1 - count
                self._variadic(f"{shape}[{at or ''}:{end or ''}]", axis)
            elif axis.size is not None:
                local = self.writer.local("size")
                self.writer.line(f"{local} = {shape}[{index if index < at else index - count}]")
                self._axis(local, axis, ragged=index > 0)

    def fixed_rank(self, shape: str, axes: Sequence[Axis]) -> None:
        """Axes without a variadic one; axes that an earlier tensor had are compared as one shape, most often equal.

        This gains 15 % of a call: `benchmarks/contracts.py`, "quick path: whole shapes".
        """
        texts = tuple(axis.text for axis in axes)
        same = self.whole.get(texts)
        if same is None or any(axis.name in self.again for axis in axes):
            self.each(shape, axes)
        else:
            with self.writer.block(f"if {shape} != {same}:"):  # the second axis may be ragged in one of them
                self.each(shape, axes)
        if self.writer.certain and axes and all(_lasting(axis) for axis in axes):
            self.whole.setdefault(texts, shape)

    def each(self, shape: str, axes: Sequence[Axis]) -> None:
        """Compare axis by axis."""
        self.writer.refuse_if(f"{self.writer.given('len', len)}({shape}) != {len(axes)}")
        if all(axis.size is None for axis in axes):
            return
        targets: list[str] = []
        left: list[tuple[str, Axis, bool]] = []
        for index, axis in enumerate(axes):
            if axis.size is None:
                targets.append(f"{self.writer.mark}any")
            elif self.writer.certain and axis.name and not axis.broadcast and axis.name not in self.seen:
                targets.append(self._set(axis.name))
                if index != 1:  # a ragged second axis has no size
                    self.bound.add(axis.name)
            else:
                targets.append(self.writer.local("size"))
                left.append((targets[-1], axis, index == 1))
        self.writer.line(f"{', '.join(targets)}{',' if len(targets) == 1 else ''} = {shape}")
        for local, axis, ragged in left:
            self._axis(local, axis, ragged=ragged)

    def _set(self, name: str) -> str:
        if name in self.seen:
            self.again.add(name)
        self.seen.setdefault(name)
        return self._touch(self.local(name))

    def _touch(self, local: str) -> str:
        if not self.writer.certain:
            self.writer.start.setdefault(local, "None")
        for touched in self.touched:
            touched.setdefault(local)
        return local

    def _axis(self, size: str, axis: Axis, *, ragged: bool) -> None:
        """One axis; `ragged`: it may have no size."""
        assert axis.size is not None
        given = [f"{size} is not None"] * ragged + [f"{size} != 1"] * axis.broadcast
        if axis.name is None:
            self._expression(size, axis.size, given)
        elif axis.name in self.bound:
            self.writer.refuse_if(*given, f"{size} != {self.local(axis.name)}")
        else:
            self.writer.start.setdefault(self.local(axis.name), "None")
            local = self._set(axis.name)
            fresh = [f"{local} is None", *given[ragged:]]
            self.writer.line(f"if {' and '.join(fresh)}: {local} = {size}")
            self.writer.line(f"elif {' and '.join([*given, f'{size} != {local}'])}: {self.writer.no}")

    def _variadic(self, sizes: str, axis: Axis) -> None:
        if axis.name is None:
            return
        name = f"*{axis.name}"
        local = f"{self.writer.mark}axes_{axis.name}"
        first = self.writer.certain and name not in self.seen
        if not first:
            self.writer.start.setdefault(local, "None")
        self.seen.setdefault(name)
        self._touch(local)
        if axis.name in self.spread:
            merge = self.writer.given("_merged", merged)
            known = "None" if first else local
            self.writer.line(f"{local} = {merge}({known}, {sizes}, {axis.broadcast})")
            self.writer.refuse_if(f"{local} is None")
        elif first:
            self.writer.line(f"{local} = {sizes}")
            self.bound.add(name)
        elif name in self.bound:
            self.writer.refuse_if(f"{local} != {sizes}")
        else:
            self.writer.line(f"if {local} is None: {local} = {sizes}")
            self.writer.line(f"elif {local} != {sizes}: {self.writer.no}")

    # Expressions.

    def _expression(self, size: str, expression: Expression, given: Sequence[str]) -> None:
        if all(name in self.bound for name in expression.names):
            wrong = self._unequal(size, expression)
            self.writer.refuse_if(*given, wrong)
            return
        if self.touched:  # an alternative is decided by the names that are known here
            known = [f"{self.local(name)} is not None" for name in expression.names if name not in self.bound]
            self.writer.start |= {self.local(name): "None" for name in expression.names if name not in self.bound}
            wrong = self._unequal(size, expression)
            self.writer.refuse_if(*given, *known, wrong)
        local, many = self.writer.local("waiting"), not self.writer.certain
        self.writer.start.setdefault(local, "()" if many else "None")
        self._touch(local)
        head = f"if {' and '.join(given)}: " if given else ""
        self.writer.line(f"{head}{local} {'+= (' + size + ',)' if many else '= ' + size}")
        self.waiting.append(Waiting(local, expression, certain=not given and not many, many=many))

    def spoken(self, expression: Expression, **more: str) -> str:
        """An expression as source. `more`: the source for some of its names."""
        names = {name: self.local(name) for name in expression.names}
        return expression.spell(names | {path: self.path(path) for path in expression.braces} | more)

    def _unequal(self, size: str, expression: Expression) -> str:
        """A test that is true if a size is not the value of an expression of known names."""
        tests = [*self.impossible(expression), f"{size} != {self.spoken(expression)}"]
        return tests[0] if len(tests) == 1 else f"({' or '.join(tests)})"

    def impossible(self, expression: Expression) -> list[str]:
        """Tests that are true if an expression has no value: a path in braces is no number, or it divides by 0.

        `{self.width}` alone needs no test, because no size equals a value that is no number. This gains 13 % of a call:
        `benchmarks/contracts.py`, "quick path: a path alone in braces".
        """
        numbers = self.writer.given("_numbers", NUMBERS)
        lone = expression.text.startswith("{self.") and expression.text == f"{{{expression.braces[0]}}}"
        kind = self.writer.given("isinstance", isinstance)
        count = self.writer.given("len", len)
        tests = [
            f"{count}({self.path(items)}) {'<=' if at >= 0 else '<'} {abs(at)}"
            for path in expression.braces
            for items, at in indexed(path)
        ]
        tests += [f"not {kind}({self.path(path)}, {numbers})" for path in expression.braces if not lone]
        return [*tests, *(f"not ({self.spoken(divisor)})" for divisor in expression.divisors)]

    def path(self, path: str) -> str:
        """The source of a path in braces."""
        if path_root(path) == "return":
            return rooted(path, self.result)
        module, dot, rest = path.removeprefix("self.").partition(".")
        return f"{self._module(module)}.{rest}" if dot and path.startswith("self.") and module.isidentifier() else path

    def _module(self, name: str) -> str:
        """A module inside of a module, which is looked up once: nn.Module's own look-up costs more than the check.

        This gains 8 of the 11 µs of the check of TwoTowers: `python benchmarks/run.py tower`, "towers, vectors" at 1.
        """
        if name not in self.modules and self.writer.certain:
            local = self.writer.local("inner")
            self.writer.line(f"{local} = self.{name}")
            self.modules[name] = local
        return self.modules.get(name, f"self.{name}")

    def settle(self) -> None:
        """Compare the sizes that wait. A linear expression with one unknown name binds it."""
        left, self.waiting = self.waiting, []
        several: list[Waiting] = []
        while left:
            item = min(left, key=lambda item: len(self._unknown(item)))
            left.remove(item)
            unknown = self._unknown(item)
            self._settle(item, unknown)
            self.waiting += [item] if unknown else []
            several += [item] if len(unknown) > 1 else []
        for item in several:  # one of its names may have been bound on the way
            self._settle(item, self._unknown(item))

    def _unknown(self, item: Waiting) -> list[str]:
        return [name for name in item.expression.names if name not in self.bound]

    def _settle(self, item: Waiting, unknown: Sequence[str]) -> None:
        size = self.writer.local("size") if item.many else item.local
        if item.many:
            with self.writer.block(f"for {size} in {item.local}:"):
                self._compare_or_solve(size, item.expression, unknown)
        elif item.certain:
            self._compare_or_solve(size, item.expression, unknown)
            if len(unknown) == 1 and _grows_with(item.expression, unknown[0]):
                self.bound.add(unknown[0])
        else:
            with self.writer.block(f"if {size} is not None:"):
                self._compare_or_solve(size, item.expression, unknown)

    def _compare_or_solve(self, size: str, expression: Expression, unknown: Sequence[str]) -> None:
        for name in unknown:
            self.writer.start.setdefault(self.local(name), "None")
        wrong = self._unequal(size, expression)
        if not unknown:
            self.writer.refuse_if(wrong)
            return
        known = " and ".join(f"{self.local(name)} is not None" for name in unknown)
        with self.writer.block(f"if {known}:"):
            self.writer.refuse_if(wrong)
        for name in unknown:
            if expression.linear_in(name):
                others = [f"{self.local(other)} is not None" for other in unknown if other != name]
                with self.writer.block(f"elif {' and '.join(others)}:" if others else "else:"):
                    self._solve(size, expression, name)

    def constants(self, expression: Expression, name: str) -> tuple[int, int] | None:
        """Zero and slope of an expression, if they are constants, so that the source need not compute them.

        This gains 7 % of a call: `benchmarks/contracts.py`, "quick path: a linear expression".
        """
        alone = expression.names == (name,) and not expression.braces
        return _line(expression) if alone else None

    def _solve(self, size: str, expression: Expression, name: str) -> None:
        """Bind the one unknown name: size = zero + slope * name."""
        local = self._set(name)
        impossible = self.impossible(expression)
        if impossible:
            self.writer.refuse_if(" or ".join(impossible))
        line = self.constants(expression, name)
        if line is not None:
            zero, slope = line
        else:
            zero, slope = self.writer.local("zero"), self.writer.local("slope")
            self.writer.line(f"{zero} = {self.spoken(expression, **{name: '0'})}")
            self.writer.line(f"{slope} = {self.spoken(expression, **{name: '1'})} - {zero}")
        if slope == 1:
            self.writer.line(f"{local} = {size} - {zero}" if zero else f"{local} = {size}")
            self.writer.refuse_if(f"{local} < 0")
            return
        rest = f"({size} - {zero})" if zero else size
        with self.writer.block(f"if {slope}:", always=True):
            self.writer.refuse_if(f"{rest} % {slope}")
            self.writer.line(f"{local} = {rest} // {slope}")
            self.writer.refuse_if(f"{local} < 0")
        self.writer.line(f"elif {size} != {zero}: {self.writer.no}")


def _lasting(axis: Axis) -> bool:
    """Whether the axis has the same size each time it is written."""
    return axis.size is not None and not axis.broadcast and not axis.size.braces


def _grows_with(expression: Expression, name: str) -> bool:
    """Whether its size determines the name in every call: true for `2*n`, not for `n*m`, which is 0 for m = 0."""
    alone = expression.names == (name,) and not expression.braces
    return alone and expression.linear_in(name) and _line(expression)[1] != 0


def _line(expression: Expression) -> tuple[int, int]:
    """The value of an expression of one name at 0, and its slope."""

    def at(value: int) -> int:
        return expression.evaluate(lambda name: value, lambda path: value)

    return at(0), at(1) - at(0)
