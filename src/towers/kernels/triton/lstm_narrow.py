# type: ignore  # Triton's own language, which no type checker knows
"""The LSTM from its inputs, for at most 8 units and 16 inputs: the input product is a part of each step.

One warp walks a tile of B sentences; a thread is one unit of one sentence and holds that unit's weights, its state and,
in the backward pass, the sums of its weights' gradients. Nothing but inputs and states is read or written.
"""

import triton
import triton.language as tl

from towers.kernels.triton.lstm_cell import (
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
def _grown(sums, inputs, d_gate):
    """Sums of a gate's weights' gradients "K B H", each sentence's own, and those of one more step."""
    return sums + inputs[:, :, None] * d_gate[None]


@triton.jit
def _biases(bias, direction, unit, HIDDEN: tl.constexpr):
    """Of the gates i, f, g, o."""
    if bias is None:
        zero = tl.zeros(unit.shape, tl.float32)
        found = (zero, zero, zero, zero)
    else:
        place, real = bias + direction * 4 * HIDDEN + unit, unit < HIDDEN
        found = (
            tl.load(place, real, 0.0).to(tl.float32),
            tl.load(place + HIDDEN, real, 0.0).to(tl.float32),
            tl.load(place + 2 * HIDDEN, real, 0.0).to(tl.float32),
            tl.load(place + 3 * HIDDEN, real, 0.0).to(tl.float32),
        )
    return found


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
    b_i, b_f, b_g, b_o = _biases(bias, direction, unit, HIDDEN)

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
    b_i, b_f, b_g, b_o = _biases(bias, direction, unit, HIDDEN)

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

        du_i, dw_i, db_i = _grown(du_i, x, d_i), _grown(dw_i, h, d_i), db_i + d_i
        du_f, dw_f, db_f = _grown(du_f, x, d_f), _grown(dw_f, h, d_f), db_f + d_f
        du_g, dw_g, db_g = _grown(du_g, x, d_g), _grown(dw_g, h, d_g), db_g + d_g
        du_o, dw_o, db_o = _grown(du_o, x, d_o), _grown(dw_o, h, d_o), db_o + d_o
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
    _keep(d_weight_ih + own * INPUT, du_i, du_f, du_g, du_o, unit, inputs, HIDDEN, INPUT)
    _keep(d_weight_hh + own * HIDDEN, dw_i, dw_f, dw_g, dw_o, unit, from_unit, HIDDEN, HIDDEN)
    _keep(d_bias + own, db_i[None], db_f[None], db_g[None], db_o[None], unit, tl.zeros((1, 1), tl.int32), HIDDEN, 1)


@triton.jit
def _keep(sums, i, f, g, o, unit, inputs, HIDDEN: tl.constexpr, WIDTH: tl.constexpr):
    """Add up the gates' gradients over the sentences, and write them where the gates' weights stand."""
    real = (unit < HIDDEN) & (inputs < WIDTH)
    place, gate = sums + unit * WIDTH + inputs, HIDDEN * WIDTH
    tl.store(place, tl.sum(i, 1), real)
    tl.store(place + gate, tl.sum(f, 1), real)
    tl.store(place + 2 * gate, tl.sum(g, 1), real)
    tl.store(place + 3 * gate, tl.sum(o, 1), real)
