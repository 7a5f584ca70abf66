"""What the names stand for in one call: axes have sizes, braces are read from the arguments."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from towers.contracts import modes
from towers.contracts.errors import module_path
from towers.contracts.expressions import read_path
from towers.contracts.layouts import RaggedAxis
from towers.contracts.signature import Signature
from towers.contracts.specs import Axis


class Bound(NamedTuple):
    """The size that an axis name has in this call, and the argument that gave it."""

    size: int | tuple[int, ...] | RaggedAxis
    source: str
    broadcast: bool = False


class Unknown(Exception):
    """An expression speaks of an axis without a size in this call, or of something that is None."""


class Bindings:
    """The names of one call."""

    def __init__(self, signature: Signature, arguments: Mapping[str, Any]) -> None:
        self.signature = signature
        self.arguments = arguments
        self.axes: dict[str, Bound] = {}

    def expected(self, axis: Axis) -> int | None:
        """The size that an axis must have; None while it can have any."""
        if axis.size is None:
            return None
        try:
            return axis.size.evaluate(self.axis_size, self.braces)
        except Unknown:
            return None

    def solve(self, axis: Axis, size: int, source: str) -> bool:
        """Let a linear expression of one unknown name bind that name, as `batch+1` does `batch`; whether it did.

        Where no whole number fits, the name gets the next smaller one, and the expression another size.
        """
        assert axis.size is not None
        unknown = {name for name in axis.size.names if name not in self.axes}
        if len(unknown) != 1:
            return False
        expression = axis.size

        def at(value: int) -> int:
            return expression.evaluate(lambda name: value if name in unknown else self.axis_size(name), self.braces)

        try:
            zero, one, two = at(0), at(1), at(2)
        except Unknown:
            return False
        slope = one - zero
        if slope == 0 or two - one != slope:
            return False
        self.axes[unknown.pop()] = Bound((size - zero) // slope, source)
        return True

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
        """What stands in braces, such as `self.hidden`.

        Raises:
            Unknown: it is None, or no int, which is for its own annotation to refuse.
        """
        value = read_path(self.argument(path.partition(".")[0]), path)
        if not isinstance(value, (int, torch.SymInt)):
            raise Unknown
        return value

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
        if bound is None:
            value = self.argument(name)
        else:
            value = bound.size.lengths if isinstance(bound.size, RaggedAxis) else bound.size
        if value is None or (isinstance(value, Tensor) and not modes.may_read(value)):
            raise Unknown
        return value

    def sizes(self) -> dict[str, int]:
        """The axes that have one size."""
        found = {name: bound.size for name, bound in self.axes.items()}
        return {name: size for name, size in found.items() if not isinstance(size, (RaggedAxis, tuple))}

    # Who is called, for messages.

    def module_path(self) -> str:
        """Where the instance stands in the module that is being called; its class's name where it is that module."""
        owner = self.arguments.get("self")
        if torch.compiler.is_compiling():
            return type(owner).__name__
        return module_path(owner)

    def place(self) -> str:
        """Where it happened: "left.lstm in TwoTowers: RaggedLSTM.forward"."""
        if "self" not in self.arguments:
            return self.signature.name
        kind, method = type(self.arguments["self"]).__name__, self.signature.name.rpartition(".")[2]
        path = self.module_path()
        return f"{kind}.{method}" if path == kind else f"{path}: {kind}.{method}"

    def owner(self) -> str:
        """Who demands something: "this tower", or the function's name."""
        if "self" not in self.arguments:
            return self.signature.name
        kind = type(self.arguments["self"]).__name__
        return f"this {kind.lower() if kind == kind.capitalize() else kind}"
