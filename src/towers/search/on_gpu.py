"""The search of an index on a GPU: a copy of its items there, in the order of their ids, and the kernel's call."""

import torch
from torch import Tensor

from towers.search.allowed import Allowed
from towers.search.head import Head
from towers.search.items import Items, OnDevice

PART = 1 << 17
"""Items that are copied at a time, a number of whole tiles."""


def best(
    queries: Tensor, head: Head, items: Items, k: int, allowed: Allowed, least: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The scores and ids of the k best items of each query, as `scan.best` says; both on the device."""
    from towers.kernels.triton import best_items  # here, for it imports Triton

    copy = _copy(items, device)
    keep = None if allowed.keep is None else allowed.keep[items.order].to(device)
    hidden = None
    if allowed.places is not None and allowed.offsets is not None and len(allowed.places):
        counts = allowed.offsets.diff()
        query = torch.arange(len(counts)).repeat_interleave(counts)
        rank = torch.empty_like(items.order)
        rank[items.order] = torch.arange(len(items))
        places = (query * len(items) + rank[allowed.places]).sort().values - query * len(items)
        hidden = best_items.Hidden(places.to(device), allowed.offsets.to(device), int(counts.max()))
    return best_items.search(
        queries.to(device), head.weights.to(device), head.offset, copy.tiles, copy.ids, k,
        least=least, keep=keep, hidden=hidden,
    )  # fmt: skip


def _copy(items: Items, device: torch.device) -> OnDevice:
    """Made at the first search; the items keep it."""
    from towers.kernels.triton import best_items

    if device not in items.copies:
        size, dense = best_items.TILE, items.blocks.shape[1]
        tiles = items.blocks.new_empty(-(-len(items) // size), dense, size, device=device)
        for first, places in zip(range(0, len(tiles), PART // size), items.order.split(PART), strict=True):
            tiles[first : first + PART // size] = best_items.tiles_of(items.rows_at(places)).to(device)
        items.copies[device] = OnDevice(tiles, items.ids[items.order].to(device))
    return items.copies[device]
