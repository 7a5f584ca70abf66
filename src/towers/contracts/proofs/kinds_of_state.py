"""How each kind of thing that code can write to is read, compared and written: containers, attributes, tensors."""

import pickle
import random
import sys
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from io import IOBase
from operator import eq, is_
from types import CellType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from towers.contracts.proofs.reached import (
    ABSENT,
    Names,
    attributes,
    content,
    followed,
    has_attributes,
    in_slot,
    kind_of,
    slots,
)

Read = Callable[[], Any]
Same = Callable[[Any, Any], Any]
Write = Callable[[Any], Any]


class Way(NamedTuple):
    """How something is read, compared with what was read earlier, and written; `slow`: what is not asked often."""

    read: Read
    same: Same
    write: Write
    slow: bool = False


LARGE = 10_000
"""A container with more items is slow to compare."""


def ways(value: Any) -> Iterator[Way]:
    """All that code can write to in a value, but for the numbers of a tensor and the results that a function keeps."""
    kind = kind_of(value)
    if kind is Names:
        yield Way(value.bound, _same_items, value.bind)
    elif issubclass(kind, type) and followed(value.__module__):
        yield Way(partial(_attributes_of, value), _same_items, partial(_write_attributes, value))
    elif issubclass(kind, CellType):
        yield Way(partial(content, value), is_, partial(_write_content, value))
    elif issubclass(kind, Tensor):
        yield Way(partial(_flags, value), _same_flags, partial(_write_flags, value, value.detach()), slow=True)
    elif issubclass(kind, dict):
        yield Way(partial(_read_items, value), _same_items, partial(write_items, value), len(value) > LARGE)
    elif issubclass(kind, (list, set, deque)):
        write = _write_list if issubclass(kind, list) else _write_set if issubclass(kind, set) else _write_deque
        yield Way(partial(_read_items, value), _same_each, partial(write, value), len(value) > LARGE)
    else:
        yield from _others(value)
    if has_attributes(kind_of(value)):
        held = attributes(value)
        if held is not None:
            yield Way(partial(dict[str, Any], held), _same_items, partial(write_items, held))
        for slot in slots(kind_of(value)):
            yield Way(partial(in_slot, slot, value), is_, partial(_write_slot, slot, value))


# Containers. What is compared is whether the same objects stand at the same places: `==` is code of the user's.


def _read_items(held: Any) -> Any:
    if isinstance(held, OrderedDict):
        return dict(cast(Any, OrderedDict).items(held))
    if isinstance(held, dict):
        return cast(Any, dict).copy(held)
    return cast(Any, set if isinstance(held, set) else list)(held)


def _same_items(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    return _same_each(now, before) and all(map(is_, now.values(), before.values()))


def _same_each(now: Any, before: Any) -> bool:
    if isinstance(now, set):
        return now == before
    return len(now) == len(before) and all(map(is_, now, before))


def write_items(held: Any, before: dict[Any, Any]) -> None:
    """Write the keys that differ; all of them if their order does, or if one has no hash."""
    kind: Any = OrderedDict if isinstance(held, OrderedDict) else dict
    now = _read_items(held)
    try:
        for key in now.keys() - before.keys():
            kind.__delitem__(held, key)
        for key, value in before.items():
            if now.get(key, ABSENT) is not value:
                kind.__setitem__(held, key, value)
        if _same_each(_read_items(held), before):
            return
    except Exception:  # a key's own `==` or hash
        pass
    kind.clear(held)
    for key, value in before.items():
        kind.__setitem__(held, key, value)


def _write_list(held: list[Any], before: list[Any]) -> None:
    list[Any].__setitem__(held, slice(None), before)


def _write_set(held: set[Any], before: set[Any]) -> None:
    set[Any].difference_update(held, set(held) - before)
    set[Any].update(held, before)


def _write_deque(held: deque[Any], before: list[Any]) -> None:
    deque[Any].clear(held)
    deque[Any].extend(held, before)


# Attributes and variables.


def _attributes_of(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("__")}


def _write_attributes(kind: type, before: dict[str, Any]) -> None:
    now = _attributes_of(kind)
    for name in now.keys() - before.keys():
        type.__delattr__(kind, name)
    for name, value in before.items():
        if now.get(name, ABSENT) is not value:
            type.__setattr__(kind, name, value)


def _write_content(cell: CellType, before: Any) -> None:
    if before is ABSENT:
        del cell.cell_contents
    else:
        cell.cell_contents = before


def _write_slot(slot: Any, value: Any, before: Any) -> None:
    slot.__delete__(value) if before is ABSENT else slot.__set__(value, before)


# Tensors.


def version(tensor: Tensor) -> int:
    """How often a tensor was written in place; -1 where torch does not count."""
    return -1 if tensor.is_inference() else tensor._version


def _flags(tensor: Tensor) -> tuple[Any, ...]:
    strided = tensor.layout is torch.strided and not tensor.is_nested
    place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if strided else None
    return version(tensor), place, tensor.requires_grad, tensor.grad if tensor.is_leaf else None


def _same_flags(now: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    return now[:-1] == before[:-1] and now[-1] is before[-1]


def _write_flags(tensor: Tensor, same: Tensor, before: tuple[Any, ...]) -> None:
    """`same` shares the memory that the tensor had."""
    version, place, requires_grad, grad = before
    if _flags(tensor)[1] != place:
        tensor.data = same
    if tensor.is_leaf:
        tensor.requires_grad, tensor.grad = requires_grad, grad
    if version >= 0:
        torch._C._autograd._unsafe_set_version_counter((tensor,), (version,))  # pyright: ignore


def same_bytes(now: torch.UntypedStorage, before: torch.UntypedStorage) -> bool:
    """Whether two pieces of memory hold the same."""
    one, other = (torch.empty(0, dtype=torch.uint8, device=each.device).set_(each) for each in (now, before))
    return torch.equal(one, other)


# Other things with a state, and those that cannot be put back.


def _others(value: Any) -> Iterator[Way]:
    if isinstance(value, torch.Generator):
        yield Way(value.get_state, torch.equal, value.set_state, slow=True)
    elif isinstance(value, random.Random):
        yield Way(value.getstate, eq, value.setstate, slow=True)
    elif isinstance(value, (bytearray, array)):
        held: Any = cast(Any, value)
        yield Way(lambda: held[:], eq, partial(held.__setitem__, slice(None)), slow=True)
    elif (way := _of_numpy(value)) is not None:
        yield way
    elif (told := _told_by(value)) is not None:
        yield Way(told, eq, cannot, slow=True)


def _of_numpy(value: Any) -> Way | None:
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.ndarray):
        return Way(value.copy, _same_bytes_of_arrays, partial(value.__setitem__, ...), slow=True)
    if isinstance(value, numpy.random.RandomState):
        return Way(value.get_state, _same_pickled, value.set_state, slow=True)
    if isinstance(value, numpy.random.Generator):
        bits: Any = value.bit_generator
        return Way(lambda: bits.state, _same_pickled, partial(setattr, bits, "state"), slow=True)
    return None


def _same_bytes_of_arrays(now: Any, before: Any) -> bool:
    return now.tobytes() == before.tobytes()


def _same_pickled(now: Any, before: Any) -> bool:
    return pickle.dumps(now) == pickle.dumps(before)


_ELSEWHERE = {"socket", "sqlite3", "subprocess", "mmap", "multiprocessing"}
"""Modules whose objects change what lies outside of this process, or are written from there."""

_VALUES = (int, float, str, bytes, tuple, Enum)


def _told_by(value: Any) -> Read | None:
    """What tells whether something that cannot be put back has changed; None where nothing can change."""
    kind = kind_of(value)
    if issubclass(kind, IOBase):
        return partial(_position, value)
    if hasattr(kind, "__next__"):
        return partial(repr, value) if kind.__module__ == "itertools" else object
    if kind.__module__.partition(".")[0] in _ELSEWHERE:
        return object
    of_c = attributes(value) is None and not any("__slots__" in vars(base) for base in kind.__mro__)
    return object if of_c and followed(kind.__module__) and not issubclass(kind, _VALUES) else None


def _position(file: IOBase) -> Any:
    try:
        return file.closed or file.tell()
    except OSError:  # a pipe or a terminal
        return object()


def cannot(before: Any) -> None:
    """In place of writing what cannot be written.

    Raises:
        TypeError: always.
    """
    raise TypeError


def with_article(kind: Any) -> str:
    """What a thing is called: "a file", "an itertools.count"."""
    if issubclass(kind, IOBase):
        return "a file"
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"
