# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Layers and directions over plain tensors on the CPU: one plan, one layout, a walk for each."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from towers.kernels import walk
from towers.kernels.batch import Batch, State, Weights
from towers.kernels.layout import Layout
from towers.kernels.plan import Plan, plan


def run(
    batch: Batch,
    state: State,
    weights: Weights,
    *,
    outputs: bool = True,
    method: str = "auto",
    generator: torch.Generator | None = None,
) -> tuple[Tensor | None, State]:
    """See `towers.kernels`; dropout takes its noise from the generator."""
    values = batch.values
    training = torch.is_grad_enabled() and any(part.requires_grad for part in (values, *state, *weights.flat))
    how = prepare(batch, state[0].shape[1], weights, outputs, method, generator, training=training)
    if not how.plan.cuts:
        width = state[0].shape[2] * (1 + weights.bidirectional)
        return (values.new_zeros(len(values), width) if outputs else None), state
    if training:
        output, h_n, c_n = _Stack.apply(how, values, *state, *weights.flat)
    else:
        output, h_n, c_n, _ = forward(how, values, *state, save=False)
    return output, (h_n, c_n)


def prepare(
    batch: Batch,
    count: int,
    weights: Weights,
    outputs: bool,
    method: str,
    generator: torch.Generator | None,
    *,
    training: bool,
) -> "How":
    """Plan a batch of `count` sentences and lay it out."""
    values, starts, lengths, longest, _ = batch
    if lengths is not None and starts is not None:
        lengths, starts = lengths.cpu(), starts.cpu()
    same = longest or 0
    chosen = choose(same if lengths is None else lengths, count, weights, method, training=training, like=values)
    if lengths is None or starts is None:
        starts, lengths = torch.arange(count) * same, torch.full((count,), same)
    return How(chosen, Layout(chosen, starts, lengths, len(values)), weights, outputs, generator)


class How(NamedTuple):
    """What one run knows besides its tensors."""

    plan: Plan
    layout: Layout
    weights: Weights
    outputs: bool
    generator: torch.Generator | None


class _Stack(torch.autograd.Function):
    """(values, h_0, c_0, parameters) -> (output, h_n, c_n)."""

    @staticmethod
    def forward(ctx: Any, how: How, values: Tensor, h_0: Tensor, c_0: Tensor, *flat: Tensor) -> Any:
        """Run, and keep what the way back needs."""
        output, h_n, c_n, kept = forward(how, values, h_0, c_0, save=True)
        ctx.how, ctx.shapes = how._replace(weights=how.weights._replace(flat=())), (values.shape, h_0.shape, c_0.shape)
        tensors: list[Tensor | None] = []
        ctx.kept = _take_apart(kept, tensors)
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return output, h_n, c_n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:  # pyright: ignore
        """Gradients of all inputs."""
        kept = _put_together(ctx.kept, iter(ctx.saved_tensors))
        return None, *backward(ctx.how, ctx.shapes, kept, gradients, wants_values=ctx.needs_input_grad[1])


def forward(how: How, values: Tensor, h_0: Tensor, c_0: Tensor, *, save: bool) -> Any:
    """output (or None), h_n, c_n, and, with `save`, for each layer its directions and its noise, which go back."""
    weights, directions, kept = how.weights, 1 + how.weights.bidirectional, list[Any]()
    output: Tensor | None = None
    ends: list[tuple[Tensor, Tensor]] = []
    for layer in range(weights.num_layers):
        final = layer == weights.num_layers - 1
        parts: list[Any] = []
        runs: list[Any] = []
        for direction in range(directions):
            way = walk.Direction(how.plan, how.layout, bool(direction), how.outputs or not final)
            row = layer * directions + direction
            part, h_n, c_n, run_kept = walk.run(
                way, values, h_0[row], c_0[row], weights.of(layer, direction), save=save
            )
            parts.append(part)
            ends.append((h_n, c_n))
            runs.append(tuple(run_kept))
        output = parts[0] if directions == 1 or parts[0] is None else torch.cat(parts, 1)
        noise = None
        if not final and output is not None:
            noise = _noise(output, weights.dropout, how.generator)
            values = output if noise is None else output * noise
        kept.append((tuple(runs), noise))
    return output, torch.stack([h for h, _ in ends]), torch.stack([c for _, c in ends]), tuple(kept)


def backward(how: How, shapes: Any, kept: Any, gradients: Any, *, wants_values: bool) -> list[Tensor | None]:
    """The gradients of values, h_0, c_0 and each parameter, from those of output, h_n and c_n (None: zero)."""
    weights, directions = how.weights, 1 + how.weights.bidirectional
    g_output, g_h, g_c = gradients
    starts: list[tuple[Tensor, Tensor]] = []
    of_weights: list[Tensor | None] = []
    for layer in range(weights.num_layers - 1, -1, -1):
        runs, noise = kept[layer]
        if noise is not None:
            g_output = g_output * noise
        g_values: Tensor | None = None
        for direction in range(directions - 1, -1, -1):
            way = walk.Direction(how.plan, how.layout, bool(direction), True)
            row = layer * directions + direction
            parts = [None if one is None else one[row] for one in (g_h, g_c)]
            part = None if g_output is None else g_output.chunk(directions, 1)[direction]
            sizes = (shapes[0][0], *(shape[1:] for shape in shapes[1:]))
            found, h, c, own = walk.back(
                way, sizes, runs[direction], part, *parts, wants_values=wants_values or layer > 0
            )
            g_values = found if g_values is None else g_values + found
            starts.append((h, c))
            present = [own[0], own[1], *[own[2]] * weights.biases, *[own[3]] * weights.projected]
            of_weights = [*present, *of_weights]
        g_output = g_values
    g_h_0, g_c_0 = (torch.stack(parts[::-1]) for parts in zip(*starts, strict=True))
    return [g_output, g_h_0, g_c_0, *of_weights]


def choose(lengths: Tensor | int, count: int, weights: Weights, method: str, *, training: bool, like: Tensor) -> Plan:
    """The plan of a batch of these lengths, for these weights."""
    return plan(
        lengths,
        count,
        method,
        input_size=weights.flat[0].shape[1],
        hidden=weights.hidden,
        training=training,
        onednn=like.dtype == torch.float32 and not weights.projected and torch.backends.mkldnn.is_available(),
    )


def _noise(like: Tensor, share: float, generator: torch.Generator | None) -> Tensor | None:
    if not share:
        return None
    if share == 1:
        return torch.zeros_like(like)
    return torch.empty_like(like).bernoulli_(1 - share, generator=generator).div_(1 - share)


def _take_apart(kept: Any, tensors: list[Tensor | None]) -> Any:
    """Tuples in tuples, the tensors in them replaced by None and collected: autograd watches over those."""
    if isinstance(kept, tuple):
        parts = [_take_apart(part, tensors) for part in kept]
        return type(kept)(*parts) if hasattr(kept, "_fields") else tuple(parts)
    tensors.append(kept)
    return None


def _put_together(kept: Any, tensors: Iterator[Tensor | None]) -> Any:
    if isinstance(kept, tuple):
        parts = [_put_together(part, tensors) for part in kept]
        return type(kept)(*parts) if hasattr(kept, "_fields") else tuple(parts)
    return next(tensors)
