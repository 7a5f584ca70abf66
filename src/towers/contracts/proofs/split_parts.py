"""What torch.split and torch.unbind give of an axis whose size is a symbol: tuples whose items are not counted.

Torch turns the number of items, and with it the size of the axis, into a Python int. As in `layer_rules`, the first
argument of a rule is the symbols of the run.
"""

import dis
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from types import CodeType
from typing import Any, cast

import torch
from torch import SymInt, Tensor

from towers.contracts.proofs import axis_rules
from towers.contracts.proofs.fast_meta import lying, made, part_of, plain, with_gaps
from towers.contracts.proofs.symbols import Symbols

MOST_ASKED = 8
"""Whoever counts the items is told up to this number by questions; with more the size of the axis becomes an int."""


@dataclass(frozen=True)
class Run:
    """Neighbouring pieces of a tensor along an axis: of one size but for the last, or without that axis."""

    input: Tensor
    dim: int
    size: int | SymInt
    """Of a piece along the axis."""
    bound: bool = True
    """Whether a piece keeps the axis."""
    first: int = 0
    """The number of pieces that are left out before them."""
    without: int = 0
    """The number of pieces that are left out after them."""

    @property
    def whole(self) -> Any:
        """The size of the axis."""
        return self.input.shape[self.dim]

    @property
    def count(self) -> Any:
        """The number of all pieces, those included that are left out."""
        return self.whole if type(self.size) is int and self.size == 1 else (self.whole + self.size - 1) // self.size

    def has(self, place: int) -> bool:
        """Whether there is a piece at a place, asked without a quotient."""
        return bool((self.first + place + self.without) * self.size < self.whole)

    def piece(self, place: int) -> Tensor:
        """The piece at a place, which there is."""
        start = (self.first + place) * self.size
        full = self.without > 0 or (type(self.size) is int and self.size == 1) or start + self.size <= self.whole
        return self._cut(start, self.size if full else self.whole - start)

    def from_end(self, place: int) -> Tensor:
        """The last piece for 1, the one before it for 2; there is one."""
        start = (self.count - self.without - place) * self.size
        return self._cut(start, self.size if self.without + place > 1 else self.whole - start)

    def span(self) -> Tensor:
        """All of them as one part of the tensor; there is at least one."""
        end = (self.count - self.without) * self.size if self.without else self.whole
        return self._part(self.first * self.size, end - self.first * self.size)

    def widened(self, dim: int) -> Tensor:
        """A tensor that lies as a piece, and whose size at an axis is that of all pieces together.

        Raises:
            RuntimeError: the last one is smaller than the others.
        """
        if not self.has(1):
            return self.piece(0)
        if not self.without and self.bound and self.whole % self.size != 0:
            sizes = list(self.piece(0).shape), list(self.from_end(1).shape)
            raise RuntimeError(f"the parts must have equal sizes to be joined, but they have {sizes[0]} and {sizes[1]}")
        piece = self._cut(self.first * self.size, self.size)
        shape = list(piece.shape)
        shape[dim] = shape[dim] * (self.count - self.first - self.without)
        return made(shape, piece.dtype, lying(piece))

    def shape(self) -> torch.Size:
        """The shape of a piece, as it is told."""
        sizes: list[Any] = list(self.input.shape)
        sizes[self.dim : self.dim + 1] = [self.size] if self.bound else []
        return torch.Size(sizes)

    def all(self) -> Sequence[Tensor]:
        """All of them; the size of the axis becomes an int."""
        count = -(-_one_by_one(self.whole) // _one_by_one(self.size))
        return [self.piece(place) for place in range(count - self.first - self.without)]

    def _cut(self, start: Any, length: Any) -> Tensor:
        part = self._part(start, length)
        if self.bound:
            return part
        order = lying(self.input)
        rest = None if order is None else tuple(axis - (axis > self.dim) for axis in order if axis != self.dim)
        return with_gaps(part.squeeze(self.dim), rest)

    def _part(self, start: Any, length: Any) -> Tensor:
        return part_of(self.input.narrow(self.dim, start, length), self.input)


Item = Tensor | Run


class Parts(tuple[Any, ...]):
    """Tensors and runs of pieces, one after the other; for C it is an empty tuple, so torch never gets one."""

    items: tuple[Item, ...]

    def __new__(cls, items: Sequence[Item]) -> "Parts":
        """The parts of these items."""
        made = super().__new__(cls)
        made.items = tuple(items)
        return made

    def tensors(self) -> list[Tensor]:
        """What they are made of, without a question."""
        return [item if isinstance(item, Tensor) else item.input for item in self.items]

    def shapes(self) -> list[torch.Size]:
        """The shape of each tensor, and of one piece of each run."""
        return [item.shape if isinstance(item, Tensor) else item.shape() for item in self.items]

    def count_all(self) -> Any:
        """The number of all tensors, which may be a symbol."""
        counts = [1 if isinstance(item, Tensor) else item.count - item.first - item.without for item in self.items]
        return sum(counts)

    def __iter__(self) -> Iterator[Any]:
        frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        ends = _unread(frame.f_code).get(frame.f_lasti)
        return self._each() if ends is None else self._ends(*ends)

    def _ends(self, before: int, after: int) -> Iterator[Any]:
        """The first items, and the last ones if there are others for them."""
        first = list(islice(self._each(), before))
        enough = len(first) == before and len(list(islice(self._each(), before + after))) == before + after
        if not enough and after:
            return islice(self._each(), before + after)
        return iter([*first, *(self[place] for place in range(-after, 0))])

    def _each(self) -> Iterator[Any]:
        for item in self.items:
            if isinstance(item, Tensor):
                yield item
                continue
            place = 0
            while place < MOST_ASKED and item.has(place):
                yield item.piece(place)
                place += 1
            if place == MOST_ASKED:
                yield from item.all()[place:]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(isinstance(item, Tensor) or item.has(0) for item in self.items)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return self._slice(cast(Any, place))
        if type(place) is not int:
            return tuple(self)[place]
        back, items = place < 0, list(self.items)
        steps = -place - 1 if back else place
        for item in reversed(items) if back else items:
            if isinstance(item, Run):
                if item.has(steps):
                    return item.from_end(steps + 1) if back else item.piece(steps)
                return tuple(self)[place]
            if steps == 0:
                return item
            steps -= 1
        raise IndexError("tuple index out of range")

    def _slice(self, place: slice) -> Any:
        start, stop = place.start or 0, place.stop
        [run, *more] = self.items
        if more or isinstance(run, Tensor) or place.step not in (None, 1):
            return tuple(self)[place]
        if type(start) is not int or type(stop) not in (int, type(None)):
            return tuple(self)[place]
        if start < 0:
            few = run.has(-start - 1) and (stop is None or stop < 0)
            return tuple(self[at] for at in range(start, stop or 0)) if few else tuple(self)[place]
        if stop is not None and stop >= 0:
            return tuple(run.piece(at) for at in range(start, stop) if run.has(at))
        left = replace(run, first=run.first + start, without=run.without - (stop or 0))
        return Parts([left]) if left.has(0) else ()

    def __add__(self, other: Any) -> Any:
        return Parts([*self.items, *_items(cast(Any, other))]) if isinstance(other, tuple) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        return Parts([*_items(cast(Any, other)), *self.items]) if isinstance(other, tuple) else NotImplemented

    def __mul__(self, times: Any) -> Any:
        return Parts(self.items * times) if type(times) is int else tuple(self) * times

    __rmul__ = __mul__

    def __contains__(self, value: object) -> bool:
        return value in tuple(self)

    def __eq__(self, other: object) -> bool:
        return self is other or tuple(self) == (tuple(cast(Any, other)) if isinstance(other, Parts) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return repr(tuple(self))

    def index(self, *how: Any) -> int:
        """As of any tuple."""
        return tuple(self).index(*how)

    def count(self, value: Any) -> int:
        """As of any tuple."""
        return tuple(self).count(value)


def _one_by_one(size: Any) -> int:
    """A size as an int, with the reason told to whoever asks where it was made one."""
    if not isinstance(size, SymInt):
        return int(size)
    symbols: Any = size.node.shape_env
    before = symbols.locate
    symbols.locate = lambda: f"{before()}, where pieces of a tensor are taken one by one"
    try:
        return int(size)
    finally:
        symbols.locate = before


@cache
def _unread(code: CodeType) -> dict[int, tuple[int, int]]:
    """The places of `first, *rest, last = …` where nothing reads `rest`, with the number of names before and after."""
    if code.co_flags & inspect.CO_GENERATOR or "locals" in code.co_names:
        return {}
    steps = list(dis.get_instructions(code))
    read = {name for step in steps if "LOAD" in step.opname or "DELETE" in step.opname for name in _names(step)}
    found: dict[int, tuple[int, int]] = {}
    for at, step in enumerate(steps):
        if step.opname == "UNPACK_EX" and step.arg is not None:
            before, after = step.arg % 256, step.arg // 256
            stored = [name for each in steps[at + 1 : at + 2 + before] for name in _stored(each)]
            if stored[before] not in {None, *read}:
                found[step.offset] = before, after
    return found


def _names(step: dis.Instruction) -> tuple[Any, ...]:
    value = cast(object, step.argval)
    return cast(Any, value) if isinstance(value, tuple) else (value,)


def _stored(step: dis.Instruction) -> tuple[Any, ...]:
    """The local variables that one step of code stores into; None where it stores elsewhere."""
    plain = step.opname in ("STORE_FAST", "STORE_FAST_STORE_FAST")
    return _names(step) if plain else (None,)


def _items(parts: tuple[Any, ...]) -> tuple[Item, ...]:
    return parts.items if isinstance(parts, Parts) else parts


# The rules.


def split(symbols: Symbols, input: Tensor, split_size: Any = None, dim: Any = 0, **options: Any) -> Any:
    """torch.split and Tensor.split into pieces of one size, of an axis whose size is a symbol."""
    split_size = options.pop("split_size_or_sections", split_size)
    if options or not plain(input) or type(dim) is not int or not -input.dim() <= dim < input.dim():
        return NotImplemented
    symbolic = any(isinstance(size, SymInt) for size in (input.shape[dim], split_size))
    if symbolic and isinstance(split_size, (int, SymInt)) and split_size > 0:
        return _parts(symbols, Run(input, dim % input.dim(), split_size))
    return tuple(part_of(part, input) for part in torch.functional._VF.split(input, split_size, dim))  # pyright: ignore


def unbind(symbols: Symbols, input: Any, dim: Any = 0) -> Any:
    """torch.unbind along an axis whose size is a symbol, or along the first one."""
    known = plain(input) and type(dim) is int and -input.dim() <= dim < input.dim()
    if known and isinstance(input.shape[dim], SymInt):
        return _parts(symbols, Run(input, dim % input.dim(), 1, bound=False))
    return axis_rules.unbind(symbols, input, dim)


def _parts(symbols: Symbols, run: Run) -> Any:
    """An empty axis has one empty piece, and without the axis none."""
    if symbols.from_on(run.whole, 1) or run.whole > 0:
        symbols.parted = True
        return Parts([run])
    return (run.input,) if run.bound else ()


def joined(symbols: Symbols, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Any function of torch that is called with parts: some join them; the others get a tuple of all items."""
    args = list(args)
    if func in _JOINS and isinstance(given := args[0] if args else kwargs.get("tensors"), Parts):
        dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
        tensors = _JOINS[func](given, dim) if type(dim) is int and len(args) < 3 and "out" not in kwargs else None
        if tensors is not None:
            return torch.cat(*tensors)
    args = [tuple(each) if isinstance(each, Parts) else each for each in args]
    return func(*args, **{name: tuple(each) if isinstance(each, Parts) else each for name, each in kwargs.items()})


def any_parts(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether there are parts among the arguments."""
    return any(isinstance(each, Parts) for each in (*args, *kwargs.values()))


Joined = tuple[list[Tensor], int] | None
"""What torch.cat makes the result of; None where it is not known."""


def _cat(parts: Parts, dim: int) -> Joined:
    rank = _rank(parts)
    if not -rank <= dim < rank:
        return None
    dim %= rank
    tensors = [
        each if isinstance(each, Tensor) else each.span() if each.bound and each.dim == dim else _wide(each, dim)
        for each in parts.items
    ]
    return (cast(Any, tensors), dim) if all(each is not None for each in tensors) else None


def _wide(run: Run, dim: int) -> Tensor | None:
    tensor = run.widened(dim)
    return None if lying(tensor) is None else tensor


def _stack(parts: Parts, dim: int) -> Joined:
    rank = _rank(parts) + 1
    if not -rank <= dim < rank:
        return None
    dim %= rank
    ones = [each if isinstance(each, Tensor) else each.piece(0) for each in parts.items]
    shapes = [list(one.shape) for one in ones]
    tensors: list[Any] = []
    for each, one, shape in zip(parts.items, ones, shapes, strict=True):
        if isinstance(each, Tensor) or not each.has(1):
            tensors.append(one.unsqueeze(dim))
            continue
        each.widened(0)  # all of one size
        order = lying(one)
        if order is None:
            return None
        sizes: list[Any] = list(shape)
        sizes.insert(dim, each.count - each.first - each.without)
        wide = made(shape, one.dtype, order).unsqueeze(dim)
        tensors.append(made(sizes, one.dtype, lying(wide)))
    for at, shape in enumerate(shapes):
        if len(shape) != len(shapes[0]) or not all(a == b for a, b in zip(shape, shapes[0], strict=True)):
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {shapes[0]} at entry 0 and {shape} at entry {at}"
            )
    return tensors, dim


def _hstack(parts: Parts, dim: int) -> Joined:
    return _cat(parts, min(1, _rank(parts) - 1))


def _vstack(parts: Parts, dim: int) -> Joined:
    return _cat(parts, 0) if _rank(parts) > 1 else _stack(parts, 0)


def _rank(parts: Parts) -> int:
    [first, *_] = parts.items
    return first.dim() if isinstance(first, Tensor) else len(first.shape())


_JOINS: dict[Any, Callable[[Parts, int], Joined]] = {
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _cat),
    torch.stack: _stack,
    torch.hstack: _hstack,
    **dict.fromkeys((torch.vstack, torch.row_stack), _vstack),
}

RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.split, Tensor.split), split),
    **dict.fromkeys((torch.unbind, Tensor.unbind), unbind),
}
