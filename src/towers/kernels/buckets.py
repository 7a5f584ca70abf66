"""One segment of the walk, its sentences padded to its end, through oneDNN's LSTM: float32 on a CPU.

Padding comes behind a sentence's last word and changes nothing but its cell. Where that is wanted, padding is marked:
the input has one number more, 1 in padding and 0 in words, whose weights close the input gate and open the forget gate.
So c stays as it is, exactly, forwards and backwards.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from towers.kernels.cells import Parameters
from towers.kernels.layout import Rows, Segment

_SHUT = 1e30  # sigmoid(-_SHUT) is 0 and sigmoid(_SHUT) is 1
LSTM = 2  # torch's number for it


class Saved(NamedTuple):
    """What the backward pass needs: what went in and came out, and oneDNN's own notes."""

    x: Tensor
    y: Tensor
    h: Tensor
    c: Tensor
    h_n: Tensor
    c_n: Tensor
    notes: Tensor


class Arrays(NamedTuple):
    """The weights as oneDNN takes them."""

    input: Tensor
    recurrent: Tensor
    bias: Tensor
    zero: Tensor


def prepare(weights: Parameters, segment: Segment) -> Arrays:
    """With the weights of the padding's own input, if it is marked."""
    w_ih, w_hh, bias, _ = weights
    bias = w_ih.new_zeros(len(w_ih)) if bias is None else bias
    if segment.marked:
        w_ih = torch.cat((w_ih, shut(w_hh.shape[1])), 1)
    return Arrays(*in_a_row(w_ih.detach(), w_hh.detach(), bias, torch.zeros_like(bias)))


def in_a_row(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Contiguous, which oneDNN takes for granted: it reads other numbers otherwise, without a word."""
    return tuple(tensor if tensor.is_contiguous() else tensor.contiguous() for tensor in tensors)


@lru_cache(64)
def mark(inputs: int) -> Tensor:
    """The input of padding."""
    return torch.tensor([0.0] * inputs + [1.0])


@lru_cache(64)
def shut(hidden: int) -> Tensor:
    """Weights of the gates i, f, g, o that keep a cell as it is."""
    return torch.tensor([-_SHUT, _SHUT, 0.0, 0.0]).repeat_interleave(hidden).unsqueeze(1)


def forward(
    rows: Rows, segment: Segment, h: Tensor, c: Tensor, weights: Arrays, *, save: bool, outputs: bool
) -> tuple[Tensor | None, Tensor, Tensor, Saved | None]:
    """See `towers.kernels.walk`."""
    x = rows[:]
    if segment.pad_rows is not None and segment.pads is not None and (save or segment.marked):
        x.index_fill_(0, segment.pad_rows, 0)
        if segment.marked:
            x = torch.cat((x, segment.pads.view(-1, 1).to(x.dtype)), 1)
    x = x.view(len(segment.cut.sizes), len(h), x.shape[1])
    h, c = in_a_row(h, c)
    with torch.set_grad_enabled(save):  # oneDNN keeps notes only then
        found, h_n, c_n, notes = torch.mkldnn_rnn_layer(
            x, *weights, h, c, False, [], LSTM, h.shape[1], 1, True, False, False, save
        )
    saved = Saved(x, found, h, c, h_n, c_n, notes) if save else None
    y, last = found.view(-1, h.shape[1]), segment.last
    return y, h_n.view(h.shape) if last is None else y.index_select(0, last), c_n.view(c.shape), saved


def backward(
    rows: Rows,
    saved: Saved,
    segment: Segment,
    weights: Arrays,
    g_y: Rows | None,
    g_h: Tensor,
    g_c: Tensor,
    *,
    wants_x: bool,
) -> tuple[Tensor | None, Parameters]:
    """See `towers.kernels.walk`."""
    x, found, h, c, h_n, c_n, notes = saved
    last, stay = segment.last, segment.cut.stay
    g_out = None if g_y is None else g_y[:]
    if g_out is not None and segment.pad_rows is not None:
        g_out.index_fill_(0, segment.pad_rows, 0)
    g_out = None if g_out is None else g_out.view(found.shape)
    if last is not None:  # those that end here may end before the segment does: their last state is one of the outputs
        g_out = torch.zeros_like(found) if g_out is None else g_out
        g_out.view(-1, h.shape[1]).index_add_(0, last[stay:], g_h[stay:])
        g_h[stay:] = 0
    given = (x, *weights, h, c, found, h_n, c_n, g_out, g_h, g_c)
    of_x, w_ih, w_hh, bias, _, of_h, of_c = torch.ops.aten.mkldnn_rnn_layer_backward.default(
        *given, False, LSTM, h.shape[1], 1, True, True, False, [], False, notes
    )
    g_h.copy_(of_h.view(g_h.shape))
    g_c.copy_(of_c.view(g_c.shape))
    of_x, w_ih = (of_x, w_ih) if not segment.marked else (of_x[:, :, :-1], w_ih[:, :-1])
    return of_x.reshape(-1, of_x.shape[2]) if wants_x else None, Parameters(w_ih, w_hh, bias, None)
