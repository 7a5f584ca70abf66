# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""PhraseConv: neighbouring words become phrase features."""

import math
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from towers.contracts import contract
from towers.layers.sizes import at_least_one
from towers.ragged import Ragged, enter, leave


class PhraseConv(nn.Module):
    """A convolution over neighbouring words: Keras's `Conv2D(filters, (kernel_words, vector_width))`, no activation.

    Run as matrix products over words: each real word is multiplied once by the weights of every place that it can
    take in a phrase, then neighbours of one sentence are added. Padding is left out before the product.

    Attributes:
        weight: (kernel_words, filters, vector_width); Keras's kernel is (kernel_words, vector_width, 1, filters).
        bias: (filters,).

    Args:
        vector_width: numbers of a word vector.
        filters: features of a phrase.
        kernel_words: words of a phrase.

    Raises:
        ValueError: a size is no int of at least 1.
    """

    weight: Float[Tensor, "kernel_words filters vector_width"]
    bias: Float[Tensor, "filters"]

    def __init__(
        self,
        vector_width: int = 300,
        filters: int = 32,
        kernel_words: int = 2,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        at_least_one(self, vector_width=vector_width, filters=filters, kernel_words=kernel_words)
        self.vector_width, self.filters, self.kernel_words = vector_width, filters, kernel_words
        self.weight = nn.Parameter(torch.empty(kernel_words, filters, vector_width, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(filters, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Keras's initial values: glorot-uniform over the field of kernel_words x vector_width, zero bias."""
        field = self.kernel_words * self.vector_width
        bound = math.sqrt(6 / (field + field * self.filters))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)

    @contract(
        where=("words >= {self.kernel_words}", "{self.kernel_words} <= lengths <= words"),
        dtype_of="weight",
    )
    def forward(
        self,
        sentences: Float[Tensor | Ragged, "batch words {self.vector_width}"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor | Ragged, "batch words-{self.kernel_words}+1 {self.filters}"]:
        """Phrase features of every run of `kernel_words` neighbouring words; 0 past a padded sentence's end.

        Raises:
            ShapeContractError: a shape or dtype is not as annotated, or there are fewer words than `kernel_words`.
            ValueError: a length is below `kernel_words` or above `words`.
        """
        ragged, places = enter(sentences, lengths, owner=self), self.kernel_words
        starts, offsets = ragged.runs(places)
        shares = F.linear(ragged.values.to(self.weight.dtype), self.weight.flatten(0, 1)).unflatten(
            1, (places, self.filters)
        )
        # Phrase t adds up share 0 of word t, share 1 of word t + 1, … Phrases across two sentences are added up too,
        # which is cheaper than to avoid it, and then left out by `starts`.
        phrases = max(len(shares) - places + 1, 0)
        total = reduce(torch.add, [shares[place : place + phrases, place] for place in range(places)])
        uniform = None if ragged.uniform is None else max(ragged.uniform - places + 1, 0)
        features = Ragged.unchecked(total.index_select(0, starts) + self.bias, offsets, uniform)
        return leave(features, sentences, fewer=places - 1)

    def extra_repr(self) -> str:
        """Its sizes, for `repr`."""
        return f"vector_width={self.vector_width}, filters={self.filters}, kernel_words={self.kernel_words}"
