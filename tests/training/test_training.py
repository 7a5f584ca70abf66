import copy
import errno
import json
import logging
import math
import random
import signal
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from towers import Tower, TwoTowers, training
from towers.data import SentencePairs, sample_pairs
from towers.optim import KerasAdam
from towers.training.doubts import doubts
from towers.training.history import DivergedError, Epoch, History, draw_curves
from towers.training.loop import TowersModule
from towers.training.metrics import majority, measure
from towers.training.run import Run

from ..helpers.forked import Forks
from ..helpers.small import RESULTS, forgetful_model, names, same_weights, small_model, some_pairs, vectors, weights_of

# Learning.


def test_learns_and_measures():
    model, dev = small_model(), some_pairs(40, seed=1)
    history = training.fit(model, some_pairs(200), dev, epochs=6, lr=0.02)
    assert training.evaluate(model, dev)["accuracy"] == 1
    assert [epoch.number for epoch in history.epochs] == [1, 2, 3, 4, 5, 6]
    assert history.epochs[-1].train["loss"] < history.epochs[0].train["loss"] / 2
    assert history.majority == majority(dev.labels)
    assert set(history.epochs[0].dev) == {"loss", "accuracy", "auc"}


def test_soft_labels_are_measured_by_pearsons_r():
    model, dev = small_model(), some_pairs(40, seed=1, soft=True)
    history = training.fit(model, some_pairs(200, soft=True), dev, epochs=4, lr=0.02)
    measured = training.evaluate(model, dev)
    assert set(measured) == set(history.epochs[0].train) == {"loss", "pearson"}
    assert measured["pearson"] > 0.9
    assert (history.keep_best, history.majority) == ("pearson", None)


def test_a_loss_that_is_not_finite_stops_and_keeps_nothing(tmp_path):
    model = small_model()
    with pytest.raises(
        DivergedError, match=r"the loss of step 2 is nan \(epoch 1\); take a learning rate below 1e\+30"
    ):
        training.fit(model, some_pairs(), some_pairs(seed=1), out=tmp_path / "run", lr=1e30)
    assert "model.safetensors" not in names(tmp_path / "run")
    with pytest.raises(DivergedError, match="the loss of step 2 is nan") as caught:
        training.fit(small_model(), some_pairs(), some_pairs(seed=1), resume=tmp_path / "run")
    assert not hasattr(caught.value, "__notes__")  # to go on would be of no use


def test_a_weight_that_is_not_finite_stops_too():
    with pytest.raises(
        DivergedError, match=r"is not finite after step 1 \(epoch 1\); take a learning rate below 1e\+39"
    ):
        training.fit(small_model(), some_pairs(5), epochs=3, lr=1e39)


def test_a_later_step_is_named():
    model, train = small_model(), some_pairs(30)
    count = 0

    def poisoned(module, arguments, result):
        nonlocal count
        count += module.training
        return result * float("inf") if module.training and count == 9 else result

    model.register_forward_hook(poisoned)
    with pytest.raises(DivergedError, match=r"the loss of step 9 is (nan|inf) \(epoch 2\)"):
        training.fit(model, train, epochs=3, batch_size=5)


@pytest.mark.parametrize(
    ("soft", "said"),
    [
        (1, r"1 of 60 labels of memory is between 0 and 1 \(line 8: 0\.5\)"),
        (3, "3 of 60 labels of memory are"),
        (4, None),
    ],
)
def test_a_few_degrees_among_classes_are_named(soft, said):
    pairs = some_pairs(60)
    pairs.labels[7 : 7 + soft] = 0.5
    with pytest.warns(UserWarning, match=said) if said else nullcontext():
        history = training.fit(small_model(), pairs, epochs=1)
    assert set(history.epochs[0].train) == {"loss", "pearson"}


def test_is_the_plain_loop():
    """The same batches, loss and optimizer by hand; sums are not in the same order, so not bit for bit."""
    from towers.training.loop import Batches

    model, train = small_model(), some_pairs(33)
    by_hand = copy.deepcopy(model)
    history = training.fit(model, train, epochs=3, batch_size=5, lr=0.01, seed=4)
    optimizer, losses, batches = KerasAdam(by_hand.parameters(), lr=0.01), [], Batches(train, 5, seed=4)
    for epoch in range(3):
        batches.epoch, total = epoch, 0.0
        for batch, _, _ in batches:
            loss = binary_cross_entropy_with_logits(by_hand(batch.left, batch.right), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch.index) / len(train)
        losses.append(total)
    assert [epoch.train["loss"] for epoch in history.epochs] == pytest.approx(losses, rel=1e-4)
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_every_epoch_has_each_pair_once_in_an_order_of_its_own():
    from towers.training.loop import Batches

    batches = Batches(some_pairs(23), 5, seed=1)
    orders = []
    for batches.epoch in range(3):
        epoch = [share.batch.index for share in batches]
        assert len(epoch) == len(batches) == 5
        orders.append(torch.cat(epoch).tolist())
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert len(set(map(tuple, orders))) == 3


def test_same_seed_same_weights_bit_for_bit():
    results = {}
    for run, seed in (("first", 3), ("second", 3), ("other", 4)):
        model = small_model()
        torch.manual_seed(hash(run) % 1000)  # the caller's random state has no say
        training.fit(model, some_pairs(40), epochs=2, seed=seed)
        results[run] = weights_of(model)
    assert same_weights(results["first"], results["second"])
    assert not same_weights(results["first"], results["other"])


def test_dropout_starts_from_the_seed():
    results = []
    for _ in range(2):
        model = forgetful_model()
        training.fit(model, some_pairs(40), epochs=2)
        results.append(weights_of(model))
    assert same_weights(*results)


@pytest.mark.parametrize("word_dropout", [0.0, 0.3])
def test_one_call_of_a_shared_tower_for_both_sides_learns_what_two_do(word_dropout, monkeypatch):
    pairs, learned = sample_pairs(40), []
    for together in (True, False):
        torch.manual_seed(0)
        tower = Tower(filters=None, hidden=4, bidirectional=True, reduce="max", word_maximum=5)
        model = TwoTowers(tower, tower, features=("absolute difference", "product"), word_dropout=word_dropout)
        calls: list[int] = []
        tower.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        if not together:
            monkeypatch.setattr(TowersModule, "_together", False)
        training.fit(model, pairs, epochs=2, batch_size=8, progress=False, device="cpu")
        learned.append((len(calls), [weight.detach() for weight in model.parameters()]))
    assert learned[1][0] == 2 * learned[0][0] > 0
    torch.testing.assert_close(learned[0][1], learned[1][1], rtol=1e-4, atol=1e-6)


def test_the_same_tower_twice_stays_one():
    base = small_model()
    model = TwoTowers(base.left, base.left, dense=4)
    training.fit(model, some_pairs(20), epochs=1)
    assert model.left is model.right
    assert len(list(model.parameters())) == 5 + 4


# The best epoch.


@pytest.mark.parametrize(("keep_best", "best"), [("loss", min), ("accuracy", max), ("auc", max)])
def test_the_best_epoch_on_dev_is_kept(keep_best, best):
    model, dev = small_model(), some_pairs(20, seed=1)
    history = training.fit(model, some_pairs(20), dev, epochs=5, lr=0.2, keep_best=keep_best)
    values = [epoch.dev[keep_best] for epoch in history.epochs]
    assert len(set(values)) > 1
    assert values.index(best(values)) + 1 == history.best
    assert training.evaluate(model, dev)[keep_best] == pytest.approx(best(values), rel=1e-6)


@pytest.mark.parametrize("average", [None, 0.9])
def test_the_last_epoch_is_kept_where_that_is_said(average):
    dev, how = some_pairs(20, seed=1), {"epochs": 5, "lr": 0.2, "average": average}
    model, without = small_model(), small_model()
    history = training.fit(model, some_pairs(20), dev, keep_best="last", **how)
    training.fit(without, some_pairs(20), keep_best="last", **how)
    losses = [epoch.dev["loss"] for epoch in history.epochs]
    assert history.best == 5
    assert losses[-1] > min(losses), "another epoch would be better"
    assert same_weights(weights_of(model), weights_of(without))


def test_without_dev_the_last_epoch_is_kept():
    model, train = small_model(), some_pairs(20)
    history = training.fit(model, train, epochs=3)
    assert history.best == 3
    assert all(epoch.dev == {} for epoch in history.epochs)


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("loss", [3.0, 1.0, 2.0], 2),
        ("loss", [1.0, 1.0], 1),
        ("auc", [0.5, 0.7, 0.7], 2),
        ("auc", [math.nan, 0.4, math.nan], 2),
        ("loss", [math.nan, math.nan], 1),
    ],
    ids=["lower", "first of equals", "higher", "a number beats nan", "only nan"],
)
def test_history_knows_the_best(metric, values, best):
    history = History(metric)
    for number, value in enumerate(values, 1):
        history.add(Epoch(number, {"loss": 1.0}, {metric: value}, 0.0))
    assert history.best == best


# What it leaves behind.


def process_state():
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "random": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "warnings": list(warnings.filters),
        "levels": [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric", "")],
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    }


def test_leaves_the_process_as_it_was(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    training.predict(small_model(), some_pairs(5))  # what importing Lightning changes is changed by now
    before = process_state()
    training.fit(small_model(), some_pairs(20), some_pairs(9, seed=1), epochs=2)
    training.evaluate(small_model(), some_pairs(9))
    assert process_state() == before
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_leaves_the_model_where_and_what_it_was(precision):
    model = small_model()
    model.left.eval()
    modes = [module.training for module in model.modules()]
    history = training.fit(model, some_pairs(100), epochs=3, lr=0.02, precision=precision)
    assert history.epochs[-1].train["loss"] < history.epochs[0].train["loss"] < 1
    training.predict(model, some_pairs(5), precision=precision)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert [module.training for module in model.modules()] == modes


def test_a_model_of_another_dtype_keeps_it():
    model = small_model().double()
    training.fit(model, some_pairs(20), epochs=1)
    assert training.predict(model, some_pairs(3)).dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_a_bar_only_if_asked_for(capfd):
    lines = []
    training.fit(small_model(), some_pairs(60), epochs=2, progress=True, on_epoch=lines.append)
    out, err = capfd.readouterr()
    assert out == ""
    assert "epoch 2/2" in err
    assert "loss=" in err
    assert [line.number for line in lines] == [1, 2]


def test_ctrl_c_reaches_the_caller_and_works_again(tmp_path):
    handler = signal.getsignal(signal.SIGINT)

    def press(_):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        training.fit(small_model(), some_pairs(20), on_epoch=press, out=tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is handler
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]  # it can go on: test_resume.py


@pytest.mark.parametrize("handled", [False, True], ids=["no handler", "a handler that goes on"])
def test_sigterm_ends_with_its_exit_code(tmp_path, handled):
    calls, before = [], signal.getsignal(signal.SIGTERM)
    handler = (lambda *_: calls.append(1)) if handled else signal.SIG_DFL
    try:
        signal.signal(signal.SIGTERM, handler)
        with pytest.raises(SystemExit) as ended:
            training.fit(
                small_model(),
                some_pairs(20),
                on_epoch=lambda _: signal.raise_signal(signal.SIGTERM),
                out=tmp_path / "run",
            )
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143
    assert len(calls) == handled
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_an_error_of_the_caller_passes_through(tmp_path):
    model = small_model().eval()

    def fail(_):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        training.fit(model, some_pairs(20), on_epoch=fail, out=tmp_path / "run")
    assert not model.training
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["resume-1.safetensors", "resume.json"]


def test_where_the_measure_is_not_defined_the_loss_chooses_the_epoch():
    history = History(keep_best="pearson")
    for number, loss in enumerate([0.5, 0.3, 0.4], 1):
        history.add(Epoch(number, {}, {"loss": loss, "pearson": math.nan}, 0.0))
    assert history.best == 2


# A run on disk.


def test_a_run_is_four_files_and_what_it_can_go_on_from(tmp_path):
    model, dev = small_model(), some_pairs(20, seed=1)
    history = training.fit(model, some_pairs(40), dev, epochs=2, out=tmp_path / "a" / "run")
    folder = tmp_path / "a" / "run"
    assert names(folder.parent) == ["run"]
    assert names(folder) == [*RESULTS, "resume-2.safetensors", "resume.json", "vectors.safetensors"]
    assert torch.equal(training.predict(TwoTowers.load(folder), dev), training.predict(model, dev))
    metrics = json.loads((folder / "metrics.json").read_text("utf8"))
    assert metrics["best_epoch"] == history.best
    assert metrics["origin"]["pairs"] == {"train": some_pairs(40).fingerprint(), "dev": dev.fingerprint()}
    assert (metrics["origin"]["command"], metrics["origin"]["settings"]["epochs"]) == (None, 2)
    assert metrics["epochs"][1]["dev"] == history.epochs[1].dev
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1, "all may be read by the same people"


def test_a_run_carries_what_the_caller_adds(tmp_path):
    history = History()
    history.add(Epoch(1, {"loss": 1.0, "accuracy": math.nan}, {}, 0.0))
    with Run.new(tmp_path / "run", {}) as run:
        run.finish(small_model(), history, metrics={"test": {"auc": math.nan}}, extra={"vectors": {"x": "1"}})
    text = (tmp_path / "run" / "metrics.json").read_text("utf8")
    assert json.loads(text)["test"] == {"auc": None}
    assert json.loads(text)["epochs"][0]["train"] == {"loss": 1.0, "accuracy": None}
    assert json.loads((tmp_path / "run" / "config.json").read_text("utf8"))["vectors"] == {"x": "1"}


@pytest.mark.parametrize("out", [".", "link", "dangling"])
def test_an_empty_folder_stays_the_folder_that_it_is(tmp_path, monkeypatch, out):
    """Nothing is made beside it: its parent may be unwritable, or it a mount point."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    inode = empty.stat().st_ino
    (tmp_path / "link").symlink_to(empty)
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    training.fit(small_model(), some_pairs(20), epochs=1, out=out if out == "." else tmp_path / out)
    folder = tmp_path / "new" if out == "dangling" else empty
    assert names(folder)[:4] == RESULTS
    assert empty.stat().st_ino == inode
    assert (tmp_path / "link").is_symlink()
    TwoTowers.load(folder)


def test_the_config_comes_last_and_a_failure_leaves_what_can_go_on(tmp_path, monkeypatch):
    moved, replace = [], Path.replace

    def fail_at_the_config(self, target):
        moved.append(Path(target).name)
        if moved[-1] == "config.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_at_the_config)
    with pytest.raises(OSError, match="No space left on device") as refused:
        training.fit(small_model(), some_pairs(20), epochs=1, out=tmp_path)
    assert refused.value.filename == str(tmp_path / "config.json")
    assert moved[-4:] == ["metrics.json", "curves.png", "model.safetensors", "config.json"]
    monkeypatch.undo()
    training.fit(small_model(), some_pairs(20), resume=tmp_path)
    assert names(tmp_path)[:4] == RESULTS


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "x")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(
        PermissionError, match=r"nothing can be written there \(Permission denied\); name another folder"
    ):
        training.fit(small_model(), some_pairs(20), out=tmp_path, on_epoch=lambda _: pytest.fail("too late"))


def test_a_folder_that_holds_something_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds something already; name another folder"):
        training.fit(small_model(), some_pairs(20), out=tmp_path)
    with pytest.raises(FileExistsError, match="is a file"):
        training.fit(small_model(), some_pairs(20), out=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_next_free_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    taken = []
    for _ in range(3):
        with Run.new(None, {}) as run:
            run.begun = True  # as if there were a state: it stays
            taken.append(str(run.path))
    assert taken == ["towers-run", "towers-run-2", "towers-run-3"]


@pytest.mark.parametrize("dev", [{}, {"loss": 0.5, "accuracy": 0.8, "auc": math.nan}], ids=["train", "dev"])
def test_curves_of_one_epoch(tmp_path, dev):
    history = History(majority=0.7)
    history.add(Epoch(1, {"loss": 0.6, "accuracy": 0.7, "auc": 0.7}, dev, 0.0))
    draw_curves(history, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


# Measuring and predicting.


def test_measures_as_by_hand():
    numbers = np.random.default_rng(0)
    logits, labels = numbers.normal(size=200) * 3, numbers.integers(0, 2, 200)
    p = 1 / (1 + np.exp(-logits))
    above = logits[labels == 1][:, None] > logits[labels == 0]
    measured = measure(torch.tensor(logits), torch.tensor(labels))
    assert measured["loss"] == pytest.approx(-np.log(np.where(labels == 1, p, 1 - p)).mean(), rel=1e-9)
    assert measured["accuracy"] == pytest.approx(((logits > 0) == labels).mean(), abs=1e-6)
    assert measured["auc"] == pytest.approx(above.mean(), abs=1e-6)
    soft = measure(torch.tensor(logits), torch.tensor(labels * 0.5 + 0.1))
    assert soft["pearson"] == pytest.approx(np.corrcoef(p, labels)[0, 1], rel=1e-9)


def test_the_area_under_the_curve_is_that_of_logits():
    logits = torch.tensor([98.0, 98.5, 97.5, 99.0, -98.0, 33.0, 33.1])  # sigmoid makes 1 of the first four
    labels = torch.tensor([0.0, 1, 1, 1, 1, 0, 1])
    assert measure(logits, labels)["auc"] == pytest.approx(0.6), "of ten pairs of a yes and a no, six are in order"
    logits[2] = math.nan
    assert math.isnan(measure(logits, labels)["auc"])


def test_pearsons_r_of_numbers_that_hardly_differ():
    logits = torch.linspace(0, 1e-6, 9, dtype=torch.float64)
    assert measure(logits, torch.linspace(0.1, 0.9, 9))["pearson"] == pytest.approx(1, abs=1e-6)


def test_what_is_not_defined_is_nan():
    assert math.isnan(measure(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]))["auc"])
    assert math.isnan(measure(torch.tensor([1.0, 1.0]), torch.tensor([0.2, 0.4]))["pearson"])
    assert math.isnan(measure(torch.tensor([1.0]), torch.tensor([0.2]))["pearson"])


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_predicts_in_order_whatever_the_batches(batch_size):
    model, pairs = small_model(), some_pairs(30, labelled=False)
    alone = [training.predict(model, pairs.select([i])).item() for i in range(30)]
    assert training.predict(model, pairs, batch_size=batch_size).tolist() == pytest.approx(alone, rel=1e-5)


def test_predictions_can_be_computed_with():
    model, pairs = small_model(), some_pairs(5)
    predicted = training.predict(model, pairs)
    weight = torch.ones(5, requires_grad=True)
    (weight * predicted).sum().backward()
    training.fit(model, pairs, epochs=1)  # nothing was left behind that cannot be trained
    assert predicted.shape == (5,)


def test_nothing_to_predict():
    assert training.predict(small_model(), some_pairs(3).select([])).shape == (0,)


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, r"epochs \(0\) must be an int of at least 1"),
        ({"epochs": 1.5}, r"epochs \(1.5\) must be an int of at least 1"),
        ({"batch_size": 0}, r"batch_size \(0\) must be an int of at least 1"),
        ({"batch_size": 2.5}, r"batch_size \(2.5\) must be an int of at least 1"),
        ({"lr": 0.0}, r"lr \(0.0\) must be a finite number above 0"),
        ({"lr": math.inf}, r"lr \(inf\) must be a finite number above 0"),
        ({"lr": math.nan}, r"lr \(nan\) must be a finite number above 0"),
        ({"lr": "fast"}, r"lr \(fast\) must be a finite number above 0"),
        ({"seed": -1}, r"seed \(-1\) must be an int from 0 to"),
        ({"seed": 0.5}, r"seed \(0.5\) must be an int from 0 to"),
        ({"keep_best": "pearson"}, r"keep_best \('pearson'\) must be one of 'loss', 'accuracy', 'auc'"),
        ({"keep_best": "last", "patience": 2}, r"patience \(2\) waits for a better epoch, and keep_best='last' keeps"),
        ({"precision": "16"}, r"precision \('16'\) must be one of '32-true'"),
        ({"device": "toaster"}, r"device \('toaster'\) is none that torch knows"),
        ({"device": "mps"}, r"device \('mps'\) is none that towers trains on; say auto, cpu or cuda"),
        ({"device": "meta"}, r"device \('meta'\) is none that towers trains on"),
        ({"device": "cuda:99"}, r"device \(cuda:99\): torch finds \d+ CUDA devices"),
    ],
)
def test_senseless_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        training.fit(small_model(), some_pairs(5), **options)


def test_pairs_of_another_type():
    pairs = [(("yes", "no"), ("well", "now"), 1.0)]
    with pytest.raises(
        TypeError, match=r"train must be towers.data.SentencePairs, or a table with named columns, not list"
    ):
        training.fit(small_model(), pairs)
    with pytest.raises(TypeError, match=r"dev must be towers.data.SentencePairs, or a table .*, not list"):
        training.fit(small_model(), some_pairs(5), pairs)
    for measured in (training.evaluate, training.predict):
        with pytest.raises(TypeError, match=r"pairs must be towers.data.SentencePairs, not list"):
            measured(small_model(), pairs)


def test_pairs_without_labels_or_without_anything():
    with pytest.raises(ValueError, match=r"dev: the pairs of memory have no labels; load them with label_column"):
        training.fit(small_model(), some_pairs(5), some_pairs(5, labelled=False))
    with pytest.raises(ValueError, match="pairs: there are no pairs in memory"):
        training.evaluate(small_model(), some_pairs(5).select([]))


@pytest.mark.parametrize("package", ["lightning", "torchmetrics", "matplotlib", "safetensors"])
def test_a_missing_package_names_the_install_line(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'{package} is not installed: pip install "towers\[train\]"'):
        training.fit(small_model(), some_pairs(5))


def test_importing_training_does_not_import_lightning(forks: Forks):
    code = "import sys, towers.training; print('lightning' in sys.modules, 'torchmetrics' in sys.modules)"
    run = forks.run([forks.with_torch, "-c", code])
    assert run.stdout.split() == ["False", "False"]


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_on_cuda_and_back(precision):
    state = torch.cuda.get_rng_state()
    model, train, dev = small_model(), some_pairs(200), some_pairs(40, seed=1)
    on_cpu = small_model()
    history = training.fit(model, train, dev, epochs=3, lr=0.02, device="cuda", precision=precision)
    expected = training.fit(on_cpu, train, dev, epochs=3, lr=0.02, device="cpu", precision=precision)
    assert next(model.parameters()).device.type == "cpu"
    assert torch.equal(torch.cuda.get_rng_state(), state)
    tolerance = 1e-3 if precision == "32-true" else 0.1
    assert history.epochs[-1].dev["loss"] == pytest.approx(expected.epochs[-1].dev["loss"], abs=tolerance)
    predicted = training.predict(model.cuda(), dev, device="cuda")
    assert predicted.device.type == "cpu"
    assert next(model.parameters()).device.type == "cuda"


# Labels from which nothing, or something else, would be learned.


def labelled(labels, classes=None):
    pairs = some_pairs(len(labels))
    return SentencePairs(pairs.left, pairs.right, labels, classes=classes).with_vectors(vectors())


@pytest.mark.parametrize(
    ("labels", "classes", "said"),
    [
        ([1.0] * 6, None, "all 6 labels of memory are equal"),
        ([1] * 4, ["no", "yes"], "all 4 labels of memory are 'yes'"),
    ],
)
def test_equal_labels_are_nothing_to_learn(labels, classes, said):
    model = small_model() if classes is None else TwoTowers(outputs=2)
    with pytest.raises(ValueError, match=f"train: {said}, so there is nothing to learn"):
        training.fit(model, labelled(labels, classes))


def test_equal_dev_labels_are_named():
    assert list(doubts({"train": some_pairs(9, soft=True), "dev": labelled([0.5] * 4)})) == [
        "dev: all 4 labels of memory are equal: Pearson's r is not defined; the loss chooses in its place"
    ]
    assert "area under the curve" in next(doubts({"train": some_pairs(9), "dev": labelled([1.0] * 4)}))
    assert not list(doubts({"train": some_pairs(9), "dev": some_pairs(9)}))


def test_classes_that_are_probably_no_classes_are_named():
    def said(*classes):
        return list(doubts({"train": labelled([0], list(classes))}))

    (alike,) = said("Ja", "JA", "j a", "nein", "ne\u0301e", "n\u00e9e")[:1]
    assert alike.startswith("the classes 'Ja', 'JA', 'j a' are alike but for case, spaces")
    assert len(said("ne\u0301e", "n\u00e9e")) == 1
    degrees = [f"{number // 10},{number % 10}" for number in range(21)]
    (numbers,) = said(*degrees)
    assert numbers.startswith("there are 21 classes, and 21 of them look like numbers ('0,0', '0,1', '0,2', …)")
    assert not said(*degrees[:20])
    assert said("class", "other")[0].startswith("a class is named 'class', as the column that towers predict adds")
    assert not said("entailment", "neutral", "contradiction")
