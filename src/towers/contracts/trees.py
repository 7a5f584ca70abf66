"""`PyTree[X]`: an X, or lists, tuples, dicts and dataclasses of them, nested in any way."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

import torch
from torch.utils._pytree import SUPPORTED_NODES

from towers.contracts.layouts import has_layout
from towers.contracts.specs import Alternative, KeyedSpec, PlainSpec, Spec, TensorSpec, TreeSpec, TupleSpec

T = TypeVar("T")

if TYPE_CHECKING:
    PyTree: TypeAlias = T | Any
else:

    class PyTree(Generic[T]):
        """An annotation: every leaf of the argument is a T, such as `PyTree[Float[Tensor, "batch _"]]`.

        The argument is a T itself, or a list, a tuple, a dict, a dataclass or another node of torch's pytree, whose
        items are such trees again. All leaves are checked, and share the axis names of the call. None is a leaf.

        >>> import torch
        >>> from jaxtyping import Float
        >>> from towers.contracts import PyTree, contract
        >>> @contract
        ... def batch_size(inputs: PyTree[Float[torch.Tensor, "batch ..."]]) -> int: return len(inputs["a"])
        >>> batch_size({"a": torch.zeros(3, 2), "b": [torch.zeros(3), torch.zeros(3, 4, 5)]})
        3
        """


def is_kind(value: object, option: Alternative) -> bool:
    """Whether a value is of the type that an alternative names."""
    if isinstance(option, TensorSpec):
        return isinstance(value, option.carriers) and has_layout(value)
    if isinstance(option, TupleSpec):
        return isinstance(value, tuple) and option.takes_count(len(cast(tuple[object, ...], value)))
    if isinstance(option, PlainSpec):
        return option.takes(value) and option.traceable(value)  # beartype looks at one item of a list, by chance
    if isinstance(option, TreeSpec):
        return True
    return isinstance(value, dict if isinstance(option, KeyedSpec) else option.kind)


def tree_leaves(value: Any, leaf: Spec, place: str = "") -> list[tuple[str, Any]]:
    """The leaves of a tree with their places, such as `x['a'][0]`; what is of a leaf's type is one."""
    inside = None if any(is_kind(value, option) for option in leaf) else _children(value)
    if inside is None:
        return [(place, value)]
    return [found for name, item in inside for found in tree_leaves(item, leaf, place + name)]


def _children(value: Any) -> Sequence[tuple[str, Any]] | None:
    if isinstance(value, dict):
        return [(f"[{key!r}]", item) for key, item in cast(dict[Any, Any], value).items()]
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return [(f"[{at}]", item) for at, item in enumerate(cast(Sequence[Any], value))]
    if isinstance(value, (torch.Tensor, str, int, float, type(None))):
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value)]
    node = SUPPORTED_NODES.get(cast(type, type(value)))
    return None if node is None else [(f"[{at}]", item) for at, item in enumerate(node.flatten_fn(value)[0])]
