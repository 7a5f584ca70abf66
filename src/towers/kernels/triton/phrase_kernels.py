# type: ignore  # Triton's own language, which no type checker knows
"""A tower's convolution and pool in one pass over the word vectors.

Row t of the result is the phrase of the words t, t + 1, … of all tokens end to end; those across two sentences are
computed too, and never read. The shares of a tile's words come from one product, "tile place*filter"; phrase t
then gathers share 0 of row t, share 1 of row t + 1, … Tiles overlap by the words that their last phrases lack.
"""

import triton
import triton.language as tl


@triton.jit
def _rows(ids, real, token, rows, vocabulary):
    """Where the tokens' vectors stand, and which tokens are to be read at all: no id that the table does not have."""
    live = (token >= 0) & (token < rows)
    if real is not None:
        live = live & (tl.load(real + token, live, 0) != 0)
    if ids is None:
        row = token
    else:
        row = tl.load(ids + token, live, 0).to(tl.int64)
        live = live & (row >= 0) & (row < vocabulary)
    return row, live


@triton.jit
def _write_pooled(total, bias, features, winners, phrase, real, FILTERS: tl.constexpr, POOL: tl.constexpr):
    """The largest of each POOL neighbouring features, and which one it was: the first of equal ones."""
    GROUPS: tl.constexpr = FILTERS // POOL
    total += tl.load(bias + tl.arange(0, FILTERS)).to(tl.float32)[None, :]
    largest, winner = tl.max(tl.reshape(total, (total.shape[0], GROUPS, POOL)), 2, return_indices=True)
    place, real = phrase[:, None] * GROUPS + tl.arange(0, GROUPS)[None, :], real[:, None]
    tl.store(features + place, largest, real)
    if winners is not None:
        tl.store(winners + place, winner.to(tl.uint8), real)


@triton.jit(do_not_specialize=["rows", "vocabulary"])
def forward(
    values, ids, weight, bias, real, features, winners, rows, vocabulary,
    WIDTH: tl.constexpr, PLACES: tl.constexpr, P: tl.constexpr, FILTERS: tl.constexpr, POOL: tl.constexpr,
    TILE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From vectors, or from ids and a table of vectors."""
    local = tl.arange(0, TILE)
    token = tl.program_id(0).to(tl.int64) * (TILE - PLACES + 1) + local
    row, live = _rows(ids, real, token, rows, vocabulary)
    share = tl.arange(0, P * FILTERS)
    shares = tl.zeros((TILE, P * FILTERS), tl.float32)
    for first in range(0, WIDTH, CHUNK):
        k = first + tl.arange(0, CHUNK)
        known = k < WIDTH
        x = tl.load(values + row[:, None] * WIDTH + k[None, :], live[:, None] & known[None, :], 0.0)
        inside = known[:, None] & (share < PLACES * FILTERS)[None, :]
        w = tl.load(weight + share[None, :] * WIDTH + k[:, None], inside, 0.0)
        shares = tl.dot(x.to(tl.float32), w.to(tl.float32), shares, input_precision=PRECISION)
    # "tile place filter"; a share of place p goes to the phrase p rows before.
    shares = tl.reshape(shares, (TILE, P, FILTERS))
    at = tl.minimum(local[:, None, None] + tl.arange(0, P)[None, :, None], TILE - 1)
    total = tl.sum(tl.gather(shares, tl.broadcast_to(at, (TILE, P, FILTERS)), 0), 1)
    whole = (local < TILE - PLACES + 1) & (token < rows)
    _write_pooled(total, bias, features, winners, token, whole, FILTERS, POOL)


@triton.jit(do_not_specialize=["rows", "vocabulary"])
def lookup(
    projected, ids, bias, real, features, winners, rows, vocabulary,
    PLACES: tl.constexpr, FILTERS: tl.constexpr, POOL: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """From ids and a table of each word's shares, "vocabulary places filters"."""
    phrase = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE, FILTERS), tl.float32)
    for place in tl.static_range(PLACES):
        row, live = _rows(ids, real, phrase + place, rows, vocabulary)
        at = (row * PLACES + place)[:, None] * FILTERS + tl.arange(0, FILTERS)[None, :]
        total += tl.load(projected + at, live[:, None], 0.0).to(tl.float32)
    _write_pooled(total, bias, features, winners, phrase, phrase < rows, FILTERS, POOL)


@triton.jit
def _d_shares(
    d_features, winners, token, share, rows,
    PLACES: tl.constexpr, FILTERS: tl.constexpr, POOL: tl.constexpr,
):  # fmt: skip
    """The gradients of the tokens' shares, "tile place*filter": those of the winners, each of its phrase."""
    phrase, feature = token[:, None] - (share // FILTERS)[None, :], (share % FILTERS)[None, :]
    live = (phrase >= 0) & (phrase < rows) & (share < PLACES * FILTERS)[None, :]
    at = phrase * (FILTERS // POOL) + feature // POOL
    won = tl.load(winners + at, live, 0) == feature % POOL
    return tl.load(d_features + at, live & won, 0.0)


@triton.jit(do_not_specialize=["rows", "vocabulary", "span"])
def backward_weight(
    values, ids, real, winners, d_features, d_weight, d_bias, rows, vocabulary, span,
    WIDTH: tl.constexpr, PLACES: tl.constexpr, P: tl.constexpr, FILTERS: tl.constexpr, POOL: tl.constexpr,
    TILE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program adds up `span` tokens for CHUNK numbers of the vectors; each has its own rows of the results."""
    start = tl.program_id(0).to(tl.int64) * span
    k = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    share = tl.arange(0, P * FILTERS)
    total, total_bias = tl.zeros((P * FILTERS, CHUNK), tl.float32), tl.zeros((P * FILTERS,), tl.float32)
    for offset in range(0, span, TILE):
        token = start + offset + tl.arange(0, TILE)
        row, live = _rows(ids, real, token, rows, vocabulary)
        x = tl.load(values + row[:, None] * WIDTH + k[None, :], live[:, None] & (k < WIDTH)[None, :], 0.0)
        d_shares = _d_shares(d_features, winners, token, share, rows, PLACES, FILTERS, POOL)
        total = tl.dot(tl.trans(d_shares), x.to(tl.float32), total, input_precision=PRECISION)
        total_bias += tl.sum(d_shares, 0)
    known = (share < PLACES * FILTERS)[:, None] & (k < WIDTH)[None, :]
    own = tl.program_id(0).to(tl.int64) * PLACES * FILTERS
    tl.store(d_weight + (own + share)[:, None] * WIDTH + k[None, :], total, known)
    if tl.program_id(1) == 0:
        own_bias = tl.program_id(0).to(tl.int64) * FILTERS
        tl.store(d_bias + own_bias + share, total_bias, share < FILTERS)


@triton.jit(do_not_specialize=["rows"])
def backward_values(
    weight, winners, d_features, d_values, rows,
    WIDTH: tl.constexpr, PLACES: tl.constexpr, P: tl.constexpr, FILTERS: tl.constexpr, POOL: tl.constexpr,
    TILE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of the vectors; a token of no phrase gets 0."""
    token = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    k = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    share = tl.arange(0, P * FILTERS)
    inside = (share < PLACES * FILTERS)[:, None] & (k < WIDTH)[None, :]
    w = tl.load(weight + share[:, None] * WIDTH + k[None, :], inside, 0.0).to(tl.float32)
    d_shares = _d_shares(d_features, winners, token, share, rows, PLACES, FILTERS, POOL)
    d_x = tl.dot(d_shares, w, input_precision=PRECISION)
    tl.store(d_values + token[:, None] * WIDTH + k[None, :], d_x, (token < rows)[:, None] & (k < WIDTH)[None, :])
