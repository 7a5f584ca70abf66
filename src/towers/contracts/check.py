# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""`@contract`: what the signature says in jaxtyping is checked at every call, arguments and result."""

import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, ParamSpec, TypeVar, cast, overload

import torch
from torch import Tensor

from towers.contracts import modes
from towers.contracts.bindings import Bindings, Bound, Unknown
from towers.contracts.compiled import NotCompiled, compile_check
from towers.contracts.errors import ShapeContractError
from towers.contracts.expressions import Condition, read_path
from towers.contracts.layouts import RaggedAxis, Size, layout
from towers.contracts.refusals import (
    refuse_condition,
    refuse_dtype,
    refuse_kind,
    refuse_rank,
    refuse_size,
    refuse_unsolvable,
    refuse_variadic,
)
from towers.contracts.signature import read_signature
from towers.contracts.specs import Alternative, Axis, PlainSpec, Spec, TensorSpec, TupleSpec, is_kind, pair

P = ParamSpec("P")
R = TypeVar("R")


@overload
def contract(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def contract(
    *, where: Sequence[str] = (), dtype_of: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def contract(function: Any = None, /, *, where: Sequence[str] = (), dtype_of: str | None = None) -> Any:
    """Enforce the jaxtyping annotations of a function or method at each call.

    Axis names are shared by all arguments and the result; `{self.hidden}` and `{argument}` are read at the call.
    Beside tensors, `Float[Ragged, …]`, `Float[PackedSequence, …]` and jagged nested tensors are understood: their
    second axis is ragged and has no size of its own. Unions, None, and tuples of a fixed number of items are read too.

    What is no tensor is checked by beartype; that goes for lists, dicts and tuples of any length with tensors in them
    too, whose axes are not shared with other arguments. `*args`, `**kwargs`, results without tensors, and array types
    other than torch's are not checked.

    Args:
        function: what is decorated, when no option is given.
        where: conditions over axes, arguments and sizes of the instance, such as `"words >= {self.kernel_words}"`
            or `"0 <= lengths <= words"`. One that meets a None does not apply. On an integer tensor or a ragged axis
            it is a rule on every value (see `checks` for when values are read).
        dtype_of: path of a parameter of the instance ("conv.weight"); every floating argument must have its dtype,
            unless autocast is on.

    Raises:
        ValueError: an axis string or a condition cannot be read (when decorating); a value in a tensor breaks a
            condition (at a call).
        ShapeContractError: a shape, dtype or kind is not what the annotation says (at a call).
    """
    if function is None:
        return functools.partial(_enforce, where=where, dtype_of=dtype_of)
    return _enforce(function, where=where, dtype_of=dtype_of)


def _enforce(function: Callable[P, R], *, where: Sequence[str], dtype_of: str | None) -> Callable[P, R]:
    if isinstance(function, (staticmethod, classmethod)):
        inner: Any = type(function)(_enforce(function.__func__, where=where, dtype_of=dtype_of))
        return inner
    if isinstance(where, str):
        where = (where,)
    try:
        signature = read_signature(function, where, dtype_of)
    except NameError:
        return _when_called(function, where, dtype_of)

    def look_again(arguments: Mapping[str, Any]) -> Check:
        return Check(Bindings(signature, arguments))

    try:
        compiled = functools.wraps(function)(compile_check(function, signature, look_again))
    except NotCompiled:
        pass
    else:
        compiled.__contract__ = signature  # pyright: ignore[reportAttributeAccessIssue]
        return compiled

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        state = modes.enabled()
        if not state:
            return function(*args, **kwargs)
        arguments = {**dict(zip(signature.parameters, args, strict=False)), **kwargs}
        if state is not True:
            return state(signature, arguments, lambda: function(*args, **kwargs))
        careful = look_again(arguments)
        careful.check_arguments()
        result = function(*args, **kwargs)
        careful.check_result(result)
        return result

    checked.__contract__ = signature  # pyright: ignore[reportAttributeAccessIssue]
    return checked


def _when_called(function: Callable[P, R], where: Sequence[str], dtype_of: str | None) -> Callable[P, R]:
    """For annotations that name what is defined further down, such as their own class: read at the first call."""
    found: list[Callable[P, R]] = []

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not found:
            read_signature(function, where, dtype_of)  # raises the NameError of what is not defined even now
            found.append(_enforce(function, where=where, dtype_of=dtype_of))
        return found[0](*args, **kwargs)

    return checked


class Check:
    """The verdict on one call."""

    def __init__(self, names: Bindings) -> None:
        self.names = names
        self.signature = names.signature
        self.waiting: list[tuple[str, TensorSpec, Sequence[Size], Axis, int]] = []
        """Axes that are expressions: compared once every name has its size."""

    def check_arguments(self) -> None:
        """Everything that must hold before the call."""
        for name, spec in self.signature.arguments.items():
            if name in self.names.arguments:
                self.check(name, self.names.arguments[name], spec)
        self.compare_waiting()
        for condition in self.signature.where:
            self.check_condition(condition)

    def check_result(self, result: object) -> None:
        """Everything that must hold after it."""
        if self.signature.result is not None:
            self.check("return", result, self.signature.result)
            self.compare_waiting()

    def check(self, name: str, value: object, spec: Spec) -> None:
        """One value against the alternatives of its annotation."""
        options = [option for option in spec if is_kind(value, option)]
        if not options:
            refuse_kind(self.names, name, value, spec)
        if len(options) > 1:
            options = [self.first_that_fits(name, value, options)]
        match options[0]:
            case TensorSpec() as tensor:
                self.check_tensor(name, value, tensor)
            case TupleSpec(items):
                for index, (item, inner) in enumerate(zip(cast(tuple[object, ...], value), items, strict=True)):
                    self.check(f"{name}[{index}]", item, inner)
            case PlainSpec():
                pass

    def first_that_fits(self, name: str, value: object, options: list[Alternative]) -> Alternative:
        """Of several alternatives of one type the first that fits; else the likeliest, to say what is wrong with it."""
        axes, waiting = self.names.axes, self.waiting
        for option in options:
            self.names.axes, self.waiting = dict(axes), list(waiting)
            try:
                self.check(name, value, (option,))
                self.compare_waiting()
            except ShapeContractError:
                continue
            finally:
                self.names.axes, self.waiting = axes, waiting
            return option
        return next((option for option in options if _looks_right(value, option)), options[0])

    def check_tensor(self, name: str, value: object, spec: TensorSpec) -> None:
        """Dtype and rank, then axis by axis."""
        came, dtype, device = self.layout(value)
        wanted = None if name.startswith("return") else self.parameter_dtype(dtype)
        if (spec.dtypes is not None and dtype not in spec.dtypes) or (
            wanted not in (None, dtype) and not modes.autocast(device)
        ):
            refuse_dtype(self.names, name, dtype, spec, wanted)
        if not spec.takes_rank(len(came)):
            refuse_rank(self.names, name, spec, came)
        for axis, size, index in pair(spec, came):
            if isinstance(size, tuple):
                self.bind_variadic(name, axis, cast(tuple[int, ...], size))
            elif axis.size is None or (axis.broadcast and size == 1):
                continue
            elif axis.name is None:
                self.waiting.append((name, spec, came, axis, index))
            else:
                self.bind(name, spec, came, axis.name, index)

    def layout(self, value: object) -> tuple[Sequence[Size], torch.dtype, torch.device]:
        """The sizes, the dtype and the device of a value; `verify` gives symbols in place of the sizes."""
        return layout(value)

    def parameter_dtype(self, dtype: torch.dtype) -> torch.dtype | None:
        """The dtype that a floating argument must have; None where any will do."""
        path = self.signature.dtype_of
        if path is None or not dtype.is_floating_point:
            return None
        return read_path(self.names.arguments["self"], f"self.{path}").dtype

    def bind(self, name: str, spec: TensorSpec, came: Sequence[Size], axis: str, index: int) -> None:
        """Give a name its size, or compare with the one that it has."""
        size = came[index]
        bound = self.names.axes.setdefault(axis, Bound(size, name))
        if isinstance(size, RaggedAxis):
            return
        if isinstance(bound.size, RaggedAxis):
            self.names.axes[axis] = Bound(size, name)
        elif bound.size != size:
            refuse_size(self.names, name, spec, came, index, cast(int, bound.size), f"as in {bound.source}")

    def bind_variadic(self, name: str, axis: Axis, size: tuple[int, ...]) -> None:
        """Give a name its several sizes, or compare or broadcast with those that it has."""
        if axis.name is None:
            return
        key = f"*{axis.name}"  # one name may stand for one axis and for several
        bound = self.names.axes.setdefault(key, Bound(size, name, axis.broadcast))
        known = cast(tuple[int, ...], bound.size)
        both = _broadcast(known, size) if axis.broadcast or bound.broadcast else size
        if both is None or (not bound.broadcast and both != known) or (not axis.broadcast and both != size):
            refuse_variadic(self.names, name, axis, bound, size)
        self.names.axes[key] = Bound(both, bound.source, bound.broadcast and axis.broadcast)

    def compare_waiting(self) -> None:
        """Compare the axes that are expressions; those of unknown names go on waiting."""
        waiting, self.waiting = self.waiting, []
        for name, spec, came, axis, index in waiting:
            size, expected = came[index], self.names.expected(axis)
            if isinstance(size, RaggedAxis):
                continue
            if expected is None:
                if not self.names.solve(axis, size, name):
                    self.waiting.append((name, spec, came, axis, index))
                elif self.names.expected(axis) != size:
                    refuse_unsolvable(self.names, name, axis, size)
            elif size != expected:
                refuse_size(self.names, name, spec, came, index, expected, axis.origin)

    def check_condition(self, condition: Condition) -> None:
        """A bound on a size, or on every value of a tensor."""
        try:
            value = condition.subject.evaluate(self.names.axis_or_values, self.names.braces)
            bound = condition.bound.evaluate(self.names.axis_or_values, self.names.braces)
        except Unknown:
            return
        fine = condition.compare(value, bound)
        if not isinstance(fine, Tensor):
            if not fine:
                refuse_condition(self.names, condition, value, bound, None)
        elif not bool(fine.all()):
            position = tuple((~fine).nonzero()[0].tolist())
            bound = int(bound[position]) if isinstance(bound, Tensor) else bound
            refuse_condition(self.names, condition, int(value[position]), bound, position)


def _broadcast(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...] | None:
    """The sizes that two of them broadcast to; None if they do not."""
    pairs = list(zip_longest(reversed(first), reversed(second), fillvalue=1))
    if any(one != 1 and other != 1 and one != other for one, other in pairs):
        return None
    return tuple(other if one == 1 else one for one, other in reversed(pairs))


def _looks_right(value: object, option: Alternative) -> bool:
    if not isinstance(option, TensorSpec):
        return True
    came, dtype, _ = layout(value)
    return (option.dtypes is None or dtype in option.dtypes) and option.takes_rank(len(came))
