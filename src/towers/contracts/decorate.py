"""`@contract`: checks the jaxtyping annotations of arguments and result at every call."""

import dataclasses
import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Generator, Iterable
from types import CodeType, MethodType
from typing import Any, ParamSpec, TypeVar, cast, overload

import torch
from torch import nn

from towers.contracts import modes
from towers.contracts.compiled import compile_check, compile_made, source_of
from towers.contracts.resolve import Names, scopes_around
from towers.contracts.signature import Options, Signature, read_made, read_signature, several

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


class Contract:
    """The class of the decorator `contract`."""

    @overload
    def __call__(self, function: C, /) -> C: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def __call__(
        self, /, *, where: str | Iterable[str] = (), dtype_of: str | None = None, vocabulary: str | Iterable[str] = ""
    ) -> Callable[[F], F]: ...
    def __call__(
        self,
        function: Any = None,
        /,
        *,
        where: str | Iterable[str] = (),
        dtype_of: str | None = None,
        vocabulary: str | Iterable[str] = "",
    ) -> Any:
        """Enforce the jaxtyping annotations of a function, a method or a dataclass at each call.

        All arguments and the result share axis names, and so do the items of tuples, lists and dicts (all items are
        checked) and the fields of NamedTuples, TypedDicts and dataclasses. `{self.hidden}` and `{argument}` are read at
        the call. The order of the arguments does not matter: `n-1` may stand before `n`, and `2*n` alone binds `n`.
        Beside tensors, `Float[Ragged, …]`, `Float[PackedSequence, …]` and jagged nested tensors are understood; their
        second axis is ragged and has no size. Types without tensors are checked by beartype. A dataclass is checked
        when it is made.

        Args:
            function: the decorated function or class, if there are no options.
            where: conditions over axes, arguments and sizes of the instance, such as `"words >= {self.kernel_words}"`,
                `"steps % chunk == 0"` or `"0 <= lengths <= words"`. A condition with a None in it does not apply.
                For an integer tensor or a ragged axis it must hold for every value (`checks` says when values are
                read).
            dtype_of: the path of a parameter of the instance ("conv.weight"). Every floating argument must have its
                dtype, unless autocast is on.
            vocabulary: the axis names of a project ("batch words hidden"). Another name is an error. If the text ends
                in "...", other names are allowed, and a name that is similar to one of these is a warning.

        Raises:
            ValueError: an axis string or a condition cannot be read (when decorating); a value in a tensor breaks a
                condition (at a call).
            TypeError: the decorated object is neither a function nor a dataclass, or `where` is no text.
            ShapeContractError: a shape, dtype or type is not what the annotation says (at a call).
        """
        words = tuple(vocabulary.split() if isinstance(vocabulary, str) else vocabulary)
        options = Options(several(where, "contract: where"), dtype_of, words)
        scopes = scopes_around(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
        if function is None:
            return functools.partial(_enforce, options=options, scopes=scopes)
        return _enforce(function, options, scopes)

    def source(self, function: Callable[..., Any], /) -> str:
        """The source of the check that a contracted function, method or dataclass runs.

        Raises:
            TypeError: it has no contract.
        """
        if isinstance(function, type):
            function = function.__init__
        function = getattr(function, "__func__", function)
        if not hasattr(function, "__contract__"):
            raise TypeError(f"{getattr(function, '__qualname__', function)} has no contract")
        return source_of(function.__dict__.get("checked", function))


contract = Contract()


def contract_where_tensors(function: Any, scopes: list[CodeType]) -> Any:
    """Give a function or dataclass a contract if its annotations name tensors; else return it unchanged.

    If its annotations cannot be read, it is returned unchanged, with a RuntimeWarning.
    """
    own_fields = isinstance(function, type) and "__dataclass_fields__" in vars(function)
    return (
        _enforce(function, Options(only_tensors=True), scopes)
        if own_fields or inspect.isfunction(function)
        else function
    )


def _enforce(function: Any, options: Options, scopes: list[CodeType]) -> Any:
    if isinstance(function, (staticmethod, classmethod)):
        method = cast(Any, function)
        return type(method)(_enforce(method.__func__, options, scopes))
    if isinstance(function, property):
        kind, parts = cast(Any, type(function)), (function.fget, function.fset, function.fdel)
        return kind(*(part and _enforce(part, options, scopes) for part in parts), function.__doc__)
    if isinstance(function, functools.cached_property):
        cached = cast("functools.cached_property[Any]", function)
        return type(cached)(_enforce(cached.func, options, scopes))
    if isinstance(function, MethodType):
        return MethodType(_enforce(function.__func__, options, scopes), function.__self__)
    if isinstance(function, (torch.jit.ScriptFunction, torch.jit.ScriptModule)):
        return cast(Any, function)
    if not isinstance(function, type) and not inspect.isfunction(function):
        kind = type(function).__name__
        raise TypeError(f"contract: a {kind} cannot be decorated; a function, a method or a dataclass can")
    if modes.switch.of(function.__module__ or "") == "off":
        return function
    if isinstance(function, type):
        return _when_made(function, options, scopes)
    names = Names(function, scopes)

    def build(names_to_wait_for: Names | None) -> Any:
        return _checked(function, compile_check, lambda: read_signature(function, options, names_to_wait_for), options)

    return _wrapped(function, names, build)


def _checked(
    function: Any, compiled: Callable[[Any, Signature], Any], read: Callable[[], Signature], options: Options
) -> Any:
    try:
        signature = read()
    except Exception as error:
        if not options.only_tensors or isinstance(error, NameError):  # a name may be defined further down
            raise
        name = f"{function.__module__}.{function.__qualname__}"
        told = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {str(error).strip()}"
        warnings.warn(f"{name} has no contract: {told.partition(chr(10))[0]}", RuntimeWarning, stacklevel=2)
        return function
    if options.only_tensors and not signature.speaks_of_tensors:
        return function
    checked: Any = functools.wraps(function)(compiled(function, signature))
    checked.__contract__ = signature
    return checked


def _wrapped(function: Callable[P, R], names: Names, build: Callable[[Names | None], Any]) -> Callable[P, R]:
    """The checked function that `build` makes: now, or at the first call if a name is defined further down.

    What is still not defined at the first call is not checked, until the module defines one of the missing names.
    """
    try:
        with names.reading(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
            return build(names)
    except NameError:
        pass

    def make(owner: object) -> None:
        if "checked" in later.__dict__ and not names.may_be_known():
            return
        with names.reading(sys._getframe(2), owner):  # pyright: ignore[reportPrivateUsage]
            checked = later.__dict__["checked"] = build(None)
            later.__dict__["__contract__"] = getattr(checked, "__contract__", None)

    # Like torch.compiler.assume_constant_result, which would import Dynamo: `make` is run, not traced.
    make.__dict__["_dynamo_marked_constant"] = True

    def call(*args: Any, **kwargs: Any) -> Any:
        make(args[0] if args and isinstance(args[0], (nn.Module, type)) else None)
        return later.__dict__["checked"](*args, **kwargs)

    later: Any = functools.wraps(function)(_of_its_kind(function, call))
    return later


def _of_its_kind(function: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    """A call as a coroutine or a generator, where the function is one."""

    async def awaited(*args: Any, **kwargs: Any) -> Any:
        return await call(*args, **kwargs)

    def generated(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner: Generator[Any, Any, Any] = call(*args, **kwargs)
        return (yield from inner)

    if inspect.iscoroutinefunction(function):
        return awaited
    return generated if inspect.isgeneratorfunction(function) else call


def _when_made(kind: type, options: Options, scopes: list[CodeType]) -> type:
    """Check a dataclass when it is made: first the arguments of `__init__` that are no fields, then the fields."""
    if not dataclasses.is_dataclass(kind):
        raise TypeError(
            f"contract: {cast(Any, kind).__name__} is no dataclass (where it is made one, @contract stands above "
            "@dataclass); decorate its methods"
        )

    initialise: Any = kind.__init__

    def build(names_to_wait_for: Names | None) -> Any:
        return _checked(
            initialise, compile_made, lambda: read_made(kind, initialise, options, names_to_wait_for), options
        )

    kind.__init__ = _wrapped(initialise, Names(kind, scopes), build)
    return kind
