"""The C code as a part of torch's graph: layers and directions over plain tensors on the CPU."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from towers.kernels import recurrence, torch_lstm
from towers.kernels.batch import Batch, Parameters, State, Weights, check_sizes
from towers.kernels.cpu import door, lstm_call
from towers.kernels.stacked import run_layers


def refusal(values: Tensor, count: int, weights: Weights) -> str | None:
    """Why the C code does not run `count` sentences under these weights; None where it does."""
    if weights.projected:
        return "the C code has no projection"
    return lstm_call.refusal(values.dtype, values.shape[-1], weights.hidden, count)


def run(batch: Batch, state: State, weights: Weights, *, outputs: bool = True) -> tuple[Tensor | None, State]:
    """See `towers.kernels`; where the C code does not run this, torch.lstm does."""
    values, count = batch.values, state[0].shape[1]
    check_sizes(values, state, weights)
    if refusal(values, count, weights) is not None:
        return torch_lstm.run(batch, state, weights, outputs=outputs)
    door.check_lstm(batch, count, state, weights)
    layout = lstm_call.Layout(batch, count)
    training = torch.is_grad_enabled() and any(part.requires_grad for part in (values, *state, *weights.flat))
    one = partial(_differentiable if training else _without_gradients, layout)
    return run_layers(one, values, state, weights, outputs=outputs)


def _without_gradients(
    layout: lstm_call.Layout, values: Tensor, state: State, parameters: Parameters, reverse: bool, outputs: bool
) -> tuple[Tensor | None, State]:
    y, h_n, c_n, _ = lstm_call.forward(layout, values, state, parameters, reverse=reverse, outputs=outputs, save=False)
    return y, (h_n, c_n)


def _differentiable(
    layout: lstm_call.Layout, values: Tensor, state: State, parameters: Parameters, reverse: bool, outputs: bool
) -> tuple[Tensor | None, State]:
    w_ih, w_hh, biases, _ = parameters
    y, h_n, c_n = _Direction.apply(layout, reverse, outputs, values, *state, w_ih, w_hh, *biases)
    return y, (h_n, c_n)


class _Direction(torch.autograd.Function):
    """One layer in one direction: (values, h_0, c_0, weight_ih, weight_hh, biases) -> (output or None, h_n, c_n)."""

    @staticmethod
    def forward(
        ctx: Any, layout: lstm_call.Layout, reverse: bool, outputs: bool, values: Tensor, h_0: Tensor, c_0: Tensor,
        w_ih: Tensor, w_hh: Tensor, *biases: Tensor,
    ) -> tuple[Tensor | None, Tensor, Tensor]:  # fmt: skip
        """Run, and keep what the backward pass needs."""
        parameters = Parameters(w_ih, w_hh, biases, None)
        y, h_n, c_n, saved = lstm_call.forward(
            layout, values, (h_0, c_0), parameters, reverse=reverse, outputs=outputs, save=True
        )
        assert saved is not None
        kept = (saved.gates, saved.cells, saved.entries)
        ctx.how = (layout, reverse, outputs, values.dtype, [one.shape for one in (values, h_0, c_0, w_ih, w_hh, *kept)])
        ctx.save_for_backward(values, h_0, c_0, w_ih, w_hh, *kept, *biases)
        ctx.set_materialize_grads(False)
        return y, h_n, c_n

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors that came in."""
        wanted = ctx.needs_input_grad
        if all(gradient is None for gradient in gradients):
            return (None,) * len(wanted)
        (layout, reverse, outputs, dtype, sizes), saved = ctx.how, ctx.saved_tensors
        if not door.is_eager(*gradients):
            return (
                None,
                None,
                None,
                *_by_torch(layout, reverse, outputs, (*saved[:5], *saved[8:]), gradients, wanted[3:]),
            )
        names = ("input", "h_0", "c_0", "weight_ih", "weight_hh", *["what was kept"] * 3)
        values, _, c_0, w_ih, w_hh, *kept = [
            door.as_before(f"an LSTM's {name}", one, size, dtype)
            for name, one, size in zip(names, saved, sizes, strict=False)
        ]
        g_x, g_h, g_c, g_w_ih, g_w_hh, g_bias = lstm_call.backward(
            layout, values, lstm_call.SavedForBackward(kept[0], kept[1], kept[2], c_0, w_ih, w_hh), gradients,
            reverse=reverse, wants_values=wanted[3],
        )  # fmt: skip
        return None, None, None, g_x, g_h, g_c, g_w_ih, g_w_hh, *[g_bias] * len(saved[8:])


def _by_torch(
    layout: lstm_call.Layout, reverse: bool, outputs: bool,
    tensors: tuple[Tensor, ...], gradients: tuple[Tensor | None, ...], wanted: tuple[bool, ...],
) -> list[Tensor | None]:  # fmt: skip
    """The same gradients by torch's own operations: they have gradients themselves, and can be batched."""
    twice = torch.is_grad_enabled()
    with torch.enable_grad():
        if not twice:
            tensors = tuple([one.detach().requires_grad_(want) for one, want in zip(tensors, wanted, strict=True)])
        values, h_0, c_0, w_ih, w_hh, *biases = tensors
        batch = Batch(values, layout.starts, layout.lengths, layout.span if layout.lengths is None else None)
        parameters = Parameters(w_ih, w_hh, tuple(biases), None)
        y, (h_n, c_n) = recurrence.one_direction(batch, (h_0, c_0), parameters, reverse=reverse, outputs=outputs)
        pairs = zip((y, h_n, c_n), gradients, strict=True)
        results = [(result, gradient) for result, gradient in pairs if result is not None and gradient is not None]
        inputs = [one for one, want in zip(tensors, wanted, strict=True) if want]
        options = {"create_graph": twice, "allow_unused": True, "materialize_grads": True}
        found = iter(torch.autograd.grad([one for one, _ in results], inputs, [one for _, one in results], **options))
    return [next(found) if want else None for want in wanted]
