"""What `towers evaluate` measures: of degrees, of yes and no, and of classes; and what a model must be better than."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from towers.data import SentencePairs, WordVectors
from towers.training.metrics import area, majority, measure, pearson, ranks

ROUNDING = 1e-6
"""Accuracies that differ by less are equal."""
BINS = 10
"""Equal parts of the range from 0 to 1, in which probabilities are compared with what happened."""


def of_degrees(answers: Tensor, labels: Tensor, label_range: tuple[float, float]) -> dict[str, float]:
    """Pearson's r, Spearman's rho, and the mean squared error in the range of the labels.

    Answers and labels "pairs" are from 0 to 1. A correlation of constants is NaN.
    """
    answers, labels = answers.double(), labels.double()
    span = label_range[1] - label_range[0]
    return {
        "pearson": pearson(answers, labels),
        "spearman": pearson(ranks(answers), ranks(labels)),
        "mse": float((answers - labels).square().mean()) * span**2,
    }


def of_yes_and_no(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, F1 of yes, the area under the curve, the calibration, and the majority class, for labels of 0 and 1."""
    yes, found = labels.bool(), logits > 0
    hits = int((yes & found).sum())
    both = int(yes.sum()) + int(found.sum())
    probability = logits.double().sigmoid()
    certain = torch.where(found, probability, 1 - probability)
    return {
        **measure(logits, labels, soft=False),
        "f1": 2 * hits / both if both else math.nan,
        "calibration": calibration(certain, found == yes),
        "majority": majority(labels),
    }


def of_classes(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, means over classes of the area under the curve and of F1, calibration, and the majority class.

    The area of a class is that of its probability, one against the rest; its mean is over the classes that occur, and
    NaN of a single class, or where a logit is not finite. The mean of F1 is over those that occur or are answered, as
    "macro" is in scikit-learn. Logits are "pairs classes", labels "pairs" numbers of classes.
    """
    certain, found = logits.double().softmax(1).max(1)
    scores, areas = list[float](), list[float]()
    for one in range(logits.shape[1]):
        is_one, said = labels == one, found == one
        count, others = int(is_one.sum()), int((~is_one).sum())
        if both := count + int(said.sum()):
            scores.append(2 * int((is_one & said).sum()) / both)
        if count and others:
            areas.append(area(_log_odds(logits.double(), one), is_one))
    return {
        "accuracy": float((found == labels).double().mean()),
        "auc": sum(areas) / len(areas) if areas else math.nan,
        "f1": sum(scores) / len(scores),
        "calibration": calibration(certain, found == labels),
        "majority": majority(labels),
    }


def _log_odds(logits: Tensor, one: int) -> Tensor:
    """Of a class, "pairs": equal for equal logits, in whatever order the other classes have them."""
    others = logits[:, torch.arange(logits.shape[1]) != one] - logits[:, [one]]
    return -others.sort(1).values.logsumexp(1)


def calibration(certain: Tensor, right: Tensor) -> float:
    """The expected calibration error: how far, on average, a probability is from the share that is right.

    Pairs are divided into ten equal parts of the range (Guo et al., "On Calibration of Modern Neural Networks", 2017).
    NaN where a probability is.
    """
    if not bool(certain.isfinite().all()):
        return math.nan
    place = (certain * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add(0, place, certain.double() - right.double())
    return float(gaps.abs().sum()) / len(certain)


def cosine(pairs: SentencePairs, vectors: WordVectors) -> Tensor:
    """The cosine of the mean vectors of both sentences "pairs": what needs no training. Of no known word it is 0."""
    known = vectors.select(pairs.vocabulary)
    return torch.nn.functional.cosine_similarity(_means(pairs.left, known), _means(pairs.right, known))


def _means(sentences: Sequence[Sequence[str]], vectors: WordVectors) -> Tensor:
    blank = torch.zeros(1, vectors.width)
    rows = [[word for word in sentence if vectors.has(word)] for sentence in sentences]
    return torch.stack([(vectors.gather(row) if row else blank).float().mean(0) for row in rows])


def shortfalls(found: dict[str, float], cosine_pearson: float | None, of: str = "") -> list[str]:
    """What the model is not better than, in words, which begin with `of`, such as "of the second label, ".

    Where all labels are of one class, there is nothing to be better than.
    """
    said: list[str] = []
    share = found.get("majority", 1.0)
    if share < 1 and found["accuracy"] <= share + ROUNDING:
        said.append(f"{of}the accuracy {found['accuracy']:.4f} is not above the majority class, {share:.4f}")
    if cosine_pearson is not None and not found["pearson"] > cosine_pearson:
        cosine = f"that of the cosine of mean vectors, {cosine_pearson:.4f}"
        said.append(f"{of}Pearson's r {found['pearson']:.4f} is not above {cosine}")
    return said
