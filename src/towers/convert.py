"""The kinds of batches that every layer takes and returns: padded, jagged, packed, Ragged."""

from typing import Any, TypeVar

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from towers.contracts import ShapeContractError
from towers.contracts.errors import complaint, module_path
from towers.kernels.order import time_order
from towers.ragged import Ragged


def to_ragged(
    sentences: Tensor | Ragged | PackedSequence,
    lengths: Tensor | None = None,
    *,
    owner: object = None,
    keep_ids: bool = False,
) -> Ragged:
    """Any kind of batch (padded with lengths, jagged, packed, Ragged) as Ragged: what every layer does first.

    Word ids become vectors, unless `keep_ids`. `owner` is the layer, which the errors name.

    Raises:
        ShapeContractError: lengths are given beside sentences that carry their own.
        ValueError: a length is negative or larger than `words`.
    """
    padded = isinstance(sentences, Tensor) and not sentences.is_nested
    if lengths is not None and not padded:
        problem = "lengths is given beside sentences that carry their own; only padded input takes lengths"
        raise ShapeContractError(complaint(module_path(owner), problem))
    if isinstance(sentences, Ragged):
        return sentences if keep_ids else sentences.vectors()
    if isinstance(sentences, PackedSequence):
        return Ragged.from_packed(sentences)
    return Ragged.from_padded(sentences, lengths) if padded else Ragged.from_jagged(sentences)


Kind = TypeVar("Kind", bound=Tensor | Ragged | PackedSequence)


def like_input(result: Ragged, like: Kind, *, fewer: int = 0) -> Kind:
    """The result as the kind of batch that the input was: what every layer does last. Padding is 0.

    `fewer` is the number of words by which the layer shortened each sentence.
    """
    kind: Any = like
    if isinstance(kind, Ragged):
        same: Any = result
    elif isinstance(kind, PackedSequence):
        index, _, _ = time_order(result.offsets.cpu(), kind.sorted_indices)
        same = kind._replace(data=result.values.index_select(0, index.to(result.device)))
    elif kind.is_nested:
        same = result.to_jagged()
    else:
        same = result.to_padded(words=kind.shape[1] - fewer)[0]
    return same
