"""Annotations that are no types, such as `x: torch.float32`, and what was probably meant by them."""

import types
import typing
from collections.abc import Collection
from typing import Any, LiteralString, Never, NoReturn, cast

import jaxtyping
import torch
from jaxtyping import AbstractDtype

from towers.contracts.nontensor import described, refused_by_beartype


class NoType(ValueError):
    """An annotation is no type."""


def check_type(hint: Any) -> None:
    """Refuse an annotation that is no type: beartype is asked about what looks odd.

    Raises:
        NoType: it is none.
    """
    if _is_bare(hint) or isinstance(hint, (tuple, str)) or (_is_odd(hint) and refused_by_beartype(hint)):
        meant = _meant(hint)
        raise NoType(f"{_shown(hint)} is no type{f'; perhaps {meant} is meant' if meant else ''}")


def _is_bare(hint: Any) -> bool:
    """Whether it is a dtype class of jaxtyping's without axes, which has no instances."""
    return isinstance(hint, type) and issubclass(hint, AbstractDtype)


def _is_odd(hint: Any) -> bool:
    """Whether it is not plainly a type: a value of another kind than types are, or a part of one."""
    if isinstance(hint, type) or any(hint is one for one in _PLAIN):
        return False
    odd = isinstance(hint, (_SPECIAL, typing.ParamSpec, typing.TypeVarTuple)) or typing.get_origin(hint) in _IN_CLASSES
    return odd or type(cast(object, hint)).__module__ not in ("typing", "types", "typing_extensions")


_PLAIN: tuple[Any, ...] = (None, Any, Never, NoReturn, LiteralString)
_SPECIAL: type = type(typing.ClassVar)
_IN_CLASSES = (typing.ClassVar, typing.Concatenate)


def _meant(hint: Any) -> str | None:
    """The type that was probably meant."""
    if isinstance(hint, (torch.dtype, torch.Tensor)):
        return f'{_kind_of(hint.dtype if isinstance(hint, torch.Tensor) else hint)}[Tensor, "…"]'
    if _is_bare(hint):
        return f'{hint.__name__}[Tensor, "…"]'
    if isinstance(hint, (tuple, list, set)) and hint:
        items = [_meant(item) or described(item) for item in cast(Collection[Any], hint)]
        if not isinstance(hint, tuple):
            return f"{type(cast(object, hint)).__name__}[{' | '.join(dict.fromkeys(items))}]"
        several = f"tuple[{', '.join(items)}]"
        return several if len(items) == 1 else f"{several} or {' | '.join(dict.fromkeys(items))}"
    return _NEAR.get(getattr(cast(object, hint), "__name__", ""))


_NEAR = {"any": "Any", "callable": "Callable", "array": "np.ndarray", "tensor": "Tensor"}
"""Functions whose names are nearly those of types."""


def _kind_of(dtype: torch.dtype) -> str:
    """The dtype class of jaxtyping's for a dtype of torch's: `Float32`."""
    known = (name for name, kind in vars(jaxtyping).items() if _is_bare(kind))
    return next((name for name in known if name.lower() == str(dtype).removeprefix("torch.")), "Shaped")


def _shown(hint: Any) -> str:
    if isinstance(hint, str):
        return repr(hint)
    if isinstance(hint, torch.Tensor):
        return f"a tensor of {tuple(hint.shape)}"
    if isinstance(hint, (tuple, list)):
        inside = ", ".join(map(_shown, cast(Collection[Any], hint)))
        return f"[{inside}]" if isinstance(hint, list) else f"({inside})"
    if isinstance(hint, dict):
        return f"{{{', '.join(f'{key!r}: {_shown(item)}' for key, item in cast(dict[Any, Any], hint).items())}}}"
    if isinstance(hint, types.ModuleType):
        return f"the module {hint.__name__}"
    if isinstance(hint, (types.FunctionType, types.BuiltinFunctionType)):
        return f"the function {hint.__name__}"
    text = described(hint)
    return text if len(text) <= MOST else f"{text[: MOST - 3]}..."


MOST = 80
"""Letters of a value in a message."""
