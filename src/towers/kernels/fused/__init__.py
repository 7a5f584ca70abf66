# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""An LSTM over sentences of different lengths in a few kernels of our own, on NVIDIA GPUs with Triton."""

from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.kernels import State, Weights
from towers.kernels.fused.rows import covered

WIDEST = 128
"""The largest hidden size."""

NARROW = 8
"""Up to this many units and inputs, the product with the inputs is a part of each step."""


@lru_cache
def runs_on(device: torch.device) -> bool:
    """Whether there is an NVIDIA GPU of compute capability 8.0 or more, and Triton."""
    if device.type != "cuda" or torch.version.cuda is None or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def takes(hidden: int, proj_size: int, dtype: torch.dtype) -> bool:
    """Whether there is a kernel for an LSTM of this kind."""
    return hidden <= WIDEST and proj_size == 0 and dtype in (torch.float32, torch.bfloat16)


def run(
    values: Tensor, starts: Tensor, lengths: Tensor, state: State | None, weights: Weights,
    *, outputs: bool = True, gaps: bool = True, precision: str = "",
) -> tuple[Tensor, State]:  # fmt: skip
    """An LSTM's layers over sentences of which number i is the `lengths[i]` rows of values from row `starts[i]`.

    Nothing here waits for the device. As `towers::ragged_lstm`, which has more on the arguments; without `outputs`
    the output has no rows. Results are of float32.
    """
    from towers.kernels.fused.lstm_ops import ragged_lstm  # registers the operator

    directions, ends = 1 + weights.bidirectional, list[State]()
    keep = torch.is_grad_enabled() and any(part.requires_grad for part in (values, *weights.flat, *(state or ())))
    for layer in range(weights.num_layers):
        weight_ih, weight_hh, bias = _block(weights, layer)
        if max(weight_ih.shape[2], weight_hh.shape[2]) > NARROW:
            values, weight_ih, bias = _by_input(values, starts, lengths, weight_ih, bias, gaps and keep), None, None
        part = slice(layer * directions, (layer + 1) * directions)
        h_0, c_0 = (None, None) if state is None else (state[0][part], state[1][part])
        last = layer == weights.num_layers - 1
        values, _, _, h_n, c_n = ragged_lstm(
            values, weight_ih, weight_hh, bias, starts, lengths, h_0, c_0, precision, keep, outputs or not last, gaps
        )
        ends.append((h_n, c_n))
        if not last and weights.dropout:
            values = F.dropout(values, weights.dropout, weights.training)
    if len(ends) == 1:
        return values, ends[0]
    return values, (torch.cat([h_n for h_n, _ in ends]), torch.cat([c_n for _, c_n in ends]))


def _block(weights: Weights, layer: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """A layer's weights, its directions stacked; the two biases added, in float32."""
    each, directions = 4 if weights.biases else 2, 1 + weights.bidirectional
    first = layer * directions * each
    kinds = [weights.flat[first + kind : first + directions * each : each] for kind in range(each)]
    weight_ih, weight_hh, *biases = (_stacked(kind) for kind in kinds)
    return weight_ih, weight_hh, biases[0].float() + biases[1].float() if biases else None


def _stacked(parts: list[Tensor]) -> Tensor:
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)


def _by_input(
    values: Tensor, starts: Tensor, lengths: Tensor, weight_ih: Tensor, bias: Tensor | None, clean: bool
) -> Tensor:
    """What the inputs contribute to the gates, in one product: "rows directions*4*hidden"."""
    values = values.to(weight_ih.dtype)
    if clean:  # the weights' gradients multiply all rows, and 0 * NaN is NaN
        values = values.masked_fill(~covered(starts, lengths, values.shape[0]).unsqueeze(1), 0.0)
    return F.linear(values, weight_ih.flatten(0, 1), None if bias is None else bias.flatten().to(weight_ih.dtype))
