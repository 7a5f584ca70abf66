"""The careful check, name by name. It explains what does not fit, and `verify` runs it on symbolic sizes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, Never, ParamSpec, cast

import torch
from torch import Tensor

from towers.contracts import modes
from towers.contracts.bindings import Bindings, Bound, Impossible, Unknown, is_result
from towers.contracts.errors import ShapeContractError
from towers.contracts.expressions import Condition
from towers.contracts.layouts import RaggedAxis, Size, layout, merged, sized
from towers.contracts.nontensor import is_valid
from towers.contracts.refusals import (
    refuse_condition,
    refuse_division,
    refuse_dtype,
    refuse_impossible,
    refuse_key,
    refuse_kind,
    refuse_rank,
    refuse_size,
    refuse_unsolvable,
    refuse_validators,
    refuse_variadic,
)
from towers.contracts.signature import Signature
from towers.contracts.specs import (
    Alternative,
    Axis,
    ItemsSpec,
    KeyedSpec,
    MappingSpec,
    PlainSpec,
    RecordSpec,
    Spec,
    TensorSpec,
    TreeSpec,
    TupleSpec,
    pair,
)
from towers.contracts.trees import is_kind, tree_leaves

P = ParamSpec("P")


def refusal(signature: Signature, arguments: Mapping[str, Any], added: Mapping[str, Bound] | None = None) -> Exception:
    """The error of a call that does not fit, ready to be raised.

    Args:
        signature: what the call does not fit.
        arguments: its arguments; "return" among them is its result.
        added: the axes that the body of the function has bound, which the result must have.
    """
    names = Bindings(signature, arguments)
    check = Check(names)
    try:
        check.check_arguments()
        if "return" in arguments:
            names.axes = {**(added or {}), **names.axes}
            check.check_result(arguments["return"])
    except (ShapeContractError, ValueError) as error:
        error.__traceback__ = error.__context__ = None  # the frames of this check do not help a reader
        return error
    return ShapeContractError(f"{names.place()}: the call does not fit its annotations")


class Check:
    """The check of one call."""

    def __init__(self, names: Bindings) -> None:
        self.names = names
        self.signature = names.signature
        self.waiting: list[tuple[str, TensorSpec, Sequence[Size], Axis, int]] = []
        """Axes that are expressions. They are compared when all names have a size."""

    # What `verify` overrides, because its sizes are symbols.

    def layout(self, value: object) -> tuple[Sequence[Size], torch.dtype | None, torch.device | None]:
        """The sizes, the dtype and the device of a value."""
        return layout(value)

    def holds(self, fact: Any) -> bool:
        """Whether a comparison of sizes is true."""
        return bool(fact)

    def refuse(self, words: Callable[Concatenate[Bindings, P], Never], *what: P.args, **more: P.kwargs) -> Never:
        """Raise the error that a function of `refusals` makes."""
        words(self.names, *what, **more)

    # The whole call.

    def check_arguments(self) -> None:
        """Check all arguments and conditions."""
        for name, spec in self.signature.arguments.items():
            if name in self.names.arguments:
                self.check(name, self.names.arguments[name], spec)
        for name, spec in self.signature.given.items():
            if name in self.names.arguments and "self" in self.names.arguments:
                self.check(f"self.{name}", getattr(self.names.arguments["self"], name), spec)
        self.compare_waiting()
        for condition in self.signature.where:
            self.check_condition(condition)

    def check_result(self, result: object) -> None:
        """Check the result."""
        if self.signature.result is not None:
            self.check("return", result, self.signature.result)
            self.compare_waiting()

    # One value.

    def check(self, name: str, value: object, spec: Spec) -> None:
        """Check one value against the alternatives of its annotation."""
        options = [option for option in spec if is_kind(value, option)]
        if not options:
            self.refuse(refuse_kind, name, value, spec)
        if any(isinstance(option, PlainSpec) for option in options):
            return
        option = options[0] if len(options) == 1 else self.first_that_fits(name, value, options)
        self.check_option(name, cast(Any, value), option)

    def check_option(self, name: str, value: Any, option: Alternative) -> None:
        """Check a value against one alternative, with all items of a container."""
        if isinstance(option, TensorSpec):
            self.check_tensor(name, value, option)
        elif isinstance(option, TupleSpec):
            for index, inner in enumerate(option.each(len(value))):
                self.check(f"{name}[{index}]", value[index], inner)
        elif isinstance(option, ItemsSpec):
            for index, item in enumerate(option.items(value)):
                self.check(f"{name}[{index}]", item, option.item)
        elif isinstance(option, TreeSpec):
            for place, leaf in tree_leaves(value, option.leaf, name):
                self.check(place, leaf, option.leaf)
        elif isinstance(option, MappingSpec):
            for key, item in value.items():
                self.check(f"a key of {name}", key, option.key)
                self.check(f"{name}[{key!r}]", item, option.value)
        elif isinstance(option, RecordSpec):
            for field, inner in option.fields:
                if field not in option.unset or hasattr(value, field):
                    self.check(f"{name}.{field}", getattr(value, field), inner)
        elif isinstance(option, KeyedSpec):
            for key, inner in option.fields:
                if key in value:
                    self.check(f"{name}[{key!r}]", value[key], inner)
                elif key in option.required:
                    self.refuse(refuse_key, name, key, option)
        if not isinstance(option, PlainSpec) and not is_valid(value, option.validators):
            self.refuse(refuse_validators, name, value, option)

    def first_that_fits(self, name: str, value: object, options: list[Alternative]) -> Alternative:
        """The first of several alternatives that fits; if none fits, the most similar one, for the message."""
        axes, waiting = self.names.axes, self.waiting
        for option in options:
            self.names.axes, self.waiting = dict(axes), []
            try:
                self.check_option(name, value, option)
                self.compare_known()
            except ShapeContractError:
                continue
            finally:
                self.names.axes, self.waiting = axes, waiting
            return option
        likely = max(options, key=lambda option: _likeness(value, option))
        self.names.others[name] = tuple(option for option in options if option is not likely)
        return likely

    # One tensor.

    def check_tensor(self, name: str, value: object, spec: TensorSpec) -> None:
        """Check the dtype and the number of axes, then each axis."""
        self.names.tensors[name] = value
        came, dtype, device = self.layout(value)
        wanted = None if is_result(name) else self.parameter_dtype(dtype)
        if (spec.dtypes is not None and dtype not in spec.dtypes) or (
            wanted not in (None, dtype) and device is not None and not modes.autocast(device)
        ):
            self.refuse(refuse_dtype, name, dtype, spec, wanted)
        if not spec.takes_rank(len(came)):
            self.refuse(refuse_rank, name, spec, came)
        for axis, size, index in pair(spec, came):
            if isinstance(size, tuple):
                self.bind_variadic(name, axis, sized(size))
            elif axis.size is None or (axis.broadcast and not isinstance(size, RaggedAxis) and self.holds(size == 1)):
                continue
            elif axis.name is None:
                self.waiting.append((name, spec, came, axis, index))
            else:
                self.bind(name, spec, came, axis.name, index)

    def parameter_dtype(self, dtype: torch.dtype | None) -> torch.dtype | None:
        """The dtype that a floating argument must have; None if it is free."""
        if self.signature.dtype_of is None or dtype is None or not dtype.is_floating_point:
            return None
        return self.names.parameter(self.signature.dtype_of).dtype

    def bind(self, name: str, spec: TensorSpec, came: Sequence[Size], axis: str, index: int) -> None:
        """Bind a name to a size, or compare the size with the one that it is bound to."""
        size = came[index]
        bound = self.names.axes.setdefault(axis, Bound(size, name))
        if isinstance(size, RaggedAxis):
            return
        if isinstance(bound.size, RaggedAxis):
            self.names.axes[axis] = Bound(size, name)
        elif not self.holds(bound.size == size):
            self.refuse(refuse_size, name, spec, came, index, cast(int, bound.size), bound.origin)

    def bind_variadic(self, name: str, axis: Axis, size: Sequence[int | None]) -> None:
        """Bind a variadic name to its sizes, or compare or broadcast them with those that it is bound to."""
        if axis.name is None:
            return
        key = f"*{axis.name}"  # `n` and `*n` are two names
        bound = self.names.axes.get(key)
        known = None if bound is None else (cast(tuple[int | None, ...], bound.size), bound.broadcast)
        both = merged(known, tuple(size), axis.broadcast)
        if both is None:
            self.refuse(refuse_variadic, name, axis, cast(Bound, bound), tuple(size))
        self.names.axes[key] = Bound(both[0], name if bound is None else bound.source, both[1])

    # Expressions and conditions.

    def compare_waiting(self) -> None:
        """Compare the axes that are expressions. One with one unknown name binds it; one with more goes on waiting."""
        bound = True
        while bound:
            bound = False
            waiting, self.waiting = self.waiting, []
            for item in waiting:
                name, _, came, axis, index = item
                size = came[index]
                if isinstance(size, RaggedAxis):
                    continue
                if self.expected(name, axis) is None and not self.names.solve(axis, size, name):
                    self.waiting.append(item)
                    continue
                bound = True
                self.compare(item)

    def compare_known(self) -> None:
        """Compare the axes that are expressions, if all their names are known."""
        for item in self.waiting:
            if not isinstance(item[2][item[4]], RaggedAxis) and self.expected(item[0], item[3]) is not None:
                self.compare(item)

    def compare(self, item: tuple[str, TensorSpec, Sequence[Size], Axis, int]) -> None:
        """Compare one axis with its expression."""
        name, spec, came, axis, index = item
        expected = cast(int, self.expected(name, axis))
        solved = [self.names.axes[one] for one in axis.size.names] if axis.size is not None else []
        if any(not isinstance(one.size, (tuple, RaggedAxis)) and not self.holds(one.size >= 0) for one in solved):
            self.refuse(refuse_unsolvable, name, axis, cast(int, came[index]))
        if self.holds(came[index] == expected):
            return
        if any(one.source == name and one.solved for one in solved):
            self.refuse(refuse_unsolvable, name, axis, cast(int, came[index]))
        self.refuse(refuse_size, name, spec, came, index, expected, self.names.origin(axis))

    def expected(self, name: str, axis: Axis) -> int | None:
        """The size that an axis must have; None if it is not known yet."""
        try:
            return self.names.expected(axis)
        except Impossible as impossible:
            self.refuse(refuse_impossible, name, axis, str(impossible))

    def check_condition(self, condition: Condition) -> None:
        """Check a condition of `where=` on sizes, or on every value of a tensor."""
        known = self.names.axis_or_values, self.names.braces
        try:
            for divisor in (*condition.subject.divisors, *condition.bound.divisors):
                fine = divisor.evaluate(*known) != 0
                if not (bool(fine.all()) if isinstance(fine, Tensor) else self.holds(fine)):
                    self.refuse(refuse_division, condition, divisor)
            value, bound = condition.subject.evaluate(*known), condition.bound.evaluate(*known)
        except Unknown:
            return
        fine = condition.compare(value, bound)
        if not isinstance(fine, Tensor):
            if not self.holds(fine):
                self.refuse(refuse_condition, condition, None)
        elif not bool(fine.all()):
            self.refuse(refuse_condition, condition, tuple((~fine).nonzero()[0].tolist()))


def _likeness(value: object, option: Alternative) -> int:
    """How well a value fits an alternative: the dtype counts more than the number of axes."""
    if not isinstance(option, TensorSpec):
        return 3
    came, dtype, _ = layout(value)
    return 2 * (option.dtypes is None or dtype in option.dtypes) + option.takes_rank(len(came))
