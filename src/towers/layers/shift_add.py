"""The sum of neighbours: what each place of a phrase has from the word that stands there, added up."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from towers.contracts.operations import operation
from towers.ragged_checks import is_plain


def _sum_shape(shares: Tensor, bias: Tensor, starts: Tensor, ids: Tensor | None = None) -> Tensor:
    """What `verify` takes for `add_neighbours`."""
    return shares.new_empty(starts.shape[0], shares.shape[2])


@operation(_sum_shape)
def add_neighbours(
    shares: Float[Tensor, "words places filters"],
    bias: Float[Tensor, "filters"],
    starts: Int[Tensor, "phrases"],
    ids: Int[Tensor, "tokens"] | None = None,
) -> Float[Tensor, "phrases filters"]:
    """For each phrase share 0 of its first word, plus share 1 of its second, and so on, plus the bias.

    Args:
        shares: what each word gives to each place.
        bias: added to every phrase.
        starts: the token with which each phrase starts.
        ids: the word that each token is; None: token and word are the same.
    """
    rows = [starts + place if place else starts for place in range(shares.shape[1])]
    rows = rows if ids is None else [ids.index_select(0, row) for row in rows]
    if torch.is_grad_enabled() and is_plain(shares, bias, starts):
        return _AddNeighbours.apply(shares, bias, ids is None, *rows)
    return _sum(shares, bias, rows)


def _sum(shares: Tensor, bias: Tensor, rows: Sequence[Tensor]) -> Tensor:
    total = shares[:, 0].index_select(0, rows[0])
    for place, row in enumerate(rows[1:], start=1):
        total += shares[:, place].index_select(0, row)
    return total.add_(bias) if total.dtype == bias.dtype else total + bias  # under autocast they differ


class _AddNeighbours(torch.autograd.Function):
    """The same with a backward that fills one tensor in place; torch makes several, and takes five times as long."""

    @staticmethod
    def forward(ctx: Any, shares: Tensor, bias: Tensor, each_once: bool, *rows: Tensor) -> Tensor:
        ctx.shape, ctx.each_once = shares.shape, each_once
        ctx.save_for_backward(*rows)
        return _sum(shares, bias, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        shares = gradient.new_zeros(ctx.shape)
        for place, row in enumerate(ctx.saved_tensors):
            # In one place a token stands once, so that copying is enough; the same word may stand in many phrases.
            part = shares[:, place]
            part.index_copy_(0, row, gradient) if ctx.each_once else part.index_add_(0, row, gradient)
        return shares, gradient.sum(0), None, *[None] * len(ctx.saved_tensors)
