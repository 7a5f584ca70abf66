"""A cheap first choice of items, for heads whose scores cost much, and exact scores of the chosen ones."""

import math

import torch
from torch import Tensor

from towers.kernels.cpu import heads_call
from towers.search import scan
from towers.search.allowed import Allowed
from towers.search.compared import Compared
from towers.search.items import BLOCK, Items

SAMPLE, BEST = 1024, 32
"""Items at which a head is looked at for each query, and how many of them, those with the highest scores, count."""
ITEMS = 1 << 16
"""Items of a tile: of its cheap scores the best are kept."""


class Tangents:
    """Some queries, and for each a cheap function in place of the head: its tangent where scores are high.

    Of each number of the states it has a line with a kink where query and item are equal, as the head's features have;
    what the layers behind them do is replaced by their mean derivative at the best items of a sample (see
    `Compared.tangents`). One multiplication for each feature remains, where the head has one for each of its units.
    """

    def __init__(self, queries: Tensor, head: Compared, items: Items) -> None:
        count = min(SAMPLE, len(items))
        self.queries, self.computed = len(queries), len(queries) * count
        self._states = queries
        self._bend, self._slope = head.tangents(queries, items.rows_at(torch.arange(count) * len(items) // count), BEST)

    def scores(self, items: Items, first: int, last: int) -> Tensor:
        """The cheap scores of all queries and of the items from one place, a multiple of 16, to another."""
        if heads_call.serves(self._states.dtype):
            blocks = items.blocks[first // BLOCK : -(-last // BLOCK)]
            return heads_call.lines(self._states, blocks, self._bend, self._slope)[:, : last - first]
        rows = items.rows(first, last)
        scores = self._slope @ rows.T
        for place, (query, bend) in enumerate(zip(self._states, self._bend, strict=True)):
            scores[place] += (rows - query).abs_() @ bend
        return scores


def best_of_candidates(
    queries: Tensor, head: Compared, items: Items, k: int, candidates: int, allowed: Allowed
) -> scan.Found:
    """The k best, by the exact score, of the items that are best by the cheap one: `candidates` for each query.

    `python benchmarks/run.py search-heads` measures how many of the true k best they have. `computed` counts the pairs
    that the head itself scored.
    """
    parts = [scan.Found(queries.new_empty(0, k), torch.empty(0, k, dtype=torch.int64), 0)]
    for first in range(0, len(queries), scan.QUERIES):
        some = queries[first : first + scan.QUERIES]
        tangents = Tangents(some, head, items)
        places = _chosen(tangents, items, candidates, allowed.of(first, first + len(some)))
        query, column = (places >= 0).nonzero().unbind(1)
        place = places[query, column]
        scores = some.new_full(places.shape, -math.inf)
        scores[query, column] = head.exact(some, query, items.rows_at(place))
        ids = torch.full_like(places, scan.NONE)
        ids[query, column] = items.ids[place]
        parts.append(scan.merge([scan.Found(scores, ids, tangents.computed + len(query))], k))
    return scan.joined(parts)


def _chosen(tangents: Tangents, items: Items, count: int, allowed: Allowed) -> Tensor:
    """The places of the items with the best cheap scores, "queries count"; -1 where there are no more."""
    queries = tangents.queries
    unwanted = scan.hidden_pairs(allowed, queries)
    best, places = torch.empty(queries, 0), torch.empty(queries, 0, dtype=torch.int64)
    for first in range(0, len(items), ITEMS):
        last = min(first + ITEMS, len(items))
        scores = tangents.scores(items, first, last)
        scan.hide(scores, first, allowed, unwanted)
        best, order = torch.cat([best.to(scores.dtype), scores], 1).topk(min(count, best.shape[1] + last - first))
        places = torch.cat([places, torch.arange(first, last).expand(queries, -1)], 1).gather(1, order)
    return torch.where(best > -math.inf, places, -1)
