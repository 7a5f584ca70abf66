"""The products of the wide LSTM that do not wait for a step: over the rows that belong to sentences, and no others.

They are the inputs' product, what the states before each step contribute to the gates, and the gradients of inputs and
weights. Of padded input the rows of sentences are listed once on the device (`real_rows`); a program takes the next
TILE rows of the list, and ends where there are none. So tiles are full whatever the lengths are, padding costs nothing,
and what lies in it is never read.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from towers.kernels.triton.launch import start, torch_precision
from towers.kernels.triton.lstm_shared import ANYWHERE, multiplied

# The compiler reports no register spill for these at compute capability 9.0.
LIST = {"TILE": 128, "num_warps": 1}
ROWS = {"TILE": 64, "COLUMNS": 128, "CHUNK": 32, "num_warps": 4, "num_stages": 2}
SUMS = {"TILE": 32, "UNITS": 64, "COLUMNS": 64, "num_warps": 4, "num_stages": 2}
PROGRAMS = 512
"""At most about this number of programs add up weights' gradients, each over its part of the rows."""


def own_precision(weight: Tensor) -> str:
    """Of products where none is asked for: "bfloat16" of such weights, else as torch is set."""
    return "bfloat16" if weight.dtype == torch.bfloat16 else torch_precision()


def real_rows(starts: Tensor, lengths: Tensor, rows: int) -> Tensor:
    """The number of the rows that belong to sentences, then these rows: "rows+1" of int64, of which the rest is 0."""
    real = torch.zeros(rows + 1, dtype=torch.int64, device=starts.device)
    start(list_kernel, (len(lengths),), starts, lengths, lengths.cumsum(0), real, len(lengths), **LIST)
    return real


def inputs_product(
    values: Tensor, weight_ih: Tensor, bias: Tensor | None, real: Tensor | None, precision: str
) -> Tensor:
    """What the inputs "rows input" contribute to the gates, "rows directions*4*hidden", in the weights' dtype."""
    directions, gates, width = weight_ih.shape
    out = torch.empty(len(values), directions * gates, dtype=weight_ih.dtype, device=values.device)
    _rows(values, weight_ih, bias, None, out, real, 1, (width, 1), precision)
    return out


def complete_gates(gates: Tensor, before_h: Tensor, weight_hh: Tensor, real: Tensor | None, precision: str) -> Tensor:
    """The gates with what the states before each step contribute, "rows directions*4*hidden" in float32.

    That does not depend on the order of the steps: it is one product for all rows.
    """
    out = torch.empty(gates.shape, dtype=torch.float32, device=gates.device)
    _rows(before_h, weight_hh, None, gates, out, real, len(weight_hh), (weight_hh.shape[2], 1), precision)
    return out


def inputs_gradient(d_gates: Tensor, values: Tensor, weight_ih: Tensor, real: Tensor | None, precision: str) -> Tensor:
    """From the gates' gradients to those of the inputs; 0 in rows of no sentence."""
    out = torch.empty_like(values) if real is None else torch.zeros_like(values)
    _rows(d_gates, weight_ih, None, None, out, real, 1, (1, weight_ih.shape[2]), precision)
    return out


def _rows(
    x: Tensor, weight: Tensor, bias: Tensor | None, before: Tensor | None, out: Tensor, real: Tensor | None,
    parts: int, strides: tuple[int, int], precision: str,
) -> None:  # fmt: skip
    """Start `rows_kernel`; x, weight and out are divided into parts, each of which is a product of its own."""
    rows, inputs, outputs = len(out), x.shape[1:].numel() // parts, out.shape[1] // parts
    start(
        rows_kernel, (triton.cdiv(rows, ROWS["TILE"]) * triton.cdiv(outputs, ROWS["COLUMNS"]), parts),
        x, weight, bias, before, out, real, rows,
        X_ROW=parts * inputs, X_PART=inputs, W_COLUMN=strides[0], W_INPUT=strides[1], W_PART=inputs * outputs,
        OUT_ROW=parts * outputs, OUT_PART=outputs, INPUTS=inputs, OUTPUTS=outputs, PRECISION=precision, **ROWS,
    )  # fmt: skip


def weights_gradient(
    d_gates: Tensor, x: Tensor, real: Tensor | None, directions: int, precision: str, *, parts: int, bias: bool
) -> tuple[Tensor, Tensor]:
    """Sums over the rows: the gradients of the weights that x was multiplied by, and of the bias (empty: not wanted).

    They are "directions 4*hidden inputs" and "directions 4*hidden", in float32. x has all directions' parts, or one
    for all of them. Each program writes its own sums, which are then added in order.
    """
    rows, gates, inputs = len(x), d_gates.shape[1] // directions, x.shape[1:].numel() // parts
    blocks = triton.cdiv(gates, SUMS["UNITS"]) * triton.cdiv(inputs, SUMS["COLUMNS"])
    programs = max(1, min(triton.cdiv(rows, SUMS["TILE"]), PROGRAMS // (blocks * directions)))
    sums = torch.empty(programs, directions, gates, inputs, device=x.device, dtype=torch.float32)
    d_bias = torch.empty(programs if bias else 0, directions, gates, device=x.device, dtype=torch.float32)
    start(
        sums_kernel, (programs, blocks, directions),
        d_gates, x, real, sums, d_bias if bias else None, rows,
        X_ROW=parts * inputs, X_PART=inputs if parts > 1 else 0, GATES=gates, INPUTS=inputs,
        PRECISION=precision, DIRECTIONS=directions, **SUMS,
    )  # fmt: skip
    return sums.sum(0), d_bias.sum(0)


@triton.jit(do_not_specialize=["batch"], do_not_specialize_on_alignment=ANYWHERE)
@no_type_check
def list_kernel(starts, lengths, ends, real, batch, TILE: tl.constexpr):
    """One program lists the rows of a sentence; the last one writes their number."""
    sentence = tl.program_id(0).to(tl.int64)
    start, length, end = tl.load(starts + sentence), tl.load(lengths + sentence), tl.load(ends + sentence)
    for first in range(0, length.to(tl.int32), TILE):
        place = first + tl.arange(0, TILE)
        tl.store(real + 1 + end - length + place, start + place, place < length)
    tl.store(real, end, sentence == batch - 1)


@triton.jit()
@no_type_check
def _listed(real, place, rows):
    """The rows at some places of the list, and whether there are such; without a list, the rows themselves."""
    if real is None:
        row, live = place, place < rows
    else:
        live = place < tl.load(real)
        row = tl.load(real + 1 + place, live, 0)
    return row, live


@triton.jit(do_not_specialize=["rows"], do_not_specialize_on_alignment=ANYWHERE)
@no_type_check
def rows_kernel(
    x, weight, bias, before, out, real, rows,
    X_ROW: tl.constexpr, X_PART: tl.constexpr, W_COLUMN: tl.constexpr, W_INPUT: tl.constexpr, W_PART: tl.constexpr,
    OUT_ROW: tl.constexpr, OUT_PART: tl.constexpr, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr,
    TILE: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = x @ weight + bias + before, for TILE rows, and COLUMNS columns of a part."""
    tiles: tl.constexpr = (OUTPUTS + COLUMNS - 1) // COLUMNS
    program, part = tl.program_id(0), tl.program_id(1)
    place = (program // tiles).to(tl.int64) * TILE + tl.arange(0, TILE)
    row, live = _listed(real, place, rows)
    column = program % tiles * COLUMNS + tl.arange(0, COLUMNS)
    if tl.max(live.to(tl.int32), 0) > 0:
        total = tl.zeros((TILE, COLUMNS), tl.float32)
        for first in range(0, INPUTS, CHUNK):
            k = first + tl.arange(0, CHUNK)
            at = (row * X_ROW + part * X_PART)[:, None] + k[None, :]
            a = tl.load(x + at, live[:, None] & (k < INPUTS)[None, :], 0.0)
            of = part * W_PART + k[:, None] * W_INPUT + column[None, :] * W_COLUMN
            b = tl.load(weight + of, (k < INPUTS)[:, None] & (column < OUTPUTS)[None, :], 0.0)
            if PRECISION == "bfloat16":
                total = multiplied(a.to(tl.bfloat16), b.to(tl.bfloat16), total)
            else:
                total = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision=PRECISION)
        inside = live[:, None] & (column < OUTPUTS)[None, :]
        if bias is not None:
            total += tl.load(bias + part * OUTPUTS + column, column < OUTPUTS, 0.0).to(tl.float32)[None, :]
        to = (row * OUT_ROW + part * OUT_PART)[:, None] + column[None, :]
        if before is not None:
            total += tl.load(before + to, inside, 0.0).to(tl.float32)
        tl.store(out + to, total, inside)


@triton.jit(do_not_specialize=["rows"])
@no_type_check
def sums_kernel(
    d_gates, x, real, sums, d_bias, rows,
    X_ROW: tl.constexpr, X_PART: tl.constexpr, GATES: tl.constexpr, INPUTS: tl.constexpr, DIRECTIONS: tl.constexpr,
    TILE: tl.constexpr, UNITS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """d_gates^T @ x over a program's share of the rows, for UNITS of a direction's gates and COLUMNS of x."""
    tiles: tl.constexpr = (INPUTS + COLUMNS - 1) // COLUMNS
    program, direction = tl.program_id(0), tl.program_id(2)
    j = tl.program_id(1) // tiles * UNITS + tl.arange(0, UNITS)
    k = tl.program_id(1) % tiles * COLUMNS + tl.arange(0, COLUMNS)
    count = rows.to(tl.int64)
    if real is not None:
        count = tl.load(real)
    span = tl.cdiv(tl.cdiv(count, tl.num_programs(0)), TILE) * TILE
    begin = program * span
    total, total_bias = tl.zeros((UNITS, COLUMNS), tl.float32), tl.zeros((UNITS,), tl.float32)
    for first in range(begin, tl.minimum(begin + span, count), TILE):
        row, live = _listed(real, first + tl.arange(0, TILE), rows)
        at = ((row * DIRECTIONS + direction) * GATES)[None, :] + j[:, None]
        d = tl.load(d_gates + at, live[None, :] & (j < GATES)[:, None], 0.0)
        at = (row * X_ROW + direction * X_PART)[:, None] + k[None, :]
        a = tl.load(x + at, live[:, None] & (k < INPUTS)[None, :], 0.0).to(tl.float32)
        total = tl.dot(d, a, total, input_precision=PRECISION)
        if d_bias is not None:
            total_bias += tl.sum(d, 1)
    own = (program.to(tl.int64) * DIRECTIONS + direction) * GATES + j
    tl.store(sums + own[:, None] * INPUTS + k[None, :], total, (j < GATES)[:, None] & (k < INPUTS)[None, :])
    if d_bias is not None:  # noqa: SIM102
        if tl.program_id(1) % tiles == 0:
            tl.store(d_bias + own, total_bias, j < GATES)
