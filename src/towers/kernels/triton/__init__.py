"""On NVIDIA GPUs with Triton: kernels of our own, which go over sentences of different lengths without padding them.

A small LSTM on a GPU is bound by the latency of its steps: here a step never leaves the registers of one warp, or of
one block where the units are many. `lstm_narrow` multiplies the inputs within the steps, for at most 8 units and
inputs; `lstm_wide` finds them multiplied. Both go over rows by start and length, so that padded and jagged batches are
the same to them. `lstm_ops` makes operators of them; `phrase_ops` does the same for a tower's convolution and pool.
"""

from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.kernels.batch import Batch, State, Weights
from towers.kernels.triton.real_rows import covered

WIDEST = 128
"""The largest hidden size."""

NARROW = 8
"""Up to this many units and inputs, the product with the inputs is a part of each step."""

DTYPES = (torch.float32, torch.bfloat16)
"""Of values and weights, read as they are; the state is of float32."""


def serves(batch: Batch, weights: Weights) -> bool:
    """An LSTM without projection, of at most 128 units, in float32 or bfloat16, on a GPU for which Triton compiles."""
    dtypes = (batch.values.dtype, weights.flat[0].dtype)
    fits = weights.hidden <= WIDEST and not weights.projected and all(dtype in DTYPES for dtype in dtypes)
    return fits and runs_on(batch.values.device)


def serves_phrases(values: Tensor, weight: Tensor, pool: int) -> bool:
    """A convolution of weights "places filters width" and its pool, whose tiles are powers of two; dtypes as above."""
    if not runs_on(values.device):
        return False
    places, filters, _ = weight.shape
    fits = all(size & (size - 1) == 0 for size in (filters, pool)) and filters >= 16
    fits = fits and filters << (places - 1).bit_length() <= 128
    return fits and all(part.dtype in DTYPES for part in (values, weight))


def runs_on(device: torch.device) -> bool:
    """Whether there is an NVIDIA GPU of compute capability 8.0 or more, and Triton."""
    if device.type != "cuda" or torch.version.cuda is None or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


# What `torch.compiler.assume_constant_result` does; that loads the compiler, 150 MB, for those who never compile too.
runs_on.__dict__["_dynamo_marked_constant"] = True


def run(
    batch: Batch, state: State | None, weights: Weights, *, outputs: bool = True, precision: str = ""
) -> tuple[Tensor | None, State]:
    """See `towers.kernels`; results are of float32. Nothing here waits for the device.

    `state` may be None for zeros; `precision` is that of the products on the matrix units, see `lstm_ops`.
    """
    from towers.kernels.triton.lstm_ops import fused_lstm  # registers the operator

    values, starts, lengths, gaps = _rows(batch, state)
    directions = 1 + weights.bidirectional
    ends: list[State] = []
    keep = torch.is_grad_enabled() and any(part.requires_grad for part in (values, *weights.flat, *(state or ())))
    for layer in range(weights.num_layers):
        weight_ih, weight_hh, bias = _block(weights, layer)
        if max(weight_ih.shape[2], weight_hh.shape[2]) > NARROW:
            clean = gaps and keep and layer == 0  # between layers, rows of no sentence are 0
            values, weight_ih, bias = _by_input(values, starts, lengths, weight_ih, bias, clean), None, None
        part = slice(layer * directions, (layer + 1) * directions)
        h_0, c_0 = (None, None) if state is None else (state[0][part], state[1][part])
        last = layer == weights.num_layers - 1
        values, _, _, h_n, c_n = fused_lstm(
            values, weight_ih, weight_hh, bias, starts, lengths, h_0, c_0, precision, keep, outputs or not last, gaps
        )
        ends.append((h_n, c_n))
        if not last and weights.dropout:
            values = F.dropout(values, weights.dropout)
    state = ends[0] if len(ends) == 1 else (torch.cat([h for h, _ in ends]), torch.cat([c for _, c in ends]))
    return values if outputs else None, state


def _rows(batch: Batch, state: State | None) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Values, starts, lengths, and whether some rows may belong to no sentence."""
    values, starts, lengths, longest, dense = batch
    if starts is not None and lengths is not None:
        return values, starts, lengths, not dense
    longest = longest or 0
    count = values.shape[0] // max(longest, 1) if state is None else state[0].shape[1]
    lengths = torch.full((count,), longest, device=values.device)
    return values, torch.arange(count, device=values.device) * longest, lengths, False


def _block(weights: Weights, layer: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """A layer's weights, its directions stacked; two biases added, in float32."""
    each, directions = 2 + weights.biases, 1 + weights.bidirectional
    flat = weights.flat[layer * directions * each :][: directions * each]
    weight_ih, weight_hh, *biases = (_stacked(flat[kind::each]) for kind in range(each))
    bias = biases[0].float() + biases[1].float() if len(biases) == 2 else biases[0] if biases else None
    return weight_ih, weight_hh, bias


def _stacked(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)


def _by_input(
    values: Tensor, starts: Tensor, lengths: Tensor, weight_ih: Tensor, bias: Tensor | None, clean: bool
) -> Tensor:
    """What the inputs contribute to the gates, in one product: "rows directions*4*hidden"."""
    values = values.to(weight_ih.dtype)
    if clean:  # the weights' gradients multiply all rows, and 0 * NaN is NaN
        values = values.masked_fill(~covered(starts, lengths, values.shape[0]).unsqueeze(1), 0.0)
    return F.linear(values, weight_ih.flatten(0, 1), None if bias is None else bias.flatten().to(weight_ih.dtype))
