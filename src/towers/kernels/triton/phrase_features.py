"""A tower's convolution and pool in one pass over the word vectors.

Row t of the result is the phrase of the words t, t + 1, … of all tokens end to end. Phrases across two sentences are
computed too, and never read. One product gives what each word of a tile contributes to each position of a phrase,
"tile position*filter"; phrase t then adds share 0 of row t, share 1 of row t + 1, … Tiles overlap by the words that
their last phrases lack.

`phrase_features` multiplies vectors, or rows of a table of vectors; `phrase_lookup` adds rows of a table that was
multiplied before. Both are operators that autograd, compile and export know.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from towers.kernels.triton.launch import contiguous, start, torch_precision
from towers.kernels.triton.lstm_shared import multiplied

# The compiler reports no register spill for these at compute capability 9.0 and 2 x 32 filters of 300.
FORWARD = {"TILE": 128, "CHUNK": 32, "num_warps": 8, "num_stages": 3}
LOOKUP = {"TILE": 64, "num_warps": 4, "num_stages": 1}
BACKWARD = {"TILE": 64, "CHUNK": 64, "num_warps": 8, "num_stages": 2}
PROGRAMS = 128
"""At most this number of programs add up the weights' gradients, each over its part of the tokens."""


@torch.library.custom_op("towers::phrase_features", mutates_args=())
def phrase_features(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None,
    pool: int, precision: str, keep: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Convolution over neighbouring tokens, bias, and the maximum of each `pool` neighbouring features, in float32.

    Args:
        values: vectors "tokens width"; or with ids a table of vectors, "vocabulary width".
        ids: "tokens", of int64; None: the values are the tokens'.
        weight: "positions filters width"; bias: "filters".
        real: "tokens", bool: which tokens are read; None: all. The others count as zeros.
        pool: neighbouring features of a group.
        precision: of the product: "tf32", "tf32x3" or "ieee"; "": as torch is set.
        keep: whether the winner of each group is kept, which the backward pass needs.

    Returns:
        Features "tokens filters/pool"; winners "tokens filters/pool" of uint8, or without rows.
    """
    return launch_forward(*contiguous(values, ids, weight, bias, real), pool=pool, precision=precision, keep=keep)


@torch.library.custom_op("towers::phrase_features_backward", mutates_args=())
def phrase_features_backward(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None, winners: Tensor,
    d_features: Tensor, precision: str, vectors: bool,
) -> list[Tensor]:  # fmt: skip
    """Gradients of the vectors (no rows unless `vectors`), of weight and bias."""
    tensors = contiguous(values, ids, weight, bias, real, winners, d_features)
    return launch_backward(*tensors, precision=precision, vectors=vectors)


@torch.library.custom_op("towers::phrase_lookup", mutates_args=())
def phrase_lookup(
    projected: Tensor, ids: Tensor, bias: Tensor, real: Tensor | None, pool: int, keep: bool
) -> tuple[Tensor, Tensor]:
    """As `phrase_features`, from each word's product with the weights: projected "vocabulary positions filters"."""
    return launch_lookup(*contiguous(projected, ids, bias, real), pool=pool, keep=keep)


def _sizes(values: Tensor, weight: Tensor, pool: int, precision: str) -> dict[str, Any]:
    positions, filters, width = weight.shape
    if values.dtype == weight.dtype == torch.bfloat16:
        precision = "bfloat16" if precision in ("", "tf32") else precision  # each product is exact
    sizes = {
        "WIDTH": width,
        "POSITIONS": positions,
        "P": 1 << (positions - 1).bit_length(),
        "FILTERS": filters,
        "POOL": pool,
    }
    return sizes | {"PRECISION": precision or torch_precision()}


def launch_forward(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None,
    pool: int, precision: str, keep: bool, *, lengths: Tensor | None = None, words: int = 1,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`phrase_features` of contiguous tensors; `lengths` say what is real of sentences that have `words` tokens."""
    positions, filters, _ = weight.shape
    rows = len(values if ids is None else ids)
    features, winners = _results(values, rows, filters // pool, keep)
    start(
        forward_kernel, (-(-rows // (FORWARD["TILE"] - positions + 1)),),
        values, ids, weight, bias, real, lengths, features, winners if keep else None, rows, values.shape[0], words,
        **_sizes(values, weight, pool, precision), **FORWARD,
    )  # fmt: skip
    return features, winners


def launch_lookup(
    projected: Tensor, ids: Tensor, bias: Tensor, real: Tensor | None, pool: int, keep: bool
) -> tuple[Tensor, Tensor]:
    """`phrase_lookup` of contiguous tensors."""
    _, positions, filters = projected.shape
    rows = len(ids)
    features, winners = _results(projected, rows, filters // pool, keep)
    start(
        lookup_kernel, (triton.cdiv(rows, LOOKUP["TILE"]),),
        projected, ids, bias, real, features, winners if keep else None, rows, len(projected),
        POSITIONS=positions, FILTERS=filters, POOL=pool, **LOOKUP,
    )  # fmt: skip
    return features, winners


def _results(like: Tensor, rows: int, groups: int, keep: bool) -> tuple[Tensor, Tensor]:
    winners = torch.empty(rows if keep else 0, groups, dtype=torch.uint8, device=like.device)
    return torch.empty(rows, groups, device=like.device, dtype=torch.float32), winners


def launch_backward(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None, winners: Tensor,
    d_features: Tensor, precision: str, vectors: bool, *, lengths: Tensor | None = None, words: int = 1,
) -> list[Tensor]:  # fmt: skip
    """`phrase_features_backward` of contiguous tensors; each program writes its own sums, which are added in order."""
    positions, filters, width = weight.shape
    rows, tile = len(winners), BACKWARD["TILE"]
    programs = max(1, min(PROGRAMS, triton.cdiv(rows, tile)))
    span = triton.cdiv(triton.cdiv(rows, programs), tile) * tile
    sizes = _sizes(values, weight, filters // winners.shape[1], precision)
    if sizes["PRECISION"] == "bfloat16":
        sizes["PRECISION"] = "tf32"  # it holds every bfloat16; the gradients, in float32, would be two bfloat16 parts
    chunks = triton.cdiv(width, BACKWARD["CHUNK"])
    d_weight = torch.empty(programs, positions, filters, width, device=values.device, dtype=torch.float32)
    d_bias = torch.empty(programs, filters, device=values.device, dtype=torch.float32)
    d_values = torch.empty_like(values if vectors else values[:0])
    start(
        backward_weight_kernel, (programs, chunks),
        values, ids, real, lengths, winners, d_features, d_weight, d_bias, rows, len(values), words, span,
        **sizes, **BACKWARD,
    )  # fmt: skip
    if vectors:
        grid = (triton.cdiv(rows, tile), chunks)
        start(backward_values_kernel, grid, weight, winners, d_features, d_values, rows, **sizes, **BACKWARD)
    return [d_values, d_weight.sum(0).to(weight.dtype), d_bias.sum(0).to(bias.dtype)]


def _fake_features(like: Tensor, rows: Any, groups: int, keep: bool) -> tuple[Tensor, Tensor]:
    winners = like.new_empty(rows if keep else 0, groups, dtype=torch.uint8)
    return like.new_empty(rows, groups, dtype=torch.float32), winners


@phrase_features.register_fake
def _(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None,
    pool: int, precision: str, keep: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _fake_features(values, (values if ids is None else ids).shape[0], weight.shape[1] // pool, keep)


@phrase_features_backward.register_fake
def _(
    values: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor, real: Tensor | None, winners: Tensor,
    d_features: Tensor, precision: str, vectors: bool,
) -> list[Tensor]:  # fmt: skip
    d_values = values.new_empty(values.shape[0] if vectors else 0, values.shape[1])
    return [d_values, weight.new_empty(weight.shape), bias.new_empty(bias.shape)]


@phrase_lookup.register_fake
def _(
    projected: Tensor, ids: Tensor, bias: Tensor, real: Tensor | None, pool: int, keep: bool
) -> tuple[Tensor, Tensor]:
    return _fake_features(projected, ids.shape[0], projected.shape[2] // pool, keep)


def _keep_features(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, _, ctx.precision, ctx.kept = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*tensors, output[1])


def _backward_features(ctx: Any, d_features: Tensor, _: None) -> Any:
    _refuse_without_winners(ctx.kept)
    ids, vectors = ctx.saved_tensors[1], ctx.needs_input_grad[0]
    if ids is not None and vectors:
        raise RuntimeError("towers::phrase_features: a table gets no gradient; look its rows up with F.embedding")
    d_values, d_weight, d_bias = phrase_features_backward(*ctx.saved_tensors, d_features, ctx.precision, vectors)
    return d_values if vectors else None, None, d_weight, d_bias, None, None, None, None


def _keep_lookup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    projected, ids, bias, real, ctx.pool, ctx.kept = inputs
    ctx.shape, ctx.dtypes = projected.shape, (projected.dtype, bias.dtype)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(ids, real, output[1])


def _backward_lookup(ctx: Any, d_features: Tensor, _: None) -> Any:
    _refuse_without_winners(ctx.kept)
    ids, real, winners = ctx.saved_tensors
    vocabulary, positions, filters = ctx.shape
    d_total = unpooled(d_features, winners, ctx.pool)
    d_shares = shares_of(d_total, positions)
    if real is not None:
        ids = ids.where(real, 0)  # their gradients are 0
    d_projected = torch.ops.aten.embedding_dense_backward(d_shares.flatten(1), ids, vocabulary, -1, False)
    d_projected = d_projected.unflatten(1, (positions, filters)).to(ctx.dtypes[0])
    return d_projected, None, d_total.sum(0).to(ctx.dtypes[1]), None, None, None


def _refuse_without_winners(kept: bool) -> None:
    if not kept:
        raise RuntimeError("towers::phrase_features: there are no gradients after keep=False; call it with keep=True")


phrase_features.register_autograd(_backward_features, setup_context=_keep_features)
phrase_lookup.register_autograd(_backward_lookup, setup_context=_keep_lookup)


def unpooled(d_features: Tensor, winners: Tensor, pool: int) -> Tensor:
    """The gradients of the groups' winners, the others' 0: "tokens filters"."""
    d_total = d_features.new_zeros(*d_features.shape, pool)
    return d_total.scatter(2, winners.long().unsqueeze(2), d_features.unsqueeze(2)).flatten(1)


def shares_of(d_total: Tensor, positions: int) -> Tensor:
    """The gradients of the tokens' shares, "tokens positions filters": share p belongs to the phrase p rows before."""
    tokens = len(d_total)
    return torch.stack([F.pad(d_total, (0, 0, position, 0))[:tokens] for position in range(positions)], 1)


@triton.jit()
@no_type_check
def _rows(ids, real, lengths, words, token, rows, vocabulary):
    """The rows of the tokens' vectors, and which tokens are read; an id that the table does not have is not.

    Each sentence has `words` tokens, of which those from its length on are not read; no lengths: all are.
    """
    live = (token >= 0) & (token < rows)
    if lengths is not None:
        live = live & (token % words < tl.load(lengths + token // words, live, 0))
    if real is not None:
        live = live & (tl.load(real + token, live, 0) != 0)
    if ids is None:
        row = token
    else:
        row = tl.load(ids + token, live, 0).to(tl.int64)
        live = live & (row >= 0) & (row < vocabulary)
    return row, live


@triton.jit()
@no_type_check
def _write_pooled(total, bias, features, winners, phrase, real, FILTERS: tl.constexpr, POOL: tl.constexpr):
    """The largest of each POOL neighbouring features, and which one it was: the first of equal ones."""
    GROUPS: tl.constexpr = FILTERS // POOL
    total += tl.load(bias + tl.arange(0, FILTERS)).to(tl.float32)[None, :]
    largest, winner = tl.max(tl.reshape(total, (total.shape[0], GROUPS, POOL)), 2, return_indices=True)
    place, real = phrase[:, None] * GROUPS + tl.arange(0, GROUPS)[None, :], real[:, None]
    tl.store(features + place, largest, real)
    if winners is not None:
        tl.store(winners + place, winner.to(tl.uint8), real)


@triton.jit(do_not_specialize=["rows", "vocabulary", "words"], do_not_specialize_on_alignment=["lengths"])
@no_type_check
def forward_kernel(
    values, ids, weight, bias, real, lengths, features, winners, rows, vocabulary, words,
    WIDTH: tl.constexpr, POSITIONS: tl.constexpr, P: tl.constexpr, FILTERS: tl.constexpr, POOL: tl.constexpr,
    TILE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From vectors, or from ids and a table of vectors."""
    local = tl.arange(0, TILE)
    token = tl.program_id(0).to(tl.int64) * (TILE - POSITIONS + 1) + local
    row, live = _rows(ids, real, lengths, words, token, rows, vocabulary)
    share = tl.arange(0, P * FILTERS)
    shares = tl.zeros((TILE, P * FILTERS), tl.float32)
    for first in range(0, WIDTH, CHUNK):
        k = first + tl.arange(0, CHUNK)
        known = k < WIDTH
        x = tl.load(values + row[:, None] * WIDTH + k[None, :], live[:, None] & known[None, :], 0.0)
        inside = known[:, None] & (share < POSITIONS * FILTERS)[None, :]
        w = tl.load(weight + share[None, :] * WIDTH + k[:, None], inside, 0.0)
        if PRECISION == "bfloat16":
            shares = multiplied(x, w, shares)
        else:
            shares = tl.dot(x.to(tl.float32), w.to(tl.float32), shares, input_precision=PRECISION)
    # "tile position filter"; the share of position p goes to the phrase p rows before.
    shares = tl.reshape(shares, (TILE, P, FILTERS))
    at = tl.minimum(local[:, None, None] + tl.arange(0, P)[None, :, None], TILE - 1)
    total = tl.sum(tl.gather(shares, tl.broadcast_to(at, (TILE, P, FILTERS)), 0), 1)
    whole = (local < TILE - POSITIONS + 1) & (token < rows)
    _write_pooled(total, bias, features, winners, token, whole, FILTERS, POOL)


@triton.jit(do_not_specialize=["rows", "vocabulary"])
@no_type_check
def lookup_kernel(
    projected, ids, bias, real, features, winners, rows, vocabulary,
    POSITIONS: tl.constexpr, FILTERS: tl.constexpr, POOL: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """From ids and a table of each word's shares, "vocabulary positions filters"."""
    phrase = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE, FILTERS), tl.float32)
    for position in tl.static_range(POSITIONS):
        row, live = _rows(ids, real, None, 1, phrase + position, rows, vocabulary)
        at = (row * POSITIONS + position)[:, None] * FILTERS + tl.arange(0, FILTERS)[None, :]
        total += tl.load(projected + at, live[:, None], 0.0).to(tl.float32)
    _write_pooled(total, bias, features, winners, phrase, phrase < rows, FILTERS, POOL)


@triton.jit()
@no_type_check
def _d_shares(
    d_features, winners, token, share, rows,
    POSITIONS: tl.constexpr, FILTERS: tl.constexpr, POOL: tl.constexpr,
):  # fmt: skip
    """The gradients of the tokens' shares, "tile position*filter": those of the winners, each of its phrase."""
    phrase, feature = token[:, None] - (share // FILTERS)[None, :], (share % FILTERS)[None, :]
    live = (phrase >= 0) & (phrase < rows) & (share < POSITIONS * FILTERS)[None, :]
    at = phrase * (FILTERS // POOL) + feature // POOL
    won = tl.load(winners + at, live, 0) == feature % POOL
    return tl.load(d_features + at, live & won, 0.0)


@triton.jit(do_not_specialize=["rows", "vocabulary", "words", "span"], do_not_specialize_on_alignment=["lengths"])
@no_type_check
def backward_weight_kernel(
    values, ids, real, lengths, winners, d_features, d_weight, d_bias, rows, vocabulary, words, span,
    WIDTH: tl.constexpr, POSITIONS: tl.constexpr, P: tl.constexpr, FILTERS: tl.constexpr, POOL: tl.constexpr,
    TILE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program adds up `span` tokens for CHUNK numbers of the vectors; each has its own rows of the results."""
    start = tl.program_id(0).to(tl.int64) * span
    k = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    share = tl.arange(0, P * FILTERS)
    total, total_bias = tl.zeros((P * FILTERS, CHUNK), tl.float32), tl.zeros((P * FILTERS,), tl.float32)
    for offset in range(0, span, TILE):
        token = start + offset + tl.arange(0, TILE)
        row, live = _rows(ids, real, lengths, words, token, rows, vocabulary)
        x = tl.load(values + row[:, None] * WIDTH + k[None, :], live[:, None] & (k < WIDTH)[None, :], 0.0)
        d_shares = _d_shares(d_features, winners, token, share, rows, POSITIONS, FILTERS, POOL)
        total = tl.dot(tl.trans(d_shares), x.to(tl.float32), total, input_precision=PRECISION)
        total_bias += tl.sum(d_shares, 0)
    known = (share < POSITIONS * FILTERS)[:, None] & (k < WIDTH)[None, :]
    own = tl.program_id(0).to(tl.int64) * POSITIONS * FILTERS
    tl.store(d_weight + (own + share)[:, None] * WIDTH + k[None, :], total, known)
    if tl.program_id(1) == 0:
        own_bias = tl.program_id(0).to(tl.int64) * FILTERS
        tl.store(d_bias + own_bias + share, total_bias, share < FILTERS)


@triton.jit(do_not_specialize=["rows"])
@no_type_check
def backward_values_kernel(
    weight, winners, d_features, d_values, rows,
    WIDTH: tl.constexpr, POSITIONS: tl.constexpr, P: tl.constexpr, FILTERS: tl.constexpr, POOL: tl.constexpr,
    TILE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of the vectors; a token of no phrase gets 0."""
    token = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    k = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    share = tl.arange(0, P * FILTERS)
    inside = (share < POSITIONS * FILTERS)[:, None] & (k < WIDTH)[None, :]
    w = tl.load(weight + share[:, None] * WIDTH + k[None, :], inside, 0.0).to(tl.float32)
    d_shares = _d_shares(d_features, winners, token, share, rows, POSITIONS, FILTERS, POOL)
    d_x = tl.dot(d_shares, w, input_precision=PRECISION)
    tl.store(d_values + token[:, None] * WIDTH + k[None, :], d_x, (token < rows)[:, None] & (k < WIDTH)[None, :])
