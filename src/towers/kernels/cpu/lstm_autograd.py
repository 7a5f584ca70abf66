# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Layers and directions over plain tensors on the CPU: one plan, one layout, a walk for each."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from towers.kernels import blocks, cpu, walk, whole
from towers.kernels.batch import Batch, Run, State, Weights, refuse_twice
from towers.kernels.costs import costs
from towers.kernels.cpu.threads import one_thread
from towers.kernels.layout import Layout
from towers.kernels.plan import Cut, Plan, plan, running_counts

FEW = 6  # sentences, from which on a weight that was loaded serves several
IN_CACHE = 1 << 20  # bytes of weights
LARGE = 512  # sentences of a batch, for which a walk is considered where the last states alone are wanted


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
    count = state[0].shape[1]
    if count and goes_native(weights, values.dtype, count, method):
        how = RunContext(cpu.Layout(batch, count), weights, outputs, generator)
        return _run(how, values, state, training=training)
    chosen, last = None, False
    if count:
        chosen, last = choose(batch.sizes(), count, weights, method, training=training, like=values, outputs=outputs)
    if last and chosen is not None and chosen.cuts and (chosen.order is not None or values.dim() == 2):
        with one_thread(chosen.one_thread):
            return None, blocks.run(batch.flat(count), chosen, state, weights, training=training)
    if chosen is None or not chosen.cuts:
        width = state[0].shape[2] * (1 + weights.bidirectional)
        return (values.new_zeros(*values.shape[:-1], width) if outputs else None), state
    if chosen.whole and whole.serves(batch, weights):
        even = chosen.cuts[0].rows == chosen.tokens
        words, one = chosen.cuts[0].stop, chosen.one_thread
        return whole.run(batch, words, state, weights, even=even, outputs=outputs, training=training, one=one)
    return _run(prepare(batch, chosen, weights, outputs, generator), values, state, training=training)


def _run(how: "RunContext", values: Tensor, state: State, *, training: bool) -> tuple[Tensor | None, State]:
    if training:
        output, h_n, c_n = _Stack.apply(how, values, *state, *how.weights.flat)
    else:
        output, h_n, c_n, _ = forward(how, values, *state, save=False)
    return output, (h_n, c_n)


def prepare(
    batch: Batch, chosen: Plan, weights: Weights, outputs: bool, generator: torch.Generator | None
) -> "RunContext":
    """Lay a batch out as planned."""
    starts, lengths = batch.places(chosen.batch)
    return RunContext(
        Layout(chosen, starts.cpu(), lengths.cpu(), batch.rows, cells=outputs), weights, outputs, generator
    )


def prepare_training(
    batch: Batch, count: int, weights: Weights, outputs: bool, generator: torch.Generator | None, method: str
) -> "RunContext | None":
    """The same for the gradients of a batch; None where it has no word."""
    values = batch.values
    if goes_native(weights, values.dtype, count, method):
        return RunContext(cpu.Layout(batch, count), weights, outputs, generator)
    chosen, _ = choose(batch.sizes(), count, weights, method, training=True, like=values, outputs=True)
    return prepare(batch, chosen, weights, outputs, generator) if chosen.cuts else None


class RunContext(NamedTuple):
    """What one run knows besides its tensors."""

    layout: Layout | cpu.Layout
    weights: Weights
    outputs: bool
    generator: torch.Generator | None

    @property
    def way(self) -> Any:
        """The module that walks over such a layout."""
        return cpu if isinstance(self.layout, cpu.Layout) else walk


class _Stack(torch.autograd.Function):
    """(values, h_0, c_0, parameters) -> (output, h_n, c_n)."""

    @staticmethod
    def forward(ctx: Any, how: RunContext, values: Tensor, h_0: Tensor, c_0: Tensor, *flat: Tensor) -> Any:
        """Run, and keep what the backward pass needs."""
        output, h_n, c_n, kept = forward(how, values, h_0, c_0, save=True)
        ctx.how, ctx.shapes = how._replace(weights=how.weights._replace(flat=())), (values.shape, h_0.shape, c_0.shape)
        tensors: list[Tensor | None] = []
        ctx.kept = _take_apart(kept, tensors)
        ctx.save_for_backward(values, *tensors)
        ctx.set_materialize_grads(False)
        return output, h_n, c_n

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:  # pyright: ignore
        """Gradients of all inputs."""
        refuse_twice()
        values, *tensors = ctx.saved_tensors
        kept = _put_together(ctx.kept, iter(tensors))
        if all(one is None for one in gradients):
            return (None,) * len(ctx.needs_input_grad)
        return None, *backward(ctx.how, values, ctx.shapes, kept, gradients, wants_values=ctx.needs_input_grad[1])


def forward(how: RunContext, values: Tensor, h_0: Tensor, c_0: Tensor, *, save: bool) -> Any:
    """output (or None), h_n, c_n, and, with `save`, for each layer its directions and its noise, which go back."""
    weights, directions, kept = how.weights, 1 + how.weights.bidirectional, list[Any]()
    shape, values = values.shape[:-1], values.flatten(0, -2)
    output: Tensor | None = None
    ends: list[tuple[Tensor, Tensor]] = []
    for layer in range(weights.num_layers):
        final = layer == weights.num_layers - 1
        runs: list[Run] = []
        inputs = None if layer == 0 else values
        for direction in range(directions):
            row = layer * directions + direction
            run = how.way.forward(
                how.layout,
                values,
                (h_0[row], c_0[row]),
                weights.of(layer, direction),
                reverse=bool(direction),
                outputs=how.outputs or not final,
                save=save,
            )
            runs.append(run)
            ends.append((run.h_n, run.c_n))
        parts = [run.output for run in runs if run.output is not None]
        output = parts[0] if len(parts) == 1 else torch.cat(parts, 1) if parts else None
        noise = None
        if not final and output is not None:
            noise = _noise(output, weights.dropout, how.generator)
            values = output if noise is None else output * noise
        kept.append((inputs, tuple(run.kept for run in runs), noise))
    h_n, c_n = (_stacked([end[part] for end in ends]) for part in (0, 1))
    return None if output is None else output.unflatten(0, shape), h_n, c_n, tuple(kept)


def backward(
    how: RunContext, values: Tensor, shapes: Any, kept: Any, gradients: Any, *, wants_values: bool
) -> list[Tensor | None]:
    """The gradients of values, h_0, c_0 and each parameter, from those of output, h_n and c_n (None: zero)."""
    weights, directions = how.weights, 1 + how.weights.bidirectional
    g_output, *g_ends = gradients
    some = next(one for one in gradients if one is not None)
    g_h, g_c = (
        some.new_zeros(shape) if one is None else one.clone(memory_format=torch.contiguous_format)
        for one, shape in zip(g_ends, shapes[1:], strict=True)
    )
    g_output = None if g_output is None else g_output.flatten(0, -2)
    starts: list[tuple[Tensor, Tensor]] = []
    of_weights: list[Tensor | None] = []
    for layer in range(weights.num_layers - 1, -1, -1):
        inputs, runs, noise = kept[layer]
        inputs = values.flatten(0, -2) if inputs is None else inputs
        if noise is not None and g_output is not None:
            g_output = g_output * noise
        g_values: Tensor | None = None
        for direction in range(directions - 1, -1, -1):
            row = layer * directions + direction
            found, h, c, own = how.way.backward(
                how.layout,
                inputs,
                runs[direction],
                g_output if g_output is None or directions == 1 else g_output.chunk(2, 1)[direction].contiguous(),
                g_h[row],
                g_c[row],
                reverse=bool(direction),
                wants_values=wants_values or layer > 0,
            )
            g_values = found if g_values is None or found is None else g_values + found
            starts.append((h, c))
            of_weights = [*own[:2], *[own.bias] * weights.biases, *[own.weight_hr] * weights.projected, *of_weights]
        g_output = g_values
    g_h_0, g_c_0 = (_stacked([start[part] for start in reversed(starts)]) for part in (0, 1))
    return [None if g_output is None else g_output.view(shapes[0]), g_h_0, g_c_0, *of_weights]


def _stacked(parts: list[Tensor]) -> Tensor:
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)


def goes_native(weights: Weights, dtype: torch.dtype, count: int, method: str) -> bool:
    """Whether the C code runs this: wherever it can, but for few sentences whose weights fall out of the cache.

    Raises:
        ValueError: `method` is "native", which cannot run on this machine, or has no projection.
    """
    if method not in ("auto", "native"):
        return False
    hidden, inputs = weights.hidden, weights.flat[0].shape[1]
    able = not weights.projected and cpu.serves(dtype, hidden)
    if method == "auto":
        return able and (count >= FEW or 4 * hidden * (inputs + hidden) * dtype.itemsize <= IN_CACHE)
    if not able:
        why = "it has no proj_size" if weights.projected else cpu.why_not() or f"it has no {dtype}"
        raise ValueError(f'RaggedLSTM: method "native" cannot run this: {why}; "auto" takes another way')
    return True


def explain(
    lengths: Tensor | int, batch: int, weights: Weights, method: str, *, training: bool, like: Tensor, outputs: bool
) -> Plan:
    """The plan of a batch, for people: `run` asks for as much as it needs."""
    if not batch or not goes_native(weights, like.dtype, batch, method):
        method = "auto" if method == "native" else method
        return choose(lengths, batch, weights, method, training=training, like=like, outputs=outputs)[0]
    counts = [batch] * lengths if isinstance(lengths, int) else running_counts(lengths)
    if not counts:
        return Plan(None, 0, batch, 0, (), 0.0, True)
    cost, words = costs(weights.flat[0].shape[1], weights.hidden, training)["native"], sum(counts)
    total = cost.call + cost.step * len(counts) + cost.row * words
    return Plan(None, counts[0], batch, words, (Cut("native", 0, 0, counts, 0),), total, True)


def choose(
    lengths: Tensor | int, batch: int, weights: Weights, method: str, *, training: bool, like: Tensor, outputs: bool
) -> tuple[Plan, bool]:
    """The plan of a batch of these lengths, for these weights; and whether it is one of `blocks`.

    A walk goes both ways side by side, which pays for the gradients of large batches that are sorted.
    """
    width, hidden = weights.flat[0].shape[1], weights.hidden
    last = blocks.serves(weights, like.dtype, method, outputs=outputs)
    if not last or (training and batch >= LARGE and hidden > blocks.NARROW):
        onednn = like.dtype == torch.float32 and not weights.projected and torch.backends.mkldnn.is_available()
        found = plan(lengths, batch, method, input_size=width, hidden=hidden, training=training, onednn=onednn)
        if not last or found.order is not None:
            return found, False
    return blocks.plan(lengths, batch, input_size=width, hidden=hidden, training=training), True


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
