# type: ignore  # Triton's own language, which no type checker knows
"""The LSTM from its inputs, for at most 8 units and 16 inputs: the input product is a part of each step.

One warp walks a tile of B sentences; a thread is one unit of one sentence and holds that unit's weights, its state and,
in the backward pass, the sums of its weights' gradients. Nothing but inputs and states is read or written.
"""

import triton
import triton.language as tl

from towers.kernels.fused.lstm_cell import (
    four_weights,
    gate_gradients,
    product,
    sentences,
    sigmoid,
    state_or_zero,
    tanh,
)


@triton.jit
def _share(inputs, matrix):
    """inputs "K B" by matrix "K H" -> "B H", within each thread."""
    return tl.sum(inputs[:, :, None] * matrix[:, None, :], 0)


@triton.jit
def _spread(d_gate, matrix):
    """A gate's gradients "B H" times its weights "K H" -> "K B H", within each thread."""
    return d_gate[None] * matrix[:, None, :]


@triton.jit
def _bias(bias, gate, unit, HIDDEN: tl.constexpr):
    if bias is None:
        value = tl.zeros(unit.shape, tl.float32)
    else:
        value = tl.load(bias + gate * HIDDEN + unit, unit < HIDDEN, 0.0).to(tl.float32)
    return value


@triton.jit
def _fetch(values, row, live, inputs, INPUT: tl.constexpr):
    """The inputs "K B" of one step; 0 where the sentence is over."""
    return tl.load(values + row * INPUT + inputs, live[None, :] & (inputs < INPUT), 0.0).to(tl.float32)


@triton.jit(do_not_specialize=["batch"])
def forward(
    values, weight_ih, weight_hh, bias, starts, lengths, h_0, c_0,
    output, before_h, before_c, h_n, c_n,
    batch,
    INPUT: tl.constexpr, K: tl.constexpr, HIDDEN: tl.constexpr, H: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Outputs, last states, and what the backward pass needs, the states before each step; None: not wanted."""
    direction, directions = tl.program_id(1), tl.num_programs(1)
    sentence, length, first, step = sentences(starts, lengths, batch, direction, B)
    unit, inputs, from_unit = tl.arange(0, H)[None, :], tl.arange(0, K)[:, None], tl.arange(0, H)[:, None]
    real = (sentence < batch)[:, None] & (unit < HIDDEN)
    u_i, u_f, u_g, u_o = four_weights(weight_ih + direction * 4 * HIDDEN * INPUT, unit, inputs, HIDDEN, INPUT)
    w_i, w_f, w_g, w_o = four_weights(weight_hh + direction * 4 * HIDDEN * HIDDEN, unit, from_unit, HIDDEN, HIDDEN)
    if bias is not None:
        bias += direction * 4 * HIDDEN
    b_i, b_f = _bias(bias, 0, unit, HIDDEN), _bias(bias, 1, unit, HIDDEN)
    b_g, b_o = _bias(bias, 2, unit, HIDDEN), _bias(bias, 3, unit, HIDDEN)

    state = (direction * batch + sentence)[:, None] * HIDDEN + unit
    h = state_or_zero(h_0, state, real, B, H)
    c = state_or_zero(c_0, state, real, B, H)
    place, move = (first * directions + direction)[:, None] * HIDDEN + unit, step * directions * HIDDEN
    row = first[None, :]
    x_1 = _fetch(values, row, length > 0, inputs, INPUT)
    x_2 = _fetch(values, row + step, length > 1, inputs, INPUT)
    x_3 = _fetch(values, row + 2 * step, length > 2, inputs, INPUT)
    for t in range(tl.max(length, 0)):
        live = real & (t < length)[:, None]
        if before_h is not None:
            tl.store(before_h + place + t * move, h, live)
            tl.store(before_c + place + t * move, c, live)
        x = x_1
        x_1, x_2 = x_2, x_3
        x_3 = _fetch(values, row + (t + 3) * step, t + 3 < length, inputs, INPUT)

        before = tl.trans(h)
        i = sigmoid(_share(x, u_i) + b_i + _share(before, w_i))
        f = sigmoid(_share(x, u_f) + b_f + _share(before, w_f))
        g = tanh(_share(x, u_g) + b_g + _share(before, w_g))
        o = sigmoid(_share(x, u_o) + b_o + _share(before, w_o))
        c = tl.where(live, f * c + i * g, c)
        h = tl.where(live, o * tanh(c), h)
        if output is not None:
            tl.store(output + place + t * move, h, live)
    tl.store(h_n + state, h, real)
    tl.store(c_n + state, c, real)


@triton.jit(do_not_specialize=["batch"])
def backward(
    values, weight_ih, weight_hh, bias, starts, lengths, before_h, before_c, d_output, d_h_n, d_c_n,
    d_values, d_weight_ih, d_weight_hh, d_bias, d_h_0, d_c_0,
    batch,
    INPUT: tl.constexpr, K: tl.constexpr, HIDDEN: tl.constexpr, H: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """From the last step to the first; each program has its own rows of the weights' gradients, to be added up.

    d_values is "rows directions INPUT", to be added up over directions.
    """
    direction, directions = tl.program_id(1), tl.num_programs(1)
    sentence, length, first, step = sentences(starts, lengths, batch, direction, B)
    unit, inputs, from_unit = tl.arange(0, H)[None, :], tl.arange(0, K)[:, None], tl.arange(0, H)[:, None]
    real = (sentence < batch)[:, None] & (unit < HIDDEN)
    weight_ih += direction * 4 * HIDDEN * INPUT
    weight_hh += direction * 4 * HIDDEN * HIDDEN
    u_i, u_f, u_g, u_o = four_weights(weight_ih, unit, inputs, HIDDEN, INPUT)
    w_i, w_f, w_g, w_o = four_weights(weight_hh, unit, from_unit, HIDDEN, HIDDEN)
    r_i, r_f, r_g, r_o = four_weights(weight_hh, from_unit, unit, HIDDEN, HIDDEN)
    if bias is not None:
        bias += direction * 4 * HIDDEN
    b_i, b_f = _bias(bias, 0, unit, HIDDEN), _bias(bias, 1, unit, HIDDEN)
    b_g, b_o = _bias(bias, 2, unit, HIDDEN), _bias(bias, 3, unit, HIDDEN)

    state = (direction * batch + sentence)[:, None] * HIDDEN + unit
    d_h = tl.load(d_h_n + state, real, 0.0)
    d_c = tl.load(d_c_n + state, real, 0.0)
    place, move = (first * directions + direction)[:, None] * HIDDEN + unit, step * directions * HIDDEN
    row, input_row = first[None, :], (first * directions + direction)[None, :] * INPUT + inputs
    # The gradients of u_i … w_o, each sentence's own until the end: "K B H", "H B H".
    du_i = tl.zeros((K, B, H), tl.float32)
    du_f, du_g, du_o = du_i, du_i, du_i
    dw_i = tl.zeros((H, B, H), tl.float32)
    dw_f, dw_g, dw_o = dw_i, dw_i, dw_i
    db_i = tl.zeros((B, H), tl.float32)
    db_f, db_g, db_o = db_i, db_i, db_i
    longest = tl.max(length, 0)
    last = tl.maximum(longest - 1, 0)
    live = real & (last < length)[:, None]
    x_1 = _fetch(values, row + last * step, last < length, inputs, INPUT)
    h_1 = tl.load(before_h + place + last * move, live, 0.0)
    c_1 = tl.load(before_c + place + last * move, live, 0.0)
    for back in range(longest):
        t = last - back
        live = real & (t < length)[:, None]
        x, h, before_state = x_1, tl.trans(h_1), c_1
        next_t = tl.maximum(t - 1, 0)
        sooner = next_t < length
        x_1 = _fetch(values, row + next_t * step, sooner, inputs, INPUT)
        h_1 = tl.load(before_h + place + next_t * move, real & sooner[:, None], 0.0)
        c_1 = tl.load(before_c + place + next_t * move, real & sooner[:, None], 0.0)
        if d_output is not None:
            d_h += tl.load(d_output + place + t * move, live, 0.0)

        i = sigmoid(_share(x, u_i) + b_i + _share(h, w_i))
        f = sigmoid(_share(x, u_f) + b_f + _share(h, w_f))
        g = tanh(_share(x, u_g) + b_g + _share(h, w_g))
        o = sigmoid(_share(x, u_o) + b_o + _share(h, w_o))
        d_i, d_f, d_g, d_o, d_c = gate_gradients(i, f, g, o, before_state, d_h, d_c, live)

        du_i, dw_i, db_i = du_i + x[:, :, None] * d_i[None], dw_i + h[:, :, None] * d_i[None], db_i + d_i
        du_f, dw_f, db_f = du_f + x[:, :, None] * d_f[None], dw_f + h[:, :, None] * d_f[None], db_f + d_f
        du_g, dw_g, db_g = du_g + x[:, :, None] * d_g[None], dw_g + h[:, :, None] * d_g[None], db_g + d_g
        du_o, dw_o, db_o = du_o + x[:, :, None] * d_o[None], dw_o + h[:, :, None] * d_o[None], db_o + d_o
        # A thread has its unit's part of the inputs' gradients: these alone are added up over threads.
        d_x = tl.sum(_spread(d_i, u_i) + _spread(d_f, u_f) + _spread(d_g, u_g) + _spread(d_o, u_o), 2)
        d_x_row = input_row + t * step * directions * INPUT
        tl.store(d_values + d_x_row, d_x, (t < length)[None, :] & (inputs < INPUT))
        d_h_t = product(d_i, r_i, "registers") + product(d_f, r_f, "registers")
        d_h_t += product(d_g, r_g, "registers") + product(d_o, r_o, "registers")
        d_h = tl.where(live, d_h_t, d_h)

    tl.store(d_h_0 + state, d_h, real)
    tl.store(d_c_0 + state, d_c, real)
    own = (tl.program_id(0) * directions + direction).to(tl.int64) * 4 * HIDDEN
    _keep(d_weight_ih + own * INPUT, 0, du_i, unit, inputs, HIDDEN, INPUT)
    _keep(d_weight_ih + own * INPUT, 1, du_f, unit, inputs, HIDDEN, INPUT)
    _keep(d_weight_ih + own * INPUT, 2, du_g, unit, inputs, HIDDEN, INPUT)
    _keep(d_weight_ih + own * INPUT, 3, du_o, unit, inputs, HIDDEN, INPUT)
    _keep(d_weight_hh + own * HIDDEN, 0, dw_i, unit, from_unit, HIDDEN, HIDDEN)
    _keep(d_weight_hh + own * HIDDEN, 1, dw_f, unit, from_unit, HIDDEN, HIDDEN)
    _keep(d_weight_hh + own * HIDDEN, 2, dw_g, unit, from_unit, HIDDEN, HIDDEN)
    _keep(d_weight_hh + own * HIDDEN, 3, dw_o, unit, from_unit, HIDDEN, HIDDEN)
    j = tl.arange(0, H)
    tl.store(d_bias + own + j, tl.sum(db_i, 0), j < HIDDEN)
    tl.store(d_bias + own + HIDDEN + j, tl.sum(db_f, 0), j < HIDDEN)
    tl.store(d_bias + own + 2 * HIDDEN + j, tl.sum(db_g, 0), j < HIDDEN)
    tl.store(d_bias + own + 3 * HIDDEN + j, tl.sum(db_o, 0), j < HIDDEN)


@triton.jit
def _keep(sums, gate, by_sentence, unit, inputs, HIDDEN: tl.constexpr, WIDTH: tl.constexpr):
    """Add up a gate's gradients over the sentences, and write them where the gate's weights stand."""
    real = (unit < HIDDEN) & (inputs < WIDTH)
    tl.store(sums + (gate * HIDDEN + unit) * WIDTH + inputs, tl.sum(by_sentence, 1), real)
