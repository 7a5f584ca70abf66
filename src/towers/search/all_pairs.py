"""All pairs of the items of an index."""

import torch
from torch import Tensor

from towers.search import scan
from towers.search.allowed import Allowed
from towers.search.compared import AnyHead
from towers.search.items import Items

QUERIES = 1024
"""Items that are queries at a time."""
FIRST = 64
"""How many pairs of a query are searched first, if their number is not known; then four times as many, …"""


def all_pairs(head: AnyHead, items: Items, least: float, k: int | None) -> tuple[Tensor, Tensor]:
    """Scores "pairs" and ids "pairs 2" (query, item), as `Index.all_pairs` says."""
    parts = list[tuple[Tensor, Tensor, Tensor]]()
    others = max(len(items) - 1, 0)
    for first in range(0, len(items) if others else 0, QUERIES):
        last = min(first + QUERIES, len(items))
        own = torch.arange(first, last)
        at_once = min(FIRST, others) if k is None else k
        while len(own):
            itself = Allowed(places=own, offsets=torch.arange(len(own) + 1))
            rows = head.query_rows(items.rows(first, last)[own - first])
            scores, ids, _ = scan.best(rows, head, items, at_once, itself, least)
            full = (
                ids[:, -1] != scan.NONE if k is None and at_once < others else torch.zeros(len(own), dtype=torch.bool)
            )
            scores, ids, queries = scores[~full], ids[~full], items.ids[own[~full]]
            found = ids != scan.NONE
            parts.append((scores[found], queries.unsqueeze(1).expand_as(ids)[found], ids[found]))
            own, at_once = own[full], min(4 * at_once, others)
    scores = torch.cat([torch.empty(0, dtype=head.dtype), *(part[0] for part in parts)])
    queries, ids = (torch.cat([items.ids.new_empty(0), *(part[at] for part in parts)]) for at in (1, 2))
    order = ids.argsort(stable=True)
    order = order[queries[order].argsort(stable=True)]
    order = order[scores[order].argsort(descending=True, stable=True)]
    return scores[order], torch.stack([queries, ids], 1)[order]
