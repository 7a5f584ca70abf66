"""Training that goes on: from every state that a run ever had, after every way in which it can end."""

import errno
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from towers import TwoTowers, training
from towers.checkpoint import FORMAT
from towers.training.run import Run

from ..helpers.forked import Forks
from ..helpers.small import RESULTS, forgetful_model, names, same_weights, small_model, some_pairs, weights_of

OPTIONS = {"epochs": 3, "batch_size": 7, "lr": 0.05, "seed": 2, "save_every": 0}
TRAIN, DEV = some_pairs(24), some_pairs(11, seed=1)


@pytest.fixture(autouse=True)
def quick_curves():
    """Drawing would be most of the time of these runs, and is looked at elsewhere. No test's own `undo` ends it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("towers.training.run.draw_curves", lambda history, path: path.write_bytes(b"\x89PNG"))
        yield


def told(history):
    """A history without its times; NaN is equal to itself in text."""
    return repr([(epoch.number, epoch.train, epoch.dev) for epoch in history.epochs] + [history.best])


def every_state(folder, monkeypatch):
    """Keep a copy of the folder after each time that a run saves."""
    copies, save = [], Run.save

    def and_copy(self, *arguments):
        save(self, *arguments)
        copies.append(shutil.copytree(self.path, folder / str(len(copies))))

    monkeypatch.setattr(Run, "save", and_copy)
    return copies


# From any moment.


ADAMW = {"optimizer": "adamw", "weight_decay": 0.1, "lr": 0.02, "final_lr": 0.001}


@pytest.mark.parametrize(
    "how",
    [{"precision": "32-true"}, {"precision": "64-true"}, {"precision": "bf16-mixed"}, ADAMW, ADAMW | {"average": 0.8}],
    ids=str,
)
def test_from_every_state_to_the_same_end_bit_for_bit(tmp_path, monkeypatch, how):
    """Weights, optimizer, order of batches, dropout's numbers, the best epoch, the position inside an epoch."""
    options, precision = {**OPTIONS, **how}, how.get("precision")
    uninterrupted = forgetful_model()
    expected = training.fit(uninterrupted, TRAIN, DEV, **options)
    copies, model = every_state(tmp_path, monkeypatch), forgetful_model()
    history = training.fit(model, TRAIN, DEV, out=tmp_path / "run", **options)
    assert same_weights(weights_of(model), weights_of(uninterrupted)), "saving changes nothing"
    assert told(history) == told(expected)
    monkeypatch.undo()
    assert len(copies) == 1 + 3 * 4 + 1  # at the start, after each of 3 x 4 steps, at the end
    assert history.best < 3 or precision != "32-true", "else the best weights are not looked at"
    for copy in copies if precision == "32-true" else copies[5:7]:
        torch.manual_seed(99)
        model = forgetful_model(seed=5)
        history = training.fit(model, TRAIN, DEV, resume=copy)
        assert same_weights(weights_of(model), weights_of(uninterrupted)), copy
        assert told(history) == told(expected)
        assert names(copy)[:4] == RESULTS
        assert same_weights(TwoTowers.load(copy).state_dict(), weights_of(uninterrupted))


@pytest.mark.long
def test_killed_at_twenty_random_moments(tmp_path, forks: Forks):
    script = Path(__file__).parents[1] / "helpers/killed.py"
    command = [forks.python, script, tmp_path, "20"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("kill ") >= 20


def test_more_epochs_are_one_longer_run(tmp_path):
    model, longer = forgetful_model(), forgetful_model()
    training.fit(model, TRAIN, DEV, out=tmp_path / "run", **OPTIONS)
    expected = training.fit(longer, TRAIN, DEV, **{**OPTIONS, "epochs": 5})
    history = training.fit(model, TRAIN, DEV, resume=tmp_path / "run", epochs=5)
    assert same_weights(weights_of(model), weights_of(longer))
    assert told(history) == told(expected)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"][4]["epoch"] == 5


@pytest.mark.parametrize("dev", [DEV, None], ids=["dev", "no dev"])
def test_a_finished_run_gives_its_model_and_history_again(tmp_path, dev):
    model, again = small_model(), small_model(seed=5)
    history = training.fit(model, TRAIN, dev, out=tmp_path / "run", **OPTIONS)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    assert told(training.fit(again, TRAIN, dev, resume=tmp_path / "run")) == told(history)
    assert same_weights(weights_of(again), weights_of(model))
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == before


def test_states_are_saved_now_and_then_only(tmp_path, monkeypatch):
    copies = every_state(tmp_path, monkeypatch)
    training.fit(small_model(), TRAIN, out=tmp_path / "run", **{**OPTIONS, "save_every": 1000})
    assert len(copies) == 2, "at the start and at the end"


def test_no_pickle_is_read_or_written(tmp_path, monkeypatch):
    for name in ("load", "save"):
        monkeypatch.setattr(torch, name, lambda *_, **__: pytest.fail("a pickle"))
    training.fit(small_model(), TRAIN, DEV, out=tmp_path / "run", **{**OPTIONS, "epochs": 1})
    training.fit(small_model(), TRAIN, DEV, resume=tmp_path / "run", epochs=2)
    assert {path.suffix for path in (tmp_path / "run").iterdir()} == {".json", ".png", ".safetensors"}


# What ends it.


def interrupted(folder, at, number, model=None, **options):
    """Train until a signal comes in the epoch `at`."""
    model = small_model() if model is None else model
    training.fit(
        model,
        TRAIN,
        DEV,
        out=folder,
        on_epoch=lambda epoch: signal.raise_signal(number) if epoch.number == at else None,
        **{**OPTIONS, "save_every": 1000, **options},
    )


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_signals_save_first_and_say_how_to_go_on(tmp_path, number, error):
    with pytest.raises(error) as ended:
        interrupted(tmp_path / "run", 2, number)
    assert ended.value.__notes__ == [f"saved in {tmp_path}/run: 2 epochs done; go on with: resume='{tmp_path}/run'"]
    assert names(tmp_path / "run") == ["resume-2.safetensors", "resume.json"]
    model, whole = small_model(seed=5), small_model()
    training.fit(model, TRAIN, DEV, resume=tmp_path / "run")
    training.fit(whole, TRAIN, DEV, **OPTIONS)
    assert same_weights(weights_of(model), weights_of(whole))


def test_a_signal_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    calls, forward = [], TwoTowers.forward

    def press(self, *arguments):
        calls.append(1)
        if len(calls) == 7:  # the second step of the second epoch, after 4 steps and a batch of dev pairs
            signal.raise_signal(signal.SIGINT)
        return forward(self, *arguments)

    monkeypatch.setattr(TwoTowers, "forward", press)
    with pytest.raises(KeyboardInterrupt) as ended:
        interrupted(tmp_path / "run", 9, signal.SIGINT)
    assert "run: 1 epoch and 2 batches done; go on with" in ended.value.__notes__[0]


def test_a_second_signal_ends_at_once(tmp_path):
    def press_twice(_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")

    with pytest.raises(KeyboardInterrupt) as ended:
        training.fit(small_model(), TRAIN, out=tmp_path / "run", on_epoch=press_twice, **OPTIONS)
    assert "3 batches done; go on with" in ended.value.__notes__[0], "the state before"


def test_ones_own_handler_of_ctrl_c_stays_in_charge(tmp_path):
    calls, before = [], signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, lambda *_: calls.append(1))
        interrupted(tmp_path / "run", 2, signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == [1]
    assert names(tmp_path / "run")[:4] == RESULTS


@pytest.fixture(scope="module")
def after_one_epoch():
    """The weights of a run of one epoch whose disk was never full."""
    model = small_model()
    training.fit(model, TRAIN, DEV, **{**OPTIONS, "epochs": 1})
    return weights_of(model)


@pytest.mark.parametrize("write", range(1, 17))
def test_a_full_disk_leaves_the_last_good_state(tmp_path, monkeypatch, after_one_epoch, write):
    """The disk is full from some write on: tensors, resume.json, results."""
    writes, fsync = [], os.fsync

    def full(file):
        writes.append(file)
        if len(writes) >= write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    options = {**OPTIONS, "epochs": 1}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as refused:
        training.fit(small_model(), TRAIN, DEV, out=tmp_path / "run", **options)
    assert str(tmp_path) in refused.value.filename, "the file is named"
    monkeypatch.undo()
    if write <= 3:  # before there was a state: nothing is left
        assert names(tmp_path) == []
        return
    assert "go on with: resume=" in refused.value.__notes__[0]
    assert not list((tmp_path / "run").glob(".*"))
    model = small_model(seed=5)
    training.fit(model, TRAIN, DEV, resume=tmp_path / "run")
    assert same_weights(weights_of(model), after_one_epoch)


def test_a_file_that_may_not_grow_is_the_systems_own_error(tmp_path):
    """No stand-in: the system refuses the bytes."""
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "run", 1, signal.SIGINT)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        with pytest.raises(OSError, match="File too large"):
            training.fit(small_model(), TRAIN, DEV, resume=tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    training.fit(small_model(), TRAIN, DEV, resume=tmp_path / "run")


# Early stopping, TensorBoard.


def worsening(*values):
    """Stand-in for what is measured: dev losses, in this order."""
    numbers = iter([x for value in values for x in (0.5, value)])  # of the training pairs, of the dev pairs
    return lambda *_, **__: {"loss": next(numbers)}


def test_patience_ends_after_so_many_epochs_without_a_better_one(tmp_path, monkeypatch):
    monkeypatch.setattr("towers.training.metrics.measure", worsening(3.0, 2.0, 2.0, 2.5, 1.0))
    history = training.fit(small_model(), TRAIN, DEV, patience=2, out=tmp_path / "run", **{**OPTIONS, "epochs": 9})
    assert [epoch.dev["loss"] for epoch in history.epochs] == [3.0, 2.0, 2.0, 2.5]
    assert (history.best, history.stale) == (2, 2)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["best_epoch"] == 2
    again = training.fit(small_model(), TRAIN, DEV, resume=tmp_path / "run", epochs=20)
    assert len(again.epochs) == 4, "still out of patience"
    monkeypatch.setattr("towers.training.metrics.measure", worsening(1.0, 4.0, 4.0, 4.0))
    longer = training.fit(small_model(), TRAIN, DEV, resume=tmp_path / "run", patience=3)
    assert (len(longer.epochs), longer.best) == (8, 5)


def test_tensorboard_reads_what_a_run_that_went_on_has_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "run", 2, signal.SIGINT, tensorboard=True)
    history = training.fit(small_model(), TRAIN, DEV, resume=tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    names = {f"{name}/{part}" for name in ("loss", "accuracy", "auc") for part in ("train", "dev")}
    assert names == set(events.Tags()["scalars"])
    for name in ("loss", "auc"):
        read = events.Scalars(f"{name}/dev")
        assert [event.step for event in read] == [4, 8, 12]
        assert [event.value for event in read] == pytest.approx([epoch.dev[name] for epoch in history.epochs])


def test_tensorboard_takes_back_what_came_after_the_state(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr("towers.training.epochs.LOSS_EVERY", 1)
    options = {**OPTIONS, "save_every": 1000, "tensorboard": True}
    with pytest.raises(RuntimeError, match="lost"):
        training.fit(small_model(), TRAIN, out=tmp_path / "run", on_epoch=fail_in(2), **options)
    training.fit(small_model(), TRAIN, resume=tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/train")] == [4, 8, 12]
    assert [event.step for event in events.Scalars("loss/batch")] == list(range(1, 13))


def fail_in(number):
    def fail(epoch):
        if epoch.number == number:
            raise RuntimeError("lost")

    return fail


def test_without_tensorboard_the_error_is_the_install_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r'tensorboard is not installed: pip install "towers\[train,tensorboard\]"'):
        training.fit(small_model(), TRAIN, out=tmp_path / "run", tensorboard=True)
    assert names(tmp_path) == []


# Overwriting.


def test_a_run_is_replaced_when_the_new_one_has_its_first_state(tmp_path):
    training.fit(small_model(), TRAIN, DEV, out=tmp_path / "run", **OPTIONS)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(FileExistsError, match="run: holds a run already; resume goes on with it, overwrite replaces"):
        training.fit(small_model(), TRAIN, out=tmp_path / "run")
    with pytest.raises(ValueError, match="dev: the pairs of memory have no labels"):
        training.fit(small_model(), TRAIN, some_pairs(3, labelled=False), out=tmp_path / "run", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "run", 1, signal.SIGINT, overwrite=True)
    assert [name for name in names(tmp_path / "run") if not name.startswith("resume-")] == ["notes.txt", "resume.json"]
    training.fit(small_model(), TRAIN, DEV, resume=tmp_path / "run")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_overwrite_is_for_runs_only(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something already"):
        training.fit(small_model(), TRAIN, out=tmp_path, overwrite=True)
    assert names(tmp_path) == ["file"]


def test_one_process_at_a_time_works_on_a_run(tmp_path):
    def meanwhile(_):
        with pytest.raises(FileExistsError, match="run: another process works on it"):
            training.fit(small_model(), TRAIN, DEV, resume=tmp_path / "run")
        with pytest.raises(FileExistsError, match="run: another process works on it"):
            training.fit(small_model(), TRAIN, DEV, out=tmp_path / "run", overwrite=True)

    training.fit(small_model(), TRAIN, DEV, out=tmp_path / "run", on_epoch=meanwhile, **OPTIONS)


# What is refused.


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("halfway") / "run"
    with pytest.raises(KeyboardInterrupt):
        interrupted(folder, 2, signal.SIGINT, patience=3)
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.1}, r"lr \(0.1\) contradicts the run in .*run, which has 0.05; leave it out, or start another run"),
        ({"batch_size": 8}, r"batch_size \(8\) contradicts the run in .*, which has 7"),
        ({"precision": "64-true"}, r"precision \(64-true\) contradicts the run in .*, which has 32-true"),
        ({"epochs": 2}, r"epochs \(2\) are fewer than the 3 of the run in .*; say more"),
        ({"out": "x"}, r"resume goes on in its own folder; leave out and overwrite out"),
        ({"overwrite": True}, r"resume goes on in its own folder"),
    ],
    ids=str,
)
def test_options_that_contradict_the_run(halfway, options, message):
    before = {path.name: path.read_bytes() for path in halfway.iterdir()}
    with pytest.raises(ValueError, match=message):
        training.fit(small_model(), TRAIN, DEV, **{"resume": halfway, **options})
    assert {path.name: path.read_bytes() for path in halfway.iterdir()} == before


@pytest.mark.parametrize(
    ("train", "dev", "part"),
    [
        (some_pairs(24, seed=9), DEV, "train"),
        (TRAIN.select(range(23)), DEV, "train"),
        (some_pairs(24, soft=True), DEV, "train"),
        (TRAIN, some_pairs(11, seed=9), "dev"),
        (TRAIN, None, "dev"),
    ],
    ids=["other pairs", "one less", "other labels", "other dev pairs", "no dev pairs"],
)
def test_other_pairs_than_the_runs(halfway, train, dev, part):
    with pytest.raises(
        ValueError, match=rf"(?s){part}: the pairs, or their vectors, are not those with which|patience"
    ):
        training.fit(small_model(), train, dev, resume=halfway)


def test_another_model_than_the_runs(halfway):
    with pytest.raises(
        ValueError, match=r"model: is not that of the run in .*: left.conv.weight is \(.*\) and \(.*\) there"
    ):
        training.fit(TwoTowers(), TRAIN, DEV, resume=halfway)


def entries(folder, **changes):
    path = folder / "resume.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: shutil.rmtree(f), FileNotFoundError, "run: no folder; resume takes the folder of a run"),
        (lambda f: (f / "resume.json").unlink(), FileNotFoundError, r"there is no resume.json \(no run\); start another"),
        (lambda f: (f / "resume.json").write_text("{"), ValueError, "resume.json: is damaged"),
        (lambda f: (f / "resume.json").write_text("[" * 100_000), ValueError, "resume.json: is damaged"),
        (lambda f: entries(f, format=FORMAT + 1), ValueError, rf"has format {FORMAT + 1}; towers \S+ reads up to format {FORMAT}"),
        (lambda f: entries(f, settings=None), ValueError, "resume.json: is damaged"),
        (lambda f: entries(f, history=None), ValueError, "resume.json: is damaged"),
        (lambda f: entries(f, position=7), ValueError, "resume.json: is damaged"),
        (lambda f: entries(f, pairs=7), ValueError, "resume.json: is damaged"),
        (lambda f: entries(f, tensors=None), ValueError, "None: is damaged or no safetensors file"),
        (lambda f: next(f.glob("*.safetensors")).unlink(), ValueError, r"resume-\d+.safetensors: is damaged"),
        (lambda f: next(f.glob("*.safetensors")).write_bytes(b"no"), ValueError, r"resume-\d+.safetensors: is damaged"),
    ],
)  # fmt: skip
def test_a_folder_that_is_damaged(tmp_path, halfway, damage, error, message):
    folder = shutil.copytree(halfway, tmp_path / "run")
    damage(folder)
    with pytest.raises(error, match=message):
        training.fit(small_model(), TRAIN, DEV, resume=folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, r"patience \(0\) must be an int of at least 1"),
        ({"keep_best": "auc"}, r"keep_best \('auc'\) looks at the dev pairs, and there are none; give dev"),
        ({"patience": 1}, r"patience \(1\) looks at the dev pairs, and there are none; give dev"),
        ({"save_every": -1}, r"save_every \(-1\) must be a finite number of at least 0"),
        ({"save_every": math.nan}, r"save_every \(nan\) must be a finite number of at least 0"),
        ({"tensorboard": True}, r"tensorboard: its events go to the run's folder; give out"),
    ],
)
def test_senseless_options(options, message):
    with pytest.raises(ValueError, match=message):
        training.fit(small_model(), TRAIN, **options)
