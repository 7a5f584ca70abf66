"""StepPool: one vector for a sentence from those of its steps."""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from towers.contracts import contract
from towers.contracts.operations import operation
from towers.convert import to_ragged
from towers.kernels.onnx_operator import exporting_onnx
from towers.layers.validation import refuse
from towers.ragged import Ragged

Reduce = Literal["last", "max", "mean"]


def _shape(sentences: Ragged, reduce: Reduce) -> Tensor:
    """What `verify` runs in place of `over_steps`."""
    return sentences.values.new_empty(sentences.batch, *sentences.values.shape[1:])


@operation(_shape)
def over_steps(sentences: Ragged, reduce: Reduce) -> Tensor:
    """The last, the largest or the mean value of each feature over the steps of each sentence: "batch features"."""
    if exporting_onnx():
        raise ValueError("torch.onnx.export takes a whole Tower; what is taken over steps is not exported alone")
    if reduce == "last":
        return sentences.values.index_select(0, sentences.offsets[1:] - 1)
    return torch.segment_reduce(sentences.values, reduce, offsets=sentences.offsets, unsafe=True)


class StepPool(nn.Module):
    """The last, the largest or the mean value of each feature over the steps of a sentence, never over features.

    "max" is Keras's `GlobalMaxPooling1D` (the max pooling of InferSent: Conneau et al., 2017), "mean" its
    `GlobalAveragePooling1D`, both of the real steps only. Where several steps have the largest value, they share the
    gradient. The maximum over neighbouring features is FeaturePool.

    Args:
        reduce: "last", "max" or "mean".

    Raises:
        ValueError: `reduce` is none of them.

    >>> import torch
    >>> from towers import StepPool
    >>> pool = StepPool("max")
    >>> pool(torch.tensor([[[1.0, 5.0], [3.0, 4.0], [9.0, 9.0]]]), lengths=torch.tensor([2]))
    tensor([[3., 5.]])
    """

    def __init__(self, reduce: Reduce = "max") -> None:
        super().__init__()
        if reduce not in get_args(Reduce):
            refuse(self, f"reduce ({reduce!r}) must be one of {', '.join(map(repr, get_args(Reduce)))}")
        self.reduce: Reduce = reduce

    @contract(where=("batch >= 0", "steps >= 1", "1 <= lengths <= steps"))
    def forward(
        self,
        steps: Float[Tensor | Ragged, "batch steps features"],
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch features"]:
        """A value of each feature for each sentence.

        Args:
            steps: (batch, steps, features), padded on the right; or Ragged, or a jagged tensor.
            lengths: the number of real steps of each padded sentence; None: all of them.

        Raises:
            ShapeContractError: a shape or dtype is not as annotated, or there is no step.
            ValueError: a length is below 1 or above `steps`.
        """
        return over_steps(to_ragged(steps, lengths, owner=self), self.reduce)

    def extra_repr(self) -> str:
        """For `repr`."""
        return repr(self.reduce)
