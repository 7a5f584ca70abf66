"""`towers predict`, streaming: every format in and out, the standard streams, and what interruptions leave behind."""

import csv
import fcntl
import functools
import gzip
import io
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import polars
import pytest
import torch

from towers import TwoTowers
from towers.cli import main
from towers.data import SentencePairs, WordVectors
from towers.data.readers import read_rows
from towers.training import predict as predict_all

from ..helpers.forked import Forks
from ..helpers.predicting import NAMES, decode, encode, make_model, rows_of

FORMATS = ["tsv", "csv", "jsonl", "parquet"]
ROWS = rows_of(20)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A saved model and its vectors, in the current folder; the command reads three rows at a time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("towers.cli.predict_job.read_rows", functools.partial(read_rows, rows=3))
    make_model()
    return tmp_path


def expected(model="run", rows=ROWS):
    """The probabilities of all rows at once."""
    pairs = SentencePairs([left.split() for _, left, _ in rows], [right.split() for _, _, right in rows])
    return predict_all(TwoTowers.load(model), pairs.with_vectors(WordVectors.load("vectors.txt")), device="cpu")


def run(*options, pairs="pairs.tsv", out="out.tsv"):
    return main(["predict", "--model", "run", "--pairs", pairs, "--out", out, *options])


def check(read, rows=ROWS):
    """Rows as they were, in their order, each with its probability."""
    assert read[0] == (*NAMES, "probability")
    assert [row[:3] for row in read[1:]] == list(rows)
    torch.testing.assert_close(
        torch.tensor([float(row[3]) for row in read[1:]]), expected(rows=rows), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("out_format", FORMATS)
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_in_and_out(folder, capsys, format, out_format):
    Path(f"pairs.{format}").write_bytes(encode(ROWS, format))
    assert run(pairs=f"pairs.{format}", out=f"out.{out_format}") == 0
    check(decode(Path(f"out.{out_format}").read_bytes(), out_format))
    said, err = capsys.readouterr()
    assert said.startswith(f"20 pairs with probability in out.{out_format}; 100.00 % of ")
    assert err == ""
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("format", FORMATS)
def test_standard_input_and_output(folder, capsysbinary, monkeypatch, format):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(encode(ROWS, format))))
    assert run("--format", format, pairs="-", out="-") == 0
    out, err = capsysbinary.readouterr()
    check(decode(out, format))
    assert err.startswith(b"20 pairs with probability in standard output; 100.00 %")


def test_a_pipe_as_a_person_types_it(folder, forks: Forks):
    Path("pairs.csv").write_bytes(encode(ROWS, "csv"))
    options = "--format csv --out-format jsonl"
    command = f"cat pairs.csv | '{forks.command}' predict --model run --pairs - --out - {options} | tail -n 5"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, timeout=120)
    assert [json.loads(line)["id"] for line in ended.stdout.splitlines()] == ["15", "16", "17", "18", "19"]
    assert ended.stderr.count(b"\n") == 1


@pytest.mark.parametrize("name", ["pairs.data", "pairs"])
def test_a_name_that_tells_no_format_needs_the_option(folder, capsys, name):
    Path(name).write_bytes(encode(ROWS, "jsonl"))
    assert run(pairs=name) == 2
    assert "does not tell the format, as .tsv, .csv, .jsonl" in capsys.readouterr().err
    assert run("--format", "jsonl", pairs=name, out="out") == 0
    check(decode(Path("out").read_bytes(), "jsonl"))


def test_leftovers_of_a_killed_one_are_removed(folder):
    left = [Path(f".out.tsv.{pid}.partial") for pid in (1, 99999999)]
    others = [Path(".out.tsv.partial"), Path(".other.tsv.7.partial"), Path(".out.tsv.8.partial")]
    for path in (*left, *others):
        path.write_text("half")
    Path("pairs.tsv").write_bytes(encode(ROWS, "tsv"))
    with others[-1].open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as one that still runs does
        assert run() == 0
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_the_separator_of_the_input_stays(folder):
    rows = [("0", "the dog; runs", "the cat"), ("1", "a,b dog", "the cat")]
    text = 'id;sentence1;sentence2\n0;"the dog; runs";the cat\n1;a,b dog;the cat\n'
    Path("pairs.csv").write_text(text)
    assert run(pairs="pairs.csv", out="out.csv") == 0
    lines = Path("out.csv").read_text().splitlines()
    assert [tuple(row[:3]) for row in csv.reader(lines, delimiter=";")] == [NAMES, *rows]
    Path("tabs.csv").write_text(text.replace(";", "\t").replace("dog\t ", "dog; "))
    assert run("--separator", "tab", pairs="tabs.csv", out="tabs.out.csv") == 0
    assert [tuple(row[:3]) for row in csv.reader(Path("tabs.out.csv").read_text().splitlines(), delimiter="\t")] == [
        NAMES,
        *rows,
    ]


def test_a_separator_of_two_characters_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        run("--separator", ";;")
    assert "argument --separator: ';;' is not one character, nor 'tab'" in capsys.readouterr().err


def test_numbers_that_json_lacks_become_null(folder):
    text = '{"sentence1": "the dog", "sentence2": "the cat", "x": NaN, "y": [1e400, {"z": -Infinity}], "w": 1.5}\n'
    Path("pairs.jsonl").write_text(text)
    assert run(pairs="pairs.jsonl", out="out.jsonl") == 0

    def refuse(constant):
        raise AssertionError(constant)

    row = json.loads(Path("out.jsonl").read_text(), parse_constant=refuse)
    assert (row["x"], row["y"], row["w"]) == (None, [None, {"z": None}], 1.5)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("command", ["verify towers:Tower", "explain", "predict --model run --pairs pairs.tsv --out -"])
def test_a_full_standard_output_is_named(folder, command, forks: Forks):
    Path("pairs.tsv").write_bytes(encode(ROWS, "tsv"))
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [forks.command, *command.split()], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert done.returncode == 2
    assert done.stderr.startswith(f"towers {command.split()[0]}: standard output: No space left on device")
    assert done.stderr.count("\n") == 1


def test_a_folder_of_0_1_0_names_the_vectors_that_are_gone(folder, capsys):
    make_model(carries=False)
    Path("pairs.tsv").write_bytes(encode(ROWS, "tsv"))
    Path("vectors.txt").rename("moved.txt")
    assert run() == 2
    assert "vectors.txt, the word vectors of the model's training, is gone; say where" in capsys.readouterr().err
    assert run("--vectors", "moved.txt") == 0
    assert "whether those of moved.txt are the ones that it learned with cannot be checked" in capsys.readouterr().err


def test_gzip(folder):
    Path("pairs.csv.gz").write_bytes(gzip.compress(encode(ROWS, "csv")))
    assert run(pairs="pairs.csv.gz", out="out.csv") == 0
    check(decode(Path("out.csv").read_bytes(), "csv"))


def test_a_fifo_is_read_once(folder):
    os.mkfifo("fifo.tsv")
    with subprocess.Popen(["bash", "-c", "cat > fifo.tsv"], stdin=subprocess.PIPE) as feeder:
        assert feeder.stdin is not None
        feeder.stdin.write(encode(ROWS, "tsv"))
        feeder.stdin.close()
        assert run(pairs="fifo.tsv") == 0
    check(decode(Path("out.tsv").read_bytes(), "tsv"))


def test_a_table_without_rows(folder, capsys):
    for format in ("tsv", "csv", "parquet"):
        Path(f"pairs.{format}").write_bytes(encode([], format))
        assert run(pairs=f"pairs.{format}", out=f"out.{format}") == 0
        assert "0 pairs with probability" in capsys.readouterr().out
    assert Path("out.tsv").read_text() == "id\tsentence1\tsentence2\tprobability\n"
    assert polars.read_parquet("out.parquet").columns == [*NAMES, "probability"]


def test_the_result_as_json(folder, capsys):
    Path("pairs.tsv").write_bytes(encode([("7", "the dog runs", "blorp cat")], "tsv"))
    assert run("--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said.pop("seconds") > 0
    assert said == {
        "pairs": 1,
        "without_score": 0,
        "without_known_word": 0,
        "out": "out.tsv",
        "vectors": {
            "source": str(Path("run", "vectors.safetensors")),
            "tokens": 5,
            "tokens_found": 4,
            "types": 5,
            "types_found": 4,
            "missing": {"blorp": 1},
        },
    }


# What each format keeps.


def test_json_lines_keep_what_each_row_has(folder):
    rows = [
        {"sentence1": "the dog", "sentence2": ["the", "cat"], "extra": {"a": [1]}, "big": 10**30},
        {"sentence2": "the cat", "sentence1": "a dog", "extra": "text", "half": "\ud800"},
        {"sentence1": "the dog", "sentence2": "the cat", "é": None, "extra": [1, "x"]},
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    assert run(pairs="pairs.jsonl", out="out.jsonl") == 0
    read = [json.loads(line) for line in Path("out.jsonl").read_text("utf8").split("\n")[:-1]]
    assert all(0 < row.pop("probability") < 1 for row in read)
    assert [list(row.items()) for row in read] == [list(row.items()) for row in rows]
    assert '"é"' in Path("out.jsonl").read_text("utf8")


def test_parquet_keeps_the_types(folder):
    frame = polars.DataFrame(
        {
            "sentence1": [["the", "dog"], ["a", "cat"]] * 4,
            "sentence2": ["the cat", "a dog"] * 4,
            "number": polars.Series(range(8), dtype=polars.Int16),
            "day": polars.date_range(polars.date(2020, 1, 1), polars.date(2020, 1, 8), eager=True),
            "text": ["a\tb\u2028c", None] * 4,
        }
    )
    frame.write_parquet("pairs.parquet")
    assert run(pairs="pairs.parquet", out="out.parquet") == 0
    read = polars.read_parquet("out.parquet")
    assert read.drop("probability").equals(frame)
    assert read.drop("probability").schema == frame.schema
    assert read.schema["probability"] == polars.Float32
    assert run(pairs="pairs.parquet", out="out.jsonl") == 0
    first = json.loads(Path("out.jsonl").read_text("utf8").split("\n")[0])
    assert first["day"] == "2020-01-01"
    assert first["text"] == "a\tb\u2028c"
    assert run(pairs="pairs.parquet", out="out.csv") == 0
    rows = list(csv.reader(io.StringIO(Path("out.csv").read_text("utf8"), newline="")))
    assert rows[1][:5] == ['["the", "dog"]', "the cat", "0", "2020-01-01", "a\tb\u2028c"]
    assert rows[2][4] == ""


def test_json_lines_as_parquet_take_the_type_that_fits_all(folder, monkeypatch):
    monkeypatch.setattr("towers.data.writers.GROUP", 3)
    pair = {"sentence1": "the dog", "sentence2": "the cat"}
    extras = [{"a": None}, {"a": None}, {}, {"a": 1}, {"a": 2.5}, {"a": 1, "b": "x"}, {}]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair | extra) + "\n" for extra in extras), encoding="utf8")
    assert run(pairs="pairs.jsonl", out="out.parquet") == 0
    read = polars.read_parquet("out.parquet")
    assert read["a"].to_list() == [None, None, None, 1, 2.5, 1, None]
    assert read["b"].to_list() == [None] * 5 + ["x", None]


@pytest.mark.parametrize(
    ("records", "out", "message"),
    [
        ([{}, {}, {}, {"new": 1}], "out.csv", "pairs.jsonl, line 4: has 'new', which is no column of the header"),
        ([{"a": "x\ty"}], "out.tsv", "pairs.jsonl, line 1: has a tab or a line end in a cell, which TSV cannot"),
        ([{"a": "x"}, {"a": "x\ny"}], "out.tsv", "line 2: has a tab or a line end in a cell"),
        ([{"a": "x"}, {"a": "x\ry"}], "out.tsv", "line 2: has a tab or a line end in a cell"),
        ([{"a": "\ud800"}], "out.csv", "line 1: has half a character, which UTF-8 cannot hold"),
        ([{"a": 1}, {}, {}, {}, {"a": "x"}], "out.parquet", "line 5: 'a' is a string; it was a number before"),
        ([{"a": [1, "x"]}], "out.parquet", "pairs.jsonl: "),
    ],
    ids=["new column", "tab", "line end", "return", "half a character", "mixed", "mixed list"],
)
def test_what_a_format_cannot_hold(folder, capsys, records, out, message):
    pair = {"sentence1": "the dog", "sentence2": "the cat"}
    Path("pairs.jsonl").write_text("".join(json.dumps(pair | record) + "\n" for record in records), encoding="utf8")
    assert run(pairs="pairs.jsonl", out=out) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["pairs.jsonl", "run", "vectors.txt"]


def test_a_carriage_return_of_a_tsv_file_stays(folder):
    Path("pairs.tsv").write_bytes(b"sentence1\tsentence2\nthe dog\tthe\rcat\n")
    assert run(pairs="pairs.tsv", out="out.tsv") == 0
    assert Path("out.tsv").read_bytes().splitlines(keepends=True)[1:2] == [b"the dog\tthe\r"]


def test_what_is_no_number_in_json_is_an_empty_cell(folder):
    text = '{"sentence1": "the dog", "sentence2": "the cat", "a": NaN, "b": [1e400, 1]}\n'
    Path("pairs.jsonl").write_text(text, encoding="utf8")
    assert run(pairs="pairs.jsonl", out="out.tsv") == 0
    assert Path("out.tsv").read_text(encoding="utf8").splitlines()[1].split("\t")[2:4] == ["", "[null, 1]"]


def test_parquet_of_times_and_bytes_as_text(folder, capsys):
    frame = polars.DataFrame({"sentence1": ["the dog"], "sentence2": ["the cat"], "took": [timedelta(seconds=3)]})
    frame.write_parquet("pairs.parquet")
    assert run(pairs="pairs.parquet", out="out.csv") == 0
    assert Path("out.csv").read_text(encoding="utf8").splitlines()[1].split(",")[2] == "PT3S"
    for cell in (b"\xff", {"inside": [b"\xff"]}):
        frame.with_columns(image=polars.Series([cell])).write_parquet("pairs.parquet")
        assert run(pairs="pairs.parquet", out="other.parquet") == 0
        for out in ("other.csv", "other.jsonl"):
            assert run(pairs="pairs.parquet", out=out) == 2
            problem = "pairs.parquet: column 'image' has bytes, which text cannot hold; write Parquet"
            assert problem in capsys.readouterr().err
    polars.read_parquet("pairs.parquet").with_columns(sentence1=polars.lit("")).write_parquet("pairs.parquet")
    assert (
        run("--engine", "local", "--max-bad", "1", "--vectors", "vectors.txt", pairs="pairs.parquet", out="parts") == 0
    )
    row = {"sentence1": "", "sentence2": "the cat", "took": "PT3S"}
    assert json.loads(Path("parts/bad-00000.jsonl").read_text(encoding="utf8"))["row"] == row


# Interruptions.


def many():
    """Some 300 kB of pairs, five windows."""
    rows = [f"the dog x{number} runs\tthe cat y{number}\n" for number in range(10_000)]
    return "sentence1\tsentence2\n" + "".join(rows)


def start(forks, *options, **streams):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | streams
    command = [forks.command, "predict", "--model", "run", "--device", "cpu", *options]
    return subprocess.Popen(command, **streams)


def start_and_feed(forks, folder):
    """A command that has written a part beside its output and waits for more pairs.

    A pipe holds 64 kB: it takes the last of the pairs when the command has read what stands before them, three
    windows at least, and a window is read after the one before it is written.
    """
    command = start(forks, "--pairs", "-", "--format", "tsv", "--out", "out.tsv", stdin=subprocess.PIPE)
    command.stdin.write(many())
    command.stdin.flush()
    [partial] = folder.glob(".out.tsv.*")
    assert partial.stat().st_size
    return command


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "\ntowers: interrupted\n"), (signal.SIGTERM, 143, "\ntowers: terminated\n")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_an_interrupted_output_is_not_there(folder, number, code, said, forks: Forks):
    Path("out.tsv").write_text("mine")
    with start_and_feed(forks, folder) as command:
        command.send_signal(number)
        _, err = command.communicate(timeout=60)
    assert command.returncode == code
    assert err.endswith(said)
    assert Path("out.tsv").read_text() == "mine"
    assert not list(folder.glob(".out*"))


def test_a_killed_one_leaves_no_output_either(folder, forks: Forks):
    with start_and_feed(forks, folder) as command:
        command.kill()
    assert not Path("out.tsv").exists()


def test_a_reader_that_has_seen_enough(folder, forks: Forks):
    Path("pairs.tsv").write_text(many())
    command = f"'{forks.command}' predict --model run --pairs pairs.tsv --out - | head -n 1; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert ended.stdout == "sentence1\tsentence2\tprobability\n141\n"
    assert "Traceback" not in ended.stderr
    assert "Error" not in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk(folder, forks: Forks):
    Path("pairs.tsv").write_bytes(encode(ROWS, "tsv"))
    with open("/dev/full", "wb") as full, start(forks, "--pairs", "pairs.tsv", "--out", "-", stdout=full) as command:
        _, err = command.communicate(timeout=60)
    assert command.returncode == 2
    assert err.endswith("towers predict: standard output: No space left on device; standard output is not whole\n")
    assert err.count("\n") == 1


def test_a_disk_that_gets_full_leaves_the_file_as_it_was(folder, capsys, monkeypatch):
    Path("pairs.tsv").write_bytes(encode(ROWS, "tsv"))
    Path("out.tsv").write_text("mine")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("towers.data.writers.TextWriter._line", full)
    assert run() == 2
    assert capsys.readouterr().err == "towers predict: out.tsv: No space left on device; nothing was written\n"
    assert Path("out.tsv").read_text() == "mine"
    assert not list(folder.glob(".*"))


def test_a_mistake_in_the_middle(folder, capsys):
    """Of a file nothing is written; on standard output there are rows already, and the message says so."""
    Path("pairs.tsv").write_bytes(encode([*ROWS[:10], ("10", "the dog")], "tsv"))
    Path("out.tsv").write_text("mine")
    assert run() == 2
    assert capsys.readouterr().err == "towers predict: pairs.tsv, line 12 has 2 fields; the header has 3\n"
    assert Path("out.tsv").read_text() == "mine"
    assert run(out="-") == 2
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 + 9
    assert (
        err
        == "towers predict: pairs.tsv, line 12 has 2 fields; the header has 3; standard output has the first 9 pairs only\n"
    )


# On a terminal.


def test_a_bar_on_a_terminal_only(folder, capsys, forks: Forks):
    Path("pairs.tsv").write_text(many())
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with start(forks, "--pairs", "pairs.tsv", "--out", "out.tsv", stderr=theirs) as command:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            seen += part
    os.close(ours)
    assert command.returncode == 0
    assert b" pairs/s" in seen
    assert b"%|" in seen
    Path("pairs.tsv").write_text("".join(many().splitlines(keepends=True)[:100]))
    assert run() == 0
    err = capsys.readouterr().err
    assert "towers predict: warning: only 4 of " in err
    assert err.count("\n") == 1


def test_parquet_is_not_for_a_terminal(folder, capsys, monkeypatch):
    Path("pairs.parquet").write_bytes(encode(ROWS, "parquet"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(pairs="pairs.parquet", out="-") == 2
    assert "--out -: Parquet is not for a terminal; name a file, or say --out-format" in capsys.readouterr().err


def test_standard_streams_that_are_closed_or_the_same(folder, forks: Forks):
    Path("pairs.tsv").write_bytes(encode(ROWS, "tsv"))
    base = f"'{forks.command}' predict --model run"
    for line, message in (
        ("--pairs - --format tsv --out out.tsv <&-", "--pairs -: standard input is closed"),
        ("--pairs pairs.tsv --out - >&-", "--out -: standard output is closed"),
        ("--pairs pairs.tsv --out - >>pairs.tsv", "--out -: standard output goes to the file of --pairs"),
    ):
        ended = subprocess.run(["bash", "-c", f"{base} {line}"], capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert message in ended.stderr
        assert ended.stderr.count("\n") == 1
    assert Path("pairs.tsv").read_bytes() == encode(ROWS, "tsv")


# Columns, empty cells, single lines.


@pytest.mark.parametrize("format", FORMATS)
def test_the_score_is_in_the_range_of_the_labels_and_a_threshold_adds_labels(folder, format):
    make_model("degrees", data={"label_range": [1, 5]})
    Path("pairs.tsv").write_bytes(encode(ROWS, "tsv"))
    want = 1 + 4 * expected("degrees")
    middle = float(want.median())
    options = ["--out-format", format, "--threshold", str(middle), "--out", "out"]
    assert main(["predict", "--model", "degrees", "--pairs", "pairs.tsv", *options]) == 0
    columns = next(read_rows("out", format, rows=None))
    assert columns.names == [*NAMES, "score", "label"]
    scores, labels = (torch.tensor([float(cell) for cell in columns.column(name)]) for name in ("score", "label"))
    torch.testing.assert_close(scores, want, rtol=1e-5, atol=1e-5)
    assert torch.equal(labels, (scores >= middle).float())
    assert {str(cell) for cell in columns.column("label")} == {"0", "1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--score-column", "id"],
            "pairs.tsv has a column 'id' already; call the new one otherwise with --score-column",
        ),
        (
            ["--threshold", ".5", "--label-column", "id"],
            "a column 'id' already; call the new one otherwise with --label-column",
        ),
        (["--threshold", "2"], "--threshold (threshold=) is 2: the scores go from 0 to 1"),
        (["--threshold", "nan"], "--threshold (threshold=) is nan: the scores go from 0 to 1"),
        (
            ["--threshold", ".5", "--label-column", "probability"],
            "--label-column (label_column=) is 'probability', the column of the sco",
        ),
        (["--line"], "--line goes with --out -"),
        (["--line", "--out-format", "parquet"], "--line: a Parquet file has no lines"),
    ],
)
def test_options_about_columns_and_lines_that_are_refused(folder, capsys, options, message):
    Path("pairs.tsv").write_bytes(encode(ROWS, "tsv"))
    assert run(*options) == 2
    assert message in capsys.readouterr().err
    assert not Path("out.tsv").exists()


@pytest.mark.parametrize("name", ["out.tsv.gz", "out.XLSX", "out.zip"])
def test_a_name_of_what_is_not_written_is_refused(folder, capsys, name):
    Path("pairs.tsv").write_bytes(encode(ROWS, "tsv"))
    assert run(out=name) == 2
    assert f"--out {name}: files of the ending '{Path(name).suffix}' are not written, only text and .tsv" in (
        capsys.readouterr().err
    )
    assert not Path(name).exists()


def test_another_name_of_the_score(folder):
    Path("pairs.tsv").write_text("sentence1\tsentence2\tprobability\nthe dog\tthe cat\tmine\n")
    assert run("--score-column", "p") == 0
    header, row = Path("out.tsv").read_text().splitlines()
    assert header == "sentence1\tsentence2\tprobability\tp"
    assert row.startswith("the dog\tthe cat\tmine\t0.")


@pytest.mark.parametrize("format", FORMATS)
def test_empty_and_short_sentences_get_empty_scores(folder, capsys, format):
    rows = list(ROWS)
    bad = {1: ("", rows[1][2]), 4: (rows[4][1], "dog"), 5: ("dog", ""), 11: ("", ""), 12: ("", ""), 13: ("dog", "dog")}
    for place, (left, right) in bad.items():
        rows[place] = (rows[place][0], left, right)
    Path("pairs.csv").write_bytes(encode(rows, "csv"))
    assert run("--threshold", ".5", pairs="pairs.csv", out=f"out.{format}") == 0
    told = "towers predict: warning: 6 pairs without a score: a sentence is empty or too short (lines 3, 6, 7, 13, 14, …)\n"
    assert told in capsys.readouterr().err
    columns = next(read_rows(f"out.{format}", rows=None))
    scores, labels = columns.column("probability"), columns.column("label")
    want = expected()
    for place, (score, label) in enumerate(zip(scores, labels, strict=True)):
        if place in bad:
            assert score in ("", None)
            assert label in ("", None)
        else:
            assert float(score) == pytest.approx(float(want[place]), rel=1e-5)
            assert int(label) == (float(want[place]) >= 0.5)


def test_a_file_of_bad_rows_alone(folder, capsys):
    Path("pairs.tsv").write_text("sentence1\tsentence2\n\tthe dog\n")
    assert run("--json") == 0
    said, err = capsys.readouterr()
    assert "1 pair without a score: a sentence is empty or too short (line 2)" in err
    assert json.loads(said)["without_score"] == 1
    assert Path("out.tsv").read_text() == "sentence1\tsentence2\tprobability\n\tthe dog\t\n"


def test_sentences_without_a_known_word_are_counted(folder, capsys):
    Path("pairs.tsv").write_text("sentence1\tsentence2\nthe dog\tthe cat\nx y\tthe cat\nthe dog\tz z\n")
    assert run("--json") == 0
    said, err = capsys.readouterr()
    assert "2 pairs have a sentence of which no word has a vector (the first: line 3); such scores mean nothing" in err
    assert json.loads(said)["without_known_word"] == 2


@pytest.mark.parametrize("terminal", [False, True])
def test_each_line_is_answered_when_it_comes(folder, terminal, forks: Forks):
    options = ["--model", "run", "--pairs", "-", "--out", "-", "--format", "tsv"]
    reader, writer = pty.openpty() if terminal else os.pipe()
    if terminal:
        reader, writer = writer, reader
    command = [forks.command, "predict", *options, *([] if terminal else ["--line"])]
    with subprocess.Popen(command, stdin=reader, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        os.close(reader)
        os.write(writer, b"sentence1\tsentence2\nthe dog\tthe cat\n")
        assert process.stdout.readline() == b"sentence1\tsentence2\tprobability\n"
        first = process.stdout.readline()
        os.write(writer, b"the cat\tthe dog runs\n")
        second = process.stdout.readline()
        os.write(writer, b"\x04" if terminal else b"")
        if not terminal:
            os.close(writer)
        assert process.wait(120) == 0
    rows = [("", "the dog", "the cat"), ("", "the cat", "the dog runs")]
    got = torch.tensor([float(line.split(b"\t")[2]) for line in (first, second)])
    torch.testing.assert_close(got, expected(rows=rows), rtol=1e-5, atol=1e-6)
