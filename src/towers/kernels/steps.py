# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""One segment of the walk, step by step over the sentences that still run: no padding, and any float dtype.

The equations are those of `towers.kernels.cells`, all four gates one sigmoid. The product of all words with the input
weights is taken before the steps, a chunk of steps at a time, small enough to stay in the cache; a step then adds the
recurrent product in place and makes the new state in seven operations. The gradient is written out by hand: what does
not depend on the step behind is computed for a whole chunk at once, a step has five operations, and each weight's
gradient is one product a chunk.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from towers.kernels.cells import Cell, CellGradient, Parameters
from towers.kernels.layout import Segment

CHUNK = 65_536  # numbers of state in a chunk of steps: its four gates then fill the caches of two cores


class Saved(NamedTuple):
    """What the way back needs, of all rows of the segment ("rows …"), and the state that came in."""

    x: Tensor
    gates: Tensor  # sigmoids o, i, f and s - 1/2, in columns
    cells: Tensor  # -2 c
    ends: Tensor  # sigmoid(-2 c)
    full: Tensor  # h before its projection
    y: Tensor  # h
    h: Tensor  # that came in
    c: Tensor  # that came in, times -2


def prepare(weights: Parameters, segment: Segment) -> Cell:
    """The weights in the form of the equations."""
    return Cell.of(weights)


def forward(
    x: Tensor, segment: Segment, h: Tensor, c: Tensor, cell: Cell, y: Tensor, *, save: bool
) -> tuple[Tensor, Saved | None]:
    """See `towers.kernels.walk`."""
    sizes, width, rows = segment.sizes, c.shape[1], len(x)
    cuts = chunks(sizes, width)
    largest = rows if save else max(sum(sizes[start:stop]) for start, stop in cuts)
    gates, cells, ends = x.new_empty(largest, 4 * width), x.new_empty(largest, width), x.new_empty(largest, width)
    full = y if cell.projection is None else x.new_empty(largest, width)
    c = c * -2
    first_h, first_c, c_n, begin = h, c, torch.empty_like(c), 0
    for start, stop in cuts:
        part = sizes[start:stop]
        size = sum(part)
        place = slice(begin, begin + size) if save else slice(0, size)
        here = y[begin : begin + size]
        views = (gates[place], cells[place], ends[place], here if cell.projection is None else full[place])
        torch.addmm(cell.bias, x[begin : begin + size], cell.input, out=views[0])
        h, c = _forward_chunk(part, views, h, c, cell, here.split(part))
        stay = sizes[stop] if stop < len(sizes) else 0
        c_n[stay : part[0]] = views[1].index_select(0, segment.last[stay : part[0]] - begin)
        begin += size
    return c_n.mul_(-0.5), Saved(x, gates, cells, ends, full, y, first_h, first_c) if save else None


def _forward_chunk(
    sizes: list[int],
    views: tuple[Tensor, Tensor, Tensor, Tensor],
    h: Tensor,
    c: Tensor,
    cell: Cell,
    ys: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor]:
    gates, cells, ends, full = views
    o, i, f, s = (part.split(sizes) for part in gates.chunk(4, 1))
    mul, sigmoid, addcmul, mm = torch.mul, torch.sigmoid, torch.addcmul, torch.mm
    recurrent, projection, n = cell.recurrent, cell.projection, len(h)
    parts = (gates.split(sizes), o, i, f, s, cells.split(sizes), ends.split(sizes), full.split(sizes))
    steps = zip(sizes, *parts, ys, strict=True)
    for size, gate, o_t, i_t, f_t, s_t, c_t, e_t, full_t, h_t in steps:
        if size != n:
            h, c, n = h[:size], c[:size], size
        gate.addmm_(h, recurrent).sigmoid_()
        s_t.sub_(0.5)
        mul(f_t, c, out=c_t).addcmul_(i_t, s_t, value=4)
        sigmoid(c_t, out=e_t)
        addcmul(o_t, o_t, e_t, value=-2, out=full_t)
        if projection is not None:
            mm(full_t, projection, out=h_t)
        h, c = h_t, c_t
    return h, c


def backward(
    saved: Saved,
    segment: Segment,
    cell: Cell,
    g_y: Tensor | None,
    g_h: Tensor,
    g_c: Tensor,
    g_x: Tensor | None,
) -> Parameters:
    """See `towers.kernels.walk`."""
    sizes, gradient = segment.sizes, CellGradient(cell)
    g_c.mul_(-0.5)
    width, end = saved.c.shape[1], len(saved.x)
    c_before, h_before = torch.cat((saved.c, saved.cells)), torch.cat((saved.h, saved.y))
    for start, stop in reversed(chunks(sizes, width)):
        part = sizes[start:stop]
        begin = end - sum(part)
        rows, before = slice(begin, end), segment.previous[begin:end]
        gates, ends = saved.gates[rows], saved.ends[rows]
        o, i, f, z = gates.chunk(4, 1)
        flow = torch.addcmul(gates, gates, gates, value=-1)  # s (1 - s), of the gates that are s
        d_o, d_i, d_f, d_s = flow.chunk(4, 1)
        out = torch.addcmul(ends, ends, ends, value=-1).mul_(o).mul_(-2)  # of h by -2 c
        d_o.addcmul_(d_o, ends, value=-2)
        d_i.mul_(z).mul_(4)
        d_f.mul_(c_before.index_select(0, before))
        torch.mul(z, z, out=d_s).neg_().add_(0.25).mul_(i).mul_(4)
        g_full = _backward_chunk(part, (flow, f, out), cell, None if g_y is None else g_y[rows], g_h, g_c)
        gradient.add(flow, saved.x[rows], h_before.index_select(0, before))
        if g_full is not None:
            gradient.add_projection(saved.full[rows], g_full)
        if g_x is not None:
            torch.mm(flow, cell.input.t(), out=g_x[rows])
        end = begin
    g_c.mul_(-2)
    return gradient.parameters()


def _backward_chunk(
    sizes: list[int],
    views: tuple[Tensor, Tensor, Tensor],
    cell: Cell,
    g_y: Tensor | None,
    g_h: Tensor,
    g_c: Tensor,
) -> Tensor | None:
    """Turn `flow` into the gradient of the gates before their sigmoid; returns that of h where it is projected."""
    flow, f, out = views
    width = out.shape[1]
    rest = flow[:, width:].unflatten(1, (3, width)).split(sizes)
    kept = None if cell.projection is None else g_h.new_empty(len(flow), g_h.shape[1])
    g_ys = [None] * len(sizes) if g_y is None else g_y.split(sizes)
    keeps = [None] * len(sizes) if kept is None else kept.split(sizes)
    back, n, mm = cell.recurrent.t(), len(g_h), torch.mm
    d_h, d_c, d_c3 = g_h, g_c, g_c.unsqueeze(1)
    parts = (flow.split(sizes), flow[:, :width].split(sizes), rest, f.split(sizes), out.split(sizes))
    steps = zip(sizes, *parts, g_ys, keeps, strict=True)
    for size, all_t, o_t, rest_t, f_t, out_t, g_y_t, keep_t in reversed(list(steps)):
        if size != n:
            d_h, d_c, n = g_h[:size], g_c[:size], size
            d_c3 = d_c.unsqueeze(1)
        if g_y_t is not None:
            d_h.add_(g_y_t)
        d_full = d_h
        if keep_t is not None and cell.projection is not None:
            keep_t.copy_(d_h)
            d_full = mm(d_h, cell.projection.t())
        d_c.addcmul_(d_full, out_t)
        rest_t.mul_(d_c3)
        o_t.mul_(d_full)
        d_c.mul_(f_t)
        mm(all_t, back, out=d_h)
    return kept


def chunks(sizes: list[int], width: int) -> list[tuple[int, int]]:
    """Cut the steps where a chunk would hold more than CHUNK numbers of state; a chunk has at least one step."""
    most, found, start, rows = max(CHUNK // width, 1), list[tuple[int, int]](), 0, 0
    for step, size in enumerate(sizes):
        if rows and rows + size > most:
            found.append((start, step))
            start, rows = step, 0
        rows += size
    return [*found, (start, len(sizes))]
