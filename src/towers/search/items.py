"""The items of an index as the scan reads them: sixteen side by side, "blocks dense 16", and boxes of them."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from towers.freed_memory import give_memory_back
from towers.kernels.cpu import topk_call
from towers.kernels.cpu.topk_call import BLOCK, Boxes
from towers.search.axes import read_of
from towers.search.boxes import boxes_of, chosen_axes
from towers.search.compared import AnyHead
from towers.search.head import Head
from towers.search.mapped_file import MappedFile

FEWEST = 8192
"""Up to this number of items, all are compared: a walk over their boxes costs more than it saves."""
RETURNED = 1 << 19
"""Items after whose copy the memory that they took is given back to the system."""
TURNED = 1 << 10
"""Blocks that are turned at a time."""

Rows = tuple[Tensor, Tensor | range]
"""Rows of items, "count dense", and their ids, "count" int64, or a range."""


class OnDevice(NamedTuple):
    """A copy of the items on a GPU, in the order of their ids: tiles, as its kernel reads them, and ids."""

    tiles: Tensor
    ids: Tensor


@dataclass(frozen=True)
class Items:
    """Items in blocks of 16; the places after the last item are +inf.

    blocks: "blocks dense 16", the rows of the items (see `Head`).
    ids: "count" int64, the id of the item at each place.
    largest: an upper bound of the absolute values of the rows.
    boxes: what is known about each 128 items, for upper bounds of their scores; None where no query walks over them.
    pace: nanoseconds of a pair where queries meet all items, measured where there are boxes.
    source: the file in which they lie; None: they lie in memory.
    copies: those on GPUs that have searched.
    """

    blocks: Tensor
    ids: Tensor
    largest: float
    boxes: Boxes | None = None
    pace: float = math.inf
    source: MappedFile | None = None
    copies: dict[torch.device, OnDevice] = field(default_factory=dict[torch.device, OnDevice], init=False, repr=False)

    def __len__(self) -> int:
        return self.ids.shape[0]

    def verify(self) -> None:
        """Before all items are read: compare their file with its checksums, if that was not done before.

        Raises:
            ValueError: it is damaged.
        """
        if self.source is not None:
            self.source.verify()

    @cached_property
    def order(self) -> Tensor:
        """The places of the items in the order of their ids."""
        return self.ids.argsort()

    def rows(self, first: int, last: int) -> Tensor:
        """The rows of the items from one place to another, "last-first dense"."""
        start = first // BLOCK
        blocks = self.blocks[start : -(-last // BLOCK)]
        return blocks.transpose(1, 2).flatten(0, 1)[first - start * BLOCK : last - start * BLOCK]

    def parts(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows and the ids of some items at a time, from the last to the first."""
        for first in reversed(range(0, len(self), size)):
            last = min(first + size, len(self))
            yield self.rows(first, last), self.ids[first:last]

    def rows_at(self, places: Tensor) -> Tensor:
        """The rows of the items at these places, "places dense"."""
        return self.blocks[places // BLOCK, :, places % BLOCK]

    def places(self, ids: Tensor) -> Tensor:
        """The places of the items with these ids; -1 for an id that no item has."""
        if not len(self):
            return torch.full_like(ids, -1)
        at = torch.searchsorted(self.ids, ids, sorter=self.order).clamp(max=len(self) - 1)
        places = self.order[at]
        return torch.where(self.ids[places] == ids, places, -1)


def lay_out(parts: Iterable[Rows], count: int, head: AnyHead, *, axes: Tensor | None = None) -> Items:
    """`count` items of some parts; with C code in an order that makes boxes small, unless they have it.

    Each part is copied before the next is asked for, and all else is done in place. Memory holds what is laid out and
    at most one part more; or, while the order is looked for, its 4 bytes and a number more for each item, but no ids
    where all are ranges. Only a `Head` has boxes.

    Args:
        parts: from the last to the first: what was allocated last is what the system takes back first.
        count: their items.
        head: made the rows.
        axes: of the boxes in whose order the items are; None: they have no such order.
    """
    blocks = torch.empty(-(-count // BLOCK), head.dense, BLOCK, dtype=head.dtype)
    filled = blocks.view(-1, head.dense)  # rows, until they are turned
    ids, last, returned = torch.empty(0, dtype=torch.int64), count, count
    ranges = list[tuple[int, range]]()  # where they begin: they are written when the order is known
    some, own = None, None
    for some, own in parts:
        last -= len(own)
        filled[last : last + len(own)] = some
        if isinstance(own, range):
            ranges.append((last, own))
        else:
            ids.resize_(count)[last : last + len(own)] = own
        if returned - last >= RETURNED:
            returned, some, own = last, None, None
            give_memory_back()
    del some, own  # the last part is not held while items change places
    filled[count:] = math.inf
    rows, boxes, pace = filled[:count], None, math.inf
    largest = max(float(bound.abs()) for bound in rows.aminmax()) if rows.numel() else 0.0
    order = None
    if not (isinstance(head, Head) and FEWEST < count < topk_call.MANY and topk_call.serves(rows.dtype)):
        axes = None
    elif axes is None:
        axes = chosen_axes(rows, head)
        if count >= RETURNED:
            give_memory_back()
        order = topk_call.order(rows, read_of(axes, head).T)
    ids.resize_(count)
    for first, own in ranges:
        torch.arange(own.start, own.stop, out=ids[first : first + len(own)])
    if order is not None:
        topk_call.move(rows, ids, order)
        del order
    if isinstance(head, Head) and axes is not None:
        boxes = boxes_of(rows, head, axes)
    _turn(blocks)
    if count >= RETURNED:
        give_memory_back()
    if isinstance(head, Head) and boxes is not None:
        pace = topk_call.pace(head.weights, head.offset, blocks)
    return Items(blocks, ids, largest, boxes, pace)


def _turn(blocks: Tensor) -> None:
    """What lies in blocks as rows, "16 dense" each, becomes "dense 16", some blocks at a time."""
    count, dense, _ = blocks.shape
    for first in range(0, count, TURNED):
        some = blocks[first : first + TURNED]
        some.copy_(some.view(-1, BLOCK, dense).transpose(1, 2).clone(memory_format=torch.contiguous_format))
