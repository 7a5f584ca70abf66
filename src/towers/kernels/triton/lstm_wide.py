# type: ignore  # Triton's own language, which no type checker knows
"""The LSTM from its gates' inputs: what the steps contribute was multiplied for all rows at once.

One program walks a tile of B sentences, with weights and state in registers; weights too large for that (STREAM > 0)
come from the cache at each step, STREAM rows at a time, against states that pass through memory. Rows "4*HIDDEN" hold
the gates i, f, g, o; HIDDEN is padded to H with zeros, which stay zeros.
"""

import triton
import triton.language as tl

from towers.kernels.triton.lstm_cell import (
    four_gates,
    four_weights,
    gate_gradients,
    product,
    sentences,
    sigmoid,
    state_or_zero,
    tanh,
)


@triton.jit(do_not_specialize=["batch"])
def forward(
    gates, weight, starts, lengths, h_0, c_0,
    output, before_h, before_c, h_n, c_n,
    batch,
    HIDDEN: tl.constexpr, H: tl.constexpr, B: tl.constexpr, PRECISION: tl.constexpr, STREAM: tl.constexpr,
):  # fmt: skip
    """Outputs, last states, and what the backward pass needs, the states before each step; None: not wanted."""
    direction, directions = tl.program_id(1), tl.num_programs(1)
    sentence, length, first, step = sentences(starts, lengths, batch, direction, B)
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
    if STREAM == 0:  # two steps ahead: a step is shorter than what memory takes to answer
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


@triton.jit(do_not_specialize=["batch"])
def backward(
    gates, weight, starts, lengths, before_c, d_output, d_h_n, d_c_n,
    d_h_0, d_c_0,
    batch,
    HIDDEN: tl.constexpr, H: tl.constexpr, B: tl.constexpr, PRECISION: tl.constexpr, STREAM: tl.constexpr,
):  # fmt: skip
    """From the last step to the first: `gates`, complete with the state's part, are replaced by their gradients."""
    direction, directions = tl.program_id(1), tl.num_programs(1)
    sentence, length, first, step = sentences(starts, lengths, batch, direction, B)
    unit = tl.arange(0, H)[None, :]
    real = (sentence < batch)[:, None] & (unit < HIDDEN)
    j, k = tl.arange(0, H)[:, None], unit
    weight += direction * 4 * HIDDEN * HIDDEN
    if STREAM == 0:
        w_i, w_f, w_g, w_o = four_weights(weight, j, k, HIDDEN, HIDDEN)

    state = (direction * batch + sentence)[:, None] * HIDDEN + unit
    d_h = tl.load(d_h_n + state, real, 0.0)
    d_c = tl.load(d_c_n + state, real, 0.0)
    row, move = (first * directions + direction)[:, None], step * directions
    place, gate_place = row * HIDDEN + unit, row * 4 * HIDDEN + unit
    longest = tl.max(length, 0)
    last = tl.maximum(longest - 1, 0)
    live = real & (last < length)[:, None]
    i_1, f_1, g_1, o_1 = four_gates(gates, gate_place + last * move * 4 * HIDDEN, live, HIDDEN)
    b_1 = tl.load(before_c + place + last * move * HIDDEN, live, 0.0)
    for back in range(longest):
        t = last - back
        live = real & (t < length)[:, None]
        here, gate_here = place + t * move * HIDDEN, gate_place + t * move * 4 * HIDDEN
        i_t, f_t, g_t, o_t, before = i_1, f_1, g_1, o_1, b_1
        next_t = tl.maximum(t - 1, 0)
        sooner = real & (next_t < length)[:, None]
        i_1, f_1, g_1, o_1 = four_gates(gates, gate_place + next_t * move * 4 * HIDDEN, sooner, HIDDEN)
        b_1 = tl.load(before_c + place + next_t * move * HIDDEN, sooner, 0.0)
        if d_output is not None:
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


@triton.jit
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


@triton.jit
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
