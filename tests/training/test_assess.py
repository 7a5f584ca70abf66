"""What `towers evaluate` measures, against slow counts."""

import math

import numpy as np
import pytest
import torch

from towers.data import SentencePairs, WordVectors
from towers.training import assess


def slow_ranks(values):
    return np.array([(np.sum(values < x) + 1 + np.sum(values <= x)) / 2 for x in values])


def test_degrees():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (60,), generator=generator) / 4
    answers = (labels + 0.3 * torch.rand(60, generator=generator)).clamp(max=1)
    found = assess.of_degrees(answers, labels, (1, 5))
    x, y = 1 + 4 * answers.double().numpy(), 1 + 4 * labels.double().numpy()
    assert found["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)
    assert found["spearman"] == pytest.approx(np.corrcoef(slow_ranks(x), slow_ranks(y))[0, 1], abs=1e-6)
    assert found["mse"] == pytest.approx(np.mean((x - y) ** 2), rel=1e-9)
    assert math.isnan(assess.of_degrees(torch.ones(60), labels, (0, 1))["spearman"])


def test_yes_and_no():
    logits = torch.tensor([2.0, -1.0, 0.5, -3.0, 1.0])
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0])
    found = assess.of_yes_and_no(logits, labels)
    assert (found["accuracy"], found["majority"]) == (pytest.approx(0.6), pytest.approx(0.6))
    assert found["f1"] == pytest.approx(2 * 2 / (3 + 3)), "two hits, three yes, three said"
    assert found["auc"] == pytest.approx(5 / 6), "of six pairs of a yes and a no, five are in order"


def test_classes():
    logits = torch.tensor([[4.0, 0, 0], [0, 3, 0], [0, 2, 0], [0, 0, 1]])
    found = assess.of_classes(logits, torch.tensor([0, 1, 0, 1]))
    assert (found["accuracy"], found["majority"]) == (0.5, 0.5)
    assert found["f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3), "class 2 is answered, and does not occur"
    assert assess.of_classes(logits[:3], torch.tensor([0, 1, 0]))["f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert math.isnan(assess.of_classes(logits, torch.tensor([1, 1, 1, 1]))["auc"])


def test_the_area_of_classes_is_the_share_of_pairs_in_order():
    logits, labels = torch.randint(3, (60, 4)).float(), torch.randint(3, (60,))  # many ties; class 3 does not occur
    logits *= torch.tensor([[1.0], [40.0]]).repeat(30, 1)  # and of half of them softmax makes 0 and 1
    shares = list[float]()
    for one in range(3):
        numbers = logits.double().numpy()
        rest = np.sort(np.delete(numbers, one, axis=1) - numbers[:, [one]])
        says = torch.tensor(-np.logaddexp.reduce(rest, axis=1).round(9))
        own, other = says[labels == one, None], says[labels != one]
        shares.append(float(((own > other).double() + (own == other).double() / 2).mean()))
    assert assess.of_classes(logits, labels)["auc"] == pytest.approx(sum(shares) / 3, abs=1e-9)


def test_calibration():
    certain, right = torch.tensor([0.91, 0.95, 0.62, 1.0]), torch.tensor([True, False, True, True])
    wanted = (abs(0.91 + 0.95 + 1.0 - 2) + abs(0.62 - 1)) / 4
    assert assess.calibration(certain, right) == pytest.approx(wanted, abs=1e-6)
    assert assess.calibration(torch.ones(3), torch.ones(3, dtype=torch.bool)) == 0
    assert math.isnan(assess.calibration(torch.tensor([math.nan, 0.5]), torch.tensor([True, True])))


def test_the_cosine_of_mean_vectors():
    vectors = WordVectors(["a", "b"], torch.tensor([[1.0, 0.0], [0.0, 2.0]]), missing="zero")
    pairs = SentencePairs([["a"], ["a", "b"], ["x"]], [["b"], ["a", "x"], ["a"]])
    assert assess.cosine(pairs, vectors).tolist() == pytest.approx([0, 1 / math.sqrt(5), 0])


def test_what_a_model_is_not_better_than_is_said():
    assert assess.shortfalls({"accuracy": 0.6, "majority": 0.6}, None) == [
        "the accuracy 0.6000 is not above the majority class, 0.6000"
    ]
    assert len(assess.shortfalls({"accuracy": 0.7 + 1e-8, "majority": 0.7}, None)) == 1  # float32 of the same share
    assert assess.shortfalls({"accuracy": 1.0, "majority": 1.0}, None) == [], "labels of one class"
    (said,) = assess.shortfalls({"pearson": 0.1}, 0.5, "of the second label, ")
    assert said.startswith("of the second label, Pearson's r 0.1000 is not above")
    (said,) = assess.shortfalls({"pearson": math.nan}, 0.5)
    assert said == "Pearson's r nan is not above that of the cosine of mean vectors, 0.5000"
    assert assess.shortfalls({"pearson": 0.7}, 0.5) == assess.shortfalls({"accuracy": 0.7, "majority": 0.6}, None) == []


def test_large_logits_are_put_in_order_where_their_probabilities_are_equal():
    logits, labels = torch.tensor([98.0, 98.5, 97.6, 99.2, 98.1]), torch.tensor([0.0, 1, 1, 1, 0])
    assert assess.of_yes_and_no(logits, labels)["auc"] == pytest.approx(4 / 6, abs=1e-6)
    both = torch.stack([torch.zeros(5), torch.tensor([40.0, 45, 50, 60, -1])], 1)
    assert assess.of_classes(both, torch.tensor([0, 1, 0, 1, 0]))["auc"] == pytest.approx(5 / 6)
    tied = torch.tensor([[0.1, 0.2, 0.7, 1.3], [0.1, 1.3, 0.7, 0.2], [0.1, 0.7, 1.3, 0.2], [0.1, 0.2, 1.3, 0.7]])
    assert assess.of_classes(tied, torch.tensor([0, 1, 0, 1]))["auc"] == pytest.approx((1 / 2 + 5 / 8) / 2)
