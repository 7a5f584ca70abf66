"""For devices: padded to the longest sentence, through torch's own LSTM (cuDNN on CUDA); it does not wait for them.

As in `buckets`, one more input closes the input gate and opens the forget gate in padding, so that a cell stays as it
is behind its sentence's end. Sentences are read backwards by their index, not by torch's own second direction.
"""

import torch
from torch import Tensor

from towers.kernels.batch import Batch, State, Weights

_SHUT = 1e30


def serves(batch: Batch, weights: Weights) -> bool:
    """Everything."""
    return True


def run(batch: Batch, state: State, weights: Weights, *, outputs: bool = True) -> tuple[Tensor | None, State]:
    """See `towers.kernels`; where the longest sentence is not known, this waits for the device once."""
    values, longest = batch.values, batch.longest
    count, device = state[0].shape[1], values.device
    starts, lengths = batch.places(count)
    longest = int(lengths.max()) if longest is None and count else longest
    if not longest or not count or not len(values):
        width = state[0].shape[2] * (1 + weights.bidirectional)
        return (values.new_zeros(len(values), width) if outputs else None), state
    step = torch.arange(longest, device=device)
    real = step < lengths.unsqueeze(1)
    rows, directions = len(values), 1 + weights.bidirectional
    ends: list[tuple[Tensor, Tensor]] = []
    for layer in range(weights.num_layers):
        parts: list[Tensor] = []
        for direction in range(directions):
            place = starts.unsqueeze(1) + (lengths.unsqueeze(1) - 1 - step if direction else step)
            place = torch.where(real, place, rows)
            row = layer * directions + direction
            y, h_n, c_n = _direction(values, place, real, lengths, (state[0][row], state[1][row]), weights, row)
            back = torch.full((rows + 1,), place.numel(), device=device)
            back = back.scatter(0, place.flatten(), torch.arange(place.numel(), device=device))[:-1]
            y = torch.nn.functional.pad(y.flatten(0, 1), (0, 0, 0, 1))
            parts.append(y.index_select(0, back))
            ends.append((h_n, c_n))
        values = torch.cat(parts, 1)
        if layer < weights.num_layers - 1:
            values = torch.nn.functional.dropout(values, weights.dropout, weights.dropout > 0)
    h_n, c_n = (torch.stack(parts) for parts in zip(*ends, strict=True))
    return values if outputs else None, (h_n, c_n)


def _direction(
    values: Tensor, place: Tensor, real: Tensor, lengths: Tensor, state: State, weights: Weights, row: int
) -> tuple[Tensor, Tensor, Tensor]:
    """y ("batch longest state"), and the states at each sentence's own end."""
    directions = 1 + weights.bidirectional
    w_ih, w_hh, bias, w_hr = weights.of(row // directions, row % directions)
    hidden = w_ih.shape[0] // 4
    x = values.index_select(0, place.clamp(max=len(values) - 1).flatten()).unflatten(0, place.shape)
    x = torch.cat((x.masked_fill(~real.unsqueeze(2), 0), (~real).to(x.dtype).unsqueeze(2)), 2)
    shut = w_ih.new_zeros(4, hidden)
    shut[0], shut[1] = -_shut(w_ih), _shut(w_ih)
    bias = w_ih.new_zeros(4 * hidden) if bias is None else bias
    flat = [torch.cat((w_ih, shut.view(-1, 1)), 1), w_hh, bias, torch.zeros_like(bias)]
    flat += [] if w_hr is None else [w_hr]
    h, c = (part.unsqueeze(0) for part in state)
    y, _, c_n = torch.lstm(x, (h, c), flat, True, 1, 0.0, torch.is_grad_enabled(), False, True)
    last = (lengths - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, y.shape[2])
    h_n = torch.where((lengths > 0).unsqueeze(1), y.gather(1, last).squeeze(1), state[0])
    return y, h_n, c_n[0]


def _shut(like: Tensor) -> float:
    return 3e4 if like.dtype == torch.float16 else _SHUT
