"""The items of an index as the scan reads them: sixteen side by side, "blocks dense 16", and boxes of them."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from towers.kernels.cpu import topk_call
from towers.kernels.cpu.topk_call import BLOCK, BOX


@dataclass(frozen=True)
class Items:
    """Items in blocks of 16; the places after the last item are +inf.

    blocks: "blocks dense 16", the rows of the items (see `Head`).
    ids: "count" int64, the id of the item at each place.
    largest: an upper bound of the absolute values of the rows.
    bounds: "boxes/16 dense 16", of each box of 128 items the rows' values that give the highest score, laid out like
        items (see `topk.c`); None where nothing walks through boxes.
    """

    blocks: Tensor
    ids: Tensor
    largest: float
    bounds: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        ids, places = self.ids.sort()
        return ids, places

    def rows(self, first: int, last: int) -> Tensor:
        """The rows of the items from one place to another, "last-first dense"."""
        start = first // BLOCK
        blocks = self.blocks[start : -(-last // BLOCK)]
        return blocks.transpose(1, 2).flatten(0, 1)[first - start * BLOCK : last - start * BLOCK]

    def rows_at(self, places: Tensor) -> Tensor:
        """The rows of the items at these places, "places dense"."""
        return self.blocks[places // BLOCK, :, places % BLOCK]

    def places(self, ids: Tensor) -> Tensor:
        """The places of the items with these ids; -1 for an id that no item has."""
        if not len(self):
            return torch.full_like(ids, -1)
        own, places = self._sorted
        at = torch.searchsorted(own, ids).clamp(max=len(own) - 1)
        return torch.where(own[at] == ids, places[at], -1)


def lay_out(rows: Tensor, ids: Tensor, weights: Tensor | None, *, ordered: bool = False) -> Items:
    """Items of rows "count dense"; with C code in an order that makes boxes small, unless they have it (`ordered`).

    Without `weights` there are no boxes.
    """
    bounds = None
    if weights is not None and len(rows) > BOX and topk_call.serves(rows.dtype):
        if not ordered:
            order = topk_call.order(rows, weights)
            rows, ids = rows[order], ids[order]
        bounds = _blocks(_bounds(rows, weights))
    largest = max(float(bound.abs()) for bound in rows.aminmax()) if rows.numel() else 0.0
    return Items(_blocks(rows), ids, largest, bounds)


def _blocks(rows: Tensor) -> Tensor:
    """Rows "count dense" as "blocks dense 16", filled up with +inf."""
    count, dense = rows.shape
    blocks = torch.full((-(-count // BLOCK), dense, BLOCK), math.inf, dtype=rows.dtype)
    whole = count // BLOCK
    blocks[:whole] = rows[: whole * BLOCK].view(whole, BLOCK, dense).transpose(1, 2)
    if count % BLOCK:
        blocks[whole, :, : count % BLOCK] = rows[whole * BLOCK :].T
    return blocks


def _bounds(rows: Tensor, weights: Tensor) -> Tensor:
    """Of each box, "boxes dense": a score falls with the row's value where the weight is positive, else it grows."""
    whole = len(rows) // BOX * BOX
    boxes = [rows[:whole].view(-1, BOX, rows.shape[1])]
    if whole < len(rows):
        boxes.append(rows[whole:].unsqueeze(0))
    parts = [torch.where(weights > 0, box.amin(1), box.amax(1)) for box in boxes]
    return torch.cat(parts)
