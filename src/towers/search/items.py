"""The items of an index as the scan reads them: sixteen side by side, "blocks dense 16"."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

BLOCK = 16


@dataclass(frozen=True)
class Items:
    """Items in blocks of 16; the places behind the last item are +inf.

    blocks: "blocks dense 16", the rows of the items (see `Head`).
    ids: "count" int64, the id of the item at each place.
    largest: what no value of a row exceeds in size.
    """

    blocks: Tensor
    ids: Tensor
    largest: float

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

    def places(self, ids: Tensor) -> Tensor:
        """Where the items with these ids lie; -1 of an id that no item has."""
        if not len(self):
            return torch.full_like(ids, -1)
        own, places = self._sorted
        at = torch.searchsorted(own, ids).clamp(max=len(own) - 1)
        return torch.where(own[at] == ids, places[at], -1)


def lay_out(rows: Tensor, ids: Tensor) -> Items:
    """Items of rows "count dense"."""
    count, dense = rows.shape
    blocks = torch.full((-(-count // BLOCK), dense, BLOCK), math.inf, dtype=rows.dtype)
    whole = count // BLOCK
    blocks[:whole] = rows[: whole * BLOCK].view(whole, BLOCK, dense).transpose(1, 2)
    if count % BLOCK:
        blocks[whole, :, : count % BLOCK] = rows[whole * BLOCK :].T
    largest = max(float(bound.abs()) for bound in rows.aminmax()) if rows.numel() else 0.0
    return Items(blocks, ids, largest)
