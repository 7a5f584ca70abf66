"""A padded batch as it stands: one layer and direction, one bucket, nothing sorted, torch's own gradient of oneDNN's
LSTM. For batches of which sorting would cost more than it saves: small ones, and those with little padding.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.kernels import buckets
from towers.kernels.batch import Batch, State, Weights, refuse_twice
from towers.kernels.cpu.threads import one_thread


def serves(batch: Batch, weights: Weights) -> bool:
    """Whether it can run this at all."""
    return batch.values.dim() == 3 and weights.num_layers == 1 and not weights.bidirectional


def _begin(threads: list[int], one: bool) -> None:
    """On one thread, if asked for; refuse a second derivative, which torch computes wrongly without a word."""
    refuse_twice()
    if one and torch.get_num_threads() > 1:
        threads.append(torch.get_num_threads())
        torch.set_num_threads(1)


def run(
    batch: Batch, words: int, state: State, weights: Weights, *, even: bool, outputs: bool, training: bool, one: bool
) -> tuple[Tensor | None, State]:
    """See `towers.kernels`; the longest sentence has `words` words, if `even` all have."""
    count, width, inputs = batch.values.shape
    x, h_0, c_0 = batch.values, state[0].squeeze(0), state[1].squeeze(0)
    x = (x if words == width else x[:, :words]).transpose(0, 1)
    w_ih, w_hh, bias, _ = weights.of(0, 0)
    hidden, pads, last = w_hh.shape[1], None, None
    bias = w_ih.new_zeros(4 * hidden) if bias is None else bias
    if not even and batch.lengths is not None:
        last = (batch.lengths - 1) * count + torch.arange(count)
        pads = (torch.arange(words).unsqueeze(1) >= batch.lengths).unsqueeze(2) if outputs or training else None
    if pads is not None and outputs:  # and the cells: see `buckets`
        x = torch.where(pads, buckets.mark(inputs), F.pad(x, (0, 1)))
        w_ih = torch.cat((w_ih, buckets.shut(hidden)), 1)
    elif pads is not None:
        x = x.masked_fill(pads, 0)
    x, w_ih, w_hh, bias, h_0, c_0 = buckets.in_a_row(x, w_ih, w_hh, bias, h_0, c_0)
    arrays = (w_ih, w_hh, bias, torch.zeros_like(bias))
    with one_thread(one):
        y, h_n, c_n, _ = torch.mkldnn_rnn_layer(
            x, *arrays, h_0, c_0, False, [], buckets.LSTM, hidden, 1, True, False, False, False
        )
    if training and y.grad_fn is not None:
        threads: list[int] = []
        y.grad_fn.register_prehook(lambda _: _begin(threads, one))  # pyright: ignore
        y.grad_fn.register_hook(lambda *_: torch.set_num_threads(threads.pop()) if threads else None)  # pyright: ignore
    if last is not None:
        h_n = y.flatten(0, 1).index_select(0, last)
    end = (h_n.view(1, count, hidden), c_n.view(1, count, hidden))
    if not outputs:
        return None, end
    output = y.transpose(0, 1)
    output = output if pads is None else output.masked_fill(pads.transpose(0, 1), 0)
    return output if words == width else F.pad(output, (0, 0, 0, width - words)), end
