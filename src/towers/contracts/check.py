"""`@contract`: what the signature says in jaxtyping is checked at every call, arguments and result."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Never, ParamSpec, TypeVar, cast, get_type_hints, overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from towers.contracts import modes
from towers.contracts.errors import ShapeContractError, complaint, module_path
from towers.contracts.expressions import Condition, conditions, read_path
from towers.contracts.hints import likely_cause
from towers.contracts.specs import Axis, PlainSpec, Spec, TensorSpec, TupleSpec, holds_tensors, read_annotation

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
    second axis is ragged and has no size of its own.

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
        return lambda function: contract_of(function, where, dtype_of)  # pyright: ignore[reportUnknownLambdaType]
    return contract_of(function, (), None)


def contract_of(function: Callable[P, R], where: Sequence[str], dtype_of: str | None) -> Callable[P, R]:
    """`contract`, with all options said."""
    rules = Rules.read(function, where, dtype_of)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not modes.enabled():
            return function(*args, **kwargs)
        call = Call(rules, {**dict(zip(rules.parameters, args, strict=False)), **kwargs})
        call.check_arguments()
        result = function(*args, **kwargs)
        call.check_result(result)
        return result

    return checked


@dataclass(frozen=True)
class Rules:
    """All that one signature demands."""

    name: str
    parameters: tuple[str, ...]
    defaults: Mapping[str, Any]
    arguments: Mapping[str, Spec]
    result: Spec | None
    where: tuple[Condition, ...]
    dtype_of: str | None

    @classmethod
    def read(cls, function: Callable[..., Any], where: Sequence[str], dtype_of: str | None) -> "Rules":
        """Read the signature, once, when the function is decorated."""
        signature = inspect.signature(function)
        hints = {name: read_annotation(hint) for name, hint in get_type_hints(function).items()}
        single = {
            name: parameter
            for name, parameter in signature.parameters.items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }
        result = hints.pop("return", None)
        return cls(
            name=function.__qualname__.rpartition("<locals>.")[2],
            parameters=tuple(name for name, parameter in single.items() if parameter.kind != parameter.KEYWORD_ONLY),
            defaults={name: p.default for name, p in single.items() if p.default is not p.empty},
            arguments={name: hint for name, hint in hints.items() if name in single},
            result=result if result is not None and holds_tensors(result) else None,
            where=tuple(condition for text in where for condition in conditions(text)),
            dtype_of=dtype_of,
        )


@dataclass(frozen=True)
class Bound:
    """The size that an axis name has in this call, and the argument that gave it."""

    size: "int | tuple[int, ...] | RaggedAxis"
    source: str
    broadcast: bool = False


@dataclass(frozen=True)
class RaggedAxis:
    """An axis that has a length of its own in every row."""

    offsets: Tensor | None


class Unknown(Exception):
    """An expression speaks of an axis whose size is not known in this call, or of a size that is None."""


Size = int | RaggedAxis


class Call:
    """The check of one call: the sizes that the axis names have in it, and the expressions still to be compared."""

    def __init__(self, rules: Rules, arguments: Mapping[str, Any]) -> None:
        self.rules = rules
        self.arguments = arguments
        self.sizes: dict[str, Bound] = {}
        self.later: list[tuple[str, TensorSpec, Sequence[Size], Axis, int]] = []

    def check_arguments(self) -> None:
        for name, spec in self.rules.arguments.items():
            if name in self.arguments:
                self.check(name, self.arguments[name], spec)
        self.compare_expressions()
        for condition in self.rules.where:
            self.check_condition(condition)

    def check_result(self, result: object) -> None:
        if self.rules.result is not None:
            self.check("return", result, self.rules.result)
            self.compare_expressions()

    # One value against what is allowed for it.

    def check(self, name: str, value: object, spec: Spec) -> None:
        options = [option for option in spec if _is_kind(value, option)]
        if len(options) > 1:  # several tensors of the same type: the one of the right dtype and rank, else the first
            options.sort(key=lambda option: not self._looks_right(value, option))
        if not options:
            self.refuse_kind(name, value, spec)
        match options[0]:
            case TensorSpec() as tensor:
                self.check_tensor(name, value, tensor)
            case TupleSpec(items):
                for index, (item, inner) in enumerate(zip(cast(tuple[object, ...], value), items, strict=True)):
                    self.check(f"{name}[{index}]", item, inner)
            case PlainSpec():
                pass

    def _looks_right(self, value: object, spec: "TensorSpec | TupleSpec | PlainSpec") -> bool:
        if not isinstance(spec, TensorSpec):
            return True
        came, dtype = _sizes(value)
        return spec.allows(_name(dtype)) and (spec.variadic is not None or len(came) == len(spec.axes))

    def check_tensor(self, name: str, value: Any, spec: TensorSpec) -> None:
        came, dtype = _sizes(value)
        wanted = self.parameter_dtype(value, dtype) if name != "return" else None
        if not spec.allows(_name(dtype)) or (wanted is not None and dtype != wanted):
            self.refuse_dtype(name, dtype, spec, wanted)
        missing = len(spec.axes) - len(came)
        if missing > (spec.variadic is not None) or (missing < 0 and spec.variadic is None):
            self.refuse_rank(name, spec, came)
        for axis, size, index in _pair(spec, came):
            if isinstance(size, tuple):
                self.bind_variadic(name, spec, came, axis, size, index)
            elif axis.size is not None and not (axis.broadcast and size == 1):
                if axis.name is None:
                    self.later.append((name, spec, came, axis, index))
                else:
                    self.bind(name, spec, came, axis, size, index)

    def parameter_dtype(self, value: Any, dtype: torch.dtype) -> torch.dtype | None:
        """The dtype that a floating argument must have; None where any will do."""
        if self.rules.dtype_of is None or not dtype.is_floating_point:
            return None
        if torch.is_autocast_enabled(_device(value).type):
            return None
        return read_path(self.arguments["self"], f"self.{self.rules.dtype_of}").dtype

    def bind(self, name: str, spec: TensorSpec, came: Sequence[Size], axis: Axis, size: Size, index: int) -> None:
        assert axis.name is not None
        bound = self.sizes.setdefault(axis.name, Bound(size, name))
        if isinstance(size, RaggedAxis):
            return
        if isinstance(bound.size, RaggedAxis):
            self.sizes[axis.name] = Bound(size, name)
        elif bound.size != size:
            self.refuse_size(name, spec, came, index, cast(int, bound.size), f"as in {bound.source}")

    def bind_variadic(
        self, name: str, spec: TensorSpec, came: Sequence[Size], axis: Axis, size: tuple[Any, ...], index: int
    ) -> None:
        if axis.name is None:
            return
        bound = self.sizes.setdefault(axis.name, Bound(size, name, axis.broadcast))
        known = cast(tuple[int, ...], bound.size)
        try:
            both = torch.broadcast_shapes(known, size) if axis.broadcast or bound.broadcast else size
        except RuntimeError:
            both = None
        if both is None or (not bound.broadcast and both != known) or (not axis.broadcast and both != size):
            how = "broadcastable with" if axis.broadcast else "as in"
            self.refuse(
                name,
                f"{axis.label} is {size}; expected {known} ({how} {bound.source})",
                axis=axis.text,
                expected=known,
                actual=size,
            )
        self.sizes[axis.name] = Bound(tuple(both), bound.source, bound.broadcast and axis.broadcast)

    # Expressions and conditions, once every name has its size.

    def compare_expressions(self) -> None:
        waiting, self.later = self.later, []
        for name, spec, came, axis, index in waiting:
            expected, size = self.expected(axis), came[index]
            if expected is None:
                if not self.solve(axis, size, name):
                    self.later.append((name, spec, came, axis, index))
            elif not isinstance(size, RaggedAxis) and size != expected:
                assert axis.size is not None
                self.refuse_size(name, spec, came, index, expected, _origin(axis))

    def solve(self, axis: Axis, size: Size, name: str) -> bool:
        """Let `batch+1` bind `batch`: a linear expression of one unknown name."""
        assert axis.size is not None
        unknown = {other for other in axis.size.names if other not in self.sizes}
        if len(unknown) != 1 or isinstance(size, RaggedAxis):
            return False
        try:
            at = [axis.size.evaluate(lambda other, x=x: x if other in unknown else self.axis_size(other), self.braces) for x in range(3)]  # fmt: skip
        except Unknown:
            return False
        slope = at[1] - at[0]
        if slope == 0 or at[2] - at[1] != slope or (size - at[0]) % slope:
            return False
        self.sizes[unknown.pop()] = Bound((size - at[0]) // slope, name)
        return True

    def expected(self, axis: Axis) -> int | None:
        """The size that an axis must have; None while it can have any."""
        if axis.size is None:
            return None
        try:
            return axis.size.evaluate(self.axis_size, self.braces)
        except Unknown:
            return None

    def axis_size(self, name: str) -> int:
        bound = self.sizes.get(name)
        if bound is None or isinstance(bound.size, (RaggedAxis, tuple)):
            raise Unknown
        return bound.size

    def braces(self, path: str) -> Any:
        value = read_path(self.argument(path.partition(".")[0]), path)
        if value is None:
            raise Unknown
        return value

    def argument(self, name: str) -> Any:
        if name in self.arguments:
            return self.arguments[name]
        if name in self.rules.defaults:
            return self.rules.defaults[name]
        raise Unknown

    def axis_or_values(self, name: str) -> Any:
        """What a name in a condition stands for: an axis, an int argument, or the values of an integer tensor."""
        bound = self.sizes.get(name)
        if bound is None:
            value = self.argument(name)
        else:
            value = _lengths(bound.size) if isinstance(bound.size, RaggedAxis) else bound.size
        if value is None or (isinstance(value, Tensor) and not modes.may_read(value)):
            raise Unknown
        return value

    def check_condition(self, condition: Condition) -> None:
        try:
            value = condition.subject.evaluate(self.axis_or_values, self.braces)
            bound = condition.bound.evaluate(self.axis_or_values, self.braces)
        except Unknown:
            return
        fine = _RELATIONS[condition.relation](value, bound)
        if isinstance(fine, Tensor):
            if not bool(fine.all()):
                position = int((~fine).nonzero()[0, 0])
                bound = int(bound[position]) if isinstance(bound, Tensor) else bound
                self.refuse_condition(condition, int(value[position]), bound, position)
        elif not fine:
            self.refuse_condition(condition, value, bound, None)

    # What is said when something does not fit.

    def refuse_condition(self, condition: Condition, value: int, bound: int, position: int | None) -> Never:
        subject = condition.subject.text
        source = self.sizes[subject].source if subject in self.sizes else subject
        where = "" if source == subject else f"{source}: " if position is None else f"{source}."
        item = "" if position is None else f"[{position}]"
        subject_shown = "lengths" if position is not None and subject in self.sizes else subject
        owner = self.owner()
        unit = subject if subject in self.sizes else condition.unit
        unit = unit.removesuffix("s") if bound == 1 else unit
        text = f"{where}{subject_shown}{item} is {value}; {owner} needs {_SPOKEN[condition.relation]} {bound} {unit}"
        if position is not None:
            raise ValueError(complaint(self.place(), text)) from None
        self.refuse(source, text, axis=subject, expected=bound, actual=value, named=True)

    def refuse_kind(self, name: str, value: object, spec: Spec) -> Never:
        wanted = " or ".join(_describe(option) for option in spec)
        hint = None
        if isinstance(value, (list, tuple)) and any(isinstance(option, TensorSpec) for option in spec):
            hint = "torch.stack joins tensors of one length, towers.Ragged.from_list those of different lengths"
        self.refuse(name, f"is a {type(value).__name__}; expected {wanted}", None, wanted, type(value), hint)

    def refuse_dtype(self, name: str, dtype: torch.dtype, spec: TensorSpec, wanted: torch.dtype | None) -> Never:
        expected = _name(wanted) if wanted is not None else spec.kind
        why = f" (the dtype of {self.rules.dtype_of})" if wanted is not None else ""
        hint = f"convert the input: .to(torch.{_name(wanted)}), or the module" if wanted is not None else None
        self.refuse(name, f"is {_name(dtype)}; expected {expected}{why}", None, expected, _name(dtype), hint)

    def refuse_rank(self, name: str, spec: TensorSpec, came: Sequence[Size]) -> Never:
        least = "at least " if spec.variadic is not None else ""
        count = len(spec.axes) - (spec.variadic is not None)
        expected = self.expected_sizes(spec)
        shown = ", ".join(
            axis.label if size is None or axis.label == str(size) else f"{axis.label}={size}"
            for axis, size in zip(spec.axes, expected, strict=True)
        )
        problem = f"has {len(came)} axes {_shown(came)}; expected {least}{count}: ({shown})"
        hint = likely_cause(expected, _plain(came)) if spec.variadic is None else None
        self.refuse(name, problem, None, len(spec.axes), len(came), hint)

    def refuse_size(
        self, name: str, spec: TensorSpec, came: Sequence[Size], index: int, expected: int, why: str
    ) -> Never:
        axes = {at: axis for axis, size, at in _pair(spec, came) if not isinstance(size, tuple)}
        wanted = {at: self.expected(axis) for at, axis in axes.items()} | {index: expected}
        free = {at for at, axis in axes.items() if axis.name and self.sizes[axis.name].source == name and at != index}
        rows = [
            (
                axis.label,
                "any" if at in free or wanted[at] is None else str(wanted[at]),
                _shown(came[at]),
                f"<- {why}" if at == index else "",
            )
            for at, axis in axes.items()
        ]
        sizes = [None if at in free else wanted.get(at) for at in range(len(came))]
        label, actual = axes[index].label, came[index]
        problem = f"{label} is {actual}; expected {expected} ({why})"
        self.refuse(name, problem, axes[index].text, expected, actual, likely_cause(sizes, _plain(came)), rows=rows)

    def expected_sizes(self, spec: TensorSpec) -> list[int | None]:
        return [self.expected(axis) for axis in spec.axes]

    def refuse(
        self,
        name: str,
        problem: str,
        axis: str | None,
        expected: Any,
        actual: Any,
        hint: str | None = None,
        *,
        rows: Sequence[tuple[str, str, str, str]] = (),
        named: bool = False,
    ) -> Never:
        joiner = " " if problem.startswith(("is ", "has ")) else ": "
        shown = "the result" if name == "return" else name
        text = problem if named else f"{shown}{joiner}{problem}"
        error = ShapeContractError(complaint(self.place(), text, rows, hint))
        error.argument, error.axis, error.expected, error.actual, error.hint = name, axis, expected, actual, hint
        error.bindings = {
            key: bound.size for key, bound in self.sizes.items() if not isinstance(bound.size, (RaggedAxis, tuple))
        }
        error.module_path = "" if torch.compiler.is_compiling() else module_path(self.arguments.get("self"))
        raise error from None

    def place(self) -> str:
        """Where it happened: "left.lstm in TwoTowers: RaggedLSTM.forward"."""
        owner = self.arguments.get("self")
        if owner is None:
            return self.rules.name
        kind, method = type(owner).__name__, self.rules.name.rpartition(".")[2]
        path = kind if torch.compiler.is_compiling() else module_path(owner)
        return f"{kind}.{method}" if path == kind else f"{path}: {kind}.{method}"

    def owner(self) -> str:
        """Who demands something: "this tower", or the function's name."""
        if "self" not in self.arguments:
            return self.rules.name
        kind = type(self.arguments["self"]).__name__
        return f"this {kind.lower() if kind == kind.capitalize() else kind}"


_RELATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": lambda value, bound: value <= bound,
    "<": lambda value, bound: value < bound,
    ">=": lambda value, bound: value >= bound,
    ">": lambda value, bound: value > bound,
    "==": lambda value, bound: value == bound,
}
_SPOKEN = {"<=": "at most", "<": "fewer than", ">=": "at least", ">": "more than", "==": "exactly"}


def _is_kind(value: object, spec: "TensorSpec | TupleSpec | PlainSpec") -> bool:
    if isinstance(spec, TensorSpec):
        return isinstance(value, spec.array_type)
    if isinstance(spec, TupleSpec):
        return isinstance(value, tuple) and len(cast(tuple[object, ...], value)) == len(spec.items)
    if spec.hint is type(None) or spec.hint is Any or torch.compiler.is_compiling():
        return value is None if spec.hint is type(None) else True
    from beartype.door import is_bearable

    return is_bearable(value, spec.hint)


def _sizes(value: Any) -> tuple[Sequence[Size], torch.dtype]:
    """The sizes and the dtype of a tensor, of sentences end to end (values, offsets) or of a packed sequence."""
    if isinstance(value, PackedSequence):
        batch = int(value.batch_sizes[0]) if len(value.batch_sizes) else 0
        return [batch, RaggedAxis(None), *value.data.shape[1:]], value.data.dtype
    if isinstance(value, Tensor):
        if value.layout is not torch.jagged:
            return value.shape, value.dtype
        values, offsets = value.values(), value.offsets()
    else:
        values, offsets = value.values, value.offsets
    return [offsets.shape[0] - 1, RaggedAxis(offsets), *values.shape[1:]], values.dtype


def _lengths(axis: RaggedAxis) -> Tensor | None:
    return None if axis.offsets is None else axis.offsets.diff()


def _device(value: Any) -> torch.device:
    return value.data.device if isinstance(value, PackedSequence) else value.device


def _pair(spec: TensorSpec, came: Sequence[Size]) -> list[tuple[Axis, Any, int]]:
    """(axis, size, index in the shape); a variadic axis meets a tuple of sizes."""
    at = spec.variadic
    if at is None:
        return [(axis, size, index) for index, (axis, size) in enumerate(zip(spec.axes, came, strict=True))]
    after = len(spec.axes) - at - 1
    end = len(came) - after
    front = [(axis, came[index], index) for index, axis in enumerate(spec.axes[:at])]
    back = [(axis, came[end + index], end + index) for index, axis in enumerate(spec.axes[at + 1 :])]
    return [*front, (spec.axes[at], tuple(came[at:end]), at), *back]


def _origin(axis: Axis) -> str:
    """Who says how large an axis is: the instance, or other axes."""
    assert axis.size is not None
    return axis.text.replace("{", "").replace("}", "") if axis.size.braces or axis.size.names else "as annotated"


def _describe(option: "TensorSpec | TupleSpec | PlainSpec") -> str:
    match option:
        case TensorSpec():
            return f'{option.kind}[{option.array_type.__name__}, "{option.text}"]'
        case TupleSpec(items):
            return f"({', '.join(' or '.join(_describe(inner) for inner in item) for item in items)})"
        case PlainSpec(hint):
            return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _plain(came: Sequence[Size]) -> list[int | None]:
    return [None if isinstance(size, RaggedAxis) else size for size in came]


def _shown(came: Any) -> str:
    if isinstance(came, RaggedAxis):
        return "ragged"
    if isinstance(came, Sequence):
        return f"({', '.join(_shown(size) for size in cast(Sequence[Size], came))})"
    return str(came)
