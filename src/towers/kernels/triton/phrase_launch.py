"""Starts the kernels of the phrase features."""

from typing import Any

import torch
import triton
from torch import Tensor

from towers.kernels.triton import phrase_kernels
from towers.kernels.triton.start import start, torch_precision

# By the compiler's own count for compute capability 9.0, none of these spills a register at 2 x 32 filters of 300.
FORWARD = {"TILE": 128, "CHUNK": 32, "num_warps": 8, "num_stages": 3}
LOOKUP = {"TILE": 64, "num_warps": 4, "num_stages": 1}
BACKWARD = {"TILE": 64, "CHUNK": 64, "num_warps": 8, "num_stages": 2}
PROGRAMS = 128
"""How many programs at most add up the weights' gradients, each its part of the tokens."""


def _sizes(values: Tensor, weight: Tensor, pool: int, precision: str) -> dict[str, Any]:
    places, filters, width = weight.shape
    if values.dtype == weight.dtype == torch.bfloat16:
        precision = precision or "tf32"  # which holds all of a bfloat16
    sizes = {"WIDTH": width, "PLACES": places, "P": triton.next_power_of_2(places), "FILTERS": filters, "POOL": pool}
    return sizes | {"PRECISION": precision or torch_precision()}


def forward(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None,
    pool: int, precision: str, keep: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `towers.kernels.triton.phrase_ops`."""
    places, filters, _ = weight.shape
    rows = len(values if ids is None else ids)
    features, winners = _results(values, rows, filters // pool, keep)
    start(
        phrase_kernels.forward, (triton.cdiv(rows, FORWARD["TILE"] - places + 1),),
        values, ids, weight, bias, real, features, winners if keep else None, rows, len(values),
        **_sizes(values, weight, pool, precision), **FORWARD,
    )  # fmt: skip
    return features, winners


def lookup(
    projected: Tensor, ids: Tensor, bias: Tensor, real: Tensor | None, pool: int, keep: bool
) -> tuple[Tensor, Tensor]:
    """See `towers.kernels.triton.phrase_ops`."""
    _, places, filters = projected.shape
    rows = len(ids)
    features, winners = _results(projected, rows, filters // pool, keep)
    start(
        phrase_kernels.lookup, (triton.cdiv(rows, LOOKUP["TILE"]),),
        projected, ids, bias, real, features, winners if keep else None, rows, len(projected),
        PLACES=places, FILTERS=filters, POOL=pool, **LOOKUP,
    )  # fmt: skip
    return features, winners


def _results(like: Tensor, rows: int, groups: int, keep: bool) -> tuple[Tensor, Tensor]:
    winners = torch.empty(rows if keep else 0, groups, dtype=torch.uint8, device=like.device)
    return torch.empty(rows, groups, device=like.device), winners


def backward(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None, winners: Tensor,
    d_features: Tensor, precision: str, vectors: bool,
) -> list[Tensor]:  # fmt: skip
    """See `towers.kernels.triton.phrase_ops`. Each program writes sums of its own, which are then added up in order."""
    places, filters, width = weight.shape
    rows, tile = len(winners), BACKWARD["TILE"]
    programs = max(1, min(PROGRAMS, triton.cdiv(rows, tile)))
    span = triton.cdiv(triton.cdiv(rows, programs), tile) * tile
    sizes = _sizes(values, weight, filters // winners.shape[1], precision)
    chunks = triton.cdiv(width, BACKWARD["CHUNK"])
    d_weight = torch.empty(programs, places, filters, width, device=values.device)
    d_bias = torch.empty(programs, filters, device=values.device)
    d_values = torch.empty_like(values if vectors else values[:0])
    start(
        phrase_kernels.backward_weight, (programs, chunks),
        values, ids, real, winners, d_features, d_weight, d_bias, rows, len(values), span, **sizes, **BACKWARD,
    )  # fmt: skip
    if vectors:
        grid = (triton.cdiv(rows, tile), chunks)
        start(phrase_kernels.backward_values, grid, weight, winners, d_features, d_values, rows, **sizes, **BACKWARD)
    return [d_values, d_weight.sum(0).to(weight.dtype), d_bias.sum(0).to(bias.dtype)]
