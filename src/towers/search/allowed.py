"""Which items are meant: ids in any form, and what `exclude` and `filter` of a search mean."""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from numbers import Real
from operator import index
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, cast, runtime_checkable

import torch
from torch import Tensor

from towers.search.items import Items


@runtime_checkable
class Array(Protocol):
    """An array of NumPy, or what becomes one."""

    def __array__(self) -> Any:
        """The array of NumPy."""
        ...


if TYPE_CHECKING:
    Ids = Tensor | Array | Collection[SupportsIndex]
    ListedIds = Array | Sequence[SupportsIndex]
    Exclude = Ids | Sequence[Ids] | SupportsIndex
else:  # a contract lets all pass, since `ids_of` says in one line what is wrong with an entry
    Ids = Exclude = object
    """Ids: a one-dimensional tensor or array of integers, or a set, list or tuple of ints. Exclude: ids for all
    queries, or one id; or a list or tuple of ids, one entry for each query; or a tensor "queries excluded"."""

    class _NoTensor(type):
        def __instancecheck__(cls, value: object) -> bool:
            return not isinstance(value, Tensor)

    class ListedIds(metaclass=_NoTensor):
        """An array of integers, or a list, tuple or range: in an order, and no tensor, whose annotation says more."""


LARGEST = (1 << 63) - 2
"""The largest id; the number after it says that there is none."""


@dataclass(frozen=True)
class Allowed:
    """keep: "count" bool, of each place; None: all. Of the excluded pairs, sorted by query and then by place: the
    places, and for each query where its own begin, "queries+1"; None: no pair."""

    keep: Tensor | None = None
    places: Tensor | None = None
    offsets: Tensor | None = None

    def of(self, first: int, last: int) -> "Allowed":
        """For some of the queries."""
        if self.places is None or self.offsets is None:
            return self
        start, end = int(self.offsets[first]), int(self.offsets[last])
        return Allowed(self.keep, self.places[start:end], self.offsets[first : last + 1] - start)

    def left(self, count: int) -> tuple[int, int | None]:
        """The fewest of `count` items that a query may find, and which query that is; None: all queries alike."""
        kept = count if self.keep is None else int(self.keep.sum())
        if self.places is None or self.offsets is None or len(self.offsets) < 2:
            return kept, None
        lost = torch.ones_like(self.places) if self.keep is None else self.keep[self.places].long()
        sums = torch.cat([lost.new_zeros(1), lost.cumsum(0)])[self.offsets]
        most, query = sums.diff().max(0)
        return kept - int(most), int(query)


def allowed(items: Items, queries: int, exclude: Exclude | None, filter: Ids | None) -> Allowed:
    """What `Index.search` means by these arguments.

    Raises:
        ValueError: an argument is of another form than `Index.search` says.
    """
    keep = None if filter is None else _kept(items, _no_array("Index.search", "filter", filter))
    if exclude is None:
        return Allowed(keep)
    given = _no_array("Index.search", "exclude", exclude)
    if _for_each(given):
        entries = cast(Sequence[Ids], given)
        if len(entries) != queries:
            raise ValueError(f"Index.search: exclude has ids for {len(entries)} queries; there are {queries}")
        return _pairs(items, keep, [ids_of("Index.search", "exclude", entry) for entry in entries])
    places = items.places(one_or_more("Index.search", "exclude", given))
    keep = torch.ones(len(items), dtype=torch.bool) if keep is None else keep
    keep[places[places >= 0]] = False
    return Allowed(keep)


def _for_each(exclude: object) -> bool:
    if isinstance(exclude, Tensor):
        return exclude.dim() == 2
    if not isinstance(exclude, Collection) or isinstance(exclude, (str, bytes)):
        return False
    if isinstance(exclude, Mapping):
        raise ValueError("Index.search: exclude is a dict; expected ids, or a list with the ids of each query")
    entries = list(cast(Collection[object], exclude))
    return bool(entries) and not any(_is_id(entry) or isinstance(entry, Real) for entry in entries)


def _is_id(entry: object) -> bool:
    """Whether it is one id; a tensor and an array can be an index too."""
    return isinstance(entry, SupportsIndex) and not isinstance(entry, (bool, Collection))


def _no_array(call: str, name: str, given: Any) -> Any:
    """A tensor in place of an array."""
    if isinstance(given, Tensor) or not isinstance(given, Array):
        return given
    if hasattr(given, "compressed"):
        raise ValueError(f"{call}: {name} is a masked array; {name}.compressed() has what is not masked")
    array = given.__array__()
    try:  # a tensor takes no negative strides and no foreign order of bytes, and warns of what is read-only
        return torch.as_tensor(array.astype(array.dtype.newbyteorder("=")))
    except TypeError:
        problem = f"{name} is an array of {array.dtype}; expected ids, one integer each"
        raise ValueError(f"{call}: {problem}") from None


def _kept(items: Items, filter: Ids) -> Tensor:
    if isinstance(filter, Tensor) and filter.dtype == torch.bool:
        largest = int(items.ids.max()) if len(items) else -1
        if filter.dim() != 1 or len(filter) <= largest:
            raise ValueError(
                f"Index.search: filter is a mask {tuple(filter.shape)}; expected one entry for each id, 0 to {largest}"
            )
        return filter.cpu()[items.ids]
    places = items.places(ids_of("Index.search", "filter", filter))
    keep = torch.zeros(len(items), dtype=torch.bool)
    keep[places[places >= 0]] = True
    return keep


def _pairs(items: Items, keep: Tensor | None, entries: list[Tensor]) -> Allowed:
    every = [places[places >= 0].unique() for places in map(items.places, entries)]
    sizes = torch.tensor([0, *map(len, every)], dtype=torch.int64)
    places = torch.cat([torch.empty(0, dtype=torch.int64), *every])
    return Allowed(keep, places, sizes.cumsum(0))


def one_or_more(call: str, name: str, given: object) -> Tensor:
    """As `ids_of`; one id is given alone too."""
    given = _no_array(call, name, given)
    if isinstance(given, Tensor):
        return ids_of(call, name, given if given.dim() else given.unsqueeze(0))
    listed = cast(Collection[object], given) if isinstance(given, Collection) else [given]
    return ids_of(call, name, listed)


def in_order(call: str, name: str, given: object) -> Tensor:
    """As `ids_of`, of what has an order."""
    if isinstance(given, Set):
        raise ValueError(f"{call}: {name} is a set, without an order; expected one id for each item, as in a list")
    return ids_of(call, name, given)


def ids_of(call: str, name: str, given: object) -> Tensor:
    """The ids that the argument `name` of a `call` has, "ids" int64. A number that no id can be becomes another one.

    Raises:
        ValueError: it has something else.
    """
    given = _no_array(call, name, given)
    if isinstance(given, Tensor):
        if given.dtype == torch.uint8:
            raise ValueError(f"{call}: {name} is torch.uint8: .bool() makes a mask of it, and .long() ids")
        if given.dim() != 1 or given.dtype == torch.bool or given.is_floating_point() or given.is_complex():
            raise ValueError(f"{call}: {name} is {given.dtype} {tuple(given.shape)}; expected ids, one integer each")
        return given.detach().to("cpu", torch.int64)
    if not isinstance(given, Collection) or isinstance(given, (str, bytes, Mapping)):
        raise ValueError(f"{call}: {name} has {given!r:.60}; expected ids: ints in a list, array or tensor")
    entries = list(cast(Collection[SupportsIndex], given))
    if wrong := [entry for entry in entries if type(entry) is not int and not _is_id(entry)]:
        raise ValueError(f"{call}: {name} has {wrong[0]!r}; expected ids, which are ints")
    numbers = map(index, entries)
    return torch.tensor([max(-LARGEST, min(number, LARGEST + 1)) for number in numbers], dtype=torch.int64)
