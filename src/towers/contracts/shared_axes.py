"""`isinstance(x, Float[…])` and `print_bindings()` in the body of a contracted function see the axes of the call.

jaxtyping keeps the axes of the running call in a store of its own, which its `isinstance` reads and adds to. It is
filled here, for the functions only whose code asks for it; what the body adds holds for the result as well.
"""

from collections.abc import Callable, Iterator, Mapping
from types import CodeType, ModuleType, TracebackType
from typing import Any, Self, cast

import jaxtyping
import torch
from jaxtyping import AbstractArray, AbstractDtype
from jaxtyping._storage import get_shape_memo, pop_shape_memo, push_shape_memo

_REASON = "{} asks for axes in its body (isinstance, print_bindings), and cannot be compiled"
Many = tuple[int, ...]


def asks_for_axes(function: Callable[..., Any]) -> bool:
    """Whether the code of a function names print_bindings, or isinstance and something of jaxtyping's."""
    code: CodeType | None = getattr(function, "__code__", None)
    if code is None:
        return False
    names = set(_names(code))
    if "print_bindings" in names:
        return True
    if "isinstance" not in names:
        return False
    space: dict[str, Any] = {**function.__globals__, **_closure(function)}
    found = [space[name] for name in names if name in space]
    modules = [one for one in found if isinstance(one, ModuleType)]
    found += [getattr(module, name) for module in modules for name in names if hasattr(module, name)]
    return "jaxtyping" in names or any(one is jaxtyping or _is_annotation(one) for one in found)


def _names(code: CodeType) -> Iterator[str]:
    yield from (*code.co_names, *code.co_freevars)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _closure(function: Any) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found: dict[str, Any] = {}
    for name, cell in cells:
        try:
            found[name] = cell.cell_contents
        except ValueError:  # it is defined further down
            continue
    return found


def _is_annotation(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, (AbstractArray, AbstractDtype))


def in_eager_mode(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, never compiled: Dynamo takes isinstance of an annotation for False.

    torch.compile leaves it eager; with fullgraph=True, and in a strict export, torch refuses it with the reason.
    """

    skip_frames(function)

    def run(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    # As torch.compiler.disable does, which would import Dynamo.
    skip_frames(run)
    run.__dict__["_torchdynamo_disable"] = True
    run.__dict__["_torchdynamo_disable_msg"] = _REASON.format(name)
    return run


def skip_frames(function: Callable[..., Any], *, below: bool = False) -> None:
    """Let Dynamo compile no frame of a function that it calls, nor, if `below`, of those that the function calls."""
    dynamo = cast(Any, torch._C)._dynamo.eval_frame
    skip, default = dynamo._FrameAction.SKIP, dynamo._FrameAction.DEFAULT
    strategy = dynamo._FrameExecStrategy(skip, skip if below else default)
    dynamo.set_code_exec_strategy(function.__code__, strategy)


class SharedAxes:
    """While it is entered, jaxtyping's `isinstance` compares with the axes of this call, and adds to them.

    Args:
        name: the function.
        arguments: the arguments, for braces.
        axes: the size of each axis name, None where it has none yet.
        several: the sizes of each name of several axes; with True at its end where more may broadcast with them.
    """

    def __init__(
        self, name: str, arguments: Mapping[str, Any], axes: Mapping[str, Any], several: Mapping[str, Any]
    ) -> None:
        self.name, self.arguments = name, dict(arguments)
        self.axes = {name: size for name, size in axes.items() if size is not None}
        self.many: dict[str, tuple[bool, Many]] = {}
        for name, sizes in several.items():
            if sizes is not None:
                open_ended = len(sizes) == 2 and isinstance(sizes[1], bool)
                self.many[name] = (sizes[1], tuple(sizes[0])) if open_ended else (False, tuple(sizes))

    def __enter__(self) -> Self:
        if torch.compiler.is_dynamo_compiling():
            raise RuntimeError(_REASON.format(self.name))
        axes, many, *_ = cast(Any, push_shape_memo(self.arguments))
        axes.update(self.axes)
        many.update(self.many)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        pop_shape_memo()

    def single(self, name: str, size: Any) -> Any:
        """The size that a name has by now."""
        return shared_sizes()[0].get(name) if size is None else size

    def several(self, name: str, sizes: Any, broadcasts: bool) -> Any:
        """The sizes that a name of several axes has by now."""
        if sizes is not None or name not in shared_sizes()[1]:
            return sizes
        open_ended, found = shared_sizes()[1][name]
        return (found, open_ended) if broadcasts else found


def shared_sizes() -> tuple[dict[str, int], dict[str, tuple[bool, Many]]]:
    """The axes of the running call, as jaxtyping knows them."""
    axes, many, *_ = cast(Any, get_shape_memo())
    return axes, many
