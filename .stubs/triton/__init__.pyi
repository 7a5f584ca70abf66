# Of Triton only what starts a kernel: the language inside of one is no Python that a type checker could read.

from collections.abc import Callable
from typing import Any, overload

from triton import language as language

knobs: Any

class JITFunction:
    def __getitem__(self, grid: tuple[int, ...] | Callable[..., tuple[int, ...]]) -> Callable[..., Any]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

@overload
def jit(fn: Callable[..., Any], /) -> JITFunction: ...
@overload
def jit(
    *,
    do_not_specialize: list[str] | None = None,
    do_not_specialize_on_alignment: list[str] | None = None,
    debug: bool | None = None,
    noinline: bool | None = None,
) -> Callable[[Callable[..., Any]], JITFunction]: ...
def cdiv(x: int, y: int) -> int: ...
def next_power_of_2(n: int) -> int: ...
