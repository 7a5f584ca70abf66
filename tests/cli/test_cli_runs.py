"""`towers fit` and its runs: going on, replacing, JSON, and options that exclude each other."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from towers import TwoTowers
from towers.cli import main
from towers.data.kept_vectors import load_vectors
from towers.training.run import Run

from ..helpers.killed import BEGIN, write_files
from ..helpers.small import RESULTS, names


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files()
    return tmp_path


@pytest.fixture
def interrupted(monkeypatch, capsys):
    """A run that Ctrl-C ended after its second epoch, and what it said."""

    class Pressed(Run):
        def save(self, entries, tensors):
            super().save(entries, tensors)
            if len(entries["history"]["epochs"]) == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("towers.cli.fit_job.Run", Pressed)
        assert main([*BEGIN, "--out", "run", "--test", "train.tsv"]) == 130
    return capsys.readouterr()


def refused(capsys, *arguments):
    """What a refusal said: one line on standard error."""
    capsys.readouterr()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_a_folder_answers_without_the_vectors_of_its_training(files, capsys, monkeypatch):
    assert main([*BEGIN, "--out", "run"]) == 0
    assert main(["predict", "--model", "run", "--pairs", "dev.tsv", "--out", "before.tsv"]) == 0
    Path("run").rename("moved")
    monkeypatch.setenv("HOME", str(files / "nowhere"))
    Path("vectors.txt").rename("elsewhere.txt")
    assert str(files) not in Path("moved/config.json").read_text()
    assert main(["predict", "--model", "moved", "--pairs", "dev.tsv", "--out", "after.tsv"]) == 0
    assert Path("before.tsv").read_text() == Path("after.tsv").read_text()
    assert (
        main(["predict", "--model", "moved", "--pairs", "dev.tsv", "--vectors", "elsewhere.txt", "--out", "same.tsv"])
        == 0
    )
    assert Path("before.tsv").read_text() == Path("same.tsv").read_text()
    rows = Path("elsewhere.txt").read_text().splitlines()
    rows[0] = rows[0].replace(rows[0].split()[3], "0.9")
    Path("edited.txt").write_text("\n".join(rows) + "\n")
    said = refused(
        capsys, "predict", "--model", "moved", "--pairs", "dev.tsv", "--vectors", "edited.txt", "--out", "x.tsv"
    )
    assert "edited.txt: these are not the vectors that the model learned with: 'the' has other numbers" in said
    assert not Path("x.tsv").exists()


@pytest.mark.parametrize(
    ("options", "kept"),
    [([], 11), (["--keep-words", "2"], 10), (["--keep-words", "all"], 11), (["--keep-words", "0"], 8)],
)
def test_which_words_a_folder_carries(files, options, kept):
    rare = [f"rare{number} " + " ".join(["0.5"] * 6) for number in range(2)]
    lines = Path("vectors.txt").read_text().splitlines()
    Path("vectors.txt").write_text("\n".join([*rare, *lines, "last 1 1 1 1 1 1"]) + "\n")
    assert main([*BEGIN, "--out", "run", "--epochs", "1", *options]) == 0
    assert len(load_vectors("run").words) == kept


def test_a_degree_among_classes_is_named(files, capsys):
    lines = Path("train.tsv").read_text().splitlines()
    lines[3] = lines[3].rpartition("\t")[0] + "\t0.5"
    Path("train.tsv").write_text("\n".join(lines) + "\n")
    assert main([*BEGIN, "--out", "run"]) == 0
    assert (
        "towers fit: warning: 1 of 23 labels of train.tsv is between 0 and 1 (line 4: 0.5)" in capsys.readouterr().err
    )


def test_the_format_and_the_separator_of_pairs(files, capsys):
    for name in ("train", "dev"):
        Path(f"{name}.txt").write_text(Path(f"{name}.tsv").read_text().replace("\t", ";"))
    options = [part.replace(".tsv", ".txt") for part in BEGIN]
    assert "train.txt: the ending '.txt' is not known" in refused(capsys, *options, "--out", "run")
    assert main([*options, "--format", "csv", "--separator", ";", "--out", "run"]) == 0
    assert json.loads(Path("run/resume.json").read_text())["command"]["separator"] == ";"
    assert main(["fit", "--resume", "run", "--epochs", "9"]) == 0


def test_a_training_that_diverges_is_an_error(files, capsys):
    assert main([*BEGIN, "--out", "run", "--lr", "1e30"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "towers fit: training diverged: the loss of step 2 is nan (epoch 1); take a learning rate below"
    )
    assert error.count("\n") == 1
    assert not {"config.json", "model.safetensors"} & set(names(files / "run"))


def test_going_on_needs_the_folder_only(interrupted, files, monkeypatch, capsys):
    assert (
        interrupted.err == "\ntowers: interrupted; saved in run: 2 epochs done; go on with: towers fit --resume run\n"
    )
    assert main([*BEGIN, "--out", "whole", "--test", "train.tsv"]) == 0
    elsewhere = files / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    capsys.readouterr()
    assert main(["fit", "--resume", "../run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "going on with ../run: 2 epochs done"
    assert lines[1] == "pairs: train 23, dev 9, test 23"
    assert lines[4].startswith("epoch 3/6 ")
    first, second = (TwoTowers.load(files / name).state_dict() for name in ("run", "whole"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert json.loads((files / "run/config.json").read_text()) == json.loads((files / "whole/config.json").read_text())


def test_a_finished_run_says_so_and_may_go_on_longer(capsys):
    assert main([*BEGIN, "--epochs", "2", "--out", "run"]) == 0
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    capsys.readouterr()
    assert main(["fit", "--resume", "run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("run is finished: 2 epochs are done, epoch ")
    assert out.endswith("; --epochs 4 would train longer\n")
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before
    assert main(["fit", "--resume", "run", "--epochs", "3"]) == 0
    assert "epoch 3/3" in capsys.readouterr().out
    assert len(json.loads(Path("run/metrics.json").read_text())["epochs"]) == 3


def test_patience_is_told(monkeypatch, capsys):
    values = iter([0.5, 1.0, 0.5, 2.0, 0.5, 2.0] * 2)
    monkeypatch.setattr("towers.training.metrics.Measures.of", lambda *_: {"loss": next(values)})
    assert main([*BEGIN, "--patience", "2", "--out", "run"]) == 0
    assert "ended after epoch 3: 2 epochs without a better one\nkept epoch 1, " in capsys.readouterr().out
    assert main(["fit", "--resume", "run"]) == 0
    assert "a --patience above 2 would train longer" in capsys.readouterr().out


def test_json_for_programs(interrupted, capsys):
    assert main(["fit", "--resume", "run", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["start", *["epoch"] * 4, "end"]
    start, row, end = events[0], events[1], events[-1]
    assert (start["folder"], start["resumed"], start["pairs"]) == ("run", True, {"train": 23, "dev": 9, "test": 23})
    weights = sum(weight.numel() for weight in TwoTowers.load("run").parameters())
    assert start["network"] == {"shared": False, "parameters": weights, "left_words": None, "right_words": 5}
    assert start["vectors"]["words_found"] == start["vectors"]["words"] == 8
    assert (row["epoch"], row["epochs"], set(row["dev"])) == (3, 6, {"loss", "accuracy", "auc"})
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert end["test"] == metrics["test"]
    assert (end["best_epoch"], end["files"]) == (metrics["best_epoch"], [*RESULTS, "vectors.safetensors"])
    assert main(["fit", "--resume", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["event"] == "finished"


def test_what_is_no_number_is_null_in_json(capsys):
    lines = Path("dev.tsv").read_text().splitlines()[:2]
    Path("dev.tsv").write_text("\n".join(lines) + "\n")
    assert main([*BEGIN, "--epochs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[1])["dev"]["auc"] is None


def test_overwrite_replaces_a_run(interrupted, capsys):
    err = refused(capsys, *BEGIN, "--out", "run")
    assert "run: holds a run already; resume goes on with it, overwrite replaces it, or name another folder" in err
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    assert "absent.tsv" in refused(capsys, *BEGIN, "--out", "run", "--overwrite", "--dev", "absent.tsv")
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before
    assert main([*BEGIN, "--epochs", "1", "--out", "run", "--overwrite"]) == 0
    assert [name for name in names(Path("run")) if not name.startswith("resume-")] == [
        *RESULTS,
        "resume.json",
        "vectors.safetensors",
    ]
    assert json.loads(Path("run/resume.json").read_text())["settings"]["epochs"] == 1


def test_an_unfinished_run_is_no_model_yet(interrupted, capsys):
    err = refused(capsys, "predict", "--model", "run", "--pairs", "dev.tsv", "--out", "out.tsv")
    assert "run: its training has not ended; go on with: towers fit --resume run" in err


def test_a_run_of_python_goes_on_there(capsys):
    from towers import training

    from ..helpers.small import small_model, some_pairs

    training.fit(small_model(), some_pairs(20), epochs=1, out="run")
    assert "run: the run was begun from Python" in refused(capsys, "fit", "--resume", "run")


def test_pairs_that_changed_meanwhile(interrupted, capsys):
    text = Path("train.tsv").read_text()
    Path("train.tsv").write_text(text.replace("\t1\n", "\t0\n", 1))
    capsys.readouterr()
    assert main(["fit", "--resume", "run"]) == 2
    err = capsys.readouterr().err
    assert "train: the pairs, or their vectors, are not those with which the run in run began; bring" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "other"], "--out and --resume exclude each other: a run goes on in its own folder"),
        (["--overwrite"], "--overwrite and --resume exclude each other"),
        (["--lr", "1"], "lr (1.0) contradicts the run in run, which has 0.02; leave it out, or start another run"),
        (["--hidden", "4"], "--hidden 4 contradicts the run in run, which has 3; leave it out"),
        (["--dense", "5"], "--dense 5 contradicts the run in run, which has 4"),
        (["--shared"], "--shared True contradicts the run in run, which has none"),
        (["--train", "other.tsv"], "other.tsv, of the run in run, is gone; say where with --train FILE"),
        (["--vectors", "dev.tsv"], "dev.tsv, line 1: number 1 of 1 is 'label'; expected a finite number"),
        (["--left-column", "x"], "--left-column x contradicts the run in run, which has sentence1"),
        (["--label-range", "0", "5"], "--label-range [0.0, 5.0] contradicts the run in run, which has [0.0, 1.0]"),
        (["--right-words", "4"], "--right-words 4 contradicts the run in run, which has 5"),
        (["--left-words", "4"], "--left-words 4 contradicts the run in run, which has none"),
        (["--kernel-words", "3"], "--kernel-words 3 contradicts the run in run, which has 2"),
        (["--epochs", "5"], "epochs (5) are fewer than the 6 of the run in run; say more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_contradict_the_run(interrupted, capsys, options, message):
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    said = refused(capsys, "fit", "--resume", "run", *options)
    assert message in said
    assert "damaged" not in said
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before


def test_options_that_say_the_same_again(interrupted):
    same = ["--kernel-words", "2", "--right-words", "5", "--left-words", "any", "--label-range", "0", "1"]
    assert main([*BEGIN, *same, "--resume", "run", "--test", os.path.abspath("train.tsv")]) == 0


def test_files_that_have_moved(interrupted, capsys):
    assert main([*BEGIN, "--out", "whole", "--test", "train.tsv"]) == 0
    Path("elsewhere").mkdir()
    for name in ("vectors.txt", "train.tsv", "dev.tsv"):
        Path(name).rename(f"elsewhere/{name}")
    message = refused(capsys, "fit", "--resume", "run")
    assert f"{os.path.abspath('train.tsv')}, of the run in run, is gone; say where with --train FILE" in message
    moved = [f"--{name}=elsewhere/{name}.tsv" for name in ("train", "dev")]
    moved += ["--test=elsewhere/train.tsv", "--vectors=elsewhere/vectors.txt"]
    assert main(["fit", "--resume", "run", *moved]) == 0
    assert torch.equal(TwoTowers.load("run").left.conv.weight, TwoTowers.load("whole").left.conv.weight)
    source = json.loads(Path("run/config.json").read_text())["vectors"]["source"]
    assert source == "vectors.txt"
    assert main(["fit", "--resume", "run", "--epochs", "7"]) == 0, "the run knows where they are now"


def test_a_run_that_moves_with_its_files_goes_on_there(interrupted, files, tmp_path_factory, monkeypatch):
    """No absolute path stands in the folder; a link to it is as good."""
    assert all(str(files) not in file.read_text() for file in Path("run").glob("*.json"))
    there = tmp_path_factory.mktemp("another") / "machine"
    shutil.copytree(files, there)
    for name in ("vectors.txt", "train.tsv", "dev.tsv"):
        Path(name).unlink()
    (there.parent / "deep" / "er").mkdir(parents=True)
    (there.parent / "deep" / "er" / "link").symlink_to(there / "run")
    monkeypatch.chdir(there.parent)
    assert main(["fit", "--resume", "deep/er/link"]) == 0
    assert (there / "run" / "config.json").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume", "absent"], "absent: no folder; resume takes the folder of a run"),
        (["--resume", "."], ".: there is no resume.json (no run); start another run"),
        (["--overwrite"], "--overwrite goes with --out: say which run is to be replaced"),
        ([*BEGIN[1:], "--overwrite", "--out", "."], ".: holds something already; name another folder"),
    ],
    ids=str,
)
def test_what_fit_refuses_of_runs(capsys, options, message):
    before = names(Path())
    assert message in refused(capsys, "fit", *options)
    assert names(Path()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--save-every", "-1"], "save_every (-1.0) must be a finite number of at least 0"),
        (["--devices", "x"], "devices ('x') must be a number, 'auto', or numbers such as '0,2'"),
        (["--devices", "2", "--batch-size", "1"], "batch_size (1) is less than the 2 processes that share each batch"),
        (["--strategy", "clever"], "strategy ('clever'): You selected an invalid strategy"),
    ],
    ids=str,
)
def test_what_fit_refuses_of_processes(capsys, options, message):
    before = names(Path())
    capsys.readouterr()
    assert main([*BEGIN, *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert names(Path()) == before


def test_a_full_disk_is_told_in_a_line(monkeypatch, capsys):
    saves, save = [], Run.save

    def full(self, entries, tensors):
        saves.append(1)
        if len(saves) == 9:
            monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        save(self, entries, tensors)

    monkeypatch.setattr(Run, "save", full)
    assert main([*BEGIN, "--out", "run"]) == 2
    err = capsys.readouterr().err
    assert err == (
        "towers fit: run/resume-9.safetensors: No space left on device; "
        "saved in run: 1 epoch and 1 batch done; go on with: towers fit --resume run\n"
    )
