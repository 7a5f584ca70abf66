"""The kinds of batches that every layer takes, and gives back as they came: padded, jagged, packed, Ragged."""

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
    """What every layer does first: padded (with lengths), jagged, packed or Ragged in, Ragged out.

    Word ids are looked up, unless the layer keeps them.

    Raises:
        ShapeContractError: lengths beside sentences that carry their own.
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
    """What every layer does last: the result as the same kind as its input; padding is 0.

    `fewer` is by how many words a sentence got shorter on the way.
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
