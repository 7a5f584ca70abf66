# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""One segment of the walk, its sentences padded to its end, through oneDNN's LSTM: float32 on a CPU.

Padding must not change the cell of a sentence that has ended. Where there is any, the input has one number more, 1 in
padding and 0 in words, whose weights close the input gate and open the forget gate: c stays as it is, exactly, forwards
and backwards, and no word is read in its place.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from towers.kernels.cells import Parameters
from towers.kernels.layout import Segment

_SHUT = 1e30  # sigmoid(-_SHUT) is 0 and sigmoid(_SHUT) is 1
_LSTM = 2  # torch's number for it


class Saved(NamedTuple):
    """What the way back needs: what went in and came out, and oneDNN's own notes."""

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
    """With the weights of the padding's own input, if this segment has padding."""
    w_ih, w_hh, bias, _ = weights
    bias = w_ih.new_zeros(len(w_ih)) if bias is None else bias
    if segment.pads is not None:
        hidden = w_hh.shape[1]
        gates = w_ih.new_zeros(4, hidden)
        gates[0], gates[1] = -_SHUT, _SHUT
        w_ih = torch.cat((w_ih, gates.view(-1, 1)), 1)
    return Arrays(w_ih.detach(), w_hh.detach(), bias, torch.zeros_like(bias))


def forward(
    x: Tensor, segment: Segment, h: Tensor, c: Tensor, weights: Arrays, y: Tensor, *, save: bool
) -> tuple[Tensor, Saved | None]:
    """See `towers.kernels.walk`."""
    if segment.pads is not None:
        x = torch.nn.functional.pad(x, (0, 1))
        x.index_fill_(0, segment.pads, 0)
        x[:, -1].index_fill_(0, segment.pads, 1)
    x = x.view(segment.steps, len(h), x.shape[1])
    with torch.set_grad_enabled(save):  # oneDNN keeps notes only then
        found, h_n, c_n, notes = torch.mkldnn_rnn_layer(
            x, *weights, h, c, False, [], _LSTM, h.shape[1], 1, True, False, False, save
        )
    y.copy_(found.view(y.shape))
    return c_n.view(c.shape), Saved(x, found, h, c, h_n, c_n, notes) if save else None


def backward(
    saved: Saved,
    segment: Segment,
    weights: Arrays,
    g_y: Tensor | None,
    g_h: Tensor,
    g_c: Tensor,
    g_x: Tensor | None,
) -> Parameters:
    """See `towers.kernels.walk`."""
    x, found, h, c, h_n, c_n, notes = saved
    g_out = g_y
    if g_out is not None and segment.pads is not None:
        g_out.index_fill_(0, segment.pads, 0)
    ended = segment.whole  # sentences from here on end before the segment does: their last state is an output
    if ended < len(h):
        g_out = found.new_zeros(segment.rows.stop - segment.rows.start, h.shape[1]) if g_out is None else g_out
        g_out.index_add_(0, segment.last[ended:], g_h[ended:])
        g_h[ended:] = 0
    g_out = None if g_out is None else g_out.view(found.shape)
    given = (x, *weights, h, c, found, h_n, c_n, g_out, g_h, g_c)
    of_x, w_ih, w_hh, bias, _, of_h, of_c = torch.ops.aten.mkldnn_rnn_layer_backward.default(
        *given, False, _LSTM, h.shape[1], 1, True, True, False, [], False, notes
    )
    g_h.copy_(of_h.view(g_h.shape))
    g_c.copy_(of_c.view(g_c.shape))
    if segment.pads is not None:
        w_ih = w_ih[:, :-1]
    if g_x is not None:
        g_x.copy_(of_x.view(-1, x.shape[2])[:, : g_x.shape[1]])
    return Parameters(w_ih, w_hh, bias, None)
