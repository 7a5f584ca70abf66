"""What a model learns: its loss, and its answer from its logits, for labels of yes and no, degrees and classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.data import SentencePairs
from towers.model import TwoTowers, need_network

Kind = Literal["binary", "bins", "classes"]


@dataclass(frozen=True)
class Objective:
    """What the logits of a model mean.

    - "binary": one logit; its sigmoid is the answer. The loss is the binary cross-entropy, as in Keras.
    - "bins": a logit for each of some bins, which lie at equal distances from 0 to 1. A label between two bins is a
      distribution over both, the loss is the Kullback-Leibler divergence from it, and the answer is the mean of the
      bins under their softmax (Tai et al., "Improved Semantic Representations from Tree-Structured LSTMs", 2015,
      section 4.2).
    - "classes": a logit for each class; the loss is the cross-entropy, the answer the softmax.

    Attributes:
        kind: which of them.
        outputs: the number of logits.
    """

    kind: Kind
    outputs: int = 1

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of logits "pairs" or "pairs outputs" for labels "pairs": degrees, or numbers of classes."""
        if self.kind == "binary":
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        if self.kind == "classes":
            return F.cross_entropy(logits, labels)
        return F.kl_div(logits.log_softmax(-1), in_bins(labels.to(logits.dtype), self.outputs), reduction="batchmean")

    def answer(self, logits: Tensor) -> Tensor:
        """Of each pair a number from 0 to 1, "..."; for classes their probabilities, "... outputs"."""
        if self.kind == "binary":
            return logits.sigmoid()
        probabilities = logits.softmax(-1)
        return mean_bin(probabilities) if self.kind == "bins" else probabilities


def batch_loss(objective: Objective, logits: Tensor, labels: Tensor, correlation: float, smoothing: float) -> Tensor:
    """The loss of a training step, for logits and labels as `Objective.loss` takes them.

    Of bins it has a further term, `correlation` times 1 - r, with Pearson's r between the answers and the degrees of
    these pairs. Of classes `smoothing` is the share of each label that is spread over all classes (Szegedy et al.,
    "Rethinking the Inception Architecture for Computer Vision", 2016, section 7).
    """
    if objective.kind == "classes":
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    loss = objective.loss(logits, labels)
    if objective.kind == "bins" and correlation:
        loss = loss + correlation * (1 - _batch_r(objective.answer(logits), labels.to(logits.dtype)))
    return loss


def _batch_r(answers: Tensor, degrees: Tensor) -> Tensor:
    """Pearson's r; 0 where all answers, or all degrees, are the same."""
    one, other = answers - answers.mean(), degrees - degrees.mean()
    return (one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-3)


def objective_of(model: TwoTowers, classes: Sequence[str] | None, *, named: str = "pairs") -> Objective:
    """The objective of a model for labels: degrees, or (with their names) classes.

    Raises:
        TypeError: it is no network, but what `towers.load` returns, or something else.
        ValueError: the model has another number of outputs than there are classes.
    """
    need_network(model)
    outputs = model.outputs
    if classes is not None and outputs != len(classes):
        problem = f"labels are of {len(classes)} classes; the model has {_outputs(outputs)}"
        advice = f"build it with outputs={len(classes)}"
        advice += ", or say which class means yes (yes=)" if outputs == 1 else ""
        raise ValueError(f"{named}: {problem}: {advice}")
    return Objective("classes" if classes is not None else "binary" if outputs == 1 else "bins", outputs)


def second_objective(model: TwoTowers, pairs: SentencePairs, *, named: str = "pairs") -> Objective | None:
    """That of the second label, if the model has a head for it.

    Raises:
        ValueError: the model has a second head and the pairs no second label, or the other way round, or the classes
            are not as many as its outputs, or labels are degrees and the head has a single output.
    """
    if (model.second is None) != (pairs.second is None):
        lacks = "the pairs have no second label" if pairs.second is None else "the model has no second head"
        raise ValueError(f"{named}: {lacks}; the other has one")
    if model.second is None:
        return None
    if pairs.second_classes is None:
        if model.second.outputs == 1:
            raise ValueError(f"{named}: second labels are degrees; the head has 1 output, and needs one for each bin")
        return Objective("bins", model.second.outputs)
    count = len(pairs.second_classes)
    if count != model.second.outputs:
        raise ValueError(
            f"{named}: second labels are of {count} classes; the head has {_outputs(model.second.outputs)}"
        )
    return Objective("classes", count)


def _outputs(count: int) -> str:
    return "1 output" if count == 1 else f"{count} outputs"


def in_bins(labels: Tensor, bins: int) -> Tensor:
    """Labels "pairs" from 0 to 1 as distributions "pairs bins" over the two nearest bins, with the label as mean."""
    places = labels * (bins - 1)
    lower = places.floor().clamp(max=bins - 2)
    share = (places - lower).unsqueeze(1)
    target = labels.new_zeros(len(labels), bins)
    index = lower.long().unsqueeze(1)
    return target.scatter(1, index, 1 - share).scatter(1, index + 1, share)


def log_odds(logits: Tensor, output: int) -> Tensor:
    """log(p / (1 - p)) of one class "...", from the logits "... outputs" of all."""
    others = torch.cat([logits[..., :output], logits[..., output + 1 :]], -1)
    return logits[..., output] - others.logsumexp(-1)


def mean_bin(probabilities: Tensor) -> Tensor:
    """The mean of the bins, from 0 to 1, under their probabilities "... bins"."""
    bins = probabilities.shape[-1]
    return probabilities @ torch.arange(bins, dtype=probabilities.dtype, device=probabilities.device) / (bins - 1)
