"""Losses and answers of degrees in bins and of classes, against numpy, and a training with each."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor

from towers import PairHead, Tower, TwoTowers
from towers.data import SentencePairs, WordVectors
from towers.training import evaluate, fit, loop, predict
from towers.training.history import DivergedError
from towers.training.loop import Batches
from towers.training.objectives import Objective, batch_loss, in_bins, mean_bin

WORDS = ["cat", "dog", "sits", "runs", "not", "a"]


class OwnForward(TwoTowers):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return 2 * super().forward(left, right)


def test_a_degree_is_a_distribution_over_the_two_nearest_bins():
    labels = torch.tensor([0.0, 1.0, 0.5, 0.3, 0.75])
    target = in_bins(labels, 5)
    assert target[3].tolist() == pytest.approx([0, 0.8, 0.2, 0, 0])
    assert target[1].tolist() == [0, 0, 0, 0, 1]
    assert ((target > 0).sum(1) <= 2).all()
    torch.testing.assert_close(target.sum(1), torch.ones(5))
    torch.testing.assert_close(mean_bin(target), labels)


def test_the_loss_of_bins_is_the_divergence_from_the_labels():
    logits, labels = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0.0, 0.3, 0.5, 0.9], dtype=torch.float64)
    found = Objective("bins", 5).loss(logits, labels)
    wanted = 0.0
    for row, label in zip(logits.numpy(), labels.numpy(), strict=True):
        log_p = row - np.log(np.exp(row).sum())
        low = min(int(label * 4), 3)
        for place, share in ((low, low + 1 - label * 4), (low + 1, label * 4 - low)):
            wanted += share * (math.log(share) - log_p[place]) if share > 0 else 0.0
    assert float(found) == pytest.approx(wanted / 4)
    assert Objective("bins", 5).loss(in_bins(labels, 5).clamp(min=1e-30).log(), labels) == pytest.approx(0, abs=1e-12)


def test_the_correlation_of_a_batch_counts_for_degrees_alone():
    logits, labels = torch.randn(6, 5, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
    bins, classes = Objective("bins", 5), Objective("classes", 5)
    r = np.corrcoef(bins.answer(logits).numpy(), labels.numpy())[0, 1]
    found = batch_loss(bins, logits, labels, 0.7, 0.1)
    assert float(found) == pytest.approx(float(bins.loss(logits, labels)) + 0.7 * (1 - r))
    numbers = torch.tensor([0, 4, 2, 2, 1, 3])
    spread = torch.full((6, 5), 0.1 / 5, dtype=torch.float64).scatter_add(
        1, numbers[:, None], torch.full((6, 1), 0.9).double()
    )
    wanted = -(spread * logits.log_softmax(1)).sum(1).mean()
    assert float(batch_loss(classes, logits, numbers, 0.7, 0.1)) == pytest.approx(float(wanted))


@pytest.mark.parametrize("pairs", [1, 3])
def test_pairs_that_are_all_answered_alike_have_no_correlation(pairs):
    logits = torch.zeros(pairs, 5, requires_grad=True)
    labels = torch.linspace(0, 1, pairs)
    bins = Objective("bins", 5)
    loss = batch_loss(bins, logits, labels, 1.0, 0.0)
    assert float(loss.detach()) == pytest.approx(float(bins.loss(logits.detach(), labels)) + 1)
    loss.backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("weight", [0.0, 0.8])
def test_a_second_label_counts_what_its_weight_says(weight):
    pairs, model = made_pairs(second=True), small_model(3, second=2)
    before = [value.clone() for value in model.second.parameters()]
    losses, own = list[float](), loop.batch_loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "batch_loss", lambda *given: losses.append(float(own(*given).detach())) or own(*given))
        step, kept = loop.TowersModule.training_step, list[float]()
        patch.setattr(loop.TowersModule, "training_step", lambda *given: kept.append(step(*given)) or kept[-1])
        fit(model, pairs, epochs=1, batch_size=20, second_weight=weight, device="cpu")
    assert [float(loss.detach()) for loss in kept] == pytest.approx(
        [first + weight * second for first, second in zip(losses[::2], losses[1::2], strict=True)]
    )
    assert weight == 0 or not any(torch.equal(*each) for each in zip(before, model.second.parameters(), strict=True))


@pytest.mark.parametrize("second", [False, True])
def test_each_answer_to_a_pair_has_dropout_of_its_own(second):
    pairs, model = made_pairs(second=second), small_model(3, second=2 if second else None)
    model.dropout = torch.nn.Dropout(0.5)
    seen, own, collected = list[tuple[Tensor, ...]](), loop.batch_loss, list[Tensor]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "batch_loss", lambda *given: seen.append(given[1:3]) or own(*given))
        add = loop.Collected.add
        patch.setattr(loop.Collected, "add", lambda self, *given: collected.append(given[1]) or add(self, *given))
        fit(model, pairs, epochs=1, batch_size=len(pairs), dropout_samples=3, device="cpu")
    for logits, labels in seen:
        assert len(logits) == 3 * len(pairs)
        assert all(torch.equal(labels[: len(pairs)], part) for part in labels.chunk(3))
    first, *others = seen[0][0].chunk(3)
    assert all(not torch.equal(first, other) for other in others)
    assert torch.equal(collected[0], first)
    assert len(seen) == 1 + second


def test_answers_without_dropout_are_the_same_however_many():
    weights, pairs, first = [], made_pairs(), small_model(3)
    first.dropout = first.word_dropout = None
    for samples in (1, 4):
        model = deepcopy(first)
        fit(model, pairs, epochs=2, dropout_samples=samples, optimizer="adamw", seed=1, device="cpu")
        weights.append(torch.cat([value.flatten() for value in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


def test_batches_at_random_have_any_lengths_and_every_pair_once():
    chance = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 9, (60,), generator=chance).tolist()
    sentences = [[WORDS[(at + place) % 6] for place in range(size)] for at, size in enumerate(lengths)]
    pairs = SentencePairs(sentences, sentences, torch.rand(60, generator=chance)).with_vectors(
        WordVectors(WORDS, torch.eye(6))
    )
    epochs = []
    for epoch in (0, 0, 1):
        batches = Batches(pairs, 7, seed=3, by_length=False)
        batches.epoch = epoch
        epochs.append([share.batch.index.tolist() for share in batches])
        assert sorted(at for batch in epochs[-1] for at in batch) == list(range(60))
    assert epochs[0] == epochs[1] != epochs[2]
    assert any(len({lengths[at] for at in batch}) > 4 for batch in epochs[0])


def test_answers():
    logits = torch.randn(3, 4)
    torch.testing.assert_close(Objective("classes", 4).answer(logits), logits.softmax(1))
    places = (logits.softmax(1) * torch.tensor([0, 1 / 3, 2 / 3, 1])).sum(1)
    torch.testing.assert_close(Objective("bins", 4).answer(logits), places)
    torch.testing.assert_close(Objective("binary").answer(logits), logits.sigmoid())


def made_pairs(count=60, **more):
    """Pairs of which one word decides: the class is the number of words that both have."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randint(len(WORDS), (2, count, 3), generator=generator).tolist()
    left, right = ([[WORDS[word] for word in sentence] for sentence in side] for side in drawn)
    shared = [len(set(a) & set(b)) for a, b in zip(left, right, strict=True)]
    labels = {"labels": [min(n, 2) for n in shared], "classes": ["none", "one", "more"]}
    if more.pop("degrees", False):
        labels = {"labels": [min(n, 2) / 2 for n in shared]}
    if more.pop("second", False):
        labels |= {"second": [int(n > 0) for n in shared], "second_classes": ["no", "yes"]}
    vectors = WordVectors(WORDS, torch.randn(len(WORDS), 8, generator=generator))
    return SentencePairs(left, right, **labels).with_vectors(vectors)


def small_model(outputs, second=None):
    torch.manual_seed(0)
    tower = Tower(vector_width=8, filters=None, hidden=4, bidirectional=True, reduce="max", word_maximum=6)
    head = None if second is None else PairHead(tower.width, ("absolute difference",), outputs=second)
    features = ("absolute difference", "product")
    return TwoTowers(tower, tower, features=features, outputs=outputs, dropout=0.1, word_dropout=0.1, second=head)


HOW = {"epochs": 6, "lr": 0.02, "final_lr": 1e-3, "optimizer": "adamw", "weight_decay": 1e-4, "device": "cpu"}


@pytest.mark.parametrize(
    ("dev", "said"),
    [(False, "the answers after step 1 are not"), (True, "the loss of the dev pairs after step 1 is nan")],
)
def test_a_network_that_answers_nothing_after_its_last_step_is_not_kept(dev, said, tmp_path):
    pairs = made_pairs().select(range(8))
    how = {"batch_size": 8, "epochs": 1, "lr": 1e30, "optimizer": "adamw", "device": "cpu", "out": tmp_path / "run"}
    with pytest.raises(DivergedError, match=rf"training diverged: {said}.*\(epoch 1\)"):
        fit(small_model(3), pairs, pairs if dev else None, **how)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_classes_and_a_second_label_are_learned_and_resumed(tmp_path):
    pairs = made_pairs(second=True)
    model = small_model(3, second=2)
    history = fit(model, pairs, pairs, out=tmp_path / "run", **HOW)
    first, last = history.epochs[0].dev, history.epochs[-1].dev
    assert set(last) == {"loss", "accuracy", "second_accuracy"}
    assert last["loss"] < first["loss"]
    assert history.keep_best == "accuracy"
    assert history.majority == pairs.labels.bincount().max().item() / len(pairs)
    measured = evaluate(model, pairs, device="cpu")
    assert measured["accuracy"] == history.epochs[history.best - 1].dev["accuracy"]
    assert measured["second_accuracy"] > 0.5
    probabilities = predict(model, pairs, device="cpu")
    assert (probabilities.argmax(1) == pairs.labels).double().mean().item() == pytest.approx(measured["accuracy"])
    again = small_model(3, second=2)
    fit(again, pairs, pairs, out=tmp_path / "parts", **(HOW | {"epochs": 6, "save_every": 0}),
        on_epoch=lambda _: None)  # fmt: skip
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
    assert TwoTowers.load(tmp_path / "run").second.outputs == 2


def test_a_second_label_of_degrees_is_learned():
    pairs = made_pairs()
    pairs.second = pairs.labels / 2
    model = small_model(3, second=5)
    history = fit(model, pairs, pairs, **HOW)
    reached = history.epochs[history.best - 1].dev["second_pearson"]
    assert reached > 0.5
    assert evaluate(model, pairs, device="cpu")["second_pearson"] == pytest.approx(reached)
    (batch,) = pairs.batches(len(pairs))
    logits = model.eval().second(*model.states(batch.left, batch.right))
    degrees = (logits.softmax(1) * torch.tensor([0, 0.25, 0.5, 0.75, 1])).sum(1).detach().numpy()
    assert np.corrcoef(degrees, pairs.second[batch.index].numpy())[0, 1] == pytest.approx(reached, abs=1e-5)
    with pytest.raises(ValueError, match="second labels are degrees; the head has 1 output, and needs one for each"):
        fit(small_model(3, second=1), pairs)
    with pytest.raises(ValueError, match=r"line 1: the second label is 3; it must be from 0 to 1"):
        SentencePairs([["a"]], [["b"]], [1.0], second=[3.0])


def test_degrees_in_bins_are_learned():
    pairs = made_pairs(degrees=True)
    model = small_model(5)
    history = fit(model, pairs, pairs, **HOW)
    assert history.keep_best == "pearson"
    assert history.epochs[history.best - 1].dev["pearson"] > 0.5
    assert evaluate(model, pairs, device="cpu")["pearson"] == pytest.approx(
        np.corrcoef(mean_bin(predict(model, pairs, device="cpu")).numpy(), pairs.labels.numpy())[0, 1], abs=1e-5
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: fit(small_model(2), made_pairs()), r"train: labels are of 3 classes; the model has 2 outputs"),
        (lambda: fit(small_model(3), made_pairs(second=True)), r"train: the model has no second head; the other has one"),
        (lambda: fit(small_model(3, 2), made_pairs()), r"train: the pairs have no second label"),
        (lambda: fit(small_model(3, 4), made_pairs(second=True)), r"second labels are of 2 classes; the head has 4 outputs"),
        (lambda: fit(small_model(3), made_pairs(), weight_decay=0.1), r"weight_decay \(0.1\) goes with optimizer='adamw'"),
        (lambda: fit(small_model(3), made_pairs(), optimizer="sgd"), r"optimizer \('sgd'\) must be one of"),
        (lambda: fit(small_model(3), made_pairs(), correlation=-1.0), r"correlation \(-1.0\) must be a finite number"),
        (lambda: fit(small_model(3), made_pairs(), dropout_samples=True), r"dropout_samples \(True\) must be an int of at least 1"),
        (lambda: fit(small_model(3), made_pairs(), dropout_samples=0), r"dropout_samples \(0\) must be an int of at least 1"),
        (lambda: fit(OwnForward(Tower(vector_width=6), outputs=3), made_pairs(), dropout_samples=2),
         r"dropout_samples \(2\) go with the forward of TwoTowers; OwnForward has one of its own"),
        (lambda: fit(small_model(3), made_pairs(), smoothing=1), r"smoothing \(1\) must be a number of at least 0 and below 1"),
        (lambda: fit(small_model(3), made_pairs(), second_weight=math.nan), r"second_weight \(nan\) must be a finite number"),
        (lambda: fit(small_model(3), made_pairs(), by_length="no"), r"by_length \('no'\) must be True or False"),
        (lambda: fit(small_model(3), made_pairs(), final_lr=-1.0), r"final_lr \(-1.0\) must be a finite number"),
        (lambda: fit(small_model(3), made_pairs(), made_pairs(), keep_best="auc"), r"keep_best \('auc'\) must be one of 'loss', 'accuracy'"),
        (lambda: SentencePairs([["a"]], [["b"]], [3], classes=["x", "y"]), r"line 1: the label is 3; there are 2 classes"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_labels_of_names(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("sentence1\tsentence2\tlabel\tkind\na cat\ta dog\tNEUTRAL\tx\na cat\ta cat\tENTAILMENT\ty\n")
    pairs = SentencePairs.load(path, classes=True, second_label_column="kind")
    assert (pairs.classes, pairs.labels.tolist()) == (("ENTAILMENT", "NEUTRAL"), [1, 0])
    assert (pairs.second_classes, pairs.second.tolist()) == (("x", "y"), [0, 1])
    assert SentencePairs.load(path, yes="ENTAILMENT").labels.tolist() == [0, 1]
    assert SentencePairs.load(path, classes=["NEUTRAL", "ENTAILMENT"]).labels.tolist() == [0, 1]
    with pytest.raises(
        ValueError,
        match=r"pairs.tsv, line 2: label is 'NEUTRAL', none of the classes 'NEUTRAI'; did you mean 'NEUTRAI'",
    ):
        SentencePairs.load(path, classes=["NEUTRAI"])
    with pytest.raises(ValueError, match=r"no label is 'yes'; there are 'ENTAILMENT', 'NEUTRAL'"):
        SentencePairs.load(path, yes="yes")
