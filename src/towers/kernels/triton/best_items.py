"""The k best items of each query under the score of one difference, as `topk.c` finds them, without boxes.

score(query, item) = offset + sum_k weights[k] relu(query[k] - item[k])

A program compares some queries with a span of the items, tile by tile, and keeps the best of each query in registers:
no matrix of scores is made. A pair is one integer of 64 bits, its key: the score's bits, in an order of integers, and
below them the place of the item, reversed. So the larger key is the better pair, of equal scores that with the smaller
place, and no two are equal: tiles, spans and programs change no result. Items lie in the order of their ids.

While a tile has a key above the worst of a query's best, its largest takes that one's place. After the first tiles this
is rare. What the spans found is merged by `torch.topk` of keys.
"""

import math
from typing import Any, NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from towers.kernels.triton.launch import start

TILE = 128
"""Items that lie side by side, and are compared at a time."""
PROGRAMS = 1024
"""The items are divided into spans, so that about this number of programs runs for few queries too."""
NONE = torch.iinfo(torch.int64).max
"""The id where nothing was found; the score is -inf."""


class Hidden(NamedTuple):
    """Items that single queries may not find: their places, sorted for each query; "queries+1", where those of each
    query begin; and the most that a query has."""

    places: Tensor
    offsets: Tensor
    most: int


def options(k: int) -> dict[str, int]:
    """How many queries a program takes: fewer where it keeps many items of each."""
    kept = triton.next_power_of_2(k)
    return {"K": kept, "QUERIES": 8 if kept <= 128 else 2, "ITEMS": TILE, "num_warps": 4, "num_stages": 1}


def tiles_of(rows: Tensor) -> Tensor:
    """Rows of items "count dense" as the kernel reads them, "tiles dense 128"; what is filled up is +inf."""
    filled = torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % TILE), value=math.inf)
    return filled.view(-1, TILE, rows.shape[1]).transpose(1, 2).contiguous()


def search(
    queries: Tensor, weights: Tensor, offset: float, tiles: Tensor, ids: Tensor, k: int, *,
    least: float, keep: Tensor | None, hidden: Hidden | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The scores and ids of the k best items of each query, best first, of equal scores the smaller id first.

    `python benchmarks/run.py cuda` has a row for it.

    Args:
        queries: "queries dense", float32.
        weights: "dense".
        offset: where each sum begins.
        tiles: the items, as `tiles_of` makes them; at least one.
        ids: "count", int64, in ascending order.
        k: at least 1. Where fewer are found, scores are -inf and ids the largest int64.
        least: no smaller score is wanted.
        keep: "count" bool, which items may be found; None: all.
        hidden: items that single queries may not find.

    Returns:
        Scores "queries k" and ids "queries k".
    """
    count = len(ids)
    kept = min(k, count)
    keys = launch(queries.contiguous(), weights, offset, tiles, count, kept, least=least, keep=keep, hidden=hidden)
    best = keys.flatten(1).topk(kept).values
    best = torch.nn.functional.pad(best, (0, k - kept), value=torch.iinfo(torch.int64).min)
    found = best >= LOWEST_PAIR
    bits = (best >> 32).to(torch.int32)
    scores = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32)
    places = (0xFFFFFFFF - (best & 0xFFFFFFFF)).where(found, 0)
    return scores.where(found, -math.inf), ids[places].where(found, NONE)


LOWEST_PAIR = -(2**31 - 2**23) << 32
"""Keys of pairs are above: scores are finite. Below are those of places that are still free."""


def launch(
    queries: Tensor, weights: Tensor, offset: float, tiles: Tensor, count: int, k: int, *,
    least: float, keep: Tensor | None, hidden: Hidden | None,
) -> Tensor:  # fmt: skip
    """The k largest keys of each query in each span, "queries spans k"; those below `LOWEST_PAIR` are no pairs."""
    sizes = options(k)
    programs = triton.cdiv(len(queries), sizes["QUERIES"])
    span = triton.cdiv(len(tiles), triton.cdiv(PROGRAMS, max(1, programs)))
    spans = triton.cdiv(len(tiles), span)
    keys = torch.empty(len(queries), spans, k, dtype=torch.int64, device=queries.device)
    given: tuple[Any, ...] = (None, None, 0) if hidden is None else hidden
    start(
        search_kernel, (programs, spans),
        queries, weights, tiles, keep, given[0], given[1], keys, offset, least,
        len(queries), count, k, span, len(tiles), given[2].bit_length(),
        DENSE=queries.shape[1], **sizes,
    )  # fmt: skip
    return keys


@triton.jit()
@no_type_check
def _scores(queries, weights, tile, query, asked, offset, DENSE: tl.constexpr, ITEMS: tl.constexpr):
    """Of some queries and a tile, summed in the order of the C code, each term by one rounding."""
    score = tl.zeros((query.shape[0], ITEMS), tl.float32) + offset
    for unit in tl.range(0, DENSE, loop_unroll_factor=4):
        item = tl.load(tile + unit * ITEMS + tl.arange(0, ITEMS))
        own = tl.load(queries + query * DENSE + unit, asked, 0.0)
        apart = tl.maximum(own[:, None] - item[None, :], 0.0)
        weight = tl.load(weights + unit)
        score = tl.fma(tl.zeros_like(apart) + weight, apart, score)
    return tl.where(score == 0, 0.0, score)  # -0.0 would come after 0.0


@triton.jit()
@no_type_check
def _is_hidden(hidden, hidden_from, query, asked, place, steps):
    """Whether the place is among those of the query: by halves, in as many steps as the longest list needs."""
    low = tl.load(hidden_from + query, asked, 0)
    end = tl.load(hidden_from + query + 1, asked, 0)
    high = end
    for _ in range(steps):
        middle = (low + high) // 2
        inside = low < high
        smaller = tl.load(hidden + middle, inside, 0) < place
        low = tl.where(inside & smaller, middle + 1, low)
        high = tl.where(inside & ~smaller, middle, high)
    return (low < end) & (tl.load(hidden + low, low < end, -1) == place)


@triton.jit(do_not_specialize=["n_queries", "count", "k", "span", "n_tiles", "steps"])
@no_type_check
def search_kernel(
    queries, weights, tiles, keep, hidden, hidden_from, keys, offset, least, n_queries, count, k, span, n_tiles, steps,
    DENSE: tl.constexpr, K: tl.constexpr, QUERIES: tl.constexpr, ITEMS: tl.constexpr,
):  # fmt: skip
    """A program for some queries and a span of the tiles."""
    LOWEST: tl.constexpr = -(1 << 63)
    query = tl.program_id(0).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    asked = query < n_queries
    rank = tl.arange(0, K).to(tl.int64)
    # Free places differ, so that one pair takes one of them; those from k on are never the worst.
    free = tl.where(rank < k, LOWEST + rank, -(LOWEST + 1))
    best = tl.broadcast_to(free[None, :], (QUERIES, K))
    first = tl.program_id(1) * span
    for at in range(first, tl.minimum(first + span, n_tiles)):
        tile = tl.cast(at, tl.int64)
        place = tile * ITEMS + tl.arange(0, ITEMS)
        wanted = place < count
        if keep is not None:
            wanted = wanted & (tl.load(keep + place, wanted, 0) != 0)
        score = _scores(queries, weights, tiles + tile * (DENSE * ITEMS), query, asked, offset, DENSE, ITEMS)
        bits = score.to(tl.int32, bitcast=True)
        bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
        key = (bits.to(tl.int64) << 32) + (0xFFFFFFFF - place)[None, :]
        key = tl.where(wanted[None, :] & asked[:, None] & (score >= least), key, LOWEST)
        top, worst = tl.max(key, 1), tl.min(best, 1)
        while tl.max((top > worst).to(tl.int32), 0) > 0:
            better = top > worst
            if hidden is not None:
                own = 0xFFFFFFFF - (top & 0xFFFFFFFF)
                better = better & ~_is_hidden(hidden, hidden_from, query, asked, own, steps)
            best = tl.where(better[:, None] & (best == worst[:, None]), top[:, None], best)
            key = tl.where(key == top[:, None], LOWEST, key)
            top, worst = tl.max(key, 1), tl.min(best, 1)
    row = keys + (query * tl.num_programs(1) + tl.program_id(1)) * k
    tl.store(row[:, None] + rank[None, :], best, asked[:, None] & (rank < k)[None, :])
