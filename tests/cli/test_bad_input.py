"""Issue by issue what people hand in by mistake: one line that says what, where and what to do; nothing is touched."""

import json
import re
import struct
import subprocess
from pathlib import Path

import pytest
import torch

from towers import TwoTowers
from towers.cli import main

from ..helpers.forked import Forks
from ..helpers.predicting import WORDS, make_model

PAIRS = "".join(f"the dog runs\tthe cat sleeps fast well\t{label}\n" for label in (1, 1, 0, 0))
PAIRS = "sentence1\tsentence2\tlabel\n" + PAIRS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Good files of every kind, a model, and outputs that somebody wants to keep."""
    monkeypatch.chdir(tmp_path)
    make_model(right=5, carries=False)
    Path("pairs.tsv").write_text(PAIRS, encoding="utf8")
    Path("out.tsv").write_text("mine")
    Path("kept").mkdir()
    Path("kept/config.json").write_text("mine")
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(command, *options):
    """The command on good files, with other options where they are given."""
    files = {"--pairs": "pairs.tsv", "--model": "run", "--out": "out.tsv"}
    if command == "fit":
        files = {"--train": "pairs.tsv", "--vectors": "vectors.txt", "--out": "new", "--epochs": "1"}
    given = dict(zip(options[::2], options[1::2], strict=True))
    return main([command, *(part for option in (files | given).items() for part in option)])


def refused(folder, capsys, command, *options):
    before = contents(folder)
    assert run(command, *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"towers {command}: ")
    assert err.count("\n") == 1
    assert contents(folder) == before
    assert not Path("new").exists()
    return err


BOTH = pytest.mark.parametrize("command", ["fit", "predict"])

TABLES = [
    ("empty.tsv", b"", "empty.tsv is empty; expected a line of column names, and rows"),
    ("empty.csv", b"", "empty.csv is empty; expected a line of column names"),
    ("empty.jsonl", b"\n \n", "empty.jsonl is empty; expected a JSON object on each line"),
    ("empty.parquet", b"", "empty.parquet is empty; expected a Parquet file"),
    ("bad.parquet", b"PAR1 and more", "bad.parquet: is no Parquet file, or damaged: "),
    (
        "packed.tsv",
        b"\x1f\x8b\x08\n",
        "packed.tsv: is no gzip file, or damaged: ",
    ),
    ("wide.tsv", PAIRS.encode("utf-16"), "is not UTF-8; it is UTF-16: save the file as UTF-8"),
    ("table.tsv", b"PAR1\xff\n", "is not UTF-8; the file is Parquet"),
    (
        "utf.tsv",
        PAIRS.encode() + b"\xe9t\xe9\tx y\t1\n",
        "utf.tsv, line 6: byte 1 (0xe9) is not UTF-8; save the file as UTF-8",
    ),
    ("utf.jsonl", b'{"sentence1": "caf\xe9"}\n', "utf.jsonl, line 1: byte 19 (0xe9) is not UTF-8"),
    ("few.tsv", PAIRS.encode() + b"the dog\t1\n", "few.tsv, line 6 has 2 fields; the header has 3"),
    ("few.csv", b"sentence1,sentence2,label\na b,1\n", "few.csv, line 2 has 2 fields; the header has 3"),
    ("no.jsonl", b'{"sentence1": "a b"\n', "no.jsonl, line 1: no JSON (Expecting ',' delimiter at character 2"),
    ("list.jsonl", b"[1]\n", "list.jsonl, line 1: expected a JSON object, not [1]"),
    ("deep.jsonl", b"[" * 100_000 + b"\n", "deep.jsonl, line 1: JSON that cannot be read (maximum recursion depth"),
    ("digits.jsonl", b'{"label": ' + b"7" * 5000 + b"}\n", "digits.jsonl, line 1: JSON that cannot be read (Exceeds"),
    ("half.jsonl", b'{"sentence1": "a \\ud800", "sentence2": "a"}\n', "line 1: sentence1 has '\\ud800', half a char"),
    ("kind.jsonl", b'{"sentence1": 7, "sentence2": "a"}\n', "line 1: sentence1 is 7; expected a string or a list"),
    ("twice.csv", b"sentence1,b,sentence1\n", "twice.csv: two columns are named 'sentence1'; rename one of them"),
    ("quote.csv", b'sentence1,sentence2,label\n"a b,c\n', "quote.csv, line 2: unexpected end of data"),
    ("five.tsv", b"sentence1\tsentence2\tlabel\na dog\ta b c\t1\n", "this tower takes exactly 5. Use"),
]


@BOTH
@pytest.mark.parametrize(("name", "content", "message"), TABLES, ids=[name for name, _, _ in TABLES])
def test_tables(folder, capsys, command, name, content, message):
    Path(name).write_bytes(content)
    assert message in refused(folder, capsys, command, "--train" if command == "fit" else "--pairs", name)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a b\t ", "t.tsv, line 2: sentence2 is empty"),
        ("dog\ta b c d e", "t.tsv, line 2: the left sentence has 1 word"),
    ],
)
def test_sentences_that_only_fit_refuses(folder, capsys, row, message):
    """`predict` leaves their scores empty."""
    Path("t.tsv").write_text(f"sentence1\tsentence2\tlabel\n{row}\t1\n")
    assert message in refused(folder, capsys, "fit", "--train", "t.tsv")


@BOTH
def test_missing_files_and_columns(folder, capsys, command):
    table = "--train" if command == "fit" else "--pairs"
    assert "absent.tsv: No such file or directory" in refused(folder, capsys, command, table, "absent.tsv")
    assert "kept: " in refused(folder, capsys, command, table, "kept")
    assert "kept: is a folder; name a file" in refused(folder, capsys, command, "--vectors", "kept")
    assert "only sentence1, sentence2, label; say which with --left-column or --right" in refused(
        folder, capsys, command, "--left-column", "xyz"
    )
    assert "absent.txt: No such file" in refused(folder, capsys, command, "--vectors", "absent.txt")
    message = refused(folder, capsys, command, "--left-column", "sentense1")
    assert "pairs.tsv has no column 'sentense1', only sentence1, sentence2, label; did you mean 'sentence1'?" in message
    Path("wide.tsv").write_text("\t".join(f"c{i}" for i in range(5000)) + "\n")
    assert "c39, … (5000 columns)" in refused(folder, capsys, command, table, "wide.tsv")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("yes", "pairs.tsv, line 3: label is 'yes', which is no number"),
        ("", "line 3: label is '', a missing label"),
        (
            "nan",
            "label is nan; the label range is 0 to 1. If it marks a missing label, leave such rows out (--skip-bad",
        ),
        ("-inf", "line 3: label is -inf; the label range is 0 to 1. Labels are finite numbers"),
        ("1.5", "line 3: label is 1.5; the label range is 0 to 1"),
        (
            "-1",
            "line 3: label is -1; the label range is 0 to 1. -1 usually marks a missing label (1 row has it): leave",
        ),
    ],
)
def test_labels(folder, capsys, label, message):
    Path("pairs.tsv").write_text(PAIRS.replace("\t1\n", f"\t{label}\n").replace(f"\t{label}\n", "\t1\n", 1))
    assert message in refused(folder, capsys, "fit")


def test_a_label_of_hundreds_of_digits(folder, capsys):
    record = {"sentence1": "the dog", "sentence2": "a b c d e", "label": 10**400}
    Path("pairs.jsonl").write_text(json.dumps(record) + "\n")
    assert "label is 1000" in refused(folder, capsys, "fit", "--train", "pairs.jsonl")


GOOD = "".join(f"{word} {' '.join(['0.5'] * 10)}\n" for word in WORDS)
BINARY = b"2 10\nthe " + struct.pack("<10f", *range(10)) + b"\ndog " + struct.pack("<10f", *range(10)) + b"\n"
VECTORS = [
    ("short line", GOOD.encode() + b"extra 1 2\n", "v, line 9: 2 numbers after the word; expected 10"),
    ("no numbers", GOOD.encode() + b"extra\n", "v, line 9: 0 numbers after the word; expected 10"),
    ("NaN", GOOD.replace("cat 0.5", "cat nan").encode(), "v, line 3: number 1 of 10 is 'nan'; expected a finite"),
    ("infinity", GOOD.replace("cat 0.5", "cat -inf").encode(), "v, line 3: number 1 of 10 is '-inf'"),
    ("text", GOOD.replace("cat 0.5", "cat x").encode(), "v, line 3: number 1 of 10 is 'x'"),
    ("not UTF-8", GOOD.encode() + b"\xff 1 2 3 4 5 6 7 8 9 0\n", "v, line 9: byte 1 (0xff) is not UTF-8"),
    ("empty", b"", "v is empty"),
    ("compressed", b"\x1f\x8b rest", "v: is no gzip file, or damaged"),
    ("header too large", f"9 10\n{GOOD}".encode(), "v ends after 8 words; its header says 9"),
    ("binary, cut", BINARY[:-9], "v ends before the 2 words that its header says"),
    ("binary, boundless", BINARY.replace(b"2 10", b"1000000000000 300"), "v ends before the 1000000000000 words"),
    ("binary, NaN", BINARY[:9] + b"\x00\x00\xc0\x7f" + BINARY[13:], "v: the vector of 'the' has a number that is not"),
]


@BOTH
@pytest.mark.parametrize(("content", "message"), [case[1:] for case in VECTORS], ids=[case[0] for case in VECTORS])
def test_vectors(folder, capsys, command, content, message):
    Path("v").write_bytes(content)
    assert message in refused(folder, capsys, command, "--vectors", "v")


def test_vectors_of_another_width(folder, capsys):
    Path("v").write_text("the 1 2 3\ndog 1 2 3\n")
    assert "v has 3 numbers a word; the model takes 10: use the vectors of its training" in refused(
        folder, capsys, "predict", "--vectors", "v"
    )


@BOTH
def test_words_that_come_twice_are_kept_first_and_counted(folder, capsys, command):
    Path("v").write_text(GOOD + GOOD.replace("0.5", "7"))
    assert run(command, "--vectors", "v") == 0
    repeated = 7 if command == "fit" else 8  # fit reads the words of its pairs only
    assert f"; repeated words in v: {repeated}, the first of each counts" in capsys.readouterr().out
    first = Path("out.tsv").read_text()
    if command == "predict":
        Path("v").write_text(GOOD)
        assert run(command, "--vectors", "v") == 0
        assert Path("out.tsv").read_text() == first


def test_equal_labels_are_refused(folder, capsys):
    Path("pairs.tsv").write_text(PAIRS.replace("\t0\n", "\t1\n"))
    assert "train: all 4 labels of pairs.tsv are equal, so there is nothing to learn" in refused(folder, capsys, "fit")


@BOTH
def test_few_words_found_is_a_warning(folder, capsys, command):
    Path("v").write_text(
        "".join(line for line in GOOD.splitlines(keepends=True) if not line.startswith(("d", "c", "r", "s")))
    )
    Path("pairs.tsv").write_text(PAIRS.replace("fast", "quick"))
    assert run(command, "--vectors", "v") == 0
    message = f"towers {command}: warning: only 2 of 7 different words have a vector in v; are these the vectors that"
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == (1 if command == "fit" else 2)  # the folder carries no vectors to compare


# A model's folder.


def edited(**entries):
    config = json.loads(Path("run/config.json").read_text("utf8"))
    Path("run/config.json").write_text(json.dumps(config | entries))


def test_model_folders_that_are_incomplete_or_damaged(folder, capsys):
    assert "absent: no folder" in refused(folder, capsys, "predict", "--model", "absent")
    whole = Path("run/model.safetensors").read_bytes()
    Path("run/model.safetensors").write_bytes(whole[:-5])
    assert "model.safetensors: is damaged or no safetensors file" in refused(folder, capsys, "predict")
    Path("run/model.safetensors").unlink()
    assert "model.safetensors: there is no such file" in refused(folder, capsys, "predict")
    Path("run/model.safetensors").write_bytes(whole)
    edited(format=99)
    assert re.search("config.json: has format 99, .*: update towers", refused(folder, capsys, "predict"))
    for content in (b"", b"{", b"[]", b"null", b"\xff", b'{"format": "x"}'):
        Path("run/config.json").write_bytes(content)
        assert "run/config.json: is " in refused(folder, capsys, "predict")
    Path("run/config.json").unlink()
    assert "config.json: there is no such file" in refused(folder, capsys, "predict")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"data": None}, "config.json: is damaged: 'data' is no object"),
        ({"data": [1]}, "config.json: is damaged: 'data' is no object"),
        ({"vectors": "v"}, "config.json: is damaged: 'vectors' is no object"),
        ({"data": {"left_column": 3}}, "config.json: is damaged: "),
        ({"data": {"split": []}}, '"split" in "data" is []; expected rule or spaces'),
        ({"data": {"fit_length": 5}}, "config.json: is damaged: "),
        ({"vectors": {"source": 1}}, "config.json: is damaged: "),
        ({"vectors": {"source": "vectors.txt", "missing": {}}}, "config.json: is damaged: "),
        ({"vectors": {}}, "run does not say which word vectors it was trained with; add --vectors FILE"),
        ({"vectors": {"source": "gone.txt"}}, "gone.txt, the word vectors of the model's training, is gone"),
        ({"model": None}, "run: "),
        ({"model": {"left": 1}}, "run: "),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_configs_of_odd_types(folder, capsys, entries, message):
    edited(**entries)
    assert message in refused(folder, capsys, "predict")


def test_weights_that_do_not_fit(folder, capsys):
    model = json.loads(Path("run/config.json").read_text("utf8"))["model"]
    for side, sizes in (("left", {"filters": 64}), ("right", {"pool": 5}), ("left", {"hidden": 10**30})):
        edited(model=model | {side: model[side] | sizes})
        assert "do not fit each other" in refused(folder, capsys, "predict")


def test_a_model_without_finite_weights(folder, capsys):
    model = TwoTowers.load("run")
    torch.nn.init.constant_(model.dense.weight, float("nan"))
    config = json.loads(Path("run/config.json").read_text("utf8"))
    model.save("run", extra={name: config[name] for name in ("vectors", "data")})
    assert "run: the model gives no number for 4 of 4 pairs" in refused(folder, capsys, "predict")


# Options.


@BOTH
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_no_cuda(folder, capsys, command):
    message = refused(folder, capsys, command, "--device", "cuda")
    assert "device (cuda): torch finds 0 CUDA devices here; say auto or cpu" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pool", "5"], "pool (5) must divide filters (32)"),
        (["--chunk", "3"], "chunk (3) must divide steps (4"),
        (["--right-words", "1"], "words (1) must be at least kernel_words (2)"),
        (["--label-range", "1"], "expected 2 arguments"),
    ],
)
def test_sizes_that_do_not_fit(folder, capsys, options, message):
    if options[0] == "--label-range":
        with pytest.raises(SystemExit) as ended:
            run("fit", *options)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    else:
        assert message in refused(folder, capsys, "fit", *options)


def test_outputs_that_exist(folder, capsys):
    before = contents(folder)
    assert run("fit", "--out", "kept") == 2
    assert "kept: holds something already; name another folder" in capsys.readouterr().err
    assert "--out vectors.txt: is the file of --vectors, which stays as it is" in refused(
        folder, capsys, "predict", "--vectors", "vectors.txt", "--out", "vectors.txt"
    )
    assert contents(folder) == before


def test_as_a_person_meets_them(folder, forks: Forks):
    """A few in processes of their own: code 2, one line, no traceback."""
    Path("utf.tsv").write_bytes(b"sentence1\tsentence2\n\xff\n")
    for options, message in (
        (
            ["--pairs", "utf.tsv"],
            "towers predict: utf.tsv, line 2: byte 1 (0xff) is not UTF-8; save the file as UTF-8\n",
        ),
        (["--pairs", "pairs.tsv", "--model", "kept"], "towers predict: kept/config.json: is damaged: "),
    ):
        command = [forks.command, "predict", "--model", "run", "--out", "out.tsv", *options]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith(message)
        assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--train", "--dev", "--test", "--vectors"])
def test_a_run_reads_no_standard_input(folder, capsys, option):
    files = {"--train": "train.tsv", "--vectors": "vectors.txt", option: "-"}
    code = main(["fit", *(word for pair in files.items() for word in pair)])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{option} -: standard input cannot be read again when a run goes on; name a file" in err
