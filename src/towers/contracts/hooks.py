"""`attach`: gives a module of another package a contract, checked by forward hooks."""

import inspect
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, get_type_hints

import jaxtyping
from jaxtyping import AbstractDtype, Shaped
from torch import Tensor, nn

from towers.contracts import modes
from towers.contracts.bindings import own_parameter
from towers.contracts.compiled import compile_hooks
from towers.contracts.signature import Options, Signature, read_signature, several


class attach:
    """Give a module of another package a contract.

    It is checked by forward hooks, which are kept by deepcopy and pickle. Call `remove()` to take the contract off, or
    use `with attach(…):`, which takes it off at its end.

    Args:
        module: the instance that gets the contract. Its class and other instances of the class get none.
        contract: a text such as `"batch time 8 -> batch time 6"`, if all arguments are tensors. Commas separate
            arguments and results, parentheses make a tuple, and `{self.hidden}` reads an attribute of the module. Every
            dtype fits, unless a class name of jaxtyping stands before the axes:
            `"Int batch words -> Float batch words 300"`.
            Or a function whose signature is the contract, such as
            `def lstm(input: Float[Tensor, "batch time {self.input_size}"], hx: object = None) -> object: ...`.
            `self` may be its first parameter.
        where: conditions, as in `contract`.
        dtype_of: the path of a parameter, as in `contract`.

    Raises:
        TypeError: the module is not an nn.Module, or the contract is neither a text nor a function.
        ValueError: the contract cannot be read; its parameters are not those of the module's `forward`; or the
            module has no parameter at `dtype_of`.

    >>> import torch
    >>> from towers.contracts import ShapeContractError, attach
    >>> linear = torch.nn.Linear(8, 6)
    >>> with attach(linear, "batch time 8 -> batch time 6"):
    ...     try:
    ...         linear(torch.zeros(3, 8))
    ...     except ShapeContractError as error:
    ...         print(str(error).splitlines()[0])
    Linear.forward: input has 2 axes (3, 8); expected 3: (batch, time, 8)
    """

    def __init__(
        self,
        module: nn.Module,
        contract: str | Callable[..., Any],
        /,
        *,
        where: str | Sequence[str] = (),
        dtype_of: str | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"attach: module is a {type(module).__name__}; expected an nn.Module")
        self._handles: list[Any] = []
        if modes.switch.of(type(module).__module__, module) == "off":
            return
        own = list(inspect.signature(module.forward).parameters.values())
        names = tuple(parameter.name for parameter in own if parameter.kind == parameter.POSITIONAL_OR_KEYWORD)
        about = (type(module).__name__, type(module).__module__, names)
        before, after = _hooks(contract, about, several(where, "attach: where"), dtype_of)
        _same_parameters(before.__contract__, own)
        if dtype_of is not None:
            own_parameter(module, dtype_of, f"attach: {type(module).__name__}.forward")
        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        if after is not None:
            self._handles.append(module.register_forward_hook(after, with_kwargs=True))

    def remove(self) -> None:
        """Take the contract off. Copies of the module keep theirs."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> None:
        """Do nothing: the constructor has attached the contract."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.remove()


class _Hook:
    """A hook. A subclass adds the generated check as `__call__`. A pickle is made again from `made_from`.

    As a function does, it never changes, and copies of a module share it.
    """

    def __init__(self, place: int, made_from: tuple[Any, ...]) -> None:
        self.place, self.made_from = place, made_from

    def __reduce__(self) -> tuple[Any, ...]:
        return _hook, (self.place, *self.made_from)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def _hook(place: int, *made_from: Any) -> Any:
    return _hooks(*made_from)[place]


def _hooks(
    contract: str | Callable[..., Any], about: tuple[str, str, tuple[str, ...]], where: tuple[str, ...], dtype_of: Any
) -> tuple[Any, Any]:
    """The hook before the call of a module and the one after it, which is None if the contract has no result."""
    kind, package, names = about
    stub = _stub_of_text(contract, names) if isinstance(contract, str) else _stub_of_function(contract)
    stub.__qualname__, stub.__module__ = f"{kind}.forward", package
    signature = read_signature(stub, Options(where, dtype_of))
    made: list[Any] = []
    for place, check in enumerate(compile_hooks(signature)):
        members = {"__call__": check, "__contract__": signature}
        hook = None if check is None else type("Contract", (_Hook,), members)
        made.append(hook and hook(place, (contract, about, where, dtype_of)))
    return made[0], made[1]


def _same_parameters(contract: Signature, own: Sequence[inspect.Parameter]) -> None:
    """Refuse a contract whose parameters are not those of `forward`: it would check the wrong arguments."""
    kinds = {parameter.kind for parameter in own}
    open_ended = inspect.Parameter.VAR_POSITIONAL in kinds, inspect.Parameter.VAR_KEYWORD in kinds
    at_place = iter(parameter for parameter in own if parameter.kind in _PLACED)
    names = {parameter.name for parameter in own}
    for parameter in contract.formal[1:]:
        at = next(at_place, None) if parameter.kind in _PLACED else None
        if parameter.kind == parameter.POSITIONAL_OR_KEYWORD:
            fits = open_ended[0] if at is None else at.name == parameter.name
        elif parameter.kind == parameter.POSITIONAL_ONLY:
            fits = open_ended[0] or at is not None
        else:
            fits = parameter.kind != parameter.KEYWORD_ONLY or open_ended[1] or parameter.name in names
        if not fits:
            listed = ", ".join(parameter.name for parameter in own) or "none"
            raise ValueError(
                f"attach: the contract's {parameter.name} stands where {contract.name} has no such parameter; "
                f"its parameters are {listed}"
            )


_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_SELF = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)


def _stub(parameters: Sequence[inspect.Parameter], hints: dict[str, Any]) -> Any:
    def forward() -> None: ...

    forward.__dict__["__signature__"] = inspect.Signature(parameters)
    forward.__annotations__ = hints
    return forward


def _stub_of_function(contract: Callable[..., Any]) -> Any:
    if not inspect.isfunction(contract):
        kind = type(contract).__name__
        raise TypeError(f"attach: contract is a {kind}; expected a text or a function whose signature is the contract")
    parameters = list(inspect.signature(contract).parameters.values())
    if not parameters or parameters[0].name != "self":
        parameters.insert(0, _SELF)
    return _stub(_with_rest(parameters), get_type_hints(contract))


def _stub_of_text(text: str, names: Sequence[str]) -> Any:
    arguments, arrow, results = text.partition("->")
    if not arrow or "->" in results:
        raise ValueError(f'{text!r} is no contract: it must read "axes, axes -> axes"')
    hints = [_hint(part, text) for part in _split(arguments, text)]
    known = [names[index] if index < len(names) else f"input_{index}" for index in range(len(hints))]
    named = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in known]
    return _stub(_with_rest([_SELF, *named]), {**dict(zip(known, hints, strict=True)), "return": _hint(results, text)})


def _with_rest(parameters: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    """Add `*_args` and `**_kwargs` for the arguments of `forward` that the contract does not name."""
    rest = [inspect.Parameter("_args", inspect.Parameter.VAR_POSITIONAL)]
    rest.append(inspect.Parameter("_kwargs", inspect.Parameter.VAR_KEYWORD))
    kinds = {parameter.kind for parameter in parameters}
    every = [*parameters, *(parameter for parameter in rest if parameter.kind not in kinds)]
    return sorted(every, key=lambda parameter: parameter.kind)


def _hint(part: str, text: str) -> Any:
    part = part.strip()
    while part.startswith("(") and part.endswith(")") and "," in part:
        part = part[1:-1]
        return tuple[tuple(_hint(inner, text) for inner in _split(part, text))]
    parts = _split(part, text)
    if len(parts) > 1:
        return tuple[tuple(_hint(inner, text) for inner in parts)]
    return _tensor(part, text)


def _tensor(part: str, text: str) -> Any:
    """The annotation of one tensor. A dtype class such as `Int` may stand before the axes."""
    axes = part.split()
    kind: Any = _DTYPES[axes.pop(0)] if axes and axes[0] in _DTYPES else Shaped
    for axis in axes:
        if axis in _MEANT:
            others = [one for one in axes if one != axis]
            raise ValueError(
                f"{text!r} is no contract: {axis!r} cannot be an axis; one name in front of the axes says the dtype, "
                f'such as "{" ".join([_MEANT[axis], *others])}"'
            )
    return kind[Tensor, " ".join(axes)]


_DTYPES: dict[str, Any] = {
    name: kind for name, kind in vars(jaxtyping).items() if isinstance(kind, type) and issubclass(kind, AbstractDtype)
}
_MEANT = {name: name for name in _DTYPES} | {
    name.lower(): name for name in _DTYPES if name in ("Bool", "Float", "Int") or name[-1].isdigit()
}
"""The words that mean a dtype, jaxtyping's or torch's, with the name of the dtype class."""


def _split(text: str, whole: str) -> list[str]:
    """Split a text at the commas outside of parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            break
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    if depth:
        raise ValueError(f"{whole!r} is no contract: a parenthesis is not closed, or not opened")
    return parts
