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
from towers.kernels.layout import Rows, Segment

CHUNK = 65_536  # numbers of state in a chunk of steps: its four gates then fill the caches of two cores


class Saved(NamedTuple):
    """What the backward pass needs, of all rows of the segment ("rows …")."""

    gates: Tensor  # sigmoids o, i, f and s - 1/2, in columns
    cells: Tensor  # -2 c; before them, of the state that came in
    full: Tensor  # h before its projection, or nothing
    h: Tensor  # h; before them, of the state that came in


def prepare(weights: Parameters, segment: Segment) -> Cell:
    """The weights in the form of the equations."""
    return Cell.of(weights)


def forward(
    x: Rows, segment: Segment, h: Tensor, c: Tensor, cell: Cell, *, save: bool, outputs: bool
) -> tuple[Tensor | None, Tensor, Tensor, Saved | None]:
    """See `towers.kernels.walk`. Unless they are to be kept, all chunks use the same memory."""
    sizes, last, (count, width) = segment.cut.sizes, segment.last, c.shape
    cuts = chunks(sizes, width)
    rows = sum(sizes)
    largest = rows if save else max(sum(sizes[start:stop]) for start, stop in cuts)
    kept_h = save or outputs
    gates, cells = c.new_empty(largest, 4 * width), c.new_empty(count + largest, width)
    hs = c.new_empty(count + (rows if kept_h else largest), h.shape[1])
    full = c.new_empty(0 if cell.projection is None else largest, width)
    torch.mul(c, -2, out=cells[:count])
    hs[:count] = h
    h, c = hs[:count], cells[:count]
    h_n, c_n, begin = torch.empty_like(h), torch.empty_like(c), 0
    for start, stop in cuts:
        part = sizes[start:stop]
        size = sum(part)
        first = begin if save else 0
        h_first = count + (begin if kept_h else 0)
        mine = (
            gates[first : first + size],
            cells[count + first : count + first + size],
            hs[h_first : h_first + size],
            full[first : first + size],
        )
        torch.addmm(cell.bias, x[begin : begin + size], cell.input, out=mine[0])
        h, c = _forward_chunk(part, mine, h, c, cell)
        stay = sizes[stop] if stop < len(sizes) else 0
        if last is not None and stay < part[0]:
            ended = last[stay : part[0]] - begin
            c_n[stay : part[0]] = mine[1].index_select(0, ended)
            h_n[stay : part[0]] = mine[2].index_select(0, ended)
        begin += size
    h_n, c_n = (h, c) if last is None else (h_n, c_n)
    return hs[count:] if outputs else None, h_n, c_n * -0.5, Saved(gates, cells, full, hs) if save else None


def _forward_chunk(
    sizes: list[int], mine: tuple[Tensor, Tensor, Tensor, Tensor], h: Tensor, c: Tensor, cell: Cell
) -> tuple[Tensor, Tensor]:
    gates, cells, hs, full = mine
    o, i, f, s = (part.split_with_sizes(sizes) for part in gates.chunk(4, 1))
    mul, sigmoid, addcmul, mm, end = torch.mul, torch.sigmoid, torch.addcmul, torch.mm, torch.empty_like(c)
    recurrent, projection, n = cell.recurrent, cell.projection, len(h)
    fulls = (hs if projection is None else full).split_with_sizes(sizes)
    parts = (gates.split_with_sizes(sizes), o, i, f, s, cells.split_with_sizes(sizes), fulls)
    for size, gate, o_t, i_t, f_t, s_t, c_t, full_t, h_t in zip(sizes, *parts, hs.split_with_sizes(sizes), strict=True):
        if size != n:
            h, c, end, n = h[:size], c[:size], end[:size], size
        gate.addmm_(h, recurrent).sigmoid_()
        s_t.sub_(0.5)
        mul(f_t, c, out=c_t).addcmul_(i_t, s_t, value=4)
        sigmoid(c_t, out=end)
        addcmul(o_t, o_t, end, value=-2, out=full_t)
        if projection is not None:
            mm(full_t, projection, out=h_t)
        h, c = h_t, c_t
    return h, c


def backward(
    x: Rows,
    saved: Saved,
    segment: Segment,
    cell: Cell,
    g_y: Rows | None,
    g_h: Tensor,
    g_c: Tensor,
    *,
    wants_x: bool,
) -> tuple[Tensor | None, Parameters]:
    """See `towers.kernels.walk`."""
    sizes, gradient = segment.cut.sizes, CellGradient(cell)
    g_c.mul_(-0.5)
    (count, end), width = (len(g_c), len(saved.gates)), g_c.shape[1]
    g_x = saved.gates.new_empty(end, len(cell.input)) if wants_x else None
    for start, stop in reversed(chunks(sizes, width)):
        part = sizes[start:stop]
        begin = end - sum(part)
        rows = slice(begin, end)
        c_in, h_in = (_before(states, segment.previous, rows) for states in (saved.cells, saved.h))
        gates, ends = saved.gates[rows], saved.cells[count + begin : count + end].sigmoid()
        o, i, f, z = gates.chunk(4, 1)
        flow = torch.addcmul(gates, gates, gates, value=-1)  # s (1 - s), of the gates that are s
        d_o, d_i, d_f, d_s = flow.chunk(4, 1)
        out = torch.addcmul(ends, ends, ends, value=-1).mul_(o).mul_(-2)  # of h by -2 c
        d_o.addcmul_(d_o, ends, value=-2)
        d_i.mul_(z).mul_(4)
        d_f.mul_(c_in)
        torch.mul(z, z, out=d_s).neg_().add_(0.25).mul_(i).mul_(4)
        g_full = _backward_chunk(part, (flow, f, out), cell, None if g_y is None else g_y[rows], g_h, g_c)
        gradient.add(flow, x[rows], h_in)
        if g_full is not None:
            gradient.add_projection(saved.full[rows], g_full)
        if g_x is not None:
            torch.mm(flow, cell.input.t(), out=g_x[rows])
        end = begin
    g_c.mul_(-2)
    return g_x, gradient.parameters()


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
    rest = flow[:, width:].unflatten(1, (3, width)).split_with_sizes(sizes)
    kept = None if cell.projection is None else g_h.new_empty(len(flow), g_h.shape[1])
    g_ys = [None] * len(sizes) if g_y is None else g_y.split_with_sizes(sizes)
    keeps = [None] * len(sizes) if kept is None else kept.split_with_sizes(sizes)
    back, n, mm = cell.recurrent.t(), len(g_h), torch.mm
    d_h, d_c, d_c3 = g_h, g_c, g_c.unsqueeze(1)
    parts = (
        flow.split_with_sizes(sizes),
        flow[:, :width].split_with_sizes(sizes),
        rest,
        f.split_with_sizes(sizes),
        out.split_with_sizes(sizes),
    )
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


def _before(states: Tensor, previous: Tensor | None, rows: slice) -> Tensor:
    """The states from which some rows started."""
    return states[rows] if previous is None else states.index_select(0, previous[rows])


def chunks(sizes: list[int], width: int) -> list[tuple[int, int]]:
    """Cut the steps where a chunk would hold more than CHUNK numbers of state."""
    most, found, start, rows = max(CHUNK // width, 1), list[tuple[int, int]](), 0, 0
    for step, size in enumerate(sizes):
        if rows and rows + size > most:
            found.append((start, step))
            start, rows = step, 0
        rows += size
    return [*found, (start, len(sizes))]
