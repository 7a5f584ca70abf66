# torch/_library/custom_ops.py writes its parameters as a bare `Callable`, of which everything is unknown.

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar, overload

import torch
from torch import _C

device_types_t: TypeAlias = str | Sequence[str] | None
tags_t: TypeAlias = _C.Tag | Sequence[_C.Tag] | None
_F = TypeVar("_F", bound=Callable[..., Any])

@overload
def custom_op(
    name: str,
    fn: None = None,
    /,
    *,
    mutates_args: str | Iterable[str],
    device_types: device_types_t = None,
    schema: str | None = None,
    tags: tags_t = None,
) -> Callable[[Callable[..., object]], CustomOpDef]: ...
@overload
def custom_op(
    name: str,
    fn: Callable[..., object],
    /,
    *,
    mutates_args: str | Iterable[str],
    device_types: device_types_t = None,
    schema: str | None = None,
    tags: tags_t = None,
) -> CustomOpDef: ...

class CustomOpDef:
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def set_kernel_enabled(self, device_type: str, enabled: bool = True) -> AbstractContextManager[None]: ...
    @overload
    def register_kernel(self, device_types: device_types_t, fn: None = None, /) -> Callable[[_F], _F]: ...
    @overload
    def register_kernel(self, device_types: device_types_t, fn: _F, /) -> _F: ...
    def register_fake(self, fn: _F, /) -> _F: ...
    def register_effect(self, effect: Any) -> None: ...
    @overload
    def register_torch_dispatch(self, torch_dispatch_class: Any, fn: None = None, /) -> Callable[[_F], _F]: ...
    @overload
    def register_torch_dispatch(self, torch_dispatch_class: Any, fn: _F, /) -> _F: ...
    def register_autograd(
        self, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None
    ) -> None: ...
    @overload
    def register_vmap(self, func: None = None) -> Callable[[_F], _F]: ...
    @overload
    def register_vmap(self, func: _F) -> _F: ...
    def register_autocast(self, device_type: str, cast_inputs: torch.dtype) -> Callable[..., Any]: ...

OPDEFS: Any

def increment_version(val: Any) -> None: ...
def _maybe_get_opdef(op: Any) -> CustomOpDef | None: ...
