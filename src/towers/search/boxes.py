"""Boxes of items: between which values their rows and their places lie, for upper bounds of their scores."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from towers.kernels.cpu.topk_call import BLOCK, BOX, Boxes
from towers.search.head import Head

ROWS = 1 << 15
"""Rows that are looked at at a time, a number of whole boxes."""
SAMPLE = 1 << 14
"""Rows of which the axes are made."""


class Axes(NamedTuple):
    """Coordinates of items: a row times `read` is a place, and a place times `back` is the row again.

    read: "dense axes".
    back: "axes dense".
    """

    read: Tensor
    back: Tensor


def axes_of(rows: Tensor, head: Head) -> Axes:
    """The axes along which rows "count dense" vary the most, the next most and so on, as far as scores notice.

    Each unit is scaled by the root of its weight, and then these are principal components, in the space of all states.
    So a step of one size moves scores about as much along each of them.
    """
    root = head.weights.double().abs().sqrt()
    space: Tensor = torch.svd(root.unsqueeze(1) * head.weight.double())[0]
    some = torch.mm(rows[:: len(rows) // SAMPLE + 1].double() * root, space)
    some = some - some.mean(0)
    some = some / some.abs().amax().clamp(min=torch.finfo(some.dtype).tiny)  # huge ones have no squares
    directions: Tensor = torch.svd(torch.mm(some.T, some))[0]
    axes = torch.mm(space, directions)
    back = torch.where(root > 0, axes.T / root, 0.0)
    return Axes((axes * root.unsqueeze(1)).to(rows.dtype), back.to(rows.dtype))


def boxes_of(rows: Tensor, head: Head, axes: Axes) -> Boxes:
    """The boxes of rows "count dense" in their order.

    How far the rows of their places are from rows is part of `slack`. The other part, and `rounding`, are a bound of
    what is lost in the sums: each has at most 2 dense + axes + 24 rounded operations, with the head's weights and the
    largest rows and places.
    """
    parts, off = list[Tensor](), rows.new_zeros(head.dense)
    for first in range(0, len(rows), ROWS):
        some = rows[first : first + ROWS]
        places = some @ axes.read
        off = torch.maximum(off, torch.addmm(some, places, axes.back, alpha=-1).abs_().amax(0))
        parts.append(torch.cat([*_ends(some, BOX), *_ends(places, BOX)], 1))
    boxes, count = torch.cat(parts), len(axes.back)
    sizes = (head.dense, head.dense, count, count)
    ends = boxes.split(sizes, 1)
    groups = torch.cat([_ends(part, BLOCK)[at % 2] for at, part in enumerate(ends)], 1)
    fields = torch.cat([_blocks(_fields(some, sizes)) for some in (boxes, groups)])
    weights, off = head.weights.double().abs(), off.double()
    largest, far = (torch.maximum(high, -low).amax(0).double() for low, high in (ends[:2], ends[2:]))
    error = (2 * head.dense + count + 24) * torch.finfo(head.dtype).eps
    moves = axes.back.double().abs() @ weights  # how much a score changes at most with a coordinate
    sums = abs(head.offset) + float(weights @ (2 * largest + off) + 4 * far @ moves)
    return Boxes(fields, axes.back.T.contiguous(), 1.001 * float(weights @ off) + error * sums, 2 * error)


def _ends(values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The least and the largest values of each `size` rows; the last may be of fewer."""
    whole = len(values) // size * size
    pieces = [values[:whole].view(-1, size, values.shape[1])]
    if whole < len(values):
        pieces.append(values[whole:].unsqueeze(0))
    low, high = (torch.cat([getattr(piece, end)(1) for piece in pieces]) for end in ("amin", "amax"))
    return low, high


def _fields(ends: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The ends of rows and of places; of the places the middle, and how far they are from it at most."""
    low, high, first, last = ends.split(sizes, 1)
    middle = (first + last) / 2
    far = torch.nextafter(torch.maximum(last - middle, middle - first), middle.new_tensor(math.inf))
    return torch.cat([low, high, middle, far], 1)


def _blocks(rows: Tensor) -> Tensor:
    """Rows "count fields" as "blocks fields 16", filled up with +inf."""
    filled = torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % BLOCK), value=math.inf)
    return filled.view(-1, BLOCK, rows.shape[1]).transpose(1, 2).contiguous()
