"""All layers of an LSTM on a GPU: the layers' weights, the choice between the narrow and the wide kernels."""

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.kernels.batch import Batch, State, Weights
from towers.kernels.triton.support import NARROW


def run(
    batch: Batch, state: State | None, weights: Weights, *, outputs: bool = True, precision: str = ""
) -> tuple[Tensor | None, State]:
    """See `towers.kernels`; the results are float32, and nothing here waits for the device.

    Args:
        batch: rows of values "rows input_size", of which each sentence is a part.
        state: h and c before the first step, "layers*directions batch hidden"; None: zeros.
        weights: of all layers.
        outputs: whether the output of every step is wanted.
        precision: of products on the matrix units: "tf32", "tf32x3" or "ieee"; "": torch's setting.

    Raises:
        ValueError: there is not one length for each sentence, where contracts are off.
    """
    from towers.kernels.triton.lstm_narrow import narrow_lstm  # both register operators and load Triton
    from towers.kernels.triton.lstm_wide import wide_lstm

    values, starts, lengths, gaps = _rows(batch, state)
    directions = 1 + weights.bidirectional
    ends: list[State] = []
    keep = torch.is_grad_enabled() and any(part.requires_grad for part in (values, *weights.flat, *(state or ())))
    for layer in range(weights.num_layers):
        weight_ih, weight_hh, bias = _block(weights, layer)
        part = slice(layer * directions, (layer + 1) * directions)
        h_0, c_0 = (None, None) if state is None else (state[0][part], state[1][part])
        last = layer == weights.num_layers - 1
        how = (keep, outputs or not last, gaps)
        given = (values, weight_ih, weight_hh, bias, starts, lengths, h_0, c_0)
        if max(weight_ih.shape[2], weight_hh.shape[2]) <= NARROW:
            values, *_, h_n, c_n = narrow_lstm(*given, *how)
        else:
            values, *_, h_n, c_n = wide_lstm(*given, precision, *how)
        ends.append((h_n, c_n))
        if not last and weights.dropout:
            values = F.dropout(values, weights.dropout)
    state = ends[0] if len(ends) == 1 else (torch.cat([h for h, _ in ends]), torch.cat([c for _, c in ends]))
    return values if outputs else None, state


def _rows(batch: Batch, state: State | None) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Values, starts, lengths, and whether some rows may belong to no sentence."""
    values, starts, lengths, longest, dense = batch
    if starts is not None and lengths is not None:
        if starts.shape != lengths.shape:  # a kernel would read beyond the end of one of them
            expected = f"expected {tuple(starts.shape)}, one for each sentence"
            raise ValueError(f"RaggedLSTM: lengths is {tuple(lengths.shape)}; {expected}")
        return values, starts, lengths, not dense
    longest = longest or 0
    count = values.shape[0] // max(longest, 1) if state is None else state[0].shape[1]
    lengths = torch.full((count,), longest, device=values.device)
    return values, torch.arange(count, device=values.device) * longest, lengths, False


def _block(weights: Weights, layer: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """A layer's weights with its directions stacked; the sum of two biases, in float32."""
    each, directions = 2 + weights.biases, 1 + weights.bidirectional
    first = layer * directions * each
    parts = [weights.flat[at : at + each] for at in range(first, first + directions * each, each)]
    weight_ih, weight_hh = (_stacked([part[kind] for part in parts]) for kind in range(2))
    bias = _stacked([_sum(*part[2:]) for part in parts]) if weights.biases else None
    return weight_ih, weight_hh, bias


def _sum(bias: Tensor, *second: Tensor) -> Tensor:
    """Of biases as they are: of views, each would get a view of one gradient, and keep it as its own."""
    return bias.float() + second[0].float() if second else bias


def _stacked(parts: list[Tensor]) -> Tensor:
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)
