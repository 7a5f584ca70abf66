"""The best items of each query, by C code, in Triton or in torch: blocks of queries times items, never all scores."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from towers.kernels import triton
from towers.kernels.cpu import topk_call
from towers.search import on_gpu
from towers.search.allowed import Allowed
from towers.search.compared import AnyHead, Compared
from towers.search.head import Head
from towers.search.items import BLOCK, Items

QUERIES, ITEMS = 64, 128 * BLOCK  # of a tile, whose scores stay in the processor's cache
NONE = torch.iinfo(torch.int64).max
"""The id in a place that no item fills; its score is -inf."""


class Found(NamedTuple):
    """Scores "queries k" and ids "queries k", best first, of equal scores the smaller id first.

    computed: how many pairs were scored for them; the bound of a box counts as a pair.
    """

    scores: Tensor
    ids: Tensor
    computed: int


def best(
    queries: Tensor,
    head: AnyHead,
    items: Items,
    k: int,
    allowed: Allowed,
    least: float = -math.inf,
    device: torch.device | None = None,
) -> Found:
    """The k best items of each query with at least the score `least`; -inf and NONE where there are fewer.

    Args:
        queries: "queries dense", as `Head.query_rows` makes them.
        head: gives the scores.
        items: what is searched.
        k: at least 1.
        allowed: which items each query may find.
        least: no smaller score is wanted.
        device: where to search, if it has a kernel for this; None: on the CPU.
    """
    if device is not None and isinstance(head, Head) and triton.serves_search(device, head.dtype, len(items), k):
        scores, ids = on_gpu.best(queries, head, items, k, allowed, least, device)
        return Found(scores, ids, len(queries) * len(items))
    if isinstance(head, Head) and topk_call.serves(head.dtype):
        return _native(queries, head, items, k, allowed, least)
    parts = list[Found]()
    for first in range(0, max(len(queries), 1), QUERIES):
        some = queries[first : first + QUERIES]
        parts.append(_best(some, head, items, k, allowed.of(first, first + len(some)), least))
    return joined(parts)


def merge(parts: Sequence[Found], k: int) -> Found:
    """The k best of the results of several parts of a corpus, which may have fewer each."""
    scores, ids = torch.cat([part.scores for part in parts], 1), torch.cat([part.ids for part in parts], 1)
    order = ids.argsort(dim=1, stable=True)
    scores, ids = scores.gather(1, order), ids.gather(1, order)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return Found(scores.gather(1, order), ids.gather(1, order), sum(part.computed for part in parts))


def joined(parts: Sequence[Found]) -> Found:
    """The results of several parts of the queries."""
    if len(parts) == 1:
        return parts[0]
    scores, ids = torch.cat([part.scores for part in parts]), torch.cat([part.ids for part in parts])
    return Found(scores, ids, sum(part.computed for part in parts))


def _native(queries: Tensor, head: Head, items: Items, k: int, allowed: Allowed, least: float) -> Found:
    hidden = None if allowed.places is None or allowed.offsets is None else (allowed.places, allowed.offsets)
    scores, ids, computed = topk_call.search(
        queries, head.weights, head.offset, items.blocks, items.ids, k, least=least, keep=allowed.keep, hidden=hidden,
        boxes=items.boxes, pace=items.pace,
    )  # fmt: skip
    return Found(scores, ids, sum(map(abs, computed.tolist())))


# Tile by tile: in torch, and for heads whose best are found quickly first.


def _best(queries: Tensor, head: AnyHead, items: Items, k: int, allowed: Allowed, least: float) -> Found:
    scores = queries.new_full((len(queries), k), -math.inf)
    found = Found(scores, torch.full((len(queries), k), NONE), len(queries) * len(items))
    unwanted = hidden_pairs(allowed, len(queries))
    size = ITEMS if isinstance(head, Head) else 2 * ITEMS  # of a tile
    for first in range(0, len(items), size):
        last = min(first + size, len(items))
        tile = _tile(queries, head, items, first, last)
        hide(tile.scores, first, allowed, unwanted)
        found = _with(found, tile, k, least)
    return found


class _Tile(NamedTuple):
    """Scores of all queries and some items, and the ids of these.

    scores: "queries items"; -inf for pairs that are not wanted.
    exact: gives the exact scores of pairs, from queries and places in the tile; None: `scores` are exact.
    error: "queries", how far `scores` are from those at most.
    """

    scores: Tensor
    ids: Tensor
    exact: Callable[[Tensor, Tensor], Tensor] | None = None
    error: Tensor | None = None


def _tile(queries: Tensor, head: AnyHead, items: Items, first: int, last: int) -> _Tile:
    scores, error = head.quick(queries, items.blocks[first // BLOCK : -(-last // BLOCK)], last - first)
    ids = items.ids[first:last]
    if not isinstance(head, Compared):
        return _Tile(scores, ids)

    def exact(query: Tensor, place: Tensor) -> Tensor:
        return head.exact(queries, query, items.rows_at(first + place))

    return _Tile(scores, ids, exact, error)


def hidden_pairs(allowed: Allowed, queries: int) -> tuple[Tensor, Tensor] | None:
    """The queries and the places of pairs that single queries may not find."""
    if allowed.places is None or allowed.offsets is None:
        return None
    return torch.arange(queries).repeat_interleave(allowed.offsets.diff()), allowed.places


def hide(scores: Tensor, first: int, allowed: Allowed, unwanted: tuple[Tensor, Tensor] | None) -> None:
    """Make scores "queries items" of unwanted pairs -inf; the items are those from the place `first` on."""
    last = first + scores.shape[1]
    if allowed.keep is not None:
        scores.masked_fill_(~allowed.keep[first:last], -math.inf)
    if unwanted is not None:
        query, place = unwanted
        here = (place >= first) & (place < last)
        scores[query[here], place[here] - first] = -math.inf


def _below(scores: Tensor, error: Tensor | None, times: int) -> Tensor:
    """Scores minus a number of errors, rounded downwards."""
    if error is None:
        return scores
    return torch.nextafter((scores.double() - times * error).to(scores.dtype), scores.new_tensor(-math.inf))


def _with(found: Found, tile: _Tile, k: int, least: float) -> Found:
    """What was found, and the best of a tile."""
    if not len(tile.scores):
        return found
    floor = found.scores[:, -1].clamp(min=least)
    rows = (tile.scores.amax(1) >= _below(floor, tile.error, 1)).nonzero()[:, 0]
    if not len(rows):
        return found
    own, floor, error = tile.scores[rows], floor[rows], None if tile.error is None else tile.error[rows]
    wanted = _below(floor, error, 1)
    if k < own.shape[1]:
        wanted = torch.maximum(wanted, _below(own.topk(k, 1).values[:, -1], error, 2))
    query, column = torch.where((own >= wanted.unsqueeze(1)) & (own > -math.inf))
    score = own[query, column]
    if tile.exact is not None:
        score = tile.exact(rows[query], column)
        reached = score >= floor[query]
        query, column, score = query[reached], column[reached], score[reached]
    old = torch.arange(len(rows)).repeat_interleave(k)
    query, score = torch.cat([old, query]), torch.cat([found.scores[rows].flatten(), score])
    id = torch.cat([found.ids[rows].flatten(), tile.ids[column]])
    order = id.argsort(stable=True)
    order = order[score[order].argsort(descending=True, stable=True)]
    order = order[query[order].argsort(stable=True)]
    ends = query.bincount(minlength=len(rows)).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    kept = order[starts.unsqueeze(1) + torch.arange(k)]
    found.scores[rows], found.ids[rows] = score[kept], id[kept]
    return found
