"""The values of names in one call: axis names have sizes, and paths in braces are read from the arguments."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from towers.contracts import modes
from towers.contracts.codegen.size_checks import NUMBERS
from towers.contracts.errors import module_path
from towers.contracts.expressions import Expression, indexed, path_root, read_path
from towers.contracts.layouts import RaggedAxis, number
from towers.contracts.signature import Signature
from towers.contracts.specs import Axis, Spec


class Bound(NamedTuple):
    """The size of an axis name in this call, and the argument that it comes from."""

    size: int | tuple[int | None, ...] | RaggedAxis
    source: str
    broadcast: bool = False
    solved: bool = False
    """Whether the size was computed from an expression, as `batch` from `batch+1`."""

    @property
    def origin(self) -> str:
        """Where the size comes from, for messages."""
        return f"{'worked out from' if self.solved else 'as in'} {self.source}"


class Unknown(Exception):
    """An expression needs an axis that has no size in this call, or a value that is None."""


class Impossible(Exception):
    """An expression has no value: it divides by 0, or a path in braces leads to no number."""


def is_result(name: str) -> bool:
    """Whether a place is the result or a part of it."""
    return name == "return" or name.startswith(("return[", "return.", "a key of return"))


def own_parameter(owner: Any, path: str, where: str) -> Any:
    """The parameter of an instance that `dtype_of` names.

    Raises:
        ValueError: the instance has no parameter at this path.
    """
    steps, found = path.split("."), owner
    for step in steps:
        found = getattr(found, step, None)
    if isinstance(getattr(found, "dtype", None), torch.dtype):
        return found
    kind = type(owner).__name__
    wrong = f"{kind} has no such parameter" if found is None else f"that is a {type(found).__name__}, no parameter"
    listed = [name for name, _ in owner.named_parameters()] if isinstance(owner, nn.Module) else []
    more = [f"and {len(listed) - 8} more"] if len(listed) > 8 else []
    known = f"; {kind} has {', '.join([*listed[:8], *more])}" if listed else ""
    raise ValueError(f"{where}: dtype_of={path!r}: {wrong}{known}")


class Bindings:
    """The names of one call with their sizes and values."""

    def __init__(self, signature: Signature, arguments: Mapping[str, Any]) -> None:
        self.signature = signature
        self.arguments = arguments
        self.axes: dict[str, Bound] = {}
        self.tensors: dict[str, Any] = {}
        """The tensors that were checked so far, by their place, such as `x` or `x[0]`."""
        self.others: dict[str, Spec] = {}
        """For a place where no alternative of a union fits: the alternatives that the message does not explain."""

    def expected(self, axis: Axis) -> int | None:
        """The size that an axis must have; None if it is not known yet.

        Raises:
            Impossible: the expression of the axis has no value.
        """
        if axis.size is None:
            return None
        try:
            return axis.size.evaluate(self.axis_size, self.number)
        except Unknown:
            return None
        except ZeroDivisionError:
            zero = next(one for one in axis.size.divisors if not one.evaluate(self.axis_size, self.number))
            raise Impossible(f"it divides by 0 ({self.spoken(zero)})") from None

    def expected_or_any(self, axis: Axis) -> int | None:
        """The size that an axis must have; None if it is not known or has no value."""
        try:
            return self.expected(axis)
        except Impossible:
            return None

    def solve(self, axis: Axis, size: int, source: str) -> bool:
        """Bind the one unknown name of a linear expression, such as `batch` of `batch+1`. Return whether it could.

        If no whole number fits, the name gets the next smaller one; the comparison that follows then fails.
        """
        assert axis.size is not None
        unknown = [name for name in axis.size.names if not self.is_known(name)]
        if len(unknown) != 1 or not axis.size.linear_in(unknown[0]):
            return False
        expression = axis.size

        def at(value: int) -> int:
            return expression.evaluate(lambda name: value if name in unknown else self.axis_size(name), self.number)

        zero = at(0)
        slope = at(1) - zero
        if slope == 0 and size == zero:
            return False
        self.axes[unknown[0]] = Bound((size - zero) // (slope or 1), source, solved=True)
        return True

    def is_known(self, name: str) -> bool:
        """Whether an axis name has one size."""
        bound = self.axes.get(name)
        return bound is not None and not isinstance(bound.size, (RaggedAxis, tuple))

    def axis_size(self, name: str) -> int:
        """The size of a named axis.

        Raises:
            Unknown: the axis has no size in this call, or is ragged.
        """
        bound = self.axes.get(name)
        if bound is None or isinstance(bound.size, (RaggedAxis, tuple)):
            raise Unknown
        return bound.size

    def braces(self, path: str) -> Any:
        """The value of a path in braces in a condition, such as `self.hidden`.

        Raises:
            Unknown: the value is None.
        """
        value = self.read(path)
        if value is None:
            raise Unknown
        return value

    def number(self, path: str) -> Any:
        """The value of a path in braces in an axis.

        Raises:
            Impossible: the value is no number, or the path reads an item that does not exist.
        """
        for items, index in indexed(path):
            count = len(self.read(items))
            if not -count <= index < count:
                raise Impossible(f"{path}: {items} has {count} item{'s' * (count != 1)}")
        value = self.read(path)
        if not isinstance(value, NUMBERS):
            said = repr(value) if isinstance(value, (str, type(None))) else f"of type {type(value).__name__}"
            raise Impossible(f"{path} is {said}, not a number")
        return self.braces(path)

    def read(self, path: str) -> Any:
        """The value of a path."""
        return read_path(self.argument(path_root(path)), path)

    def argument(self, name: str) -> Any:
        """An argument of the call, or its default.

        Raises:
            Unknown: there is no such argument.
        """
        if name in self.arguments:
            return self.arguments[name]
        if name in self.signature.defaults:
            return self.signature.defaults[name]
        raise Unknown

    def axis_or_values(self, name: str) -> Any:
        """The value of a name in a condition: the size of an axis, a number, or an integer tensor.

        Raises:
            Unknown: the name has no value in this call, or the values of the tensor may not be read.
        """
        bound = self.axes.get(name)
        if bound is not None and not isinstance(bound.size, (RaggedAxis, tuple)):
            return bound.size  # in a proof a symbol, which is no number of Python
        value = self.argument(name) if bound is None else getattr(bound.size, "lengths", None)
        mode = modes.switch.of(self.signature.package, self.arguments.get("self"))
        if isinstance(value, Tensor):
            if not modes.may_read(value, mode):
                raise Unknown
        elif not isinstance(value, NUMBERS):
            raise Unknown
        return value

    def sizes(self) -> dict[str, int]:
        """The axis names that have a size; not the ragged and the variadic ones."""
        found = {name: bound.size for name, bound in self.axes.items()}
        return {name: size for name, size in found.items() if not isinstance(size, (RaggedAxis, tuple))}

    def parameter(self, path: str) -> Any:
        """The parameter that `dtype_of` names.

        Raises:
            ValueError: the instance has no parameter at this path.
        """
        return own_parameter(self.arguments["self"], path, self.place())

    # Where sizes come from, for messages.

    def origin(self, axis: Axis) -> str:
        """Where the size of an axis comes from: the instance, the names in its expression, or the annotation alone."""
        if axis.size is None or not (axis.size.names or axis.size.braces):
            return "as annotated"
        alone = axis.size.text.removeprefix("{").removesuffix("}")
        if axis.size.braces != (alone,):
            return self.spoken(axis.size)
        return f"the argument {alone}" if alone.isidentifier() else alone

    def spoken(self, expression: Expression) -> str:
        """The values of the names in an expression and where they come from: `words=5 as in x, self.chunk=2`."""
        said: list[str] = []
        for name in expression.names:
            bound = self.axes.get(name)
            if bound is None:
                said.append(_equals(name, self.argument(name)))
            else:
                said.append(f"{_equals(name, bound.size)} {bound.origin}")
        return ", ".join([*said, *(_equals(path, self.read(path)) for path in expression.braces)])

    # The function that is called, for messages.

    def module_path(self) -> str:
        """The path of the instance in the outermost module, such as "left.lstm in TwoTowers".

        The class name alone if the instance is the outermost module; empty for a function without an instance.
        """
        if "self" not in self.arguments:
            return ""
        owner = self.arguments["self"]
        if torch.compiler.is_compiling():
            return type(owner).__name__
        return module_path(owner)

    def place(self) -> str:
        """The module and the method that are called: "left.lstm in TwoTowers: RaggedLSTM.forward"."""
        if "self" not in self.arguments:
            return self.signature.name
        kind, method = type(self.arguments["self"]).__name__, self.signature.name.rpartition(".")[2]
        path, called = self.module_path(), kind if method == kind else f"{kind}.{method}"  # a dataclass that was made
        return called if path == kind else f"{path}: {called}"

    def owner(self) -> str:
        """The subject of a demand in a message: "this tower", or the name of the function."""
        if "self" not in self.arguments:
            return self.signature.name
        kind = type(self.arguments["self"]).__name__
        return f"this {kind.lower() if kind == kind.capitalize() else kind}"


def _equals(name: str, value: Any) -> str:
    """`words=5`. Only the name if the value is a tensor, or a symbol of `verify` that is written like the name."""
    if isinstance(value, (Tensor, RaggedAxis)):
        return name
    text = str(number(value) if isinstance(value, NUMBERS) else value)
    return name if text == name else f"{name}={text}"
