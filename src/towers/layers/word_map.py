"""WordMap: a linear map of the vector of each word."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from towers.contracts import contract
from towers.convert import like_input, to_ragged
from towers.layers.phrases import PhraseConv
from towers.layers.validation import at_least_one
from towers.ragged import Ragged


class WordMap(nn.Module):
    """A linear map of the vector of each word: nn.Linear over words, with a bias.

    It is a PhraseConv of one word, and treats word ids as that does: with gradients each distinct word of a batch is
    multiplied once; without, the product of the whole table is kept until the table or the weights change.

    Args:
        vector_width: the size of a word vector.
        features: the size of a mapped vector. Where it is `vector_width`, the map begins as the identity, so that
            training starts from the vectors as they are; else with glorot-uniform weights.

    Raises:
        ValueError: a size is not an int of at least 1.

    >>> import torch
    >>> from towers import WordMap
    >>> WordMap(vector_width=5, features=3)(torch.randn(2, 7, 5)).shape
    torch.Size([2, 7, 3])
    """

    def __init__(
        self,
        vector_width: int = 300,
        features: int = 300,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        at_least_one(self, vector_width=vector_width, features=features)
        self.vector_width, self.features = vector_width, features
        self.linear = PhraseConv(vector_width, features, 1, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The identity where the sizes are equal, else glorot-uniform; the bias is 0."""
        self.linear.reset_parameters()
        if self.vector_width == self.features:
            with torch.no_grad():
                self.linear.weight[0].copy_(torch.eye(self.features))
        else:
            nn.init.xavier_uniform_(self.linear.weight[0])

    @contract(where=("batch >= 0", "0 <= lengths <= words"), dtype_of="linear.weight")
    def forward(
        self,
        sentences: Float[Tensor | Ragged, "batch words {self.vector_width}"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor | Ragged, "batch words {self.features}"]:
        """The mapped vectors, as the same kind of batch; 0 after the end of a padded sentence.

        Args:
            sentences: word vectors (batch, words, vector_width), padded on the right; or Ragged, or a jagged tensor.
                Ragged of word ids gives Ragged of word ids, unless its table has more rows than there are words.
            lengths: the number of real words of each padded sentence; None: all of them.

        Raises:
            ShapeContractError: a shape or dtype is not as annotated.
            ValueError: a length is negative or above `words`.
        """
        return like_input(self.mapped(to_ragged(sentences, lengths, owner=self, keep_ids=True)), sentences)

    def mapped(self, ragged: Ragged) -> Ragged:
        """As `forward`, of a `ragged` batch only."""
        shares, ids = self.linear.shares(ragged)
        if ids is not None and len(shares) > len(ids):  # a product that is kept, of more words than there are here
            shares, ids = shares.index_select(0, ids), None
        rows = shares.squeeze(1) + self.linear.bias
        values, table = (rows, None) if ids is None else (ids, rows)
        return Ragged.unchecked(values, ragged.offsets, ragged.uniform, table)

    def extra_repr(self) -> str:
        """Its sizes, for `repr`."""
        return f"vector_width={self.vector_width}, features={self.features}"
