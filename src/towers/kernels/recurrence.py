"""An LSTM as its equations, step by step in torch's own operations, for gates that are not sigmoids.

    i, f, g, o = W x_t + U h + b        c = gate(f) c + gate(i) tanh(g)        h = gate(o) tanh(c)

`gate` is Keras's recurrent activation. All derivatives of torch work. Each step is about ten operations.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from towers.kernels.batch import Batch, Parameters, State, Weights, connected, is_jit_tracing
from towers.kernels.stacked import run_layers

Gates = Literal["sigmoid", "hard_sigmoid", "hard_sigmoid_keras2"]

GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": torch.nn.functional.hardsigmoid,  # relu6(x + 3) / 6: of Keras 3
    "hard_sigmoid_keras2": lambda x: (0.2 * x + 0.5).clamp(0, 1),  # of Keras 1 and 2
}


def run(batch: Batch, state: State, weights: Weights, *, outputs: bool = True) -> tuple[Tensor | None, State]:
    """See `towers.kernels`. If the longest length is not known, it is read once.

    Raises:
        RuntimeError: under torch.jit.trace: the traced code would be right for this number of steps only.
    """
    if is_jit_tracing():
        raise RuntimeError(f"an LSTM whose gates are {weights.gates} cannot be traced by torch.jit; use torch.export")
    direction = partial(_direction, batch, *_steps(batch, state), GATES[weights.gates])
    output, (h_n, c_n) = run_layers(direction, batch.values, state, weights, outputs=outputs)
    tensors = (batch.values, *weights.flat)  # they have gradients where there is no step, too
    return None if output is None else connected(output, *tensors), (connected(h_n, *tensors), connected(c_n, *tensors))


def one_direction(
    batch: Batch, state: State, parameters: Parameters, *, reverse: bool, outputs: bool
) -> tuple[Tensor | None, State]:
    """As `run`, for one layer in one direction with sigmoids."""
    return _direction(
        batch, *_steps(batch, state), torch.sigmoid, batch.values, state, parameters, reverse=reverse, outputs=outputs
    )


def _steps(batch: Batch, state: State) -> tuple[Tensor, Tensor, int]:
    """Where the sentences start, how long they are, and the longest."""
    count = state[0].shape[1]
    starts, lengths = batch.places(count)
    longest = int(lengths.max()) if batch.longest is None and count else batch.longest or 0
    return starts, lengths, 0 if len(batch.values) == 0 else longest


def _direction(
    batch: Batch, starts: Tensor, lengths: Tensor, longest: int, gate: Callable[[Tensor], Tensor],
    values: Tensor, state: State, parameters: Parameters, reverse: bool, outputs: bool,
) -> tuple[Tensor | None, State]:  # fmt: skip
    """One layer in one direction, see `stacked.Direction`."""
    w_ih, w_hh, biases, w_hr = parameters
    rows, (h, c) = values.flatten(0, -2), (part.squeeze(0) for part in state)
    ys: list[Tensor] = []
    places: list[Tensor] = []
    for step in range(longest):
        active = lengths > step
        place = starts + (lengths - 1 - step if reverse else step)
        x = rows.index_select(0, torch.where(active, place, 0))
        x = torch.where(active.unsqueeze(1), x, 0)  # padding must not reach a gradient
        i, f, g, o = (x @ w_ih.t() + h @ w_hh.t() + sum(biases)).chunk(4, 1)
        cell = gate(f) * c + gate(i) * g.tanh()
        hidden = gate(o) * cell.tanh()
        hidden = hidden if w_hr is None else hidden @ w_hr.t()
        h, c = torch.where(active.unsqueeze(1), hidden, h), torch.where(active.unsqueeze(1), cell, c)
        ys.append(hidden)
        places.append(torch.where(active, place, len(rows)))  # past the end: one row more, cut off below
    end = h.unsqueeze(0), c.unsqueeze(0)
    if not outputs:
        return None, end
    output = rows.new_zeros(len(rows) + 1, h.shape[1])
    if ys:
        output = output.index_copy(0, torch.cat(places), torch.cat(ys))
    return output[:-1].unflatten(0, batch.values.shape[:-1]), end
