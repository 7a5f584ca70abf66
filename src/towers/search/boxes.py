"""Boxes of items: between which values their rows and their states lie, for upper bounds of their scores."""

import math

import torch
from torch import Tensor

from towers.kernels.cpu.topk_call import BLOCK, BOX, Boxes
from towers.search.head import Head

ROWS = 1 << 15
"""Rows that are looked at at a time, a number of whole boxes."""


def boxes_of(rows: Tensor, head: Head, largest: float) -> Boxes:
    """The boxes of rows "count dense" in their order; no absolute value of them is above `largest`.

    States are read from rows by the pseudo-inverse, and how far they are from giving the rows is part of `slack`. The
    other part, and `rounding`, are a bound of what is lost in the sums: each has at most 2 dense + hidden + 24 rounded
    operations, with the head's weights and the largest rows and states.
    """
    parts, off, far = list[Tensor](), rows.new_zeros(head.dense), 0.0
    for first in range(0, len(rows), ROWS):
        some = rows[first : first + ROWS]
        states = some @ head.read.T
        off = torch.maximum(off, torch.addmm(some, states, head.weight.T, alpha=-1).abs_().amax(0))
        far = max(far, float(states.abs().amax()))
        parts.append(torch.cat([*_ends(some, BOX), *_ends(states, BOX)], 1))
    boxes = torch.cat(parts)
    sizes = (head.dense, head.dense, head.hidden, head.hidden)
    groups = torch.cat([_ends(part, BLOCK)[at % 2] for at, part in enumerate(boxes.split(sizes, 1))], 1)
    fields = torch.cat([_blocks(_fields(some, sizes)) for some in (boxes, groups)])
    weights = head.weights.double().abs()
    error = (2 * head.dense + head.hidden + 24) * torch.finfo(head.dtype).eps
    sums = abs(head.offset) + float(weights @ (2 * largest + off.double())) + 4 * far * float(head.moves.double().sum())
    return Boxes(fields, head.weight, 1.001 * float(weights @ off.double()) + error * sums, 2 * error)


def _ends(values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The least and the largest values of each `size` rows; the last may be of fewer."""
    whole = len(values) // size * size
    pieces = [values[:whole].view(-1, size, values.shape[1])]
    if whole < len(values):
        pieces.append(values[whole:].unsqueeze(0))
    low, high = (torch.cat([getattr(piece, end)(1) for piece in pieces]) for end in ("amin", "amax"))
    return low, high


def _fields(ends: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The ends of rows and of states; of the states the middle, and how far they are from it at most."""
    low, high, first, last = ends.split(sizes, 1)
    middle = (first + last) / 2
    far = torch.nextafter(torch.maximum(last - middle, middle - first), middle.new_tensor(math.inf))
    return torch.cat([low, high, middle, far], 1)


def _blocks(rows: Tensor) -> Tensor:
    """Rows "count fields" as "blocks fields 16", filled up with +inf."""
    filled = torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % BLOCK), value=math.inf)
    return filled.view(-1, BLOCK, rows.shape[1]).transpose(1, 2).contiguous()
