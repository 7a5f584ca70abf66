"""What the narrow and the wide LSTM share: device functions for a step, and the tensors that a launch fills."""

from functools import cache
from typing import Any, cast, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

ANYWHERE = ["starts", "lengths", "bias", "bias_2", "h_0", "c_0", "d_h_n", "d_c_n"]
"""Arguments whose alignment changes no compiled code: they may be views that start anywhere in a larger tensor."""

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether Triton's interpreter runs the kernels, which knows no machine code."""

Results = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Outputs, h and c before each step, h_n, c_n."""


def new_results(rows: Tensor, directions: int, hidden: int, batch: Any, keep: bool, outputs: bool) -> Results:
    """Uninitialised results for the rows of `rows`, all float32; a result that is not wanted has no rows.

    Outputs are "rows directions hidden"; h and c before each step have the same shape, and only the backward pass
    reads them; h_n and c_n are "directions batch hidden".
    """

    def new(*shape: Any) -> Tensor:
        return rows.new_empty(shape, dtype=torch.float32)

    words = rows.shape[0]
    kept = words if keep else 0
    return (
        new(words if outputs else 0, directions, hidden),
        new(kept, directions, hidden),
        new(kept, directions, hidden),
        new(directions, batch, hidden),
        new(directions, batch, hidden),
    )


def new_gradients(like: tuple[Tensor | None, ...], weight_hh: Tensor, lengths: Tensor) -> list[Tensor]:
    """Uninitialised gradients: one like each tensor (empty for None), then those of h_0 and c_0, in float32."""
    found = [weight_hh.new_empty(0) if part is None else part.new_empty(part.shape) for part in like]
    state = (weight_hh.shape[0], lengths.shape[0], weight_hh.shape[2])
    return [*found, *(weight_hh.new_empty(state, dtype=torch.float32) for _ in range(2))]


WARPS = 12
"""That keep a multiprocessor busy: three for each scheduler, as a step's instructions take a third of its latency."""

LEAST_STEPS = 96
"""Of every place for a program, from which on a sort is worth its 20 microseconds, at half a microsecond a step."""


@cache
def multiprocessors(device: torch.device) -> int:
    """Of a GPU; without one, more than any batch needs."""
    properties: Any = cast(Any, torch.cuda).get_device_properties
    return properties(device).multi_processor_count if device.type == "cuda" else 1 << 20


def longest_first(lengths: Tensor, rows: int, sentences: int, warps: int) -> Tensor | None:
    """The numbers of the sentences by length, sorted on the device without waiting for it; None where it gains nothing.

    A program of `sentences` sentences walks as far as the longest of them. If all programs run at once, they end with
    the longest sentence in any order. If some wait for a place, tiles of like lengths, the longest first, leave little
    more than half the steps ("work" in `benchmarks/results/sm_90.json`). Results stay in the caller's order.
    """
    places = multiprocessors(lengths.device) * max(1, WARPS // warps)
    if len(lengths) <= places * sentences or rows < LEAST_STEPS * places * sentences:
        return None
    return lengths.to(torch.int32).argsort(descending=True, stable=True)


def refuse_without_states(kept: bool) -> None:
    """Refuse a backward pass after a forward pass that did not keep what it needs.

    Raises:
        RuntimeError: the forward pass ran with keep=False.
    """
    if not kept:
        raise RuntimeError("towers.kernels.triton: there are no gradients after keep=False; call with keep=True")


@triton.jit()
@no_type_check
def power_of_2(x):
    """2^x by one instruction, to 2^-22 of the result; 0 below 2^-126, infinite from 2^128 on."""
    if INTERPRETED:
        value = tl.exp2(tl.where(x > 127.0, 127.0, x))  # NumPy warns where this is infinite
    else:
        value = tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=r,r", [x], tl.float32, True, 1)
    return value


@triton.jit()
@no_type_check
def reciprocal(x):
    """1 / x by one instruction, to 2^-23 of the result; 0 of what is infinite."""
    if INTERPRETED:
        value = 1.0 / x
    else:
        value = tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=r,r", [x], tl.float32, True, 1)
    return value


@triton.jit()
@no_type_check
def sigmoid(x):
    """1 / (1 + 2^(-x log2 e)), to 3.2e-7; where the power overflows, its reciprocal is 0."""
    return reciprocal(1.0 + power_of_2(x * -1.4426950408889634))


@triton.jit()
@no_type_check
def tanh(x):
    """1 - 2 / (1 + 2^(2 x log2 e)), to 6.4e-7 everywhere; near 0, where tanh is x, that is no small part of it."""
    return 1.0 - 2.0 * reciprocal(1.0 + power_of_2(x * 2.8853900817779268))


@triton.jit()
@no_type_check
def product(rows, matrix, PRECISION: tl.constexpr):
    """rows "B K" by matrix "K N" -> "B N": on the matrix units, or by plain multiplications ("registers").

    For "registers" K is the slowest axis: it lies in one thread's registers, so no sum leaves its thread.
    """
    if PRECISION == "registers":
        total = tl.sum(tl.trans(rows)[:, :, None] * matrix[:, None, :], 0)
    else:
        total = tl.dot(rows, matrix, input_precision=PRECISION)
    return total


@triton.jit()
@no_type_check
def gate_weight(weight, gate, j, k, HIDDEN: tl.constexpr, WIDTH: tl.constexpr):
    """One gate's part of a weight "4*HIDDEN WIDTH": units `j` by inputs `k`, in the order that their shapes give."""
    return tl.load(weight + (gate * HIDDEN + j) * WIDTH + k, (j < HIDDEN) & (k < WIDTH), 0.0).to(tl.float32)


@triton.jit()
@no_type_check
def four_weights(weight, j, k, HIDDEN: tl.constexpr, WIDTH: tl.constexpr):
    """`gate_weight` of the gates i, f, g, o."""
    return (
        gate_weight(weight, 0, j, k, HIDDEN, WIDTH),
        gate_weight(weight, 1, j, k, HIDDEN, WIDTH),
        gate_weight(weight, 2, j, k, HIDDEN, WIDTH),
        gate_weight(weight, 3, j, k, HIDDEN, WIDTH),
    )


@triton.jit()
@no_type_check
def _bias(bias, bias_2, place, real):
    """One gate's sum of its biases, of which there may be none."""
    if bias is None:
        found = tl.zeros(real.shape, tl.float32)
    else:
        found = tl.load(bias + place, real, 0.0).to(tl.float32)
        if bias_2 is not None:
            found += tl.load(bias_2 + place, real, 0.0).to(tl.float32)
    return found


@triton.jit()
@no_type_check
def four_biases(bias, bias_2, direction, unit, HIDDEN: tl.constexpr):
    """The same for the gates i, f, g, o."""
    place, real = direction * 4 * HIDDEN + unit, unit < HIDDEN
    return (
        _bias(bias, bias_2, place, real),
        _bias(bias, bias_2, place + HIDDEN, real),
        _bias(bias, bias_2, place + 2 * HIDDEN, real),
        _bias(bias, bias_2, place + 3 * HIDDEN, real),
    )


@triton.jit()
@no_type_check
def four_gates(gates, place, live, HIDDEN: tl.constexpr):
    """The values at `place` in the rows "4*HIDDEN" of the gates i, f, g, o; 0 where not `live`."""
    return (
        tl.load(gates + place, live, 0.0).to(tl.float32),
        tl.load(gates + place + HIDDEN, live, 0.0).to(tl.float32),
        tl.load(gates + place + 2 * HIDDEN, live, 0.0).to(tl.float32),
        tl.load(gates + place + 3 * HIDDEN, live, 0.0).to(tl.float32),
    )


@triton.jit()
@no_type_check
def multiplied(matrix, rows, total):
    """total + matrix @ rows of bfloat16, each product exact."""
    if INTERPRETED:  # which multiplies the bits of a bfloat16 as if they were a number
        total = tl.dot(matrix.to(tl.float32), rows.to(tl.float32), total, input_precision="ieee")
    else:
        total = tl.dot(matrix, rows, total)
    return total


@triton.jit()
@no_type_check
def sentences(starts, lengths, order, batch, direction, tile, padded, fewer, B: tl.constexpr):
    """A tile's sentences: their numbers, lengths, the row of the first step, and how far the next row is.

    Tiles take the sentences one after the other, or in an `order`.
    Without `starts` a sentence has `padded` rows, of which its length are read; without `lengths` all of them are.
    Starts without lengths are offsets, "batch+1". A walk has `fewer` steps than a sentence has rows. The second
    direction begins at a sentence's last row and walks back. Sentences beyond the batch have length 0.
    """
    place = tile * B + tl.arange(0, B)
    inside = place < batch
    if order is None:  # noqa: SIM108
        sentence = place
    else:
        sentence = tl.load(order + place, inside, batch)
    if starts is None:
        start = sentence.to(tl.int64) * padded
        length = tl.where(inside, padded, 0).to(tl.int64)
        if lengths is not None:
            length = tl.minimum(tl.maximum(tl.load(lengths + sentence, inside, 0).to(tl.int64), 0), length)
    else:
        start = tl.load(starts + sentence, inside, 0).to(tl.int64)
        if lengths is None:
            length = tl.load(starts + 1 + sentence, inside, 0).to(tl.int64) - start
        else:
            length = tl.load(lengths + sentence, inside, 0).to(tl.int64)
    length = tl.maximum(length - fewer, 0)
    first = tl.where(direction == 0, start, start + length - 1)
    return sentence.to(tl.int64), length.to(tl.int32), first, (1 - 2 * direction).to(tl.int64)


@triton.jit()
@no_type_check
def state_or_zero(state, place, real, B: tl.constexpr, H: tl.constexpr):
    """A state "batch HIDDEN" in float32; zero where none is given."""
    if state is None:  # noqa: SIM108
        value = tl.zeros((B, H), tl.float32)
    else:
        value = tl.load(state + place, real, 0.0).to(tl.float32)
    return value


@triton.jit()
@no_type_check
def gate_gradients(i, f, g, o, before, d_h, d_c, live):
    """A step's gradients, from those of its states; `before` is c before it. Where not `live`, d_c is not changed."""
    end = tanh(f * before + i * g)
    d_c_t = d_c + d_h * o * (1 - end * end)
    d_i = tl.where(live, d_c_t * g * i * (1 - i), 0.0)
    d_f = tl.where(live, d_c_t * before * f * (1 - f), 0.0)
    d_g = tl.where(live, d_c_t * i * (1 - g * g), 0.0)
    d_o = tl.where(live, d_h * end * o * (1 - o), 0.0)
    return d_i, d_f, d_g, d_o, tl.where(live, d_c_t * f, d_c)
