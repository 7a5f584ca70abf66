"""PhraseConv: neighbouring words become phrase features."""

import math

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from towers.contracts import contract
from towers.contracts.modes import autocast
from towers.contracts.operations import operation
from towers.convert import like_input, to_ragged
from towers.kernels.batch import is_plain
from towers.kernels.cpu import words_call
from towers.layers.cache import VersionedCache, can_keep
from towers.layers.shift_add import add_neighbours
from towers.layers.validation import at_least_one, refuse
from towers.layers.word_table import WordTable
from towers.ragged import Ragged

_WORDS = 16_384
"""Words of a table that torch multiplies at a time; beside the result this takes about 10 MB."""

FEW_TOKENS = 32
"""Of no more tokens than this, it takes longer to find out that a kept product still holds than to multiply them again.

Row "towers, ids" at batch 1 of `python benchmarks/run.py tower`.
"""


class PhraseConv(nn.Module):
    """A convolution over neighbouring words: Keras's `Conv2D(filters, (kernel_words, vector_width))`, no activation.

    A phrase is a run of `kernel_words` neighbouring words of one sentence. One matrix product multiplies each real word
    by the weights of every kernel position; the results are the word's shares. A phrase is the sum of its words'
    shares, each at its position, and of the bias. Padding is removed before the product.

    Sentences of word ids with a table:

    - With gradients, each distinct word of a batch is multiplied once. On a GPU, finding the distinct words would wait
      for the GPU. Call `Ragged.distinct` before the sentences are moved there; without it, the whole table is
      multiplied if it has at most as many rows as there are tokens, and each token otherwise.
    - Without gradients, the whole table is multiplied once, and the product is kept until the table or the weights
      change. It takes kernel_words x filters numbers for each word of the table (256 bytes in Keras's network: 0.6 MB
      for SICK's 2,403 words, 102 MB for 400,000). torch does not count a write through `table.data` as a change: call
      `forget_vocabulary` after one. A tower in C that gets 32 tokens or fewer multiplies them at once, keeps nothing,
      and gives the same bits.

    Attributes:
        weight: (kernel_words, filters, vector_width); Keras's kernel is (kernel_words, vector_width, 1, filters).
        bias: (filters,).
        product_dtype: the dtype of the product, where it is not that of the weights; it may be set at any time. With
            torch.bfloat16 the error of a phrase feature is 0.3 % of the features' standard deviation on average, and
            at most 0.4 % of the largest feature; that of a tower's last states is at most 0.0011 (measured: 50,000
            random words, initial weights).

    Args:
        vector_width: the size of a word vector.
        filters: the number of features of a phrase.
        kernel_words: the number of words of a phrase.

    Raises:
        ValueError: a size is not an int of at least 1.

    >>> import torch
    >>> from towers import PhraseConv
    >>> conv = PhraseConv(vector_width=5, filters=6, kernel_words=2)
    >>> conv(torch.randn(3, 7, 5)).shape  # (batch, words, vector_width) -> (batch, phrases, filters)
    torch.Size([3, 6, 6])
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
        self.product_dtype: torch.dtype | None = None
        self._kept = VersionedCache()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Keras's initial values: glorot-uniform over the field of kernel_words x vector_width, zero bias."""
        field = self.kernel_words * self.vector_width
        bound = math.sqrt(6 / (field + field * self.filters))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)

    @contract(
        where=("batch >= 0", "words >= {self.kernel_words}", "{self.kernel_words} <= lengths <= words"),
        dtype_of="weight",
    )
    def forward(
        self,
        sentences: Float[Tensor | Ragged, "batch words {self.vector_width}"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor | Ragged, "batch words-{self.kernel_words}+1 {self.filters}"]:
        """The features of every phrase, as the same kind of batch; 0 after the end of a padded sentence.

        Args:
            sentences: word vectors (batch, words, vector_width), padded on the right; or Ragged, or a jagged tensor.
            lengths: the number of real words of each padded sentence; None: all of them.

        Raises:
            ShapeContractError: a shape or dtype is not as annotated, or there are fewer words than `kernel_words`.
            ValueError: a length is below `kernel_words` or above `words`.
        """
        ragged = to_ragged(sentences, lengths, owner=self, keep_ids=True)
        starts, offsets = ragged.runs(self.kernel_words)
        uniform = None if ragged.uniform is None else max(ragged.uniform - self.kernel_words + 1, 0)
        shares, ids = self.shares(ragged)
        if self.bias is None:  # pyright: ignore[reportUnnecessaryComparison]
            refuse(self, "bias is None; a convolution without one has a bias of zeros that is frozen")
        phrases = add_neighbours(shares, self.bias, starts, ids)
        return like_input(Ragged.unchecked(phrases, offsets, uniform), sentences, fewer=self.kernel_words - 1)

    def shares(self, ragged: Ragged) -> tuple[Tensor, Tensor | None]:
        """For the sentences of `ragged`, the shares of each token, and None; or of each word, and each token's word."""
        multiplied = self.multiplied_table(ragged)
        return (self.project(ragged.vectors().values), None) if multiplied is None else multiplied

    def multiplied_table(self, ragged: Ragged) -> tuple[Tensor, Tensor] | None:
        """The shares of each word of `ragged`, and each token's word; None if it is better to multiply each token."""
        tokens, table = ragged.values, ragged.table
        if table is None or not is_plain(table, self.weight):
            return None
        if can_keep(table, self.weight):
            how = (self.product_dtype, autocast(table.device) and torch.get_autocast_dtype(table.device.type))
            words = WordTable.of(table)
            product = None if words is None else words.product(self, self._project_all, [self.weight], how)
            if product is not None:
                return product, tokens
            kept = self._kept.get(lambda: self._project_all(table), large=[table], small=[self.weight], how=how)
            return kept, tokens
        if table.is_cpu:
            ragged = ragged.distinct()
        elif len(table) > len(tokens):  # finding the distinct words would wait for the device
            return None
        assert ragged.table is not None
        return self.project(ragged.table), ragged.values

    def _project_shape(self, vectors: Tensor) -> Tensor:
        """What `verify` runs in place of `project`."""
        (words, width), (kernel_positions, filters, wanted) = vectors.shape, self.weight.shape
        if width != wanted:
            raise RuntimeError(f"vectors of {width} numbers cannot be multiplied by weights for {wanted}")
        return vectors.new_empty(words, kernel_positions, filters, dtype=self.weight.dtype)

    @operation(_project_shape)
    def project(
        self, vectors: Float[Tensor, "words {self.vector_width}"]
    ) -> Float[Tensor, "words {self.kernel_words} {self.filters}"]:
        """The shares of each word of `vectors`, one for each kernel position, by one matrix product."""
        weight = rearrange(self.weight, "kernel_positions filters width -> (kernel_positions filters) width").t()
        dtype = self.product_dtype
        if dtype is None:
            product = vectors.to(weight.dtype) @ weight
        else:
            product = (vectors.to(dtype) @ weight.to(dtype)).to(weight.dtype)
        return product.unflatten(1, (self.kernel_words, self.filters))

    def _project_all(self, table: Tensor) -> Tensor:
        """As `project`, for any number of words, with little memory beside the result; by C where a tower is."""
        if self.product_dtype is None and not autocast(table.device):
            found = words_call.shares(table, self.weight)
            if found is not None:
                return found
        if len(table) <= _WORDS:
            return self.project(table)
        like = self.project(table[:1])
        shares = like.new_empty(len(table), *like.shape[1:])
        for result, part in zip(shares.split(_WORDS), table.split(_WORDS), strict=True):
            result.copy_(self.project(part))
        return shares

    def forget_vocabulary(self) -> None:
        """Free the kept product of a table with the weights; the next call that needs it computes it again."""
        self._kept.clear()

    def extra_repr(self) -> str:
        """Its sizes, for `repr`."""
        return f"vector_width={self.vector_width}, filters={self.filters}, kernel_words={self.kernel_words}"
