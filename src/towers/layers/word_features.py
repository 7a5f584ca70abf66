"""WordFeatures: what the words of a sentence are, whatever their order."""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from towers.contracts import contract
from towers.convert import to_ragged
from towers.layers.phrases import PhraseConv
from towers.layers.step_pool import over_steps
from towers.layers.validation import at_least_one, refuse
from towers.ragged import Ragged

WordReduce = Literal["max", "mean"]


class WordFeatures(nn.Module):
    """Features of words, reduced over the words of a sentence; the order of the words plays no part.

    With "max": the maximum over words of `relu(W x + b)`, each unit of which tells whether some word of its kind is
    there (a convolution over one word with max pooling over time: Collobert et al., 2011; Kim, 2014). With "mean":
    the mean over words of `W x + b`.

    Args:
        vector_width: the size of a word vector.
        features: the number of units.
        reduce: "max" or "mean".

    Raises:
        ValueError: a size is not an int of at least 1, or `reduce` is neither.

    >>> import torch
    >>> from towers import WordFeatures
    >>> WordFeatures(vector_width=5, features=3)(torch.randn(2, 7, 5)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        vector_width: int = 300,
        features: int = 400,
        reduce: WordReduce = "max",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        at_least_one(self, vector_width=vector_width, features=features)
        if reduce not in get_args(WordReduce):
            refuse(self, f"reduce ({reduce!r}) must be 'max' or 'mean'")
        self.vector_width, self.features = vector_width, features
        self.reduce: WordReduce = reduce
        self.linear = PhraseConv(vector_width, features, 1, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """nn.Linear's initial values: uniform between -1/sqrt(vector_width) and 1/sqrt(vector_width)."""
        bound = self.vector_width**-0.5
        for parameter in self.linear.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    @contract(where=("batch >= 0", "words >= 1", "1 <= lengths <= words"), dtype_of="linear.weight")
    def forward(
        self,
        sentences: Float[Tensor | Ragged, "batch words {self.vector_width}"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch {self.features}"]:
        """A value of each feature for each sentence.

        Args:
            sentences: word vectors (batch, words, vector_width), padded on the right; or Ragged, or a jagged tensor.
            lengths: the number of real words of each padded sentence; None: all of them.

        Raises:
            ShapeContractError: a shape or dtype is not as annotated, or there is no word.
            ValueError: a length is below 1 or above `words`.
        """
        ragged = to_ragged(sentences, lengths, owner=self, keep_ids=True)
        shares, ids = self.linear.shares(ragged)
        rows = shares.squeeze(1)
        rows = rows if ids is None else rows.index_select(0, ids)
        reduced = over_steps(ragged.with_values(rows), self.reduce) + self.linear.bias
        return F.relu(reduced) if self.reduce == "max" else reduced  # relu and bias rise with the maximum

    def extra_repr(self) -> str:
        """Its sizes, for `repr`."""
        return f"vector_width={self.vector_width}, features={self.features}, reduce={self.reduce!r}"
