"""How `lstm.c` is called: a batch laid out, one layer and direction over it, and its backward pass."""

import ctypes
from ctypes import c_int64, c_void_p
from typing import Any, NamedTuple

import torch
from torch import Tensor

from towers.kernels.batch import Batch, Parameters, State
from towers.kernels.cpu.library import REALS, Code, code, why_not
from towers.kernels.cpu.threads import start

A_THREAD = 60_000  # multiply-adds, about 10 µs, below which a second thread is not worth to be woken


class Job(ctypes.Structure):
    """The struct `LstmJob` of `lstm.h`."""

    _fields_ = (
        *((name, c_void_p) for name in ("x", "starts", "lengths", "offsets", "order")),
        *((name, c_int64) for name in ("span", "steps", "batch", "inputs", "hidden", "reverse")),
        *((name, c_void_p) for name in ("packed", "packed_x", "h_in", "c_in", "h_out", "c_out", "c_0", "y")),
        ("apart", c_int64),
        ("ahead", c_void_p),
        ("ahead_apart", c_int64),
        ("ids", c_void_p),
        *((name, c_void_p) for name in ("gates", "cells", "entries", "g_x", "sums", "g_w_ih", "g_w_hh", "g_bias")),
        *((name, c_int64) for name in ("parts", "next")),
    )


class SavedForBackward(NamedTuple):
    """What the backward pass needs."""

    gates: Tensor
    cells: Tensor
    entries: Tensor
    c_0: Tensor
    w_ih: Tensor
    w_hh: Tensor


def refusal(dtype: torch.dtype, inputs: int, hidden: int, count: int) -> str | None:
    """Why the C code does not run `count` sentences of these sizes on this machine; None where it does."""
    if dtype not in REALS:
        return f"the C code has no {dtype}"
    if code(dtype, hidden) is None:
        return why_not() or "the C code could not be loaded"
    return None


class Layout:
    """Where the sentences of a batch lie, for all layers and directions."""

    def __init__(self, batch: Batch, count: int) -> None:
        rows = batch.values.shape[:-1].numel()
        starts, lengths = batch.starts, batch.lengths
        if lengths is None and (starts is not None or rows != count * (batch.longest or 0)):
            starts, lengths = batch.places(count)
        # Copies: the backward pass must find what forward found, whatever becomes of the tensors that were given.
        self.starts, self.lengths = (None if part is None else part.clone() for part in (starts, lengths))
        self.batch, self.rows, self.span = count, rows, rows // max(count, 1)
        self.offsets = self.order = None
        self.words = rows
        if self.lengths is not None:
            self.offsets, self.order = torch.empty(2, count + 1, dtype=torch.int64, device="cpu").unbind()
            own = code(torch.float32)
            assert own is not None
            places = (_at(self.starts), _at(self.lengths), c_int64(self.span), c_int64(count), c_int64(rows))
            self.words = own.lstm_lay_out(*places, _at(self.offsets), _at(self.order))
            if self.words < 0:
                raise IndexError(f"RaggedLSTM: a sentence of the batch lies outside of its {rows} rows")

    def job(self, **fields: Any) -> Job:
        """With what a job has of it."""
        own = {"starts": self.starts, "lengths": self.lengths, "offsets": self.offsets, "order": self.order}
        places = {name: part.data_ptr() if isinstance(part, Tensor) else part for name, part in (own | fields).items()}
        return Job(span=self.span, steps=self.span, batch=self.batch, apart=fields["hidden"], **places)


def forward(
    layout: Layout, values: Tensor, state: State, parameters: Parameters, *, reverse: bool, outputs: bool, save: bool
) -> tuple[Tensor | None, Tensor, Tensor, SavedForBackward | None]:
    """Run one layer in one direction: output (0 where no sentence is), h_n, c_n, and what the backward pass needs.

    Values are "rows inputs", or padded; h and c are "1 batch hidden". C reads whatever lies there: the caller checks
    that sizes and dtypes fit (`batch.check_sizes`, or `towers.layers.fused` for a whole tower).
    """
    w_ih, w_hh, biases, _ = parameters
    (inputs, hidden), shape = (w_ih.shape[1], w_hh.shape[1]), values.shape[:-1]
    own = _code(values, hidden)
    values, h_0, c_0, w_ih, w_hh = (part.resolve_neg().contiguous() for part in (values, *state, w_ih, w_hh))
    bias = biases[0] + biases[1] if len(biases) == 2 else biases[0].contiguous() if biases else None
    blocks = -(-hidden // own.lanes)
    packed = values.new_empty(blocks * (inputs + hidden + 1) * 4 * own.lanes)
    own.lstm_pack(*map(_at, (packed, w_ih, w_hh, bias)), c_int64(inputs), c_int64(hidden))
    h_n, c_n = torch.empty_like(h_0), torch.empty_like(c_0)
    y = None
    if outputs:
        y = (values.new_empty if layout.words == layout.rows else values.new_zeros)(*shape, hidden)
    gates = cells = entries = None
    if save:
        sizes = (blocks * 4 * own.lanes, blocks * own.lanes, blocks * own.lanes)
        gates, cells, entries = (values.new_empty(layout.words, size) for size in sizes)
    job = layout.job(
        x=values, inputs=inputs, hidden=hidden, reverse=reverse, packed=packed, h_in=h_0, c_in=c_0, h_out=h_n,
        c_out=c_n, y=y, gates=gates, cells=cells, entries=entries,
    )  # fmt: skip
    threads = _threads(layout, 4 * hidden * (inputs + hidden))
    job.parts = threads
    start(own.lstm_forward, job, threads)
    if gates is None or cells is None or entries is None:
        return y, h_n, c_n, None
    return y, h_n, c_n, SavedForBackward(gates, cells, entries, c_0, w_ih, w_hh)


def backward(
    layout: Layout,
    values: Tensor,
    saved: SavedForBackward,
    gradients: tuple[Tensor | None, ...],
    *,
    reverse: bool,
    wants_values: bool,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of values, h_0, c_0, the two weights and a bias, from those of output, h_n and c_n (None: zero).

    The gradient of the weights is summed over parts of the sentences, whose number does not depend on the threads, so
    that its bits do not either.
    """
    gates, cells, entries, c_0, w_ih, w_hh = saved
    inputs, hidden = w_ih.shape[1], w_hh.shape[1]
    own = _code(values, hidden)
    values = values.resolve_neg().contiguous()
    g_output, g_h, g_c = (None if part is None else part.resolve_neg().contiguous() for part in gradients)
    g_h, g_c = (torch.zeros_like(c_0) if part is None else part for part in (g_h, g_c))
    blocks = -(-hidden // own.lanes)
    packed, packed_x = (
        _packed_back(weights, hidden, blocks, own) if wanted else None
        for weights, wanted in ((w_hh, True), (w_ih, wants_values))
    )
    g_h_0, g_c_0 = torch.empty_like(c_0), torch.empty_like(c_0)
    g_x = None
    if wants_values:
        g_x = (torch.empty_like if layout.words == layout.rows else torch.zeros_like)(values)
    parts = _parts(layout.batch)
    sums = values.new_empty(parts, blocks * (inputs + hidden + 1) * 4 * own.lanes)
    g_w_ih, g_w_hh, g_bias = torch.empty_like(w_ih), torch.empty_like(w_hh), values.new_empty(4 * hidden)
    job = layout.job(
        x=values, inputs=inputs, hidden=hidden, reverse=reverse, packed=packed, packed_x=packed_x, h_in=g_h, c_in=g_c,
        h_out=g_h_0, c_out=g_c_0, c_0=c_0, y=g_output, gates=gates, cells=cells, entries=entries, g_x=g_x, sums=sums,
        g_w_ih=g_w_ih, g_w_hh=g_w_hh, g_bias=g_bias,
    )  # fmt: skip
    threads = _threads(layout, 8 * hidden * (inputs + hidden))
    job.parts = parts
    start(own.lstm_backward, job, threads)
    start(own.lstm_give_weights, job, threads if blocks > 1 else 1)
    return g_x, g_h_0, g_c_0, g_w_ih, g_w_hh, g_bias


def _packed_back(weights: Tensor, hidden: int, blocks: int, own: Code) -> Tensor:
    width = weights.shape[1]
    packed = weights.new_empty(-(-width // own.lanes) * blocks * 4 * own.lanes * own.lanes)
    own.lstm_pack_back(_at(packed), _at(weights), c_int64(width), c_int64(hidden))
    return packed


def _code(like: Tensor, hidden: int) -> Code:
    own = code(like.dtype, hidden)
    assert own is not None
    return own


def _threads(layout: Layout, work: int) -> int:
    return min(torch.get_num_threads(), layout.batch, max(1, layout.words * work // A_THREAD))


def _parts(count: int) -> int:
    """Of the sentences, in the backward pass: a power of two, so that each has some that go side by side."""
    return 1 << min(4, max(count // 16, 1).bit_length() - 1) if count >= 32 else 1 + (count >= 8)


def _at(tensor: Tensor | None) -> c_void_p:
    return c_void_p(None if tensor is None else tensor.data_ptr())
