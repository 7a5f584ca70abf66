"""The sum of the shares of neighbouring words, which makes their phrase."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from towers.contracts.operations import operation
from towers.ragged_checks import is_plain


def _sum_shape(shares: Tensor, bias: Tensor, starts: Tensor, ids: Tensor | None = None) -> Tensor:
    """What `verify` runs in place of `add_neighbours`."""
    return shares.new_empty(starts.shape[0], shares.shape[2])


@operation(_sum_shape)
def add_neighbours(
    shares: Float[Tensor, "words kernel_positions filters"],
    bias: Float[Tensor, "filters"],
    starts: Int[Tensor, "phrases"],
    ids: Int[Tensor, "tokens"] | None = None,
) -> Float[Tensor, "phrases filters"]:
    """For each phrase: share 0 of its first word, plus share 1 of its second word, and so on, plus the bias.

    Args:
        shares: what each word adds to a phrase at each kernel position.
        bias: added to every phrase.
        starts: the index of each phrase's first token.
        ids: the word that each token is; None: each token has shares of its own.
    """
    rows = [starts + position if position else starts for position in range(shares.shape[1])]
    rows = rows if ids is None else [ids.index_select(0, row) for row in rows]
    if torch.is_grad_enabled() and is_plain(shares, bias, starts):
        return _AddNeighbours.apply(shares, bias, ids is None, *rows)
    return _sum(shares, bias, rows)


def _sum(shares: Tensor, bias: Tensor, rows: Sequence[Tensor]) -> Tensor:
    total = shares[:, 0].index_select(0, rows[0])
    for position, row in enumerate(rows[1:], start=1):
        total += shares[:, position].index_select(0, row)
    return total.add_(bias) if total.dtype == bias.dtype else total + bias  # the dtypes differ under autocast


class _AddNeighbours(torch.autograd.Function):
    """`_sum` with a backward pass that fills one tensor in place; torch's own makes several, in five times the time."""

    @staticmethod
    def forward(ctx: Any, shares: Tensor, bias: Tensor, each_once: bool, *rows: Tensor) -> Tensor:
        ctx.shape, ctx.each_once = shares.shape, each_once
        ctx.save_for_backward(*rows)
        return _sum(shares, bias, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        shares = gradient.new_zeros(ctx.shape)
        for position, row in enumerate(ctx.saved_tensors):
            # At one position a token is in one phrase at most, and a copy will do; a word may be in many phrases.
            part = shares[:, position]
            part.index_copy_(0, row, gradient) if ctx.each_once else part.index_add_(0, row, gradient)
        return shares, gradient.sum(0), None, *[None] * len(ctx.saved_tensors)
