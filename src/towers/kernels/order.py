"""Orders of tokens: sentences end to end, and step by step as packing reads them."""

import torch
from torch import Tensor
from torch.nn import functional as F


def offsets_of(lengths: Tensor) -> Tensor:
    """The start of each sentence when all lie end to end, then the end of the last one ("batch" -> "batch+1")."""
    return F.pad(lengths.cumsum(0), (1, 0))


def time_order(offsets: Tensor, order: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """How packing reads the tokens: all first words, all second words, … longest sentence first.

    Returns the index of each token ("tokens"), how many sentences still run at each step ("steps"), and the order of
    the sentences ("batch"), which may be given. All are on the CPU, like the offsets.
    """
    lengths = offsets.diff()
    order = lengths.argsort(descending=True, stable=True) if order is None else order.to(lengths.device)
    steps = torch.arange(int(lengths.max()) if len(lengths) else 0).unsqueeze(1)
    running = steps < lengths[order]
    return (offsets[:-1][order] + steps)[running], running.sum(1), order
