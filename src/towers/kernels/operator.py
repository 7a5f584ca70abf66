"""The LSTM as one custom operation, for fake, functional and compiled tensors on the CPU: no compiler traces its steps.

The shapes of the results depend only on the shapes of the inputs, so sizes may be symbols. The backward pass runs the
forward pass again, so only the inputs are kept between the two. The noise of dropout comes from a seed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from towers.kernels.batch import Batch, State, Weights, as_tensors
from towers.kernels.cpu import lstm_autograd

_torch: Any = torch


def run(batch: Batch, state: State, weights: Weights, *, outputs: bool) -> tuple[Tensor | None, State]:
    """See `towers.kernels`."""
    values, starts, lengths, longest, _ = batch
    seed = torch.randint(2**31, (1,)) if weights.dropout else None
    how = (weights.biases, weights.projected, weights.num_layers, weights.bidirectional, float(weights.dropout))
    longest = longest or 0
    output, h_n, c_n = ragged_lstm(values, starts, lengths, longest, *state, list(weights.flat), *how, seed, outputs)
    return output if outputs else None, (h_n, c_n)


def _run(
    batch: Batch, state: State, weights: Weights, seed: Tensor | None, outputs: bool
) -> tuple[Tensor | None, State]:
    """With dropout's noise drawn from the seed."""
    if seed is None:
        return lstm_autograd.run(batch, state, weights, outputs=outputs)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(seed))
        return lstm_autograd.run(batch, state, weights, outputs=outputs)


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
) -> tuple[Tensor, Tensor, Tensor]:
    """`lstm_autograd.run`, its arguments one by one; without `outputs` the output is empty."""
    how = (biases, projected, num_layers, bidirectional, dropout)
    values, h_0, c_0, *flat = as_tensors(values, h_0, c_0, *weights)
    batch, own = Batch(values, starts, lengths, longest), Weights(tuple(flat), *how)
    output, (h_n, c_n) = _run(batch, (h_0, c_0), own, seed, outputs)
    output = values.new_empty(0, h_n.shape[2] * (1 + bidirectional)) if output is None else output
    return output.contiguous(), h_n.clone() if h_n is h_0 else h_n, c_n.clone() if c_n is c_0 else c_n


@ragged_lstm.register_fake
def _(values: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    if _torch.onnx.is_in_onnx_export():  # its second try, after a refusal of ours, which it then shows
        raise ValueError("towers::ragged_lstm is no operator of ONNX")
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
) -> list[Tensor]:
    """The gradients of values, h_0, c_0 and the weights, from those of output (if any), h_n and c_n."""
    with torch.inference_mode(False):  # inside an operation torch records no graph otherwise
        tensors = as_tensors(values, h_0, c_0, *weights)
        values, h_0, c_0, *own = (part.detach().requires_grad_() for part in tensors)
        batch = Batch(values, starts, lengths, longest)
        how = (biases, projected, num_layers, bidirectional, dropout)
        output, state = _run(batch, (h_0, c_0), Weights(tuple(own), *how), seed, outputs)
        results = [*([] if output is None else [output]), *state]
        inputs = [values, h_0, c_0, *own]
        found = torch.autograd.grad(results, inputs, gradients, allow_unused=True, materialize_grads=True)
    return [part.clone() for part in found]


@ragged_lstm_backward.register_fake
def _(gradients: Sequence[Tensor], *rest: Any) -> list[Tensor]:
    values, h_0, c_0, weights = rest[0], rest[4], rest[5], rest[6]
    return [torch.empty_like(part, memory_format=torch.contiguous_format) for part in (values, h_0, c_0, *weights)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    values, starts, lengths, longest, h_0, c_0, weights, *how = inputs
    *how, seed, outputs = how
    ctx.save_for_backward(values, starts, lengths, h_0, c_0, seed, *weights)
    ctx.how = (longest, how, outputs)


def _backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
    values, starts, lengths, h_0, c_0, seed, *weights = ctx.saved_tensors
    longest, how, outputs = ctx.how
    g_values, g_h, g_c, *g_weights = ragged_lstm_backward(
        [one.contiguous() for one in gradients[0 if outputs else 1 :]],
        values, starts, lengths, longest, h_0, c_0, weights, *how, seed, outputs,
    )  # fmt: skip
    return (g_values, None, None, None, g_h, g_c, g_weights, *[None] * 7)


ragged_lstm.register_autograd(_backward, setup_context=_keep)
