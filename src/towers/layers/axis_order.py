"""One signature of a recurrent layer, read in the order of axes that its input has.

layout        contract                        who has it
batch first   batch steps input_size          padded input of batch_first=True; Ragged, packed and jagged input always
steps first   steps batch input_size          padded input of batch_first=False
unbatched     steps input_size                one sentence: a tensor of two axes
"""

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast, get_args, get_origin

from jaxtyping import AbstractArray
from torch import Tensor, nn

from towers.contracts import contract

F = TypeVar("F", bound=Callable[..., Any])


def is_unbatched(input: object) -> bool:
    """Whether it is one sentence by itself, "steps input_size"."""
    return isinstance(input, Tensor) and input.dim() == 2 and not input.is_nested


def is_steps_first(layer: nn.Module, input: object) -> bool:
    """Whether the steps are the first axis of a batch: of padded tensors alone, where `batch_first` is False."""
    return not layer.batch_first and isinstance(input, Tensor) and not input.is_nested


def in_every_order(*, where: tuple[str, ...], dtype_of: str) -> Callable[[F], F]:
    """A contract for a method (self, input, hx=None, *, lengths=None), whose annotations are batch first.

    Each call is held against them in the order that its input has, and messages, `verify` and `trace` name the axes so.
    """

    def decorate(method: F) -> F:
        batch_first: Any = contract(where=("batch >= 0", *where), dtype_of=dtype_of)(method)
        steps_first: Any = contract(where=("batch >= 0", *where), dtype_of=dtype_of)(_with_axes(method, _steps_first))
        unbatched: Any = contract(where=where, dtype_of=dtype_of)(_with_axes(method, _unbatched))

        @functools.wraps(method)  # the older exporter of torch.onnx gives every argument by its place
        def called(self: Any, input: Any, hx: Any = None, lengths: Any = None) -> Any:
            hx = tuple(cast("list[Tensor]", hx)) if type(hx) is list else hx
            if is_unbatched(input):
                return unbatched(self, input, hx, lengths=lengths)
            if is_steps_first(self, input):
                return steps_first(self, input, hx, lengths=lengths)
            return batch_first(self, input, hx, lengths=lengths)

        if hasattr(batch_first, "__contract__"):  # not with contracts off
            signatures = {True: batch_first.__contract__, False: steps_first.__contract__}
            called.__dict__["checked"] = batch_first
            called.__dict__["__contract__"] = signatures[True]

            def contract_of(layer: Any) -> Any:
                return signatures[layer.batch_first]

            called.__dict__["__contract_of__"] = contract_of
        return cast(F, called)

    return decorate


def _steps_first(axes: str) -> str:
    return axes.replace("batch steps", "steps batch")


def _unbatched(axes: str) -> str:
    return " ".join(axis for axis in axes.split(" ") if axis != "batch")


def _with_axes(method: Any, renamed: Callable[[str], str]) -> Any:
    """A copy of a method, whose annotations have other axes."""
    copied = FunctionType(method.__code__, method.__globals__, method.__name__, method.__defaults__, method.__closure__)
    copied.__kwdefaults__, copied.__qualname__ = method.__kwdefaults__, method.__qualname__
    copied.__module__ = method.__module__
    copied.__annotations__ = {name: _renamed(hint, renamed) for name, hint in method.__annotations__.items()}
    return copied


def _renamed(hint: Any, renamed: Callable[[str], str]) -> Any:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return cast(Any, hint).dtype[hint.array_type, renamed(hint.dim_str)]
    inner = tuple(_renamed(one, renamed) for one in get_args(hint))
    if not inner:
        return cast(Any, hint)
    if get_origin(hint) is tuple:
        return tuple[inner]
    return functools.reduce(lambda one, other: one | other, inner)
