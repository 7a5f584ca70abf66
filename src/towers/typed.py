"""Borders with what is not typed: a few questions of Python's and torch's own, asked so that the answer has a type."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from typing_extensions import TypeIs

# After a plain `isinstance(value, list)` the type of the items is unknown; here they are objects.


def is_list(value: object) -> "TypeIs[list[object]]":
    """Whether a value is a list."""
    return isinstance(value, list)


def is_tuple(value: object) -> "TypeIs[tuple[object, ...]]":
    """Whether a value is a tuple."""
    return isinstance(value, tuple)


def is_items(value: object) -> "TypeIs[list[object] | tuple[object, ...]]":
    """Whether a value is a list or a tuple."""
    return isinstance(value, (list, tuple))


def is_dict(value: object) -> "TypeIs[dict[object, object]]":
    """Whether a value is a dict."""
    return isinstance(value, dict)


# What nn.Module says of itself in parts without types.


def named_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A module and all in it, each with its path."""
    untyped: Any = module
    return untyped.named_modules()


def forward_hooks(module: nn.Module) -> dict[int, Callable[..., object]]:
    """The hooks that run after a module's forward: the dict itself."""
    untyped: Any = module
    return untyped._forward_hooks


def forward_pre_hooks(module: nn.Module) -> dict[int, Callable[..., object]]:
    """The hooks that run before a module's forward: the dict itself."""
    untyped: Any = module
    return untyped._forward_pre_hooks
