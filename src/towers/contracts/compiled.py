"""A signature compiled to straight-line comparisons of sizes and dtypes: the verdict of nearly every call.

The source that is made here returns early whenever it is not sure that everything fits. `towers.contracts.check` then
looks again, name by name, and either finds that it fits all the same or says what does not.
"""

import inspect
import linecache
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor

from towers.contracts import modes
from towers.contracts.expressions import Condition, Expression
from towers.contracts.layouts import RaggedAxis, layout
from towers.contracts.signature import Signature
from towers.contracts.specs import Axis, PlainSpec, Spec, TensorSpec, TupleSpec, is_kind

_SPOKEN = frozenset({"Tensor", "any", "isinstance", "len", "option", "tuple"})
"""What the source takes from Python and torch under its own name; its other names begin with an underscore."""


class NotCompiled(Exception):
    """The signature says something that is left to `towers.contracts.check`, such as axes that broadcast."""


def compile_check(function: Callable[..., Any], signature: Signature, look_again: Callable[..., Any]) -> Any:
    """A function of the same parameters that checks, calls and checks the result.

    `look_again(arguments)` gives the careful check, which has `check_arguments()` and `check_result(result)`.

    Raises:
        NotCompiled: something in the signature is left to the careful check.
    """
    source = _Source(function, signature)
    text = source.text()
    name = f"<contract of {function.__module__}.{function.__qualname__}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    given = {"_function": function, "_signature": signature, "_look_again": look_again, "_enabled": modes.enabled}
    space = {**source.constants, **given}
    exec(compile(text, name, "exec"), space)
    return space["checked"]


class _Source:
    """The source of one check, written from top to bottom."""

    def __init__(self, function: Callable[..., Any], signature: Signature) -> None:
        self.signature = signature
        self.parameters = list(inspect.signature(function).parameters.values())
        self.names = [parameter.name for parameter in self.parameters]
        self.constants: dict[str, Any] = {
            "Tensor": Tensor,
            "_RaggedAxis": RaggedAxis,
            "_layout": layout,
            "_jagged": torch.jagged,
            "_is_kind": is_kind,
            "_all_hold": _all_hold,
        }
        self.axes: dict[str, None] = {}
        """Every axis name, in order of appearance; each is a local `axis_NAME`, None until it is bound."""
        self.lines: list[str] = []
        self.depth = 1
        self.fresh = count()
        self.later: list[tuple[str, Axis]] = []

    def text(self) -> str:
        """Three functions: the check of the arguments, that of the result, and the call between them."""
        if any(parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in self.parameters):
            raise NotCompiled
        if any(name.startswith("_") or name in _SPOKEN for name in self.names):  # they would hide what is meant
            raise NotCompiled
        arguments = self._arguments()
        result = self._result()
        axes = ", ".join(f"_axis_{name}" for name in self.axes)
        start = [f"    _axis_{name} = _ragged_{name} = None" for name in self.axes]
        given = ", ".join(self.names)
        passed = ", ".join(f"{p.name}={p.name}" if p.kind == p.KEYWORD_ONLY else p.name for p in self.parameters)
        wanted = ", ".join(f"{name!r}: {name}" for name in self.names)
        return "\n".join(
            [
                f"def arguments_fit({given}):",
                *start,
                *arguments,
                f"    return ({axes}{',' if len(self.axes) == 1 else ''})",
                "",
                f"def result_fits({', '.join(['_result', *self.names, '_axes'])}):",
                *([f"    {axes}{',' if len(self.axes) == 1 else ''} = _axes"] if self.axes else []),
                *result,
                "    return True",
                "",
                f"def checked({self._header()}):",
                "    _state = _enabled()",
                "    if _state is not True:",
                "        if not _state:",
                f"            return _function({passed})",
                f"        return _state(_signature, {{{wanted}}}, lambda: _function({passed}))",
                f"    _axes = arguments_fit({given})",
                "    if _axes is None:",
                f"        _careful = _look_again({{{wanted}}})",
                "        _careful.check_arguments()",
                f"        _result = _function({passed})",
                "        _careful.check_result(_result)",
                "        return _result",
                f"    _result = _function({passed})",
                f"    if not result_fits({', '.join(['_result', *self.names, '_axes'])}):",
                f"        _careful = _look_again({{{wanted}}})",
                "        _careful.check_arguments()",
                "        _careful.check_result(_result)",
                "    return _result",
                "",
            ]
        )

    def _header(self) -> str:
        """The function's own parameters, so that Python itself binds them and refuses what is no call."""
        parts: list[str] = []
        for before, parameter in zip([None, *self.parameters], self.parameters, strict=False):
            if before is not None and before.kind == before.POSITIONAL_ONLY != parameter.kind:
                parts.append("/")
            if parameter.kind == parameter.KEYWORD_ONLY and (before is None or before.kind != parameter.KEYWORD_ONLY):
                parts.append("*")
            default = ""
            if parameter.default is not parameter.empty:
                default = f"={self._constant(parameter.default)}"
            parts.append(parameter.name + default)
        if self.parameters and self.parameters[-1].kind == inspect.Parameter.POSITIONAL_ONLY:
            parts.append("/")
        return ", ".join(parts)

    def _arguments(self) -> list[str]:
        self.lines = []
        for name, spec in self.signature.arguments.items():
            self._value(name, spec, argument=True)
        self._expressions("return None")
        for condition in self.signature.where:
            self._condition(condition)
        return self.lines

    def _result(self) -> list[str]:
        self.lines = []
        if self.signature.result is not None:
            self._value("_result", self.signature.result, argument=False)
            self._expressions("return False")
        return self.lines

    # One value.

    def _value(self, value: str, spec: Spec, *, argument: bool) -> None:
        no = "return None" if argument else "return False"
        plain = [option for option in spec if isinstance(option, PlainSpec)]
        tensors = [option for option in spec if isinstance(option, TensorSpec)]
        tuples = [option for option in spec if isinstance(option, TupleSpec)]
        optional = [option for option in plain if option.hint is type(None)]
        if not tensors and not tuples:
            if all(option.hint is not Any for option in plain):
                self._line(f"if not any(_is_kind({value}, option) for option in {self._constant(plain)}): {no}")
            return
        if len(plain) > len(optional) or bool(tensors) + len(tuples) > 1:
            raise NotCompiled
        with self._block(f"if {value} is not None:" if optional else None):
            if tuples:
                self._line(f"if not isinstance({value}, tuple) or len({value}) != {len(tuples[0].items)}: {no}")
                for index, item in enumerate(tuples[0].items):
                    local = f"_item_{next(self.fresh)}"
                    self._line(f"{local} = {value}[{index}]")
                    self._value(local, item, argument=argument)
            else:
                self._tensor(value, tensors, no, argument=argument)

    def _tensor(self, value: str, options: Sequence[TensorSpec], no: str, *, argument: bool) -> None:
        spec, key = options[0], next(self.fresh)
        if spec.variadic is not None or any(axis.broadcast for axis in spec.axes):
            raise NotCompiled
        if any((option.text, option.dtypes) != (spec.text, spec.dtypes) for option in options):
            raise NotCompiled
        shape, dtype = f"_shape_{key}", f"_dtype_{key}"
        others = tuple(option.array_type for option in options if option.array_type is not Tensor)
        other = f"isinstance({value}, {self._constant(others)})" if others else "False"
        if len(others) < len(options):
            self._line(f"if isinstance({value}, Tensor) and not {value}.is_nested:")
            self._line(f"    {shape}, {dtype} = {value}.shape, {value}.dtype")
            other = f"{other} or isinstance({value}, Tensor) and {value}.layout is _jagged"
            self._line(f"elif {other}:")
        else:
            self._line(f"if {other}:")
        self._line(f"    {shape}, {dtype}, _ = _layout({value})")
        self._line(f"else: {no}")
        self._line(f"if len({shape}) != {len(spec.axes)}: {no}")
        if spec.dtypes is not None:
            self._line(f"if {dtype} not in {self._constant(spec.dtypes)}: {no}")
        if (
            argument
            and self.signature.dtype_of
            and (spec.dtypes is None or any(d.is_floating_point for d in spec.dtypes))
        ):
            self._line(f"if {dtype} != self.{self.signature.dtype_of}.dtype: {no}")
        for index, axis in enumerate(spec.axes):
            if axis.size is not None:
                self._axis(f"{shape}[{index}]", axis, no, ragged=index == 1)

    def _axis(self, size: str, axis: Axis, no: str, *, ragged: bool) -> None:
        assert axis.size is not None
        if axis.name is None and not axis.size.names and not axis.size.braces:
            self._line(f"if {size} != {axis.size.text}: {no}")
        elif axis.name is None:
            local = f"_size_{next(self.fresh)}"
            self._line(f"{local} = {size}", before=f"{local} = None")
            self.later.append((local, axis))
        else:
            self.axes.setdefault(axis.name)
            name = axis.name
            if ragged:
                self._line(f"if isinstance({size}, _RaggedAxis): _ragged_{name} = {size}")
            self._line(f"{'elif' if ragged else 'if'} _axis_{name} is None: _axis_{name} = {size}")
            self._line(f"elif _axis_{name} != {size}: {no}")

    # Expressions and conditions.

    def _expressions(self, no: str) -> None:
        for size, axis in self.later:
            assert axis.size is not None
            text, unknown = self._spoken(axis.size)
            with self._block(f"if {size} is not None and not isinstance({size}, _RaggedAxis):"):
                if unknown:
                    self._line(f"if {' or '.join(f'{name} is None' for name in unknown)}: {no}")
                self._line(f"if {size} != {text}: {no}")
        self.later = []

    def _condition(self, condition: Condition) -> None:
        subject, first = self._spoken(condition.subject)
        bound, second = self._spoken(condition.bound)
        known = " and ".join(f"{name} is not None" for name in dict.fromkeys([*first, *second]))
        [name, *more] = condition.subject.names
        if more or condition.subject.text != name:
            raise NotCompiled
        operator = self._constant(condition.compare)
        if name in self.axes:
            self._line(f"if {known} and not {subject} {condition.relation} {bound}: return None")
            others = " and ".join(f"{other} is not None" for other in second) or "True"
            ragged = f"_ragged_{name}"
            with self._block(f"if {ragged} is not None and _axis_{name} is None and {others}:"):
                self._line(f"if not _all_hold({operator}, {ragged}.lengths, {bound}): return None")
        else:
            with self._block(f"if {known}:"):
                self._line(f"if not _all_hold({operator}, {subject}, {bound}): return None")

    def _spoken(self, expression: Expression) -> tuple[str, list[str]]:
        """An expression as source, and the names in it that may be None."""
        values = {name: f"_axis_{name}" if name in self.axes else self._argument(name) for name in expression.names}
        values |= {path: path for path in expression.braces if self._argument(path.partition(".")[0])}
        return expression.spell(values), list(values.values())

    def _argument(self, name: str) -> str:
        if name not in self.names:
            raise NotCompiled
        return name

    # Writing.

    def _line(self, text: str, before: str | None = None) -> None:
        if before is not None and self.depth > 1:
            self.lines.insert(0, "    " + before)
        self.lines.append("    " * self.depth + text)

    @contextmanager
    def _block(self, head: str | None) -> Generator[None]:
        if head is None:
            yield
            return
        self._line(head)
        self.depth += 1
        yield
        self.depth -= 1

    def _constant(self, value: Any) -> str:
        name = f"_constant_{len(self.constants)}"
        self.constants[name] = value
        return name


def _all_hold(compare: Callable[[Any, Any], Any], values: Any, bound: Any) -> bool:
    """A condition on an int, or on every value of a tensor where values may be read."""
    if not isinstance(values, Tensor):
        return values is None or compare(values, bound)
    if not modes.may_read(values) or (isinstance(bound, Tensor) and not modes.may_read(bound)):
        return True
    return bool(compare(values, bound).all())
