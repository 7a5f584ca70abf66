"""Models whose scores are exact in float32, so that ties are real, and the search by sorting all scores."""

import torch
from torch import Tensor

from towers import Tower, TwoTowers


def plain_model(hidden: int = 3, dense: int = 5, dtype: torch.dtype = torch.float32) -> TwoTowers:
    sizes = {"vector_width": 4, "filters": 2, "pool": 1, "hidden": hidden, "dtype": dtype}
    return TwoTowers(Tower(**sizes), Tower(**sizes), dense=dense)


def exact_model(hidden: int = 3, dense: int = 5, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> TwoTowers:
    """Weights are small multiples of 1/4: with `exact_states` no operation rounds, in any order."""
    model = plain_model(hidden, dense, dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (*model.dense.parameters(), *model.logit.parameters()):
            parameter.copy_(torch.randint(-4, 5, parameter.shape, generator=generator) / 4)
    return model


def exact_states(count: int, hidden: int = 3, *, levels: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-levels, levels + 1, (count, hidden), generator=generator) / 4


def all_scores(model: TwoTowers, queries: Tensor, items: Tensor, side: str = "right") -> Tensor:
    """By `compare`, "queries items"."""
    one, other = queries.unsqueeze(1), items.unsqueeze(0)
    with torch.no_grad():
        return model.compare(one, other) if side == "right" else model.compare(other, one)


def sorted_search(
    scores: Tensor, ids: list[int], k: int, unwanted: list[set[int]] | None = None
) -> tuple[list[list[float]], list[list[int]]]:
    """The k best of each query: larger scores first, then smaller ids."""
    found = []
    for query, row in enumerate(scores.tolist()):
        skip = unwanted[query] if unwanted else set()
        ranked = sorted((-score, id) for score, id in zip(row, ids, strict=True) if id not in skip)
        found.append(ranked[:k])
    return [[-score for score, _ in row] for row in found], [[id for _, id in row] for row in found]
