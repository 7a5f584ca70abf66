"""What the names stand for in one call: axes have sizes, braces are read from the arguments."""

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
    """The size that an axis name has in this call, and the argument that gave it."""

    size: int | tuple[int | None, ...] | RaggedAxis
    source: str
    broadcast: bool = False
    solved: bool = False
    """Whether it was worked out from an expression, as `batch` from `batch+1`."""

    @property
    def origin(self) -> str:
        """Who gave the size, for messages."""
        return f"{'worked out from' if self.solved else 'as in'} {self.source}"


class Unknown(Exception):
    """An expression speaks of an axis without a size in this call, or of something that is None."""


class Impossible(Exception):
    """An expression has no value: something in braces is no number, or it divides by 0."""


def is_result(name: str) -> bool:
    """Whether what is called so is (in) the result."""
    return name == "return" or name.startswith(("return[", "return.", "a key of return"))


def own_parameter(owner: Any, path: str, where: str) -> Any:
    """The parameter of an instance that `dtype_of` names.

    Raises:
        ValueError: it has none there.
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
    """The names of one call."""

    def __init__(self, signature: Signature, arguments: Mapping[str, Any]) -> None:
        self.signature = signature
        self.arguments = arguments
        self.axes: dict[str, Bound] = {}
        self.tensors: dict[str, Any] = {}
        """The tensors seen so far, by what messages call them."""
        self.others: dict[str, Spec] = {}
        """The other alternatives of what fits none."""

    def expected(self, axis: Axis) -> int | None:
        """The size that an axis must have; None while it can have any.

        Raises:
            Impossible: it can have none.
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
        """The size that an axis must have; None where it can have any, or none."""
        try:
            return self.expected(axis)
        except Impossible:
            return None

    def solve(self, axis: Axis, size: int, source: str) -> bool:
        """Let a linear expression of one unknown name bind that name, as `batch+1` does `batch`; whether it did.

        Where no whole number fits, the name gets the next smaller one, and the expression another size.
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
            Unknown: it has none in this call, or is ragged.
        """
        bound = self.axes.get(name)
        if bound is None or isinstance(bound.size, (RaggedAxis, tuple)):
            raise Unknown
        return bound.size

    def braces(self, path: str) -> Any:
        """What stands in braces in a condition, such as `self.hidden`.

        Raises:
            Unknown: it is None.
        """
        value = self.read(path)
        if value is None:
            raise Unknown
        return value

    def number(self, path: str) -> Any:
        """What stands in braces in the size of an axis.

        Raises:
            Impossible: it is no number, or an item that is not there.
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
        """Whatever a path leads to."""
        return read_path(self.argument(path_root(path)), path)

    def argument(self, name: str) -> Any:
        """An argument of the call, or its default.

        Raises:
            Unknown: there is none.
        """
        if name in self.arguments:
            return self.arguments[name]
        if name in self.signature.defaults:
            return self.signature.defaults[name]
        raise Unknown

    def axis_or_values(self, name: str) -> Any:
        """What a name in a condition stands for: a size, an int argument, or the values of an integer tensor.

        Raises:
            Unknown: it has no value in this call, or none that may be read.
        """
        bound = self.axes.get(name)
        if bound is not None and not isinstance(bound.size, (RaggedAxis, tuple)):
            return bound.size  # in a proof it is none of Python's numbers
        value = self.argument(name) if bound is None else getattr(bound.size, "lengths", None)
        mode = modes.switch.of(self.signature.package, self.arguments.get("self"))
        if isinstance(value, Tensor):
            if not modes.may_read(value, mode):
                raise Unknown
        elif not isinstance(value, NUMBERS):
            raise Unknown
        return value

    def sizes(self) -> dict[str, int]:
        """The axes that have one size."""
        found = {name: bound.size for name, bound in self.axes.items()}
        return {name: size for name, size in found.items() if not isinstance(size, (RaggedAxis, tuple))}

    def parameter(self, path: str) -> Any:
        """The parameter that `dtype_of` names.

        Raises:
            ValueError: the instance has none there.
        """
        return own_parameter(self.arguments["self"], path, self.place())

    # Who says what, for messages.

    def origin(self, axis: Axis) -> str:
        """Who says how large an axis is: the instance, the names in an expression, or the annotation alone."""
        if axis.size is None or not (axis.size.names or axis.size.braces):
            return "as annotated"
        alone = axis.size.text.removeprefix("{").removesuffix("}")
        if axis.size.braces != (alone,):
            return self.spoken(axis.size)
        return f"the argument {alone}" if alone.isidentifier() else alone

    def spoken(self, expression: Expression) -> str:
        """What stands for the names in an expression, and who gave it: `words=5 as in x, self.chunk=2`."""
        said: list[str] = []
        for name in expression.names:
            bound = self.axes.get(name)
            if bound is None:
                said.append(_equals(name, self.argument(name)))
            else:
                said.append(f"{_equals(name, bound.size)} {bound.origin}")
        return ", ".join([*said, *(_equals(path, self.read(path)) for path in expression.braces)])

    # Who is called, for messages.

    def module_path(self) -> str:
        """Where the instance stands in the module that is being called; its class's name where it is that module.

        Empty where there is no instance.
        """
        if "self" not in self.arguments:
            return ""
        owner = self.arguments["self"]
        if torch.compiler.is_compiling():
            return type(owner).__name__
        return module_path(owner)

    def place(self) -> str:
        """Where it happened: "left.lstm in TwoTowers: RaggedLSTM.forward"."""
        if "self" not in self.arguments:
            return self.signature.name
        kind, method = type(self.arguments["self"]).__name__, self.signature.name.rpartition(".")[2]
        path, called = self.module_path(), kind if method == kind else f"{kind}.{method}"  # a dataclass that was made
        return called if path == kind else f"{path}: {called}"

    def owner(self) -> str:
        """Who demands something: "this tower", or the function's name."""
        if "self" not in self.arguments:
            return self.signature.name
        kind = type(self.arguments["self"]).__name__
        return f"this {kind.lower() if kind == kind.capitalize() else kind}"


def _equals(name: str, value: Any) -> str:
    """`words=5`; the name alone where it is no number, or stands for itself as the symbols of `verify` do."""
    if isinstance(value, (Tensor, RaggedAxis)):
        return name
    text = str(number(value) if isinstance(value, NUMBERS) else value)
    return name if text == name else f"{name}={text}"
