"""Loss, accuracy, area under the curve, Pearson's r."""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from towers.data import SentencePairs
from towers.training.objectives import Objective

RARE = 0.05
"""The share of labels between 0 and 1 up to which they are probably mistakes, as a single one is."""


def are_soft(labels: Tensor) -> bool:
    """Whether any label lies strictly between 0 and 1, which makes the labels degrees instead of classes."""
    return bool(((labels != 0) & (labels != 1)).any())


def few_degrees(pairs: SentencePairs) -> str | None:
    """The warning that a few labels between 0 and 1 turn all others from classes into degrees; None if many do."""
    if pairs.labels is None or pairs.classes is not None:
        return None
    soft = ((pairs.labels != 0) & (pairs.labels != 1)).nonzero().squeeze(1).tolist()
    if not 0 < len(soft) <= max(1, RARE * len(pairs)) or 2 * len(soft) >= len(pairs):
        return None
    first = f"line {pairs.lines[soft[0]]}: {float(pairs.labels[soft[0]]):g}"
    which = f"{len(soft)} of {len(pairs)} labels of {pairs.source} {'is' if len(soft) == 1 else 'are'} between 0 and 1"
    return f"{which} ({first}): all labels are taken as degrees, and Pearson's r is measured in place of accuracy"


def metric_names(soft: bool) -> tuple[str, ...]:
    """The names of the metrics of hard or soft labels, in the order in which they are shown."""
    return ("loss", "pearson") if soft else ("loss", "accuracy", "auc")


def majority(labels: Tensor) -> float:
    """The accuracy of always answering the most frequent class."""
    if labels.is_floating_point():
        ones = float(labels.float().mean())
        return max(ones, 1 - ones)
    return float(labels.bincount().max()) / len(labels)


@dataclass(frozen=True)
class Measures:
    """The metrics of each epoch.

    Attributes:
        objective: what the logits mean.
        soft: whether the labels are degrees.
        second: the objective of the second head, if there is one.
    """

    objective: Objective
    soft: bool
    second: Objective | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics of dev pairs that may choose the epoch."""
        if self.objective.kind == "classes":
            return ("loss", "accuracy")
        return metric_names(self.soft or self.objective.kind == "bins")

    @property
    def best(self) -> str:
        """The metric that chooses it by default."""
        if self.objective.kind == "classes":
            return "accuracy"
        return "pearson" if self.soft or self.objective.kind == "bins" else "loss"

    def of(self, logits: Tensor, pairs: SentencePairs) -> dict[str, float]:
        """The metrics of the first head's logits."""
        labels = pairs.labels
        assert labels is not None
        if self.objective.kind == "binary":
            return measure(logits, labels, soft=self.soft)
        logits = logits.double()
        loss = float(self.objective.loss(logits, labels))
        if self.objective.kind == "bins":
            return {"loss": loss, "pearson": pearson(self.objective.answer(logits), labels.double())}
        return {"loss": loss, "accuracy": accuracy(logits, labels)}

    def of_second(self, logits: Tensor, pairs: SentencePairs) -> dict[str, float]:
        """The accuracy of the second head's logits, or of degrees Pearson's r."""
        assert pairs.second is not None
        if self.second is not None and self.second.kind == "bins":
            return {"second_pearson": pearson(self.second.answer(logits.double()), pairs.second.double())}
        return {"second_accuracy": accuracy(logits, pairs.second)}


def accuracy(logits: Tensor, classes: Tensor) -> float:
    """The share of pairs whose largest logit "pairs classes" is that of their class; NaN logits are wrong."""
    right = (logits.argmax(-1) == classes) & logits.isfinite().all(-1)
    return round(float(right.double().mean()), 6)


def measure(logits: Tensor, labels: Tensor, *, soft: bool | None = None) -> dict[str, float]:
    """The metrics of logits (pairs) against labels (pairs) in [0, 1].

    `soft` chooses the metrics; None: the labels do. NaN stands for an undefined metric: the area under the curve of one
    class or of NaN, Pearson's r of constants.
    """
    from torchmetrics.functional.classification import binary_accuracy

    logits, labels = logits.double(), labels.double()
    loss = float(binary_cross_entropy_with_logits(logits, labels))
    if are_soft(labels) if soft is None else soft:
        return {"loss": loss, "pearson": pearson(logits.sigmoid(), labels)}
    probabilities, classes = logits.sigmoid(), labels.long()
    return {
        "loss": loss,
        "accuracy": round(float(binary_accuracy(probabilities, classes)), 6),  # torchmetrics counts in float32
        "auc": round(area(logits, classes == 1), 6),
    }


def area(numbers: Tensor, is_one: Tensor) -> float:
    """The area under the curve: the share of pairs of one and another that these numbers put in order.

    Numbers and `is_one` are "pairs"; a tie counts half (Mann and Whitney's U). NaN where all pairs are of one kind, or
    a number is not finite. Numbers are logits or log-odds: probabilities near 1 are equal after rounding.
    """
    count = int(is_one.sum())
    if count in (0, len(is_one)) or not bool(numbers.isfinite().all()):
        return math.nan
    in_order = float(ranks(numbers)[is_one].sum()) - count * (count + 1) / 2
    return in_order / (count * (len(is_one) - count))


def ranks(values: Tensor) -> Tensor:
    """The rank of each value "pairs"; equal values share the mean of their ranks."""
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    return (ends - (counts.double() - 1) / 2)[place]


def pearson(first: Tensor, second: Tensor) -> float:
    """Pearson's r; NaN where one of the two is constant, or has NaN."""
    from torchmetrics.functional import pearson_corrcoef

    if not all(bool(x.min() < x.max()) for x in (first, second)):  # constants, or NaN
        return math.nan
    return float(pearson_corrcoef(_standardised(first), _standardised(second)))


def _standardised(x: Tensor) -> Tensor:
    """With mean 0 and variance 1: the same r, and no warning from torchmetrics that a variance is small."""
    return (x - x.mean()) / x.std(correction=0)
