"""Compiles a signature to one function of straight-line comparisons, which decides every call.

If a call does not fit, `towers.contracts.check` checks it again, name by name, and explains the error.
"""

import inspect
import linecache
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any

from towers.contracts.bindings import Bound
from towers.contracts.check import refusal
from towers.contracts.codegen.conditions import ConditionWriter, bounded_names
from towers.contracts.codegen.size_checks import AxisWriter
from towers.contracts.codegen.value_checks import ValueWriter
from towers.contracts.codegen.writer import Writer
from towers.contracts.expressions import path_root
from towers.contracts.modes import Proxied, holds_proxy, switch
from towers.contracts.shared_axes import SharedAxes, asks_for_axes, in_eager_mode, shared_sizes, skip_frames
from towers.contracts.signature import Signature
from towers.contracts.specs import Spec, tensors
from towers.contracts.trees import is_kind

_number = count()


def compile_check(function: Callable[..., Any], signature: Signature) -> Any:
    """A function with the same parameters that checks the arguments, calls the function and checks the result."""
    is_async = inspect.iscoroutinefunction(function)
    later = is_async or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    source = _Source(
        signature, shares=not later and asks_for_axes(function), as_given=_has_parameters_of_its_own(function)
    )
    text = source.around(is_async=is_async)
    if later and not is_async:
        text = source.relayed(text, is_async=inspect.isasyncgenfunction(function))
    called = in_eager_mode(function, signature.name) if source.shares else function
    return _compiled(text, signature, {**source.space(), f"{source.mark}function": called})


def compile_made(initialise: Callable[..., Any], signature: Signature) -> Any:
    """An `__init__` that checks its arguments, calls the class's own and checks the object that was made."""
    source = _Source(signature, as_given=_has_parameters_of_its_own(initialise))
    text = source.made()
    return _compiled(text, signature, {**source.space(), f"{source.mark}function": initialise})


def compile_hooks(signature: Signature) -> tuple[Any, Any]:
    """The forward hooks of a module whose contract is this signature: one before the call, one after it."""
    source = _Source(signature)
    before = _compiled(source.before(), signature, source.space())
    if signature.result is None:
        return before, None
    source = _Source(signature)
    return before, _compiled(source.after(), signature, source.space())


def source_of(checked: Any) -> str:
    """The source of the check of a contracted function."""
    return "".join(linecache.getlines(checked.__code__.co_filename))


def _compiled(text: str, signature: Signature, space: dict[str, Any]) -> Any:
    file = f"<contract of {signature.package}.{signature.name}, {next(_number)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(compile(text, file, "exec"), space)
    for made in ("check", "checked", "bound"):
        if made in space:  # the name in Python's own TypeError for wrong arguments
            space[made].__qualname__ = signature.name
    weakref.finalize(space["checked"], linecache.cache.pop, file, None).atexit = False
    return space["checked"]


class _Source:
    """The source of one check."""

    def __init__(self, signature: Signature, *, shares: bool = False, as_given: bool = False) -> None:
        self.shares, self.as_given = shares, as_given
        """Whether the body of the function sees the axes of the call; whether it gets the arguments as they were given,
        by position or by name and without what is left out, because it is a wrapper that may look at that."""
        self.signature, self.package = signature, signature.package
        self.parameters = signature.formal
        self.names = [parameter.name for parameter in self.parameters]
        self.writer = Writer(self.names)
        self.mark = self.writer.mark
        self.result = f"{self.mark}result"
        self.owner = self.names[0] if self.names[:1] == ["self"] else "None"
        self.loose = {name: f"{self.mark}left_out_{name}" for name in (*_loose(signature), *signature.given)}
        """For each parameter whose default does not fit its annotation: the local that is True if it was left out."""
        specs = [*signature.arguments.values(), *([] if signature.result is None else [signature.result])]
        spread = [axis.name for spec in specs for one in tensors(spec) for axis in one.axes if axis.broadcast]
        self.axes = AxisWriter(self.writer, filter(None, spread), self.result)
        self.values = ValueWriter(self.writer, self.axes, signature.dtype_of, bounded_names(signature.where))

    def space(self) -> dict[str, Any]:
        """The global names of the source."""
        return {
            **self.writer.constants,
            f"{self.mark}switch": switch,
            f"{self.mark}Proxied": Proxied,
            f"{self.mark}signature": self.signature,
            f"{self.mark}partial": partial,
            f"{self.mark}same": _same,
            f"{self.mark}refused": _refused(self.signature, self.names, self.shares),
            f"{self.mark}shared_axes": SharedAxes,
        }

    def around(self, *, is_async: bool) -> str:
        """The source of a check around a function."""
        passed = self._passed()
        call = f"{self.mark}function({passed})"
        later = f"{self.mark}partial({self.mark}function, {passed})"
        awaited = f"await {call}" if is_async else call
        arguments, shared = self._arguments(), self._shared() if self.shares else []
        result = self._unless_proxied([*self._taken(), *self._result()], "pass")
        called = [f"    {self.result} = {awaited}", *result, f"    return {self.result}"]
        called = [*shared, *(f"    {line}" for line in called)] if shared else called
        return self._defined(
            is_async,
            [
                *self._left_out(),
                *self._modes(f"return {awaited}", later, awaits=is_async),
                *self._start(),
                *self._unless_proxied(arguments, f"return {awaited}"),
                *(called if result or shared else [f"    return {awaited}"]),
            ],
        )

    def _passed(self) -> str:
        """The arguments of the call of the function."""
        if self.as_given:
            return f"*{self.mark}args, **{self.mark}kwargs"
        return ", ".join(map(_passed, self.parameters))

    def _defined(self, is_async: bool, body: list[str]) -> str:
        """The function `checked` with a body. What is to be passed as it was given is taken beside the parameters."""
        word = "async def" if is_async else "def"
        if not self.as_given:
            return "\n".join([f"{word} checked({self._header()}):", *body, ""])
        mark, positional = self.mark, any(one.kind == one.POSITIONAL_ONLY for one in self.parameters)
        first = f"{mark}args, {mark}kwargs, {'' if positional else '/, '}"
        return "\n".join(
            [
                f"def bound({self._header()}): pass",  # Python's own TypeError for wrong arguments
                f"{word} {mark}within({first}{self._header()}):",
                *body,
                f"{word} checked({self._passed()}):",
                f"    bound({self._passed()})",
                f"    return {'await ' if is_async else ''}{mark}within({mark}args, {mark}kwargs, {self._passed()})",
                "",
            ]
        )

    def relayed(self, text: str, *, is_async: bool) -> str:
        """The source of a generator around the check of one: who asks what kind of function it is has the right answer.

        What is sent to it and thrown into it arrives, and it closes the other one.
        """
        mark, header = self.mark, self._passed() if self.as_given else self._header()
        call = f"{mark}checked({self._passed()})"
        lines = [f"    return (yield from {call})"]
        if is_async:
            lines = [
                f"    {mark}inner = {call}",
                "    try:",
                f"        {mark}value = await {mark}inner.__anext__()",
                "        while True:",
                f"            try: {mark}sent = yield {mark}value",
                "            except GeneratorExit: raise",
                f"            except BaseException as {mark}error: {mark}value = await {mark}inner.athrow({mark}error)",
                f"            else: {mark}value = await {mark}inner.asend({mark}sent)",
                "    except StopAsyncIteration: return",
                f"    finally: await {mark}inner.aclose()",
            ]
        plain = text.replace("def checked(", f"def {mark}checked(", 1)
        return "\n".join([plain, f"{'async ' if is_async else ''}def checked({header}):", *lines, ""])

    def _shared(self) -> list[str]:
        """The line that shows the axes of the call to its body; what that binds is written for the result."""
        known = list(self.axes.seen)
        single = ", ".join(f"{name!r}: {self.axes.local(name)}" for name in known if name[0] != "*")
        several = ", ".join(f"{name[1:]!r}: {self.mark}axes_{name[1:]}" for name in known if name[0] == "*")
        given = ", ".join(self._named(name) for name in self.names)
        result = () if self.signature.result is None else self.signature.result
        for axis in [axis for one in tensors(result) for axis in one.axes if axis.size is not None]:
            for name in axis.size.names if axis.size else ():
                self._learn(f"*{name}" if axis.variadic else name)
        call = f"{self.mark}shared_axes({self.signature.name!r}, {{{given}}}, {{{single}}}, {{{several}}})"
        return [f"    with {call} as {self.mark}shared:"]

    def _learn(self, name: str) -> None:
        """Take the size of a name that no argument binds from what the body has bound."""
        if name in self.axes.bound:
            return
        plain = name.lstrip("*")
        local = f"{self.mark}axes_{plain}" if name[0] == "*" else self.axes.local(name)
        self.axes.seen.setdefault(name)
        self.writer.start.setdefault(local, "None")
        if name[0] == "*":
            asked = f"several({plain!r}, {local}, {plain in self.axes.spread})"
        else:
            asked = f"single({plain!r}, {local})"
        self.writer.line(f"{local} = {self.mark}shared.{asked}")

    def _unless_proxied(self, lines: list[str], otherwise: str) -> list[str]:
        """Lines that refuse, where torch.fx passes its proxies through; entering a `try` costs nothing."""
        if not lines:
            return []
        return ["    try:", *(f"    {line}" for line in lines), f"    except {self.mark}Proxied: {otherwise}"]

    def made(self) -> str:
        """The source of a check of an object that was just made."""
        call = f"{self.mark}function({self._passed()})"
        arguments = {name: spec for name, spec in self.signature.arguments.items() if name != "self"}
        early = {name: spec for name, spec in arguments.items() if "self" not in _roots(spec)}
        late = {name: spec for name, spec in self.signature.arguments.items() if name not in early}
        self._refuse_by("raise", self._absent, *self._given()[1:])
        self._values(early)
        before = self._taken()
        self._refuse_by("raise", *self._given())
        self._values(late)
        for name, spec in self.signature.given.items():
            with self.writer.block(f"if not {self.loose[name]}:"):
                field = self.writer.local("part")
                self.writer.line(f"{field} = self.{name}")
                self.values.value(field, spec)
        self._settle()
        after = self._taken()
        return self._defined(
            False,
            [
                *self._left_out(),
                *self._modes(f"return {call}", f"{self.mark}partial({self.mark}same, None)", first=f"{call}; "),
                *self._start(),
                *before,
                f"    {call}",
                *after,
            ],
        )

    def before(self) -> str:
        """The source of a hook before the call of a module."""
        return self._hook([], self._arguments(), call="None")

    def after(self) -> str:
        """The source of a hook after the call. It reads the arguments again, because the sizes are stored nowhere."""
        return self._hook(
            [self.result],
            [*self._arguments(), *self._result()],
            call=f"{self.mark}partial({self.mark}same, {self.result})",
        )

    def _hook(self, result: list[str], lines: list[str], call: str) -> str:
        return "\n".join(
            [
                f"def check({', '.join([*result, self._header()])}):",
                *self._left_out(),
                *self._modes("return", call),
                *self._start(),
                *self._unless_proxied(lines or ["    return"], "return"),
                "",
                f"def checked({', '.join(['hook', 'module', 'args', 'kwargs', *result])}):",
                f"    check({', '.join([*result, 'module', '*args', '**kwargs'])})",
                "",
            ]
        )

    def _modes(self, off: str, call: str, *, awaits: bool = False, first: str = "") -> list[str]:
        """The lines for modes other than the general "on". `first`: what is done before an interceptor is called.

        The call is a partial: a lambda would turn every argument into a closure cell, which slows down every call.
        """
        mark, given = self.mark, ", ".join(self._named(name) for name in self.names)
        own = f"{mark}switch.of({self.package!r}, {self.owner}) == 'off'"
        interceptor = f"{'await ' if awaits else ''}{mark}switch.interceptor({mark}signature, {{{given}}}, {call})"
        return [
            f"    if {mark}switch.unusual:",
            f"        if {mark}switch.off or {mark}switch.interceptor is None and {own}: {off}",
            f"        if {mark}switch.interceptor is not None: {first}return {interceptor}",
        ]

    def _header(self) -> str:
        """The parameters of the function, so that Python itself binds the arguments and refuses wrong ones."""
        parts: list[str] = []
        for before, parameter in zip([None, *self.parameters], self.parameters, strict=False):
            if before is not None and before.kind == before.POSITIONAL_ONLY != parameter.kind:
                parts.append("/")
            starred = before is not None and before.kind in (before.KEYWORD_ONLY, before.VAR_POSITIONAL)
            if parameter.kind == parameter.KEYWORD_ONLY and not starred:
                parts.append("*")
            default = ""
            if parameter.default is not parameter.empty:
                default = f"={self._absent if parameter.name in self.loose else self._default(parameter)}"
            parts.append(_STARS.get(parameter.kind, "") + parameter.name + default)
        if self.parameters and self.parameters[-1].kind == inspect.Parameter.POSITIONAL_ONLY:
            parts.append("/")
        return ", ".join(parts)

    def _default(self, parameter: inspect.Parameter) -> str:
        plain = parameter.default is None or type(parameter.default) in (int, bool, str)
        return repr(parameter.default) if plain else self.writer.constant("default", parameter.default)

    # Arguments that are left out and have a default that does not fit the annotation (`mask: Bool[…] = None`).

    @property
    def _absent(self) -> str:
        return self.writer.given("_ABSENT", _ABSENT)

    def _left_out(self) -> list[str]:
        """Note which arguments are left out, and set them to the defaults of the function."""
        defaults = {
            parameter.name: self._default(parameter) for parameter in self.parameters if parameter.name in self.loose
        }
        return [
            line
            for name, local in self.loose.items()
            for line in (f"    {local} = {name} is {self._absent}", f"    if {local}: {name} = {defaults[name]}")
        ]

    def _named(self, name: str) -> str:
        """An item of a dict of the arguments; nothing for an argument that is left out."""
        return (
            f"**({{}} if {self.loose[name]} else {{{name!r}: {name}}})" if name in self.loose else f"{name!r}: {name}"
        )

    def _given(self) -> list[str]:
        """The arguments as `_refused` takes them."""
        return [
            f"{self._absent} if {self.loose[name]} else {name}" if name in self.loose else name for name in self.names
        ]

    def _start(self) -> list[str]:
        return [f"    {local} = {value}" for local, value in self.writer.start.items()]

    def _arguments(self) -> list[str]:
        self._refuse_by("raise", *self._given())
        self._values(self.signature.arguments)
        self._settle()
        return self._taken()

    def _refuse_by(self, word: str, *given: str) -> None:
        self.writer.no = f"{word} {self.mark}refused({', '.join(given)})"

    def _values(self, specs: Mapping[str, Spec]) -> None:
        for name, spec in specs.items():
            if name in self.loose:
                with self.writer.block(f"if not {self.loose[name]}:"):
                    self.values.value(name, spec)
            else:
                self.values.value(name, spec)

    def _settle(self) -> None:
        """Compare the expressions that wait for names, then the conditions."""
        self.axes.settle()
        ragged = {name: self.values.ragged_local(name) for name in self.values.ragged}
        place = (self.signature.name, self.package, self.owner)
        writer = ConditionWriter(self.writer, self.axes, ragged, self.signature.arguments, place)
        writer.conditions(self.signature.where)

    def _result(self) -> list[str]:
        self._refuse_by("raise", *self._given(), self.result)
        self.values.in_result = True
        if self.signature.result is not None:
            self.values.value(self.result, self.signature.result)
            if self.writer.lines:
                self.axes.settle()
        return self._taken()

    def _taken(self) -> list[str]:
        lines, self.writer.lines = self.writer.lines, []
        return lines


def _roots(spec: Spec) -> set[str]:
    """The first names of the paths in braces."""
    sizes = [axis.size for one in tensors(spec) for axis in one.axes if axis.size is not None]
    return {path_root(path) for size in sizes for path in size.braces}


def _has_parameters_of_its_own(function: Callable[..., Any]) -> bool:
    """Whether a function is a wrapper: its parameters are not those that its signature tells."""
    return not {"__wrapped__", "__signature__"}.isdisjoint(function.__dict__)


def _same(result: Any) -> Any:
    return result


_ABSENT = object()


def _loose(signature: Signature) -> list[str]:
    """The parameters whose default has a type that the annotation does not allow."""
    return [
        name
        for name, default in signature.defaults.items()
        if name in signature.arguments and not any(is_kind(default, option) for option in signature.arguments[name])
    ]


_BODY = "the body of the function"
_STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def _passed(parameter: inspect.Parameter) -> str:
    if parameter.kind == parameter.KEYWORD_ONLY:
        return f"{parameter.name}={parameter.name}"
    return _STARS.get(parameter.kind, "") + parameter.name


def _refused(signature: Signature, names: list[str], shares: bool = False) -> Callable[..., Exception]:
    """A function that makes the error of a call from its arguments and, if the result does not fit, the result."""

    def refused(*values: object) -> Exception:
        if holds_proxy(values):
            return Proxied()
        arguments = dict(zip([*names, "return"], values, strict=False))
        added: dict[str, Bound] = {}
        if shares and "return" in arguments:
            axes, many = shared_sizes()
            added = {name: Bound(size, _BODY) for name, size in axes.items()}
            added |= {f"*{name}": Bound(sizes, _BODY, broadcast) for name, (broadcast, sizes) in many.items()}
        return refusal(signature, {name: value for name, value in arguments.items() if value is not _ABSENT}, added)

    skip_frames(refused, below=True)  # a compiled module refuses a call with no frame of the careful check compiled
    return refused
