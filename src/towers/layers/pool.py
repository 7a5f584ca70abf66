"""FeaturePool: the maximum over groups of neighbouring features."""

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from towers.contracts import contract
from towers.convert import like_input, to_ragged
from towers.layers.validation import at_least_one, refuse
from towers.ragged import Ragged


class FeaturePool(nn.Module):
    """The maximum over groups of `size` neighbouring features of each step, never over steps.

    It is Keras's `MaxPooling1D(size, data_format="channels_first")` on data that is (batch, steps, features). Where
    several features of a group are the largest, the first gets the gradient, as in Keras.

    Args:
        size: the number of features of a group.
        filters: the number of features of a step before the pool; after it there are `features` = filters / size.

    Raises:
        ValueError: `size` does not divide `filters`, or one of them is not an int of at least 1.

    >>> import torch
    >>> from towers import FeaturePool
    >>> pool = FeaturePool(2, filters=4)
    >>> pool(torch.tensor([[[1.0, 3.0, 4.0, 2.0]]]))  # (batch, steps, filters) -> (batch, steps, features)
    tensor([[[3., 4.]]])
    """

    def __init__(self, size: int = 4, *, filters: int = 32) -> None:
        super().__init__()
        at_least_one(self, size=size, filters=filters)
        if filters % size:
            refuse(self, f"pool ({size}) must divide filters ({filters})")
        self.size, self.filters, self.features = size, filters, filters // size

    @contract(
        where=(
            "batch >= 0",
            "0 <= lengths <= steps",
        )
    )
    def forward(
        self,
        phrases: Float[Tensor | Ragged, "batch steps {self.filters}"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor | Ragged, "batch steps {self.features}"]:
        """The largest feature of each group, as the same kind of batch; 0 after the end of a padded sentence.

        Args:
            phrases: (batch, steps, filters), padded on the right; or Ragged, or a jagged tensor.
            lengths: the number of real steps of each padded sentence; None: all of them.

        Raises:
            ShapeContractError: a shape or dtype is not as annotated.
            ValueError: a length is negative or above `steps`.
        """
        ragged = to_ragged(phrases, lengths, owner=self)
        channel = rearrange(ragged.values, "tokens filters -> tokens 1 filters")
        pooled = rearrange(F.max_pool1d(channel, self.size), "tokens 1 features -> tokens features")
        return like_input(ragged.with_values(pooled), phrases)

    def extra_repr(self) -> str:
        """Its sizes, for `repr`."""
        return f"size={self.size}, filters={self.filters}"
