"""The steps of the wide LSTM where weights are bfloat16 and hidden sizes 33 to 128: units are rows, sentences columns.

The matrix units take 64 rows and as few as 8 columns. So the weights are the left operand and stay in shared memory for
the whole walk, 32 kB at hidden size 64 and 128 kB at 128, and a program has 8 sentences. A state is multiplied as two
bfloat16 parts, which have 16 bits of its 24; the weights are exact. `lstm_wide` says what the arguments are, and starts
these kernels. In machine code of Triton 3.9 (`benchmarks/results/sm_90.json`) a warp's step has 618 instructions at
hidden size 128, where weights that come from the cache had 1,837 for twice as many sentences: a third less for each.
"""

from typing import no_type_check

import triton
import triton.language as tl

from towers.kernels.triton.lstm_shared import (
    ANYWHERE,
    four_gates,
    gate_gradients,
    multiplied,
    sentences,
    sigmoid,
    state_or_zero,
    tanh,
)


@triton.jit()
@no_type_check
def _four_parts(weight, j, k, HIDDEN: tl.constexpr):
    """The weights of the gates i, f, g, o: units `j` by states `k`, as they are stored."""
    place, real, gate = weight + j * HIDDEN + k, (j < HIDDEN) & (k < HIDDEN), HIDDEN * HIDDEN
    return (
        tl.load(place, real, 0.0),
        tl.load(place + gate, real, 0.0),
        tl.load(place + 2 * gate, real, 0.0),
        tl.load(place + 3 * gate, real, 0.0),
    )


@triton.jit()
@no_type_check
def _two_parts(x):
    """x, nearly: the next bfloat16, and that of what is left."""
    large = x.to(tl.bfloat16)
    return large, (x - large.to(tl.float32)).to(tl.bfloat16)


@triton.jit(do_not_specialize=["batch"], do_not_specialize_on_alignment=ANYWHERE)
@no_type_check
def forward_kernel(
    gates, weight, starts, lengths, order, h_0, c_0,
    output, before_h, before_c, h_n, c_n,
    batch,
    HIDDEN: tl.constexpr, H: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """As `lstm_wide.forward_kernel`."""
    direction, directions = tl.program_id(1), tl.num_programs(1)
    sentence, length, first, step = sentences(starts, lengths, order, batch, direction, tl.program_id(0), 0, 0, B)
    unit = tl.arange(0, H)[:, None]
    real = (sentence < batch)[None, :] & (unit < HIDDEN)
    w_i, w_f, w_g, w_o = _four_parts(weight + direction * 4 * HIDDEN * HIDDEN, unit, tl.arange(0, H)[None, :], HIDDEN)

    state = (direction * batch + sentence)[None, :] * HIDDEN + unit
    h = state_or_zero(h_0, state, real, H, B)
    c = state_or_zero(c_0, state, real, H, B)
    row, move = (first * directions + direction)[None, :], step * directions * HIDDEN
    place, gate_place = row * HIDDEN + unit, row * 4 * HIDDEN + unit
    # Two steps ahead: a step is shorter than the latency of memory.
    i_1, f_1, g_1, o_1 = four_gates(gates, gate_place, real & (length > 0)[None, :], HIDDEN)
    i_2, f_2, g_2, o_2 = four_gates(gates, gate_place + move * 4, real & (length > 1)[None, :], HIDDEN)
    for t in range(tl.max(length, 0)):
        live, here = real & (t < length)[None, :], place + t * move
        if before_h is not None:
            tl.store(before_h + here, h, live)
            tl.store(before_c + here, c, live)
        i_t, f_t, g_t, o_t = i_1, f_1, g_1, o_1
        i_1, f_1, g_1, o_1 = i_2, f_2, g_2, o_2
        later = real & (t + 2 < length)[None, :]
        i_2, f_2, g_2, o_2 = four_gates(gates, gate_place + (t + 2) * move * 4, later, HIDDEN)
        large, small = _two_parts(h)
        i = sigmoid(multiplied(w_i, small, multiplied(w_i, large, i_t)))
        f = sigmoid(multiplied(w_f, small, multiplied(w_f, large, f_t)))
        g = tanh(multiplied(w_g, small, multiplied(w_g, large, g_t)))
        o = sigmoid(multiplied(w_o, small, multiplied(w_o, large, o_t)))
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
    HIDDEN: tl.constexpr, H: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """As `lstm_wide.backward_kernel`: complete `gates` are replaced by their gradients."""
    direction, directions = tl.program_id(1), tl.num_programs(1)
    sentence, length, first, step = sentences(starts, lengths, order, batch, direction, tl.program_id(0), 0, 0, B)
    unit = tl.arange(0, H)[:, None]
    real = (sentence < batch)[None, :] & (unit < HIDDEN)
    # Transposed: the states' gradients are sums over the units.
    w_i, w_f, w_g, w_o = _four_parts(weight + direction * 4 * HIDDEN * HIDDEN, tl.arange(0, H)[None, :], unit, HIDDEN)

    state = (direction * batch + sentence)[None, :] * HIDDEN + unit
    d_h = state_or_zero(d_h_n, state, real, H, B)
    d_c = state_or_zero(d_c_n, state, real, H, B)
    row, move = (first * directions + direction)[None, :], step * directions * HIDDEN
    place, gate_place = row * HIDDEN + unit, row * 4 * HIDDEN + unit
    longest = tl.max(length, 0)
    last = tl.maximum(longest - 1, 0)
    live = real & (last < length)[None, :]
    i_1, f_1, g_1, o_1 = four_gates(gates, gate_place + last * move * 4, live, HIDDEN)
    b_1 = tl.load(before_c + place + last * move, live, 0.0)
    if d_output is not None:
        d_1 = tl.load(d_output + place + last * move, live, 0.0)
    for back in range(longest):
        t = last - back
        live, gate_here = real & (t < length)[None, :], gate_place + t * move * 4
        i_t, f_t, g_t, o_t, before = i_1, f_1, g_1, o_1, b_1
        if d_output is not None:
            d_h += d_1
        next_t = tl.maximum(t - 1, 0)
        sooner = real & (next_t < length)[None, :]
        i_1, f_1, g_1, o_1 = four_gates(gates, gate_place + next_t * move * 4, sooner, HIDDEN)
        b_1 = tl.load(before_c + place + next_t * move, sooner, 0.0)
        if d_output is not None:
            d_1 = tl.load(d_output + place + next_t * move, sooner, 0.0)
        i, f, g, o = sigmoid(i_t), sigmoid(f_t), tanh(g_t), sigmoid(o_t)
        d_i, d_f, d_g, d_o, d_before = gate_gradients(i, f, g, o, before, d_h, d_c, live)
        tl.store(gates + gate_here, d_i, live)
        tl.store(gates + gate_here + HIDDEN, d_f, live)
        tl.store(gates + gate_here + 2 * HIDDEN, d_g, live)
        tl.store(gates + gate_here + 3 * HIDDEN, d_o, live)
        i_large, i_small = _two_parts(d_i)
        f_large, f_small = _two_parts(d_f)
        g_large, g_small = _two_parts(d_g)
        o_large, o_small = _two_parts(d_o)
        d_h_t = multiplied(w_i, i_small, multiplied(w_i, i_large, tl.zeros((H, B), tl.float32)))
        d_h_t = multiplied(w_f, f_small, multiplied(w_f, f_large, d_h_t))
        d_h_t = multiplied(w_g, g_small, multiplied(w_g, g_large, d_h_t))
        d_h_t = multiplied(w_o, o_small, multiplied(w_o, o_large, d_h_t))
        d_h, d_c = tl.where(live, d_h_t, d_h), d_before
    tl.store(d_h_0 + state, d_h, real)
    tl.store(d_c_0 + state, d_c, real)
