"""The products of the wide LSTM that do not wait for a step: over the rows that belong to sentences, and no others.

They are the inputs' product, what the states before each step contribute to the gates, and the gradients of inputs and
weights. Of padded input the rows of sentences are listed once on the device (`real_rows`); a program takes the next
TILE rows of the list, and ends where there are none. So tiles are full whatever the lengths are, padding costs nothing,
and what lies in it is never read.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from towers.kernels.triton.launch import start
from towers.kernels.triton.lstm_shared import multiplied

ROWS = {"TILE": 64, "COLUMNS": 128, "CHUNK": 32, "num_warps": 4, "num_stages": 2}
SUMS = {"TILE": 32, "UNITS": 64, "COLUMNS": 64, "num_warps": 4, "num_stages": 2}


@triton.jit(do_not_specialize=["batch"])
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


@triton.jit(do_not_specialize=["rows"])
@no_type_check
def rows_kernel(
    x, weight, bias, before, out, real, rows,
    X_ROW: tl.constexpr, X_PART: tl.constexpr, W_COLUMN: tl.constexpr, W_INPUT: tl.constexpr, W_PART: tl.constexpr,
    OUT_ROW: tl.constexpr, OUT_PART: tl.constexpr, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr,
    TILE: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = x @ weight + bias + before, for TILE rows, COLUMNS columns and one part."""
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


@triton.jit(do_not_specialize=["rows", "span"])
@no_type_check
def sums_kernel(
    d_gates, x, real, sums, d_bias, rows, span,
    GATES_ROW: tl.constexpr, X_ROW: tl.constexpr, X_PART: tl.constexpr, GATES: tl.constexpr, INPUTS: tl.constexpr,
    TILE: tl.constexpr, UNITS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """sums = d_gates^T @ x over `span` rows, for UNITS of the gates and COLUMNS of x, which each have a part."""
    tiles: tl.constexpr = (INPUTS + COLUMNS - 1) // COLUMNS
    program, part = tl.program_id(0), tl.program_id(2)
    j = tl.program_id(1) // tiles * UNITS + tl.arange(0, UNITS)
    k = tl.program_id(1) % tiles * COLUMNS + tl.arange(0, COLUMNS)
    total, total_bias = tl.zeros((UNITS, COLUMNS), tl.float32), tl.zeros((UNITS,), tl.float32)
    begin, count = program.to(tl.int64) * span, rows
    if real is not None:
        count = tl.load(real).to(tl.int32)
    for first in range(0, tl.minimum(span, tl.maximum(count - begin, 0).to(tl.int32)), TILE):
        row, live = _listed(real, begin + first + tl.arange(0, TILE), rows)
        at = (row * GATES_ROW + part * GATES)[None, :] + j[:, None]
        d = tl.load(d_gates + at, live[None, :] & (j < GATES)[:, None], 0.0)
        a = tl.load(x + (row * X_ROW + part * X_PART)[:, None] + k[None, :], live[:, None] & (k < INPUTS)[None, :], 0.0)
        total = tl.dot(d.to(tl.float32), a.to(tl.float32), total, input_precision=PRECISION)
        if d_bias is not None:
            total_bias += tl.sum(d.to(tl.float32), 1)
    own = (program * tl.num_programs(2) + part).to(tl.int64) * GATES
    place = (own + j)[:, None] * INPUTS + k[None, :]
    tl.store(sums + place, total, (j < GATES)[:, None] & (k < INPUTS)[None, :])
    if d_bias is not None:
        if tl.program_id(1) % tiles == 0:
            tl.store(d_bias + own + j, total_bias, j < GATES)
