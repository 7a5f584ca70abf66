"""The wide LSTM: the inputs' product is one matrix product before the steps, "rows directions*4*hidden".

Products that wait for no step are those of `lstm_products`, over the rows of sentences only. Then one program walks
over a tile of sentences with weights and state in registers. Weights that are too large for that (STREAM > 0) come from
the cache at each step, STREAM rows at a time, and the states pass through memory. So it is for hidden sizes above 64 in
float32, whose weights have 256 kB at 128: from its instructions a step is estimated at 5 to 6.5 microseconds there, 2.5
times as fast as packed nn.LSTM at batch 32 and no faster at 4096. TF32 products
(`torch.set_float32_matmul_precision("high")`) take a fifth of the instructions, and bfloat16 weights, which stay in
shared memory (`lstm_exchanged`), a sixth; see `benchmarks/results/sm_90.json`. No GPU has measured this yet.

Rows hold the gates i, f, g, o; the hidden size is padded to H with zeros, which stay zeros. `wide_lstm` is the operator
that autograd, compile and export know.
"""

from typing import Any, cast, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from towers.kernels.triton import lstm_exchanged
from towers.kernels.triton.launch import aligned, contiguous, start
from towers.kernels.triton.lstm_products import (
    complete_gates,
    inputs_gradient,
    inputs_product,
    own_precision,
    real_rows,
    weights_gradient,
)
from towers.kernels.triton.lstm_shared import (
    ANYWHERE,
    four_gates,
    four_weights,
    gate_gradients,
    longest_first,
    new_gradients,
    new_results,
    product,
    refuse_without_states,
    sentences,
    sigmoid,
    state_or_zero,
    tanh,
)


@torch.library.custom_op("towers::wide_lstm", mutates_args=())
def wide_lstm(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    h_0: Tensor | None, c_0: Tensor | None, precision: str, keep: bool, outputs: bool, gaps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As `narrow_lstm`, with one more argument and one more result.

    Args:
        precision: of products on the matrix units: "tf32", "tf32x3" or "ieee"; "": as torch is set.
        values, weight_ih, weight_hh, bias, starts, lengths, h_0, c_0, keep, outputs, gaps: as there.

    Returns:
        Outputs; what the inputs contribute to the gates, "rows directions*4*hidden"; h and c before each step; h_n and
        c_n. Of the gates and of h and c before each step only the rows of sentences are defined.
    """
    tensors = contiguous(weight_ih, weight_hh, bias, starts, lengths, h_0, c_0)
    return launch_forward(aligned(values), *tensors, precision=precision, keep=keep, outputs=outputs, gaps=gaps)


@torch.library.custom_op("towers::wide_lstm_backward", mutates_args=())
def wide_lstm_backward(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    gates: Tensor, before_h: Tensor, before_c: Tensor, d_output: Tensor | None, d_h_n: Tensor | None,
    d_c_n: Tensor | None, precision: str, gaps: bool, inputs: bool,
) -> list[Tensor]:  # fmt: skip
    """Gradients of values (no rows unless `inputs`), weight_ih, weight_hh, bias (empty where it is None), h_0, c_0."""
    tensors = contiguous(weight_ih, weight_hh, bias, starts, lengths, gates, before_h, before_c)
    d_h_n, d_c_n = contiguous(d_h_n, d_c_n)
    upstream = {"d_output": aligned(d_output), "d_h_n": d_h_n, "d_c_n": d_c_n}
    return launch_backward(aligned(values), *tensors, **upstream, precision=precision, gaps=gaps, inputs=inputs)


REGISTERS = {32: 168, 64: 232}
"""At most, in the forward pass, by H: left to itself, the assembler takes 128 in some modes, and spills two."""


def tile(hidden: int, precision: str, shared_memory: int) -> dict[str, Any]:
    """How a tile of sentences is laid out, by hidden size and by the multiprocessor's shared memory (bytes).

    The compiler reports no register spill for any of these at compute capability 9.0.
    """
    if precision == "bfloat16":
        width = 64 if hidden <= 64 else 128
        if hidden > 32 and 4 * width * width * 2 + 16 * 1024 <= shared_memory:
            return {"H": width, "B": 8, "num_warps": width // 16, "num_stages": 1}
        precision = "tf32"  # which holds every bfloat16 exactly
    if hidden <= 16:
        width = 8 if hidden <= 8 else 16
        return {"H": width, "B": 32 // width, "PRECISION": "registers", "STREAM": 0, "num_warps": 1, "num_stages": 1}
    width = max(32, triton.next_power_of_2(hidden))
    resident = 4 * width * width * 4 * (2 if precision == "tf32x3" else 1)  # bytes; tf32x3 holds two parts of each
    if width <= 64 and resident + 8 * 1024 <= shared_memory:
        options = {"STREAM": 0, "num_warps": width // 8, "num_stages": 1}
    else:
        options = {"STREAM": 16, "num_warps": 8, "num_stages": 3}
    return {"H": width, "B": 16, "PRECISION": precision, **options}


def _tile(weight_hh: Tensor, precision: str) -> dict[str, Any]:
    shared = 1 << 20
    if weight_hh.is_cuda:
        device: Any = cast(Any, torch.cuda).get_device_properties(weight_hh.device)
        shared = int(device.shared_memory_per_block_optin)
    return tile(weight_hh.shape[2], precision, shared)


def _order(lengths: Tensor, rows: int, options: dict[str, Any]) -> Tensor | None:
    """In which tiles take the sentences: by length where many programs of several warps come one after the other."""
    return longest_first(lengths, rows, options["B"], options["num_warps"]) if options["num_warps"] > 1 else None


def launch_forward(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    h_0: Tensor | None, c_0: Tensor | None, precision: str, keep: bool, outputs: bool, gaps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`wide_lstm` of contiguous tensors."""
    directions, _, hidden = weight_hh.shape
    precision = precision or own_precision(weight_hh)
    options, batch = _tile(weight_hh, precision), len(lengths)
    real = real_rows(starts, lengths, len(values)) if gaps else None
    gates = inputs_product(values, weight_ih, bias, real, precision)
    output, before_h, before_c, h_n, c_n = new_results(values, directions, hidden, batch, keep, outputs)
    if gaps:
        output.zero_()
    own = None if "PRECISION" in options else lstm_exchanged
    extra = {"maxnreg": REGISTERS[options["H"]]} if own is None and options["H"] in REGISTERS else {}
    start(
        own.forward_kernel if own else forward_kernel, (triton.cdiv(batch, options["B"]), directions),
        gates, weight_hh, starts, lengths, _order(lengths, len(values), options), h_0, c_0,
        output if outputs else None, *((before_h, before_c) if keep else (None, None)), h_n, c_n, batch,
        HIDDEN=hidden, **options, **extra,
    )  # fmt: skip
    return output.flatten(1), gates if keep else gates.new_empty(0, gates.shape[1]), before_h, before_c, h_n, c_n


def launch_backward(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    gates: Tensor, before_h: Tensor, before_c: Tensor, d_output: Tensor | None, d_h_n: Tensor | None,
    d_c_n: Tensor | None, precision: str, gaps: bool, inputs: bool,
) -> list[Tensor]:  # fmt: skip
    """`wide_lstm_backward` of contiguous tensors."""
    precision = precision or own_precision(weight_hh)
    (directions, _, hidden), batch, options = weight_hh.shape, len(lengths), _tile(weight_hh, precision)
    real = real_rows(starts, lengths, len(values)) if gaps else None
    of_states = "tf32x3" if precision == "bfloat16" else precision  # which has the bits of two bfloat16 parts, or more
    d_gates = complete_gates(gates, before_h, weight_hh, real, of_states)
    d_h_0, d_c_0 = (before_h.new_empty(directions, batch, hidden) for _ in range(2))
    own = None if "PRECISION" in options else lstm_exchanged
    start(
        own.backward_kernel if own else backward_kernel, (triton.cdiv(batch, options["B"]), directions),
        d_gates, weight_hh, starts, lengths, _order(lengths, len(values), options), before_c, d_output, d_h_n, d_c_n,
        d_h_0, d_c_0, batch, HIDDEN=hidden, **options,
    )  # fmt: skip
    after = "tf32" if precision == "bfloat16" else precision  # which holds every bfloat16
    how = (real, directions, after)
    d_weight_ih, d_bias = weights_gradient(d_gates, values, *how, parts=1, bias=bias is not None)
    d_weight_hh, _ = weights_gradient(d_gates, before_h, *how, parts=directions, bias=False)
    return [
        inputs_gradient(d_gates, values, weight_ih, real, after) if inputs else values.new_empty(0, values.shape[1]),
        d_weight_ih.to(weight_ih.dtype),
        d_weight_hh.to(weight_hh.dtype),
        d_bias.new_empty(0) if bias is None else d_bias.to(bias.dtype),
        d_h_0,
        d_c_0,
    ]


@wide_lstm.register_fake
def _(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    h_0: Tensor | None, c_0: Tensor | None, precision: str, keep: bool, outputs: bool, gaps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    directions, gates, hidden = weight_hh.shape
    output, before_h, before_c, h_n, c_n = new_results(values, directions, hidden, lengths.shape[0], keep, outputs)
    kept = weight_ih.new_empty(values.shape[0] if keep else 0, directions * gates)
    return output.flatten(1), kept, before_h, before_c, h_n, c_n


@wide_lstm_backward.register_fake
def _(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    *rest: Any,
) -> list[Tensor]:  # fmt: skip
    d_values, *others = new_gradients((values, weight_ih, weight_hh, bias), weight_hh, lengths)
    return [d_values if rest[-1] else values.new_empty(0, values.shape[1]), *others]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, _, ctx.precision, ctx.kept, _, ctx.gaps = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:4])
    ctx.save_for_backward(*tensors, *output[1:4])


def _backward(ctx: Any, d_output: Tensor | None, *upstream: Tensor | None) -> Any:
    d_h_n, d_c_n = upstream[-2:]
    if d_output is None and d_h_n is None and d_c_n is None:
        return (None,) * 12
    refuse_without_states(ctx.kept)
    how = (ctx.precision, ctx.gaps, ctx.needs_input_grad[0])
    found = wide_lstm_backward(*ctx.saved_tensors, d_output, d_h_n, d_c_n, *how)
    # The places of values, weight_ih, weight_hh, bias, h_0 and c_0 among the arguments.
    wanted: dict[int, Tensor] = dict(zip((0, 1, 2, 3, 6, 7), found, strict=True))
    return tuple(wanted.get(place) if needed else None for place, needed in enumerate(ctx.needs_input_grad))


wide_lstm.register_autograd(_backward, setup_context=_setup_context)


@triton.jit(do_not_specialize=["batch"], do_not_specialize_on_alignment=ANYWHERE)
@no_type_check
def forward_kernel(
    gates, weight, starts, lengths, order, h_0, c_0,
    output, before_h, before_c, h_n, c_n,
    batch,
    HIDDEN: tl.constexpr, H: tl.constexpr, B: tl.constexpr, PRECISION: tl.constexpr, STREAM: tl.constexpr,
):  # fmt: skip
    """Outputs, last states, and what the backward pass needs, the states before each step; None: not wanted."""
    direction, directions = tl.program_id(1), tl.num_programs(1)
    sentence, length, first, step = sentences(starts, lengths, order, batch, direction, tl.program_id(0), 0, 0, B)
    unit = tl.arange(0, H)[None, :]
    real = (sentence < batch)[:, None] & (unit < HIDDEN)
    j, k = unit, tl.arange(0, H)[:, None]
    weight += direction * 4 * HIDDEN * HIDDEN
    if STREAM == 0:
        w_i, w_f, w_g, w_o = four_weights(weight, j, k, HIDDEN, HIDDEN)

    state_row = (direction * batch + sentence)[:, None] * HIDDEN
    state = state_row + unit
    h = state_or_zero(h_0, state, real, B, H)
    c = state_or_zero(c_0, state, real, B, H)
    row, move = (first * directions + direction)[:, None], step * directions
    place, gate_place = row * HIDDEN + unit, row * 4 * HIDDEN + unit
    if STREAM == 0:  # two steps ahead: a step is shorter than the latency of memory
        i_1, f_1, g_1, o_1 = four_gates(gates, gate_place, real & (length > 0)[:, None], HIDDEN)
        i_2, f_2, g_2, o_2 = four_gates(gates, gate_place + move * 4 * HIDDEN, real & (length > 1)[:, None], HIDDEN)
    for t in range(tl.max(length, 0)):
        live = real & (t < length)[:, None]
        here, gate_here = place + t * move * HIDDEN, gate_place + t * move * 4 * HIDDEN
        if before_h is not None:
            tl.store(before_h + here, h, live)
            tl.store(before_c + here, c, live)
        if STREAM == 0:
            i_t, f_t = i_1 + product(h, w_i, PRECISION), f_1 + product(h, w_f, PRECISION)
            g_t, o_t = g_1 + product(h, w_g, PRECISION), o_1 + product(h, w_o, PRECISION)
            i_1, f_1, g_1, o_1 = i_2, f_2, g_2, o_2
            ahead = gate_here + 2 * move * 4 * HIDDEN
            i_2, f_2, g_2, o_2 = four_gates(gates, ahead, real & (t + 2 < length)[:, None], HIDDEN)
        else:
            tl.store(h_n + state, h, real)
            i_t, f_t, g_t, o_t = four_gates(gates, gate_here, live, HIDDEN)
            i_t, f_t, g_t, o_t = _streamed(
                i_t, f_t, g_t, o_t, h_n + state_row, (sentence < batch)[:, None], weight, HIDDEN, H, PRECISION, STREAM
            )
        i, f, g, o = sigmoid(i_t), sigmoid(f_t), tanh(g_t), sigmoid(o_t)
        c = tl.where(live, f * c + i * g, c)
        h = tl.where(live, o * tanh(c), h)
        if output is not None:
            tl.store(output + here, h, live)
    tl.store(h_n + state, h, real)
    tl.store(c_n + state, c, real)


@triton.jit(do_not_specialize=["batch"], do_not_specialize_on_alignment=ANYWHERE)
@no_type_check
def backward_kernel(
    gates, weight, starts, lengths, order, before_c, d_output, d_h_n, d_c_n,
    d_h_0, d_c_0,
    batch,
    HIDDEN: tl.constexpr, H: tl.constexpr, B: tl.constexpr, PRECISION: tl.constexpr, STREAM: tl.constexpr,
):  # fmt: skip
    """From the last step to the first: `gates`, complete with the state's part, are replaced by their gradients."""
    direction, directions = tl.program_id(1), tl.num_programs(1)
    sentence, length, first, step = sentences(starts, lengths, order, batch, direction, tl.program_id(0), 0, 0, B)
    unit = tl.arange(0, H)[None, :]
    real = (sentence < batch)[:, None] & (unit < HIDDEN)
    j, k = tl.arange(0, H)[:, None], unit
    weight += direction * 4 * HIDDEN * HIDDEN
    if STREAM == 0:
        w_i, w_f, w_g, w_o = four_weights(weight, j, k, HIDDEN, HIDDEN)

    state = (direction * batch + sentence)[:, None] * HIDDEN + unit
    d_h = state_or_zero(d_h_n, state, real, B, H)
    d_c = state_or_zero(d_c_n, state, real, B, H)
    row, move = (first * directions + direction)[:, None], step * directions
    place, gate_place = row * HIDDEN + unit, row * 4 * HIDDEN + unit
    longest = tl.max(length, 0)
    last = tl.maximum(longest - 1, 0)
    live = real & (last < length)[:, None]
    if STREAM == 0:  # one step ahead; streamed weights leave no registers for that
        i_1, f_1, g_1, o_1 = four_gates(gates, gate_place + last * move * 4 * HIDDEN, live, HIDDEN)
        b_1 = tl.load(before_c + place + last * move * HIDDEN, live, 0.0)
        if d_output is not None:
            d_1 = tl.load(d_output + place + last * move * HIDDEN, live, 0.0)
    for back in range(longest):
        t = last - back
        live = real & (t < length)[:, None]
        here, gate_here = place + t * move * HIDDEN, gate_place + t * move * 4 * HIDDEN
        if STREAM == 0:
            i_t, f_t, g_t, o_t, before = i_1, f_1, g_1, o_1, b_1
            next_t = tl.maximum(t - 1, 0)
            sooner = real & (next_t < length)[:, None]
            i_1, f_1, g_1, o_1 = four_gates(gates, gate_place + next_t * move * 4 * HIDDEN, sooner, HIDDEN)
            b_1 = tl.load(before_c + place + next_t * move * HIDDEN, sooner, 0.0)
        else:
            i_t, f_t, g_t, o_t = four_gates(gates, gate_here, live, HIDDEN)
            before = tl.load(before_c + here, live, 0.0)
        if d_output is not None:
            if STREAM == 0:
                d_h += d_1
                d_1 = tl.load(d_output + place + next_t * move * HIDDEN, sooner, 0.0)
            else:
                d_h += tl.load(d_output + here, live, 0.0)
        i, f, g, o = sigmoid(i_t), sigmoid(f_t), tanh(g_t), sigmoid(o_t)
        d_i, d_f, d_g, d_o, d_before = gate_gradients(i, f, g, o, before, d_h, d_c, live)
        tl.store(gates + gate_here, d_i, live)
        tl.store(gates + gate_here + HIDDEN, d_f, live)
        tl.store(gates + gate_here + 2 * HIDDEN, d_g, live)
        tl.store(gates + gate_here + 3 * HIDDEN, d_o, live)
        if STREAM == 0:
            d_h_t = product(d_i, w_i, PRECISION) + product(d_f, w_f, PRECISION)
            d_h_t += product(d_g, w_g, PRECISION) + product(d_o, w_o, PRECISION)
        else:
            gate_row = row * 4 * HIDDEN + t * move * 4 * HIDDEN
            d_h_t = _streamed_back(gates + gate_row, (t < length)[:, None], weight, HIDDEN, H, B, PRECISION, STREAM)
        d_h, d_c = tl.where(live, d_h_t, d_h), d_before
    tl.store(d_h_0 + state, d_h, real)
    tl.store(d_c_0 + state, d_c, real)


@triton.jit()
@no_type_check
def _streamed(
    i, f, g, o, state, real, weight,
    HIDDEN: tl.constexpr, H: tl.constexpr, PRECISION: tl.constexpr, STREAM: tl.constexpr,
):  # fmt: skip
    """The gates' inputs, and what the states in memory, "B HIDDEN", add to them."""
    tl.debug_barrier()  # the states were written by other threads
    unit, chunk = tl.arange(0, H)[None, :], tl.arange(0, STREAM)
    for first in range(0, HIDDEN, STREAM):
        k = first + chunk
        h = tl.load(state + k[None, :], real & (k < HIDDEN)[None, :], 0.0)
        w_i, w_f, w_g, w_o = four_weights(weight, unit, k[:, None], HIDDEN, HIDDEN)
        i += product(h, w_i, PRECISION)
        f += product(h, w_f, PRECISION)
        g += product(h, w_g, PRECISION)
        o += product(h, w_o, PRECISION)
    tl.debug_barrier()  # before others write the next states
    return i, f, g, o


@triton.jit()
@no_type_check
def _streamed_back(
    gates,
    live,
    weight,
    HIDDEN: tl.constexpr,
    H: tl.constexpr,
    B: tl.constexpr,
    PRECISION: tl.constexpr,
    STREAM: tl.constexpr,
):
    """From the gates' gradients in memory, "B 4*HIDDEN", to those of the states before."""
    tl.debug_barrier()
    d_h = tl.zeros((B, H), tl.float32)
    unit, chunk = tl.arange(0, H)[None, :], tl.arange(0, STREAM)
    for first in range(0, HIDDEN, STREAM):
        j = first + chunk
        d_i, d_f, d_g, d_o = four_gates(gates, j[None, :], live & (j < HIDDEN)[None, :], HIDDEN)
        w_i, w_f, w_g, w_o = four_weights(weight, j[:, None], unit, HIDDEN, HIDDEN)
        d_h += product(d_i, w_i, PRECISION) + product(d_f, w_f, PRECISION)
        d_h += product(d_g, w_g, PRECISION) + product(d_o, w_o, PRECISION)
    tl.debug_barrier()
    return d_h
