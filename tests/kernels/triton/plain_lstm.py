"""What the LSTM's launchers do, in plain torch and one step at a time: tests put these in their place.

So the operators, and all that calls them, are tested without Triton's interpreter too.
"""

import torch
from torch import Tensor

from towers.kernels.triton.launch import covered

# Of the steps; `rounding` puts the arithmetic of a GPU's units in their place.
product, sigmoid, tanh = torch.matmul, torch.sigmoid, torch.tanh


def narrow_forward(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    h_0: Tensor | None, c_0: Tensor | None, keep: bool, outputs: bool, gaps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`lstm_narrow.launch_forward`."""
    directions, _, hidden = weight_hh.shape
    output, before_h, before_c = (torch.zeros(len(values), directions, hidden, device=values.device) for _ in range(3))
    h_n, c_n = (
        torch.zeros(directions, len(lengths), hidden, device=values.device) if part is None else part.float().clone()
        for part in (h_0, c_0)
    )
    for direction in range(directions):
        for t in range(int(lengths.max()) if len(lengths) else 0):
            live, place = _step(direction, t, starts, lengths)
            h, c = h_n[direction, live], c_n[direction, live]
            before_h[place, direction], before_c[place, direction] = h, c
            i, f, g, o = _gates(direction, values[place], h, weight_ih, weight_hh, bias).chunk(4, 1)
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(c)
            output[place, direction], h_n[direction, live], c_n[direction, live] = h, h, c
    kept = len(values) if keep else 0
    return output[: len(values) if outputs else 0].flatten(1), before_h[:kept], before_c[:kept], h_n, c_n


def _step(direction: int, t: int, starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The sentences that have a step `t` of the walk, and its rows."""
    live = (t < lengths).nonzero().squeeze(1)
    return live, starts[live] + (t if direction == 0 else lengths[live] - 1 - t)


def _gates(
    direction: int, values: Tensor, h: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None
) -> Tensor:
    by_state = product(h, weight_hh[direction].float().t())
    by_input = product(values.float(), weight_ih[direction].float().t())
    return by_input + by_state if bias is None else by_input + by_state + bias[direction].float()


def wide_forward(
    values, weight_ih, weight_hh, bias, starts, lengths, h_0, c_0, precision, keep, outputs, gaps
) -> tuple[Tensor, ...]:
    """`lstm_wide.launch_forward`; the gates are not kept, but computed again."""
    given = (values, weight_ih, weight_hh, bias, starts, lengths, h_0, c_0, keep, outputs, gaps)
    output, *others = narrow_forward(*given)
    kept = len(values) if keep else 0
    return output, torch.zeros(kept, weight_hh[..., 0].numel(), dtype=weight_ih.dtype, device=values.device), *others


def wide_backward(
    values, weight_ih, weight_hh, bias, starts, lengths, gates, before_h, before_c, d_output, d_h_n, d_c_n,
    precision, gaps, inputs,
) -> list[Tensor]:  # fmt: skip
    """`lstm_wide.launch_backward`."""
    upstream = (before_h, before_c, d_output, d_h_n, d_c_n)
    d_values, *others = narrow_backward(values, weight_ih, weight_hh, bias, starts, lengths, *upstream, gaps)
    return [d_values if inputs else d_values[:0].clone(), *others]


def narrow_backward(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    before_h: Tensor, before_c: Tensor, d_output: Tensor | None, d_h_n: Tensor | None, d_c_n: Tensor | None,
    gaps: bool,
) -> list[Tensor]:  # fmt: skip
    """`lstm_narrow.launch_backward`."""
    directions, _, hidden = weight_hh.shape
    d_gates = torch.zeros(len(values), directions, 4 * hidden, device=values.device)
    d_h_0, d_c_0 = (
        torch.zeros(directions, len(lengths), hidden, device=values.device) if part is None else part.clone()
        for part in (d_h_n, d_c_n)
    )
    for direction, recurrent in enumerate(weight_hh.float()):
        for t in reversed(range(int(lengths.max()) if len(lengths) else 0)):
            live, place = _step(direction, t, starts, lengths)
            gates = _gates(direction, values[place], before_h[place, direction], weight_ih, weight_hh, bias)
            d_h, d_c, before = d_h_0[direction, live], d_c_0[direction, live], before_c[place, direction]
            if d_output is not None:
                d_h = d_h + d_output.unflatten(1, (directions, hidden))[place, direction]
            found, d_before = _gate_gradients(gates, before, d_h, d_c)
            d_gates[place, direction] = found
            d_h_0[direction, live], d_c_0[direction, live] = product(found, recurrent), d_before
    real = covered(starts, lengths, len(values))
    each = range(directions)
    d_values = sum(product(d_gates[:, d], weight_ih[d].float()) for d in each)
    d_weight_hh = torch.stack([product(d_gates[real, d].t(), before_h[real, d]) for d in each])
    d_weight_ih = torch.stack([product(d_gates[real, d].t(), values[real].float()) for d in each])
    d_bias = torch.zeros(0, device=values.device) if bias is None else d_gates.sum(0).to(bias.dtype)
    weights = (d_weight_ih.to(weight_ih.dtype), d_weight_hh.to(weight_hh.dtype))
    return [d_values.to(values.dtype), *weights, d_bias, d_h_0, d_c_0]


def _gate_gradients(gates: Tensor, before: Tensor, d_h: Tensor, d_c: Tensor) -> tuple[Tensor, Tensor]:
    """Of one step: those of the four gates' sums, and that of c before it."""
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    end = tanh(f * before + i * g)
    d_c = d_c + d_h * o * (1 - end * end)
    d_i, d_f = d_c * g * i * (1 - i), d_c * before * f * (1 - f)
    return torch.cat([d_i, d_f, d_c * i * (1 - g * g), d_h * end * o * (1 - o)], 1), d_c * f
