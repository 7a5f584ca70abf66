"""The suite `search` on a GPU: the search kernel beside the plain torch expression and topk there, in its best chunks.

Items are on the device before anything is timed; scores and ids go back to where the queries are, on the device.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import search
import torch
from cuda_tools import fewest, rows_of
from report import Row
from timing import interleaved

from towers import TwoTowers
from towers.search import Index

TITLE = "Exact search on a GPU: time of all queries"
CHUNKS = (4_000, 32_000, 256_000)
"""Items that torch compares with all queries at a time."""


class Case(NamedTuple):
    items: int
    queries: int = 64
    k: int = 10

    @property
    def name(self) -> str:
        return f"uniform states, {self.items:,} items, {self.queries} queries, k {self.k}"


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case(300, 3)]
    return [Case(1_000_000), Case(1_000_000, k=100), Case(1_000_000, 1024), Case(10_000_000)]


@lru_cache(maxsize=1)
def corpus(count: int) -> tuple[TwoTowers, torch.Tensor, Index]:
    """The same for all cases of this size: the first search orders the items, some 2 s a million on one core."""
    torch.manual_seed(0)
    model, items = TwoTowers(), torch.rand(count, 6) * 2 - 1
    index = Index(model)
    index.add(items)
    return model, items, index


def measure(case: Case, device: torch.device, *, quick: bool, seconds: float | None = None) -> list[Row]:
    """Both find the same before they are timed; of equal scores plain torch promises no order, so ids may differ."""
    model, items, index = corpus(case.items)
    queries = torch.rand(case.queries, 6, generator=torch.Generator().manual_seed(1)) * 2 - 1
    model_there, items, queries = TwoTowers(device=device), items.to(device), queries.to(device)
    model_there.load_state_dict(model.state_dict())

    def plain(chunk: int) -> tuple[torch.Tensor, torch.Tensor]:
        return search.plain(model_there, "right", queries, items, case.k, chunk)

    search._check(index.search(queries, case.k), plain(CHUNKS[0]), model_there, bits=False)
    chunks = [size for size in CHUNKS if size * case.queries <= 1 << 24] or [CHUNKS[0]]
    calls = {f"torch, chunks of {size:,}": lambda size=size: plain(size) for size in chunks}
    calls["towers.search"] = lambda: index.search(queries, case.k)
    timings = interleaved(calls, device, seconds=seconds or (0.3 if quick else 4.0), fewest=fewest(quick))
    return rows_of("search", case.name, "search", timings, calls, device, case.items * case.queries, case._asdict())


def summary(rows: Sequence[Row]) -> str:
    """Pairs a second, and how many times as fast as torch with the first chunks."""
    return "\n".join(
        f"{row.words_per_second / 1e6:9.0f} M pairs a second {1 / row.time_ratio:8.1f}  "
        f"{row.implementation}, {row.case}"
        for row in rows
    )
