"""Boxes of items: between which values their rows and their places lie, for upper bounds of their scores."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from towers.kernels.cpu import topk_call
from towers.kernels.cpu.topk_call import BLOCK, BOX, Boxes
from towers.search.axes import principal_axes, read_of, state_axes
from towers.search.head import Head

ROWS = BOX * BLOCK * BLOCK
"""Rows that are looked at at a time: those of a block of groups."""
SAMPLE, QUERIES, K = 1 << 16, 64, 10
"""By which axes are chosen: rows, those of them that are queries too, and how many each finds."""
TINY = {torch.float32: 1e-30, torch.float64: 1e-300}
"""Less than this is 0 for the bounds (`topk.c`)."""


def chosen_axes(rows: Tensor, head: Head) -> Tensor:
    """Principal axes, or those of states: the axes with which a search through boxes scores fewer pairs of a sample.

    Principal axes suit trained models, whose states are far from being independent; they make boxes of independent
    numbers larger. Pairs are counted, so the choice depends neither on the time nor on the threads.
    """
    some = rows[:: len(rows) // SAMPLE + 1]
    some = some[: len(some) // BLOCK * BLOCK]
    queries = head.query_rows(some[:: len(some) // QUERIES + 1])
    return min((principal_axes(rows, head), state_axes(head)), key=lambda axes: _scored(some, queries, head, axes))


def _scored(rows: Tensor, queries: Tensor, head: Head, axes: Tensor) -> int:
    """The pairs and bounds that are scored where these queries walk through boxes along these axes."""
    rows, ids = rows.clone(memory_format=torch.contiguous_format), torch.arange(len(rows))
    topk_call.move(rows, ids, topk_call.order(rows, read_of(axes, head).T))
    boxes = boxes_of(rows, head, axes)
    blocks = rows.view(-1, BLOCK, head.dense).transpose(1, 2)
    found = topk_call.search(
        queries, head.weights, head.offset, blocks, ids, min(K, len(ids)), least=-math.inf, keep=None, hidden=None,
        boxes=boxes,
    )  # fmt: skip
    return int(found[2].sum())


def boxes_of(rows: Tensor, head: Head, axes: Tensor) -> Boxes:
    """The boxes of rows "count dense" in their order.

    `slack` has two parts. One is how far the rows that places stand for are from rows. The other, and `rounding`, bound
    what is lost in a score and in a bound: no number in their sums is above the sizes that are added up here, and each
    sum has at most 2 dense + axes + 24 operations, which lose half an `eps` of it each, or two of them without fused
    multiply-adds. What is lost in numbers near 0 is less than if each weight were `TINY` more. Where numbers may be
    too large for the dtype, there are no bounds: `slack` is infinite.
    """
    read, back = read_of(axes, head), axes.T
    dense, count, info = head.dense, len(back), torch.finfo(head.dtype)
    boxes = -(-len(rows) // BOX)
    groups = -(-boxes // BLOCK)
    fields = rows.new_full((groups + -(-groups // BLOCK), 2 * (dense + count), BLOCK), math.inf)
    off, largest, far = rows.new_zeros(dense), rows.new_zeros(dense), rows.new_zeros(count)
    for first in range(0, len(rows), ROWS):
        some = rows[first : first + ROWS]
        places = some @ read
        off = torch.maximum(off, torch.addmm(some, places, back, alpha=-1).abs_().amax(0))
        ends = [*_ends(some, BOX), *_ends(places, BOX)]
        largest, far = (torch.maximum(size, _size(*two)) for size, two in ((largest, ends[:2]), (far, ends[2:])))
        at = first // (BOX * BLOCK)  # the number of its first group, and of the block of that group's boxes
        _put(fields[at:], _fields(ends))
        _put(fields[groups + at // BLOCK :], _fields([_ends(part, BLOCK)[n % 2] for n, part in enumerate(ends)]))
    tiny = TINY[head.dtype]
    weights, off, largest, far = head.weights.double().abs() + tiny, off.double(), largest.double(), far.double()
    error = (2 * dense + count + 24) * info.eps
    moves = back.double().abs() @ weights + tiny  # how much a score changes at most with a coordinate
    sums = abs(head.offset) + float(weights @ (2 * largest + off) + 4 * far @ moves) + tiny
    slack = float(weights @ (1.001 * off + 2 * tiny)) + error * sums
    holds = all(8 * float(size) < info.max for size in (sums, largest.amax(), far.amax()))
    return Boxes(fields, axes, slack if holds else math.inf, 2 * error)


def _size(low: Tensor, high: Tensor) -> Tensor:
    """The largest absolute value in each column of what lies between these."""
    return torch.maximum(high, -low).amax(0)


def _ends(values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The least and the largest values of each `size` rows; the last may be of fewer."""
    whole = len(values) // size * size
    pieces = [values[:whole].view(-1, size, values.shape[1])]
    if whole < len(values):
        pieces.append(values[whole:].unsqueeze(0))
    low, high = (torch.cat([getattr(piece, end)(1) for piece in pieces]) for end in ("amin", "amax"))
    return low, high


def _fields(ends: Sequence[Tensor]) -> Tensor:
    """The ends of rows and of places, "boxes fields"; of places the middle, and how far they are from it at most."""
    low, high, first, last = ends
    middle = (first + last) / 2
    far = torch.nextafter(torch.maximum(last - middle, middle - first), middle.new_tensor(math.inf))
    return torch.cat([low, high, middle, far], 1)


def _put(blocks: Tensor, rows: Tensor) -> None:
    """Write rows "count fields" into the first of "blocks fields 16"."""
    whole = len(rows) // BLOCK
    blocks[:whole] = rows[: whole * BLOCK].view(whole, BLOCK, rows.shape[1]).transpose(1, 2)
    if rest := len(rows) % BLOCK:
        blocks[whole, :, :rest] = rows[-rest:].T
