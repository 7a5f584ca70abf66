"""What the launcher of the search does, in plain torch: tests put it in its place."""

import torch
from torch import Tensor

from towers.kernels.triton.best_items import Hidden


def launch(
    queries: Tensor, weights: Tensor, offset: float, tiles: Tensor, count: int, k: int, *,
    least: float, keep: Tensor | None, hidden: Hidden | None,
) -> Tensor:  # fmt: skip
    """One span: all keys, and the largest of them."""
    rows = tiles.transpose(1, 2).flatten(0, 1)[:count]
    scores = ((queries[:, None] - rows).relu() * weights).sum(2) + offset
    bits = (scores + 0.0).view(torch.int32)
    keys = ((bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() << 32) + 0xFFFFFFFF - torch.arange(count)
    unwanted = ~(scores >= least)
    if keep is not None:
        unwanted |= ~keep
    if hidden is not None:
        unwanted[torch.arange(len(queries)).repeat_interleave(hidden.offsets.diff()), hidden.places] = True
    return keys.masked_fill(unwanted, torch.iinfo(torch.int64).min).topk(k).values.unsqueeze(1)
