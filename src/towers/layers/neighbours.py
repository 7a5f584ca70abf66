# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The sum of neighbours: what each place of a phrase has from the word that stands there, added up."""

from functools import reduce
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from towers.tokens import is_plain


def add_neighbours(
    shares: Float[Tensor, "words places filters"],
    starts: Int[Tensor, "phrases"],
    ids: Int[Tensor, "tokens"] | None = None,
) -> Float[Tensor, "phrases filters"]:
    """For each phrase share 0 of its first word, plus share 1 of its second, and so on.

    Args:
        shares: what each word gives to each place.
        starts: the token with which each phrase starts.
        ids: the word that each token is; None: token and word are the same.
    """
    if is_plain(shares, starts):
        return _AddNeighbours.apply(shares, starts, ids)
    if ids is not None:
        shares, ids = shares.index_select(0, ids), None
    # Phrases across two sentences are added up too, which is cheaper than to avoid it, and then left out by `starts`.
    words, places, _ = shares.shape
    phrases = max(words - places + 1, 0)
    return reduce(torch.add, [shares[at : at + phrases, at] for at in range(places)]).index_select(0, starts)


class _AddNeighbours(torch.autograd.Function):
    """Forward, a bag of one row for each place; torch's own backward of it takes ten times as long."""

    @staticmethod
    def forward(ctx: Any, shares: Tensor, starts: Tensor, ids: Tensor | None) -> Tensor:
        places = shares.shape[1]
        order = torch.arange(places, device=starts.device)
        rows = starts.unsqueeze(1) + order
        if ids is not None:
            rows = ids.index_select(0, rows.flatten()).view_as(rows)
        rows = torch.add(order, rows, alpha=places).flatten()  # share p of word w is row w * places + p
        ctx.shape, ctx.each_once = shares.shape, ids is None
        ctx.save_for_backward(rows)
        bags = torch.arange(0, len(rows), places, device=rows.device)
        return torch.embedding_bag(shares.flatten(0, 1), rows, bags)[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        words, places, filters = ctx.shape
        rows = ctx.saved_tensors[0].view(-1, places)
        total = gradient.new_zeros(words * places, filters)
        add = total.index_copy_ if ctx.each_once else total.index_add_  # a word is in one place once, or has an id
        for place in rows.unbind(1):
            add(0, place, gradient)
        return total.view(words, places, filters), None, None
