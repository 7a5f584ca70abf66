import csv
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
from pathlib import Path

import polars
import pytest
import torch

from towers import TwoTowers, training
from towers.cli import main
from towers.data import SentencePairs, WordVectors, sample_pairs

from ..helpers.forked import Forks

WORDS = ("the", "dog", "cat", "runs", "sleeps", "fast", "well", '"')
QUICK = ("--epochs", "1", "--batch-size", "50", "--device", "cpu")
COMMAND = str(Path(sys.executable).with_name("towers"))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Pairs of three and more words in train, dev and test, and vectors of 10 numbers; the current folder."""
    monkeypatch.chdir(tmp_path)
    table = torch.randn(len(WORDS), 10, generator=torch.Generator().manual_seed(0))
    lines = [" ".join([word, *(f"{x:.4f}" for x in row)]) for word, row in zip(WORDS, table.tolist(), strict=True)]
    Path("vectors.txt").write_text("\n".join(lines) + "\n", encoding="utf8")
    for name, count in (("train", 24), ("dev", 8), ("test", 8)):
        write_pairs(f"{name}.tsv", [("the dog runs", "the cat sleeps fast well", i % 2) for i in range(count)])
    return tmp_path


def write_pairs(path, rows, header="sentence1\tsentence2\tlabel"):
    Path(path).write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n", encoding="utf8")


def fit(*options):
    return main(["fit", "--train", "train.tsv", "--vectors", "vectors.txt", *QUICK, *options])


def predict(*options):
    return main(["predict", "--model", "run", "--pairs", "test.tsv", "--out", "out.tsv", *options])


def refused(capsys, code):
    """What a refusal said: one line on standard error."""
    _, err = capsys.readouterr()
    assert code == 2
    assert err.startswith("towers ")
    assert err.count("\n") == 1
    return err


# The real command.


def test_fit_and_predict_as_a_person_runs_them(tmp_path, forks: Forks):
    """From the sample to probabilities, in processes of their own in which every warning is an error."""
    command = ["-W", "error", "-m", "towers.cli"]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120}
    run = subprocess.run([sys.executable, *command, "fit", *QUICK], **options)
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert lines[0] == "pairs: train 2000, dev 250, test 250"
    assert "39,313 parameters" in lines[2]
    assert lines[3].startswith("epoch 1/1   train loss 0.")
    assert "(majority class 0.5" in lines[5]
    assert lines[-1].startswith("saved in towers-run: ")
    folder = tmp_path / "towers-run"
    results = ["config.json", "curves.png", "metrics.json", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == [
        *results,
        "resume-2.safetensors",
        "resume.json",
        "vectors.safetensors",
    ]
    pairs = sample_pairs(20, seed=9)
    rows = [
        (" ".join(left), " ".join(right), i)
        for i, (left, right) in enumerate(zip(pairs.left, pairs.right, strict=True))
    ]
    write_pairs(tmp_path / "pairs.tsv", rows, "sentence1\tsentence2\tnumber")
    run = subprocess.run(
        [forks.python, *command, "predict", "--model", folder, "--pairs", "pairs.tsv", "--out", "out.tsv"], **options
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("20 pairs with probability in out.tsv; 100.00 % of ")
    written = [line.split("\t") for line in (tmp_path / "out.tsv").read_text("utf8").splitlines()]
    assert written[0] == ["sentence1", "sentence2", "number", "probability"]
    assert [tuple(row[:3]) for row in written[1:]] == [(left, right, str(i)) for left, right, i in rows]
    expected = training.predict(TwoTowers.load(folder), pairs, device="cpu")
    assert [float(row[3]) for row in written[1:]] == pytest.approx(expected.tolist(), rel=1e-5)


SHORT = ["fit", "--epochs", "3", "--batch-size", "50", "--device", "cpu", "--out", "my run"]


def test_on_a_terminal_there_is_a_bar_and_ctrl_c_saves(tmp_path, monkeypatch, forks: Forks):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with subprocess.Popen(
        [forks.command, *SHORT], cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as run:
        os.close(theirs)
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("epoch 1/3"):
                break
        run.send_signal(signal.SIGINT)
        seen = read_all(ours)
        rest = run.stdout.read()
    assert run.returncode == 130
    assert "epoch 1/3" in seen
    assert "loss=" in seen
    assert "towers: interrupted; saved in my run: 1 epoch" in seen
    assert "Traceback" not in seen + rest
    goes_on(tmp_path, monkeypatch, seen)


def test_sigterm_ends_as_ctrl_c_does(tmp_path, monkeypatch, forks: Forks):
    with subprocess.Popen(
        [forks.command, *SHORT], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        for line in run.stdout:
            if line.startswith("epoch 1/3"):
                break
        run.send_signal(signal.SIGTERM)
        run.stdout.read()
        said = run.stderr.read()
    assert run.returncode == 143
    assert said.startswith("\ntowers: terminated; saved in my run: 1 epoch")
    assert said.count("\n") == 2
    goes_on(tmp_path, monkeypatch, said)


@pytest.mark.parametrize(("number", "told"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_while_torch_is_loaded(tmp_path, number, told):
    (tmp_path / "torch.py").write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(9)\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [COMMAND, "fit"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stdout, run.stderr) == (128 + number, "", f"\ntowers: {told}\n")


def test_more_memory_than_there_is(files, capsys):
    message = refused(capsys, fit("--hidden", "10000000000", "--out", "run"))
    assert "the memory does not suffice; take a smaller --batch-size, or smaller sizes of the network" in message
    assert not Path("run").exists()


def goes_on(folder, monkeypatch, said):
    """The command that was said, as it was said, ends the run."""
    monkeypatch.chdir(folder)
    command = said.partition("go on with: ")[2].strip()
    assert command == "towers fit --resume 'my run'"
    assert main(shlex.split(command)[1:]) == 0
    assert len(json.loads(Path("my run/metrics.json").read_text())["epochs"]) == 3


def read_all(terminal):
    text = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    os.close(terminal)
    return text.decode()


def test_help_and_version_need_nothing_heavy(capsys):
    code = """
import sys
from towers.cli import main
for arguments in (["--help"], ["fit", "--help"], ["predict", "--help"], ["--version"]):
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code
assert not {"torch", "polars", "lightning"} & set(sys.modules), "heavy"
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stderr == ""
    for shown in ("towers fit", "$ towers fit --epochs", "$ towers predict --model", "--fit-length", "towers 0."):
        assert shown in run.stdout


def test_output_cut_off_by_the_reader_is_no_traceback(files, forks: Forks):
    write_pairs("train.tsv", [("the dog runs", "the cat sleeps fast well", i % 2) for i in range(2)])
    command = f"'{forks.command}' fit --train train.tsv --vectors vectors.txt --epochs 3 | true"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert run.stderr == ""


# Fit.


def test_fit_on_files(files, capsys):
    code = fit("--dev", "dev.tsv", "--test", "test.tsv", "--out", "run", "--hidden", "3", "--dense", "5")
    out = capsys.readouterr().out
    assert code == 0
    assert "pairs: train 24, dev 8, test 8" in out
    assert "vectors.txt, 10 numbers a word; 100.00 % of 320 tokens and 7 of 7 words have a vector" in out
    config = json.loads(Path("run/config.json").read_text("utf8"))
    assert config["vectors"] == {"source": "vectors.txt", "missing": "hash", "file": "vectors.safetensors"}
    assert config["data"] == {
        "left_column": "sentence1",
        "right_column": "sentence2",
        "split": "rule",
        "label_column": "label",
        "label_range": [0.0, 1.0],
        "fit_length": None,
        "train": "train.tsv",
        "dev": "dev.tsv",
        "test": "test.tsv",
    }
    metrics = json.loads(Path("run/metrics.json").read_text("utf8"))
    assert metrics["test"]["pairs"] == 8
    assert metrics["test"]["majority"] == 0.5
    model = TwoTowers.load("run")
    assert (model.hidden, model.left.words, model.right.words) == (3, None, 5)
    pairs = SentencePairs.load("test.tsv").with_vectors(WordVectors.load("vectors.txt"))
    assert training.evaluate(model, pairs)["loss"] == pytest.approx(metrics["test"]["loss"], rel=1e-6)


def test_fit_with_soft_labels_and_one_tower(files, capsys):
    for name in ("train", "dev", "test"):
        rows = [("the dog runs", " ".join(WORDS[: 2 + i % 4]), 1 + i % 5) for i in range(12)]
        write_pairs(f"{name}.tsv", rows, "a\tb\trelatedness")
    columns = ["--left-column", "a", "--right-column", "b", "--label-column", "relatedness", "--label-range", "1", "5"]
    code = fit("--test", "test.tsv", *columns, "--shared", "--out", "run")
    out = capsys.readouterr().out
    assert code == 0
    assert "network: one tower, left any number of words, right any number of words" in out
    assert "Pearson's r" in out
    assert "kept epoch 1, the last; --dev would choose" in out
    model = TwoTowers.load("run")
    assert model.left is model.right
    assert main(["predict", "--model", "run", "--pairs", "test.tsv", "--out", "out.tsv"]) == 0


def test_labels_outside_the_range_name_the_way_out(files, capsys):
    write_pairs("train.tsv", [("the dog", "the cat", 1 + i % 5) for i in range(12)])
    message = refused(capsys, fit("--shared"))
    assert "train.tsv, line 3: label is 2; the label range is 0 to 1" in message
    assert "say --label-range 1 5, or label_range=(1, 5) in Python" in message
    assert fit("--shared", "--label-range", "1", "5") == 0
    write_pairs("train.tsv", [("the dog", "the cat", 2)])
    assert "--label-range LOW HIGH" in refused(capsys, fit("--shared"))


def test_vectors_of_other_words_are_warned_of(files, capsys):
    Path("vectors.txt").write_text("le 1 2 3\nthe 4 5 6\n", encoding="utf8")
    assert fit() == 0
    err = capsys.readouterr().err
    assert "towers fit: warning: only 1 of 7 different words have a vector in vectors.txt" in err
    assert err.count("\n") == 1


def test_the_seed_decides_the_weights(files):
    for seed, out in (("1", "a"), ("1", "b"), ("2", "c")):
        assert fit("--seed", seed, "--out", out) == 0
    first, again, other = (TwoTowers.load(name).state_dict() for name in "abc")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["left.conv.weight"], other["left.conv.weight"])


def test_runs_take_the_next_free_name(files):
    assert fit() == fit() == 0
    assert {path.name for path in files.glob("towers-run*")} == {"towers-run", "towers-run-2"}


@pytest.mark.parametrize("options", [["--right-words", "any"], ["--fit-length", "pad-or-cut"]], ids=lambda o: o[0])
def test_both_ways_out_of_a_wrong_number_of_words(files, options, capsys):
    rows = [("the dog runs", " ".join(WORDS[: 2 + i % 5]), i % 2) for i in range(12)]
    write_pairs("train.tsv", rows)
    write_pairs("test.tsv", rows)
    message = refused(capsys, fit("--out", "run"))
    assert (
        "train.tsv, line 2: the right sentence has 2 words; this tower takes exactly 5 (10 of 12 pairs do not fit)"
        in message
    )
    assert " ".join(options) in message
    assert not Path("run").exists()
    assert fit("--out", "run", *options) == 0
    assert predict() == 0
    assert len(Path("out.tsv").read_text("utf8").splitlines()) == 13


def test_a_sentence_shorter_than_a_phrase(files, capsys):
    write_pairs("dev.tsv", [("the dog runs", "the cat sleeps fast well", 0), ("dog", "the cat sleeps fast well", 1)])
    message = refused(capsys, fit("--dev", "dev.tsv"))
    assert "dev.tsv, line 3: the left sentence has 1 word; this tower takes at least 2" in message
    assert "--kernel-words 1" in message
    assert fit("--dev", "dev.tsv", "--kernel-words", "1") == 0


def test_bad_pairs_can_be_left_out(files, capsys):
    """The run is that of the same files without them."""
    rows = [line.split("\t") for line in Path("train.tsv").read_text().splitlines()[1:]]
    bad = [("", rows[0][1], 1), (rows[0][0], "", 0), ("dog", rows[0][1], 1), (*rows[0][:2], "NaN")]
    write_pairs("mixed.tsv", [*rows[:3], bad[0], *rows[3:], *bad[1:]])
    assert "mixed.tsv, line 5: sentence1 is empty" in refused(capsys, fit("--train", "mixed.tsv"))
    assert fit("--train", "mixed.tsv", "--skip-bad", "--out", "mixed") == 0
    out, err = capsys.readouterr()
    last = len(rows) + 3
    why = "a sentence is empty or too short, or the label is missing"
    why += f" (lines 5, {last}, {last + 1}, {last + 2})"
    assert f"towers fit: warning: mixed.tsv: 4 pairs left out: {why}\n" in err
    assert out.startswith(f"pairs: train {len(rows)}")
    assert "saved in mixed: config.json, model.safetensors, vectors.safetensors, metrics.json, curves.png" in out
    assert fit("--out", "clean") == 0
    assert Path("mixed/model.safetensors").read_bytes() == Path("clean/model.safetensors").read_bytes()
    assert main(["fit", "--resume", "mixed", "--epochs", "2"]) == 0
    capsys.readouterr()
    assert "--skip-bad goes with --train" in refused(capsys, main(["fit", "--skip-bad", *QUICK]))


def test_a_left_tower_of_a_fixed_number_of_words(files, capsys):
    message = refused(capsys, fit("--left-words", "4"))
    assert "the left sentence has 3 words; this tower takes exactly 4 (24 of 24 pairs do not fit)" in message
    assert "Use --left-words any for" in message


@pytest.mark.parametrize(("words", "side"), [("5", "left"), ("3", "right")])
def test_the_way_out_of_one_tower_with_a_fixed_number_of_words(files, capsys, words, side):
    message = refused(capsys, fit("--shared", "--right-words", words))
    assert f"the {side} sentence has" in message
    assert "Use --left-words any --right-words any for sentences of any length" in message
    assert fit("--shared", "--right-words", words, "--left-words", "any", "--right-words", "any") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pool", "5"], "pool (5) must divide filters (32)"),
        (["--chunk", "3"], "chunk (3) must divide steps (4"),
        (["--hidden", "0"], "hidden (0)"),
        (["--shared", "--left-words", "any", "--right-words", "5"], "--shared is one tower for both sides"),
        (["--lr", "-1"], "lr (-1.0) must be a finite number above 0"),
        (["--lr", "nan", "--train", "absent.tsv"], "lr (nan) must be a finite number above 0"),
        (["--device", "toaster"], "device ('toaster') is none that torch knows"),
        (["--device", "mps", "--train", "absent.tsv"], "device ('mps') is none that towers trains on"),
        (["--device", "cuda:99", "--train", "absent.tsv"], "device (cuda:99): torch finds"),
        (["--train", "train.txt"], "train.txt: the ending '.txt' is not known, only .tsv, .csv, .jsonl"),
        (["--keep-best", "pearson"], "keep_best ('pearson') must be one of 'loss', 'accuracy', 'auc'"),
        (["--train", "absent.tsv"], "absent.tsv: No such file or directory"),
        (["--vectors", "absent.txt"], "absent.txt: No such file or directory"),
        (["--left-column", "sentence"], "train.tsv has no column 'sentence'"),
        (["--label-range", "5", "1"], "label_range (5.0, 1.0)"),
        (["--out", "."], "holds something already; name another folder"),
        (["--out", "dev.tsv"], "dev.tsv: is a file; name another folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_fit_refuses(files, capsys, options, message):
    before = sorted(files.iterdir())
    assert message in refused(capsys, fit(*options))
    assert sorted(files.iterdir()) == before


def test_files_without_vectors_and_options_without_files(capsys):
    assert "--train needs --vectors" in refused(capsys, main(["fit", "--train", "x.tsv"]))
    assert "--label-column goes with --train" in refused(capsys, main(["fit", "--label-column", "x"]))
    assert "--dev goes with --train" in refused(capsys, main(["fit", "--dev", "x.tsv"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["fit", "--epochs", "0"], "--epochs: 0 is less than 1"),
        (["fit", "--epochs", "two"], "--epochs: 'two' is no whole number"),
        (["fit", "--seed", "-1"], "--seed: -1 is less than 0"),
        (["fit", "--seed", "4294967296"], "--seed: 4294967296 is more than 4294967295"),
        (["fit", "--right-words", "some"], "--right-words: 'some' is neither 'any' nor a number"),
        (["fit", "--epoch", "2"], "unrecognized arguments: --epoch 2"),
        ([], "the following arguments are required: COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_parser_refuses(capsys, options, message):
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_names_the_install_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lightning", None)
    assert 'lightning is not installed: pip install "towers[train]"' in refused(capsys, main(["fit"]))


# Predict.


@pytest.fixture
def run(files, capsys):
    """A saved run of one epoch."""
    assert fit("--right-words", "any", "--out", "run") == 0
    capsys.readouterr()
    return files


TRICKY = [('the " dog', "the 'cat' runs, well", "1"), ("le garçon dort", " the  cat ", "x"), ("the dog", "a b c", "")]


def read_back(path):
    """Rows by another reader than ours, as lists of strings."""
    if path.suffix == ".tsv":
        return [line.split("\t") for line in path.read_text("utf8").split("\n")[:-1]]
    if path.suffix == ".csv":
        return list(csv.reader(path.read_text("utf8").splitlines(keepends=True)))
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text("utf8").splitlines()]
    else:
        rows = polars.read_parquet(path).to_dicts()
    return [list(rows[0]), *(list(map(str, row.values())) for row in rows)]


def write_as(path, rows):
    names = ["id", "sentence1", "sentence2", "note"]
    rows = [[str(i), *row] for i, row in enumerate(rows)]
    if path.suffix == ".tsv":
        path.write_text("\n".join("\t".join(row) for row in [names, *rows]) + "\n", encoding="utf8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf8", newline="") as file:
            csv.writer(file).writerows([names, *rows])
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows), encoding="utf8")
    else:
        polars.DataFrame(rows, schema=names, orient="row").write_parquet(path)
    return [names, *rows]


@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl", "parquet"])
def test_predict_keeps_columns_order_and_format(run, ending):
    written = write_as(Path(f"pairs.{ending}"), TRICKY)
    assert main(["predict", "--model", "run", "--pairs", f"pairs.{ending}", "--out", f"out.{ending}"]) == 0
    read = read_back(Path(f"out.{ending}"))
    assert [row[:4] for row in read] == written
    assert read[0][4] == "probability"
    assert all(0 < float(row[4]) < 1 for row in read[1:])
    assert not list(run.glob(".*"))


def test_predict_with_other_columns_and_vectors_than_in_training(run, capsys):
    write_pairs("test.tsv", [("the dog runs", "the cat")] * 3, "links\trechts")
    Path("vectors.txt").rename("moved.txt")
    assert predict("--left-column", "links", "--right-column", "rechts", "--vectors", "moved.txt") == 0
    assert "out.tsv; 100.00 % of 15 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["test.tsv", "link.tsv", "./run/../test.tsv"])
def test_predict_does_not_replace_its_own_input(run, capsys, out):
    before = Path("test.tsv").read_text("utf8")
    Path("link.tsv").symlink_to("test.tsv")
    assert "is the file of --pairs" in refused(capsys, predict("--out", out))
    assert Path("test.tsv").read_text("utf8") == before


def test_predict_replaces_what_a_link_points_to(run):
    Path("there").mkdir()
    Path("there/out.tsv").write_text("old")
    Path("out.tsv").symlink_to("there/out.tsv")
    assert predict() == 0
    assert Path("out.tsv").is_symlink()
    assert Path("there/out.tsv").read_text("utf8").startswith("sentence1\tsentence2\tlabel\tprobability\n")


def test_predict_writes_to_nothing_but_files(run, capsys, forks: Forks):
    os.mkfifo("fifo")
    for out in ("fifo", "/dev/null"):
        assert f"--out {out}: is no regular file; name one, or - for standard output" in refused(
            capsys, predict("--out", out)
        )
    command = [forks.command, "predict", "--model", "run", "--pairs", "test.tsv", "--out", "/dev/stdout"]
    with open("redirected", "w") as output:
        ended = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60)
    assert ended.returncode == 2
    assert "--out /dev/stdout: is no regular file; name one, or - for standard output" in ended.stderr


def test_a_model_that_computes_no_numbers_is_refused(run, capsys):
    model = TwoTowers.load("run")
    torch.nn.init.constant_(model.dense.weight, float("nan"))
    config = json.loads(Path("run/config.json").read_text("utf8"))
    model.save("run", extra={name: config[name] for name in ("vectors", "data")})
    assert "run: the model gives no number for 8 of 8 pairs; are its weights finite?" in refused(capsys, predict())
    assert not Path("out.tsv").exists()


def test_a_model_saved_by_the_library_needs_vectors(run, capsys):
    TwoTowers.load("run").save("plain")
    arguments = ["predict", "--model", "plain", "--pairs", "test.tsv", "--out", "out.tsv"]
    assert "plain does not say which word vectors" in refused(capsys, main(arguments))
    assert main([*arguments, "--vectors", "vectors.txt"]) == 0


def test_predict_for_a_fixed_tower(files, capsys):
    assert fit("--out", "run") == 0
    capsys.readouterr()
    write_pairs("test.tsv", [("the dog runs", "the cat", 0)])
    message = refused(capsys, predict())
    assert "test.tsv, line 2: the right sentence has 2 words; this tower takes exactly 5" in message
    assert "--fit-length pad-or-cut" in message
    assert predict("--fit-length", "pad-or-cut") == 0


def narrow_vectors():
    Path("narrow.txt").write_text("the 1 2 3\ndog 4 5 6\n", encoding="utf8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "absent"], "absent: no folder"),
        (["--pairs", "absent.tsv"], "absent.tsv: No such file or directory"),
        (["--out", "absent/out.tsv"], "there is no folder absent"),
        (["--out", "run"], "is a folder; name a file"),
        (["--device", "mps", "--model", "absent"], "device ('mps') is none that towers trains on"),
        (
            ["--vectors", "narrow.txt"],
            "narrow.txt: these are not the vectors that the model learned with: they have 3 numbers a word, not 10",
        ),
        (["--right-column", "sentence3"], "test.tsv has no column 'sentence3'"),
        (["--pairs", "again.tsv"], "column 'probability' already; call the new one otherwise with --score-column"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_predict_refuses(run, capsys, options, message):
    narrow_vectors()
    write_pairs("again.tsv", [("the dog", "the cat", "0.5")], "sentence1\tsentence2\tprobability")
    Path("out.tsv").write_text("mine")
    assert message in refused(capsys, predict(*options))
    assert Path("out.tsv").read_text() == "mine"


# Real sentences.


@pytest.mark.slow
def test_sick_end_to_end(shared, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sick = shared / "data" / "sick"
    columns = ["--left-column", "tokens1", "--right-column", "tokens2", "--split", "spaces", "--right-words", "any"]
    files = [f"--{name}={sick / f'sick.{name}.tsv'}" for name in ("train", "dev", "test")]
    vectors = f"--vectors={shared / 'data' / 'vectors' / 'glove.840B.300d.sick.txt'}"
    labels = ["--label-column", "relatedness", "--label-range", "1", "5", "--shared"]
    assert main(["fit", *files, vectors, *columns, *labels, "--epochs", "3", "--out", "run"]) == 0
    assert "99.99 % of" in capsys.readouterr().out
    assert json.loads(Path("run/metrics.json").read_text("utf8"))["test"]["pearson"] > 0.5
    test = sick / "sick.test.tsv"
    assert main(["predict", "--model", "run", "--pairs", str(test), "--out", "out.tsv"]) == 0
    lines = Path("out.tsv").read_text("utf8").split("\n")
    assert [line.rsplit("\t", 1)[0] for line in lines] == test.read_text("utf8").split("\n")
