"""The narrow LSTM: hidden size and input size up to 8, with the product of the inputs inside the steps.

One warp walks over a tile of 4 sentences. A thread holds one hidden unit of one sentence: that unit's weights, its
state and, in the backward pass, the sums of its weights' gradients. Only inputs and states are read and written.
`narrow_lstm` is the operator that autograd, compile and export know.
"""

from typing import Any, NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from towers.kernels.triton.launch import aligned, contiguous, start
from towers.kernels.triton.lstm_shared import (
    ANYWHERE,
    Results,
    four_biases,
    four_weights,
    gate_gradients,
    new_gradients,
    new_results,
    product,
    refuse_without_states,
    sentences,
    sigmoid,
    state_or_zero,
    tanh,
)

TILE = 4
"""Sentences of one warp."""

PROGRAMS = 16384
"""At most this number of programs walk back at once and keep sums of gradients, to which the next launch adds.

At a million sentences and hidden size 6 the sums take 24 MB, where all tiles at once took 360 MB.
"""

OPTIONS = {"K": 8, "H": 8, "B": TILE, "num_warps": 1, "num_stages": 1}


@torch.library.custom_op("towers::narrow_lstm", mutates_args=())
def narrow_lstm(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    h_0: Tensor | None, c_0: Tensor | None, keep: bool, outputs: bool, gaps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """One layer of an LSTM, all its sentences and directions; computed in float32.

    Args:
        values: inputs, "rows input".
        weight_ih, weight_hh: "directions 4*hidden input", "directions 4*hidden hidden"; gates in the order i, f, g, o.
        bias: "directions 4*hidden", or None.
        starts, lengths: "batch" of int64: sentence i is the `lengths[i]` rows from row `starts[i]` on. No two
            sentences share a row.
        h_0, c_0: "directions batch hidden"; None: zeros.
        keep: whether the states before each step are kept, which the backward pass needs.
        outputs: whether the outputs of all steps are wanted.
        gaps: whether some rows belong to no sentence; their outputs and gradients are 0.

    Returns:
        Outputs "rows directions*hidden"; h and c before each step, "rows directions hidden"; h_n and c_n,
        "directions batch hidden". A result that is not wanted has no rows.
    """
    tensors = contiguous(weight_ih, weight_hh, bias, starts, lengths, h_0, c_0)
    return launch_forward(aligned(values), *tensors, keep=keep, outputs=outputs, gaps=gaps)


@torch.library.custom_op("towers::narrow_lstm_backward", mutates_args=())
def narrow_lstm_backward(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    before_h: Tensor, before_c: Tensor, d_output: Tensor | None, d_h_n: Tensor | None, d_c_n: Tensor | None,
    gaps: bool,
) -> list[Tensor]:  # fmt: skip
    """Gradients of values, weight_ih, weight_hh, bias (empty where it is None), h_0 and c_0."""
    tensors = contiguous(weight_ih, weight_hh, bias, starts, lengths, before_h, before_c)
    d_h_n, d_c_n = contiguous(d_h_n, d_c_n)
    upstream = {"d_output": aligned(d_output), "d_h_n": d_h_n, "d_c_n": d_c_n}
    return launch_backward(aligned(values), *tensors, **upstream, gaps=gaps)


class Places(NamedTuple):
    """Where sentences lie, as `lstm_shared.sentences` reads them."""

    starts: Tensor | None
    lengths: Tensor | None
    batch: int
    padded: int = 0
    fewer: int = 0


def launch_forward(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    h_0: Tensor | None, c_0: Tensor | None, keep: bool, outputs: bool, gaps: bool,
) -> Results:  # fmt: skip
    """`narrow_lstm` of contiguous tensors."""
    directions, _, hidden = weight_hh.shape
    output, before_h, before_c, h_n, c_n = new_results(values, directions, hidden, len(lengths), keep, outputs)
    if gaps:
        for rows in (output, before_h, before_c):
            rows.zero_()
    places = Places(starts, lengths, len(lengths))
    start_forward(
        values, weight_ih, weight_hh, bias, None, places, h_0, c_0, output if outputs else None,
        before_h if keep else None, before_c if keep else None, h_n, c_n, directions=directions,
    )  # fmt: skip
    return output.flatten(1), before_h, before_c, h_n, c_n


def start_forward(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, bias_2: Tensor | None, places: Places,
    h_0: Tensor | None, c_0: Tensor | None, output: Tensor | None, before_h: Tensor | None, before_c: Tensor | None,
    h_n: Tensor, c_n: Tensor, *, directions: int,
) -> None:  # fmt: skip
    """Fill the results that are given."""
    starts, lengths, batch, padded, fewer = places
    start(
        forward_kernel, (-(-batch // TILE), directions),
        values, weight_ih, weight_hh, bias, bias_2, starts, lengths, h_0, c_0,
        output, before_h, before_c, h_n, c_n, batch, padded, fewer,
        INPUT=weight_ih.shape[-1], HIDDEN=weight_hh.shape[-1], **OPTIONS,
    )  # fmt: skip


def launch_backward(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    before_h: Tensor, before_c: Tensor, d_output: Tensor | None, d_h_n: Tensor | None, d_c_n: Tensor | None,
    gaps: bool,
) -> list[Tensor]:  # fmt: skip
    """`narrow_lstm_backward` of contiguous tensors."""
    (directions, _, hidden), width, places = weight_hh.shape, weight_ih.shape[2], Places(starts, lengths, len(lengths))
    d_values, sums, d_h_0, d_c_0 = start_backward(
        values, weight_ih, weight_hh, bias, None, places, before_h, before_c, d_output, d_h_n, d_c_n, gaps=gaps,
        directions=directions, states=True,
    )  # fmt: skip
    assert d_h_0 is not None
    assert d_c_0 is not None
    d_weight_ih, d_weight_hh, d_bias = divided(sums, directions * 4 * hidden, width, hidden)
    return [
        d_values.to(values.dtype),
        d_weight_ih.view(weight_ih.shape).to(weight_ih.dtype, copy=True),
        d_weight_hh.view(weight_hh.shape).to(weight_hh.dtype, copy=True),
        d_bias.new_empty(0) if bias is None else d_bias.view(bias.shape).to(bias.dtype, copy=True),
        d_h_0,
        d_c_0,
    ]


def divided(sums: Tensor, gates: int, width: int, hidden: int) -> list[Tensor]:
    """The gradients of weight_ih, weight_hh and bias, views of all of them."""
    found: Any = sums.split_with_sizes([gates * width, gates * hidden, gates])
    return found


def start_backward(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, bias_2: Tensor | None, places: Places,
    before_h: Tensor, before_c: Tensor, d_output: Tensor | None, d_h_n: Tensor | None, d_c_n: Tensor | None,
    *, gaps: bool, directions: int, states: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of values, of all weights (see `divided`) and, if wanted, of h_0 and c_0, in float32.

    Each program writes its own sums, which are then added in order.
    """
    starts, lengths, batch, padded, fewer = places
    hidden, width, tiles = weight_hh.shape[-1], weight_ih.shape[-1], -(-batch // TILE)
    programs, device, dtype = min(PROGRAMS, tiles), values.device, torch.float32
    shape = values.shape if directions == 1 else (*values.shape[:-1], directions, width)
    d_values = (torch.zeros if gaps else torch.empty)(shape, device=device, dtype=dtype)
    sums = torch.empty((programs, directions * 4 * hidden * (width + hidden + 1)), device=device, dtype=dtype)
    d_h_0 = d_c_0 = None
    if states:
        d_h_0, d_c_0 = (torch.empty((directions, batch, hidden), device=device, dtype=dtype) for _ in range(2))
    for first_tile in range(0, tiles, PROGRAMS):
        start(
            backward_kernel, (min(programs, tiles - first_tile), directions),
            values, weight_ih, weight_hh, bias, bias_2, starts, lengths, before_h, before_c, d_output, d_h_n, d_c_n,
            d_values, sums, d_h_0, d_c_0, batch, padded, fewer, first_tile,
            INPUT=width, HIDDEN=hidden, **OPTIONS,
        )  # fmt: skip
    return d_values if directions == 1 else d_values.sum(-2), sums.sum(0), d_h_0, d_c_0


@narrow_lstm.register_fake
def _(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    h_0: Tensor | None, c_0: Tensor | None, keep: bool, outputs: bool, gaps: bool,
) -> Results:  # fmt: skip
    directions, _, hidden = weight_hh.shape
    output, before_h, before_c, h_n, c_n = new_results(values, directions, hidden, lengths.shape[0], keep, outputs)
    return output.flatten(1), before_h, before_c, h_n, c_n


@narrow_lstm_backward.register_fake
def _(
    values: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, starts: Tensor, lengths: Tensor,
    *_: Any,
) -> list[Tensor]:  # fmt: skip
    return new_gradients((values, weight_ih, weight_hh, bias), weight_hh, lengths)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Results) -> None:
    values, weight_ih, weight_hh, bias, starts, lengths, _, _, ctx.kept, _, ctx.gaps = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.save_for_backward(values, weight_ih, weight_hh, bias, starts, lengths, output[1], output[2])


def _backward(ctx: Any, d_output: Tensor | None, _h: None, _c: None, d_h_n: Tensor | None, d_c_n: Tensor | None) -> Any:
    if d_output is None and d_h_n is None and d_c_n is None:
        return (None,) * 11
    refuse_without_states(ctx.kept)
    found = narrow_lstm_backward(*ctx.saved_tensors, d_output, d_h_n, d_c_n, ctx.gaps)
    # The places of values, weight_ih, weight_hh, bias, h_0 and c_0 among the arguments.
    wanted: dict[int, Tensor] = dict(zip((0, 1, 2, 3, 6, 7), found, strict=True))
    return tuple(wanted.get(place) if needed else None for place, needed in enumerate(ctx.needs_input_grad))


narrow_lstm.register_autograd(_backward, setup_context=_setup_context)


@triton.jit()
@no_type_check
def _share(inputs, matrix):
    """inputs "K B" by matrix "K H" -> "B H", within each thread."""
    return tl.sum(inputs[:, :, None] * matrix[:, None, :], 0)


@triton.jit()
@no_type_check
def _spread(d_gate, matrix):
    """A gate's gradients "B H" times its weights "K H" -> "K B H", within each thread."""
    return d_gate[None] * matrix[:, None, :]


@triton.jit()
@no_type_check
def _grown(sums, inputs, d_gate):
    """Sums of a gate's weights' gradients "K B H", each sentence's own, and those of one more step."""
    return sums + inputs[:, :, None] * d_gate[None]


@triton.jit()
@no_type_check
def _fetch(values, row, live, inputs, INPUT: tl.constexpr):
    """The inputs "K B" of one step; 0 where the sentence is over."""
    return tl.load(values + row * INPUT + inputs, live[None, :] & (inputs < INPUT), 0.0).to(tl.float32)


@triton.jit(do_not_specialize=["batch", "padded", "fewer"], do_not_specialize_on_alignment=ANYWHERE)
@no_type_check
def forward_kernel(
    values, weight_ih, weight_hh, bias, bias_2, starts, lengths, h_0, c_0,
    output, before_h, before_c, h_n, c_n,
    batch, padded, fewer,
    INPUT: tl.constexpr, K: tl.constexpr, HIDDEN: tl.constexpr, H: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Outputs, last states, and what the backward pass needs, the states before each step; None: not wanted."""
    direction, directions = tl.program_id(1), tl.num_programs(1)
    sentence, length, first, step = sentences(
        starts, lengths, None, batch, direction, tl.program_id(0), padded, fewer, B
    )
    unit, inputs, from_unit = tl.arange(0, H)[None, :], tl.arange(0, K)[:, None], tl.arange(0, H)[:, None]
    real = (sentence < batch)[:, None] & (unit < HIDDEN)
    u_i, u_f, u_g, u_o = four_weights(weight_ih + direction * 4 * HIDDEN * INPUT, unit, inputs, HIDDEN, INPUT)
    w_i, w_f, w_g, w_o = four_weights(weight_hh + direction * 4 * HIDDEN * HIDDEN, unit, from_unit, HIDDEN, HIDDEN)
    b_i, b_f, b_g, b_o = four_biases(bias, bias_2, direction, unit, HIDDEN)

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


@triton.jit(do_not_specialize=["batch", "padded", "fewer", "first_tile"], do_not_specialize_on_alignment=ANYWHERE)
@no_type_check
def backward_kernel(
    values, weight_ih, weight_hh, bias, bias_2, starts, lengths, before_h, before_c, d_output, d_h_n, d_c_n,
    d_values, sums, d_h_0, d_c_0,
    batch, padded, fewer, first_tile,
    INPUT: tl.constexpr, K: tl.constexpr, HIDDEN: tl.constexpr, H: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """From the last step to the first; each program has its own rows of the weights' gradients, to be added up.

    d_values is "rows directions INPUT", to be added up over directions.
    """
    direction, directions = tl.program_id(1), tl.num_programs(1)
    tile = first_tile + tl.program_id(0)
    sentence, length, first, step = sentences(starts, lengths, None, batch, direction, tile, padded, fewer, B)
    unit, inputs, from_unit = tl.arange(0, H)[None, :], tl.arange(0, K)[:, None], tl.arange(0, H)[:, None]
    real = (sentence < batch)[:, None] & (unit < HIDDEN)
    weight_ih += direction * 4 * HIDDEN * INPUT
    weight_hh += direction * 4 * HIDDEN * HIDDEN
    u_i, u_f, u_g, u_o = four_weights(weight_ih, unit, inputs, HIDDEN, INPUT)
    w_i, w_f, w_g, w_o = four_weights(weight_hh, unit, from_unit, HIDDEN, HIDDEN)
    r_i, r_f, r_g, r_o = four_weights(weight_hh, from_unit, unit, HIDDEN, HIDDEN)
    b_i, b_f, b_g, b_o = four_biases(bias, bias_2, direction, unit, HIDDEN)

    state = (direction * batch + sentence)[:, None] * HIDDEN + unit
    d_h = state_or_zero(d_h_n, state, real, B, H)
    d_c = state_or_zero(d_c_n, state, real, B, H)
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
    if d_output is not None:
        d_1 = tl.load(d_output + place + last * move, live, 0.0)
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
            d_h += d_1
            d_1 = tl.load(d_output + place + next_t * move, real & sooner[:, None], 0.0)

        i = sigmoid(_share(x, u_i) + b_i + _share(h, w_i))
        f = sigmoid(_share(x, u_f) + b_f + _share(h, w_f))
        g = tanh(_share(x, u_g) + b_g + _share(h, w_g))
        o = sigmoid(_share(x, u_o) + b_o + _share(h, w_o))
        d_i, d_f, d_g, d_o, d_c = gate_gradients(i, f, g, o, before_state, d_h, d_c, live)

        du_i, dw_i, db_i = _grown(du_i, x, d_i), _grown(dw_i, h, d_i), db_i + d_i
        du_f, dw_f, db_f = _grown(du_f, x, d_f), _grown(dw_f, h, d_f), db_f + d_f
        du_g, dw_g, db_g = _grown(du_g, x, d_g), _grown(dw_g, h, d_g), db_g + d_g
        du_o, dw_o, db_o = _grown(du_o, x, d_o), _grown(dw_o, h, d_o), db_o + d_o
        # A thread has its unit's part of the inputs' gradients. Only these are added up over threads.
        d_x = tl.sum(_spread(d_i, u_i) + _spread(d_f, u_f) + _spread(d_g, u_g) + _spread(d_o, u_o), 2)
        d_x_row = input_row + t * step * directions * INPUT
        tl.store(d_values + d_x_row, d_x, (t < length)[None, :] & (inputs < INPUT))
        d_h_t = product(d_i, r_i, "registers") + product(d_f, r_f, "registers")
        d_h_t += product(d_g, r_g, "registers") + product(d_o, r_o, "registers")
        d_h = tl.where(live, d_h_t, d_h)

    if d_h_0 is not None:
        tl.store(d_h_0 + state, d_h, real)
        tl.store(d_c_0 + state, d_c, real)
    # A program's sums: of all directions' weight_ih, then weight_hh, then biases.
    zero = tl.zeros((1, 1), tl.int32)
    again = zero + first_tile > 0
    sums += tl.program_id(0).to(tl.int64) * (directions * 4 * HIDDEN * (INPUT + HIDDEN + 1))
    of_hh, of_bias = directions * 4 * HIDDEN * INPUT, directions * 4 * HIDDEN * (INPUT + HIDDEN)
    own = direction * 4 * HIDDEN
    _keep(sums + own * INPUT, du_i, du_f, du_g, du_o, again, unit, inputs, HIDDEN, INPUT)
    _keep(sums + of_hh + own * HIDDEN, dw_i, dw_f, dw_g, dw_o, again, unit, from_unit, HIDDEN, HIDDEN)
    _keep(sums + of_bias + own, db_i[None], db_f[None], db_g[None], db_o[None], again, unit, zero, HIDDEN, 1)


@triton.jit()
@no_type_check
def _keep(sums, i, f, g, o, again, unit, inputs, HIDDEN: tl.constexpr, WIDTH: tl.constexpr):
    """Add up the gates' gradients over the sentences, in the places of the gates' weights; `again`: to what is there.

    Each thread reads what it wrote itself.
    """
    real = (unit < HIDDEN) & (inputs < WIDTH)
    place, gate = sums + unit * WIDTH + inputs, HIDDEN * WIDTH
    tl.store(place, tl.sum(i, 1) + tl.load(place, real & again, 0.0), real)
    tl.store(place + gate, tl.sum(f, 1) + tl.load(place + gate, real & again, 0.0), real)
    tl.store(place + 2 * gate, tl.sum(g, 1) + tl.load(place + 2 * gate, real & again, 0.0), real)
    tl.store(place + 3 * gate, tl.sum(o, 1) + tl.load(place + 3 * gate, real & again, 0.0), real)
