"""The same as one operation for fake, functional and compiled tensors on the CPU: no compiler looks into the steps.

Shapes depend on shapes alone, so sizes may be symbols. The backward pass runs forward again: between the two nothing
is kept but what went in, and the noise of dropout comes from a seed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from towers.kernels.batch import Batch, State, Weights
from towers.kernels.cpu import lstm_autograd


def run(batch: Batch, state: State, weights: Weights, *, outputs: bool, method: str) -> tuple[Tensor | None, State]:
    """See `towers.kernels`."""
    values, starts, lengths, longest, _ = batch
    seed = torch.randint(2**31, (1,)) if weights.dropout else None
    how = (weights.biases, weights.projected, weights.num_layers, weights.bidirectional, float(weights.dropout))
    longest = longest or 0
    output, h_n, c_n = ragged_lstm(
        values, starts, lengths, longest, *state, list(weights.flat), *how, seed, outputs, method
    )
    return output if outputs else None, (h_n, c_n)


@torch.library.custom_op("towers::ragged_lstm", mutates_args=())
def ragged_lstm(
    values: Tensor,
    starts: Tensor | None,
    lengths: Tensor | None,
    longest: int,
    h_0: Tensor,
    c_0: Tensor,
    weights: Sequence[Tensor],
    biases: int,
    projected: bool,
    num_layers: int,
    bidirectional: bool,
    dropout: float,
    seed: Tensor | None,
    outputs: bool,
    method: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """`lstm_autograd.run`, its arguments one by one; without `outputs` the output is empty."""
    output, (h_n, c_n) = lstm_autograd.run(
        Batch(values, starts, lengths, longest),
        (h_0, c_0),
        Weights(tuple(weights), biases, projected, num_layers, bidirectional, dropout),
        outputs=outputs,
        method=method,
        generator=None if seed is None else torch.Generator().manual_seed(int(seed)),
    )
    output = values.new_empty(0, h_n.shape[2] * (1 + bidirectional)) if output is None else output
    return output, h_n.clone() if h_n is h_0 else h_n, c_n.clone() if c_n is c_0 else c_n


@ragged_lstm.register_fake
def _(values: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    h_0, c_0, bidirectional, outputs = rest[3], rest[4], rest[9], rest[12]
    shape = values.shape[:-1] if outputs else (0,)
    output = values.new_empty(*shape, h_0.shape[2] * (1 + bidirectional))
    return output, torch.empty_like(h_0), torch.empty_like(c_0)


@torch.library.custom_op("towers::ragged_lstm_backward", mutates_args=())
def ragged_lstm_backward(
    gradients: Sequence[Tensor],
    values: Tensor,
    starts: Tensor | None,
    lengths: Tensor | None,
    longest: int,
    h_0: Tensor,
    c_0: Tensor,
    weights: Sequence[Tensor],
    biases: int,
    projected: bool,
    num_layers: int,
    bidirectional: bool,
    dropout: float,
    seed: Tensor | None,
    outputs: bool,
    method: str,
) -> list[Tensor]:
    """The gradients of values, h_0, c_0 and the weights, from those of output (if any), h_n and c_n."""
    g_output, g_h, g_c = gradients if outputs else (None, *gradients)
    own = Weights(tuple(weights), biases, projected, num_layers, bidirectional, dropout)
    batch, count = Batch(values, starts, lengths, longest), h_0.shape[1]
    generator = None if seed is None else torch.Generator().manual_seed(int(seed))
    how = lstm_autograd.prepare_training(batch, count, own, outputs, generator, method) if count else None
    if how is None:
        return [torch.zeros_like(values), g_h.clone(), g_c.clone(), *(torch.zeros_like(part) for part in weights)]
    *_, kept = lstm_autograd.forward(how, values, h_0, c_0, save=True)
    shapes = (values.shape, h_0.shape, c_0.shape)
    found = lstm_autograd.backward(how, values, shapes, kept, (g_output, g_h, g_c), wants_values=True)
    return [one.clone() for one in found if one is not None]


@ragged_lstm_backward.register_fake
def _(gradients: Sequence[Tensor], *rest: Any) -> list[Tensor]:
    values, h_0, c_0, weights = rest[0], rest[4], rest[5], rest[6]
    return [torch.empty_like(part, memory_format=torch.contiguous_format) for part in (values, h_0, c_0, *weights)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    values, starts, lengths, longest, h_0, c_0, weights, *how = inputs
    *how, seed, outputs, method = how
    ctx.save_for_backward(values, starts, lengths, h_0, c_0, seed, *weights)
    ctx.how = (longest, how, outputs, method)


def _backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
    values, starts, lengths, h_0, c_0, seed, *weights = ctx.saved_tensors
    longest, how, outputs, method = ctx.how
    g_values, g_h, g_c, *g_weights = ragged_lstm_backward(
        [one.contiguous() for one in gradients[0 if outputs else 1 :]],
        values, starts, lengths, longest, h_0, c_0, weights, *how, seed, outputs, method,
    )  # fmt: skip
    return (g_values, None, None, None, g_h, g_c, g_weights, *[None] * 8)


ragged_lstm.register_autograd(_backward, setup_context=_keep)
