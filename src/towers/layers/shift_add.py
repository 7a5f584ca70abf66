"""The sum of the shares of neighbouring words, which makes their phrase."""

from jaxtyping import Float, Int
from torch import Tensor

from towers.contracts.operations import operation


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
    total: Tensor | None = None
    for position in range(shares.shape[1]):
        row = starts + position if position else starts
        row = row if ids is None else ids.index_select(0, row)
        share = shares[:, position].index_select(0, row)
        total = share if total is None else total.add_(share)
    assert total is not None
    return total.add_(bias) if total.dtype == bias.dtype else total + bias  # the dtypes differ under autocast
