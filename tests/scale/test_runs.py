"""Runs in parts: what `predict` says, in parts of any size and format; they go on, and refuse another question."""

import json
import os
import re
import subprocess
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import polars
import pytest
import torch

from towers.cli import main, run_job
from towers.scale import pace
from towers.scale.pace import Pace

from ..helpers.forked import Forks
from ..helpers.predicting import decode, encode, make_model, rows_of

FORMATS = ["tsv", "csv", "jsonl", "parquet"]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pace, "EVERY", float("inf"))  # no line between, however slow the machine is
    make_model()


def run(*options: str, engine: str = "local", code: int = 0) -> None:
    given = {"--model": "run", "--vectors": "vectors.txt", "--engine": engine, "--out": "out", "--part-rows": "5"}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    assert main(["predict", *(word for pair in given.items() for word in pair)]) == code


def files(folder: str = "out") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*")}


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("format", FORMATS)
def test_parts_have_what_one_file_has(format: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(f"pairs.{format}").write_bytes(encode(rows_of(23), format))
    run("--pairs", f"pairs.{format}")
    assert capsys.readouterr().out.startswith("23 pairs in 5 parts in out; ")
    assert main(["predict", "--model", "run", "--pairs", f"pairs.{format}", "--out", f"whole.{format}"]) == 0
    names, *wanted = decode(Path(f"whole.{format}").read_bytes(), format)
    found = []
    for path in sorted(Path("out").glob("part-*")):
        own, *rows = decode(path.read_bytes(), format)
        assert own == names
        found += rows
    assert [row[:-1] for row in found] == [row[:-1] for row in wanted]
    assert [float(row[-1]) for row in found] == pytest.approx([float(row[-1]) for row in wanted], abs=1e-6)
    assert sorted(path.name for path in Path("out").iterdir() if not path.name.startswith("part-")) == [
        "done.jsonl", "manifest.json",
    ]  # fmt: skip


@pytest.mark.usefixtures("model")
def test_words_without_a_vector_are_counted_as_in_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(number, left.replace("dog", "blorp"), f"{right} zork") for number, left, right in rows_of(13)]
    Path("pairs.tsv").write_bytes(encode(rows, "tsv"))
    assert main(["predict", "--model", "run", "--pairs", "pairs.tsv", "--out", "whole.tsv", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)["vectors"]
    names = ("tokens", "tokens_found", "missing")
    assert whole["missing"].keys() == {"zork", "blorp"}
    for _ in range(2):  # the second time nothing is left to do
        run("--pairs", "pairs.tsv", "--workers", "1")
        share = f"{100 * whole['tokens_found'] / whole['tokens']:.2f} % of {whole['tokens']} tokens have a vector"
        most = f"missing most often: 'zork' (13), 'blorp' ({whole['missing']['blorp']})\n"
        assert capsys.readouterr().out.endswith(f"; {share}; {most}")
    options = {"--model": "run", "--pairs": "pairs.tsv", "--engine": "local", "--out": "out", "--part-rows": "5"}
    options |= {"--vectors": "vectors.txt"}
    assert main(["predict", "--json", *(word for pair in options.items() for word in pair)]) == 0
    assert json.loads(capsys.readouterr().out)["vectors"] == {name: whole[name] for name in names}
    with Path("out/done.jsonl").open() as journal:  # of an older towers
        entries = [json.loads(line) for line in journal]
    old = [{name: value for name, value in entry.items() if name not in names} for entry in entries]
    Path("out/done.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in old))
    run("--pairs", "pairs.tsv")
    assert capsys.readouterr().out.endswith("; nothing was left to do\n")


@pytest.mark.usefixtures("model")
def test_bad_rows_are_in_the_side_file_with_their_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    lines = encode(rows_of(12), "tsv").split(b"\n")
    lines[3], lines[9], lines[10] = b"2\t\tthe dog", b"caf\xe9", b"9\tone\ttwo"
    Path("pairs.tsv").write_bytes(b"\n".join(lines))
    run("--pairs", "pairs.tsv", code=2)
    err = capsys.readouterr().err
    assert (
        f"1 row is bad, and --max-bad is 0: {Path.cwd()}/pairs.tsv, line 4: sentence1 is empty (see out/bad-00000.jsonl)"
        in err
    )
    assert "; 1 of 3 parts are done in out; the same command goes on from there" in err
    assert err.count("\n") == 1
    run("--pairs", "pairs.tsv", "--max-bad", "2", code=2)
    assert "3 rows are bad, and --max-bad is 2" in capsys.readouterr().err
    run("--pairs", "pairs.tsv", "--max-bad", "3")
    assert "3 bad rows left out" in capsys.readouterr().err
    bad = [json.loads(line) for path in sorted(Path("out").glob("bad-*")) for line in path.read_text().splitlines()]
    assert [(entry["file"], entry["line"]) for entry in bad] == [(os.path.abspath("pairs.tsv"), n) for n in (4, 10, 11)]
    assert bad[0]["row"] == {"id": "2", "sentence1": "", "sentence2": "the dog"}
    assert "pairs.tsv, line 10: byte 4 (0xe9) is not UTF-8" in bad[1]["problem"]
    assert bad[1]["text"] == "caf\\xe9"
    assert bad[2]["problem"] == "sentence1 has 1 word; its tower takes at least 2"
    ids = [row[0] for path in sorted(Path("out").glob("part-*")) for row in decode(path.read_bytes(), "tsv")[1:]]
    assert ids == [str(number) for number in range(12) if number not in (2, 8, 9)]


@pytest.mark.usefixtures("model")
def test_a_run_goes_on_and_does_nothing_twice(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    Path("pairs.jsonl").write_bytes(encode(rows_of(23), "jsonl"))
    real = run_job.run_local
    monkeypatch.setattr(run_job, "run_local", lambda job, parts, workers: list(real(job, parts[:2], workers)))
    run("--pairs", "pairs.jsonl")
    first = files()
    monkeypatch.setattr(run_job, "run_local", real)
    run("--pairs", "pairs.jsonl")
    assert "going on: 2 of 5 parts are done" in capsys.readouterr().err
    whole = files()
    assert all(whole[name] == text for name, text in first.items() if name != "done.jsonl")
    times = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    run("--pairs", "pairs.jsonl")
    assert "23 pairs in 5 parts in out; nothing was left to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path("out").iterdir()} == times
    Path("out/part-00003.jsonl").unlink()  # whoever removes a part wants it again
    with Path("out/done.jsonl").open("ab") as journal:
        journal.write(b'{"part": 9, "ro')  # the line that a killed process was writing
    Path("out/.part-00003.jsonl.77.partial").write_text("half")
    os.utime("pairs.jsonl")  # a copy of the input is the same input
    run("--pairs", "pairs.jsonl")
    assert {name: text for name, text in files().items() if name != "done.jsonl"} == {
        name: text for name, text in whole.items() if name != "done.jsonl"
    }


def change_model() -> None:
    torch.manual_seed(9)
    make_model()
    torch.manual_seed(9)
    from towers import Tower, TwoTowers

    TwoTowers(Tower(vector_width=10), Tower(vector_width=10)).save("run", extra={"vectors": {"source": "vectors.txt"}})


def cut_part() -> None:
    path = Path("out/part-00001.tsv")
    path.write_bytes(path.read_bytes()[:-9])


CHANGES = {
    "model": (change_model, (), "out: its run has another model: "),
    "input": (lambda: Path("pairs.tsv").write_bytes(encode(rows_of(24), "tsv")), (), "out: its run has another input"),
    "same size": (
        lambda: Path("pairs.tsv").write_bytes(Path("pairs.tsv").read_bytes().replace(b"dog", b"cat")),
        (),
        "another input: .*/pairs.tsv is not what it was when the run began",
    ),
    "vectors": (lambda: Path("vectors.txt").write_text(Path("vectors.txt").read_text() + "\n"), (), "another model"),
    "option": (None, ("--threshold", "0.5"), "out: its run has --threshold None, not 0.5; name another folder"),
    "parts": (None, ("--part-rows", "7"), "out: its run has --part-rows 5, not 7"),
    "cut off": (cut_part, (), "out/part-00001.tsv: has .* bytes, and the run wrote .*: it was changed or cut off"),
    "manifest": (lambda: Path("out/manifest.json").write_text("{}"), (), "out/manifest.json: is damaged"),
    "journal": (lambda: Path("out/done.jsonl").write_text("[]\n"), (), "out/done.jsonl: is damaged"),
    "other folder": (lambda: Path("out/manifest.json").unlink(), (), "out: is no folder of such a run, and not empty"),
}


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("change", CHANGES)
def test_another_question_is_refused(change: str, capsys: pytest.CaptureFixture[str]) -> None:
    harm, options, said = CHANGES[change]
    Path("pairs.tsv").write_bytes(encode(rows_of(12), "tsv"))
    run("--pairs", "pairs.tsv")
    if harm is not None:
        harm()
    before = files()
    capsys.readouterr()
    run("--pairs", "pairs.tsv", *options, code=2)
    err = capsys.readouterr().err
    assert re.search(said, err), err
    assert err.count("\n") == 1
    assert files() == before


@pytest.mark.usefixtures("model")
def test_two_processes_do_not_write_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    fcntl = pytest.importorskip("fcntl")
    Path("pairs.tsv").write_bytes(encode(rows_of(12), "tsv"))
    run("--pairs", "pairs.tsv")
    with Path("out/manifest.json").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        run("--pairs", "pairs.tsv", code=2)
    assert "out: another process writes here; wait for it, or end it" in capsys.readouterr().err


MISTAKES = [
    (("--pairs", "none.tsv"), "none.tsv: No such file or directory"),
    (("--pairs", "-"), "standard input cannot be read in parts"),
    (("--pairs", "empty.tsv"), "empty.tsv: there is no row in it"),
    (("--pairs", "empty"), "empty: there is no file in this folder"),
    (("--pairs", "mixed"), "mixed: the endings do not tell one format"),
    (("--pairs", "other.tsv"), "other.tsv has no column 'sentence1', only a, b"),
    (("--out", "no/out"), "--out no/out: there is no folder no"),
    (("--out", "pairs.tsv"), "pairs.tsv: is no folder of such a run, and not empty"),
    (("--model", "none"), "none: no folder"),
    (("--threshold", "7"), "--threshold (threshold=) is 7: the scores go from 0 to 1"),
    (("--precision", "64-true"), "--precision does not go with --engine"),
    (("--address", "auto"), "--address goes with --engine ray"),
    (("--separator", ";"), "--separator is for CSV files; these are tsv"),
    (("--workers", "999"), "--workers 999: this process may use "),
]  # fmt: skip


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(("options", "said"), MISTAKES)
def test_a_mistake_is_one_line(options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs.tsv").write_bytes(encode(rows_of(12), "tsv"))
    Path("empty.tsv").write_text("sentence1\tsentence2\n")
    Path("other.tsv").write_text("a\tb\n1\t2\n")
    Path("empty").mkdir()
    Path("mixed").mkdir()
    Path("mixed/a.tsv").write_text("x")
    Path("mixed/a.csv").write_text("x")
    before = {path.name for path in Path().iterdir()}
    run("--pairs", "pairs.tsv", *options, code=2) if options[0] != "--pairs" else run(*options, code=2)
    err = capsys.readouterr().err
    assert err.startswith("towers predict: ")
    assert said in err
    assert err.count("\n") == 1
    assert {path.name for path in Path().iterdir()} - {"out"} == before
    assert options[0] == "--workers" or not Path("out").exists()


@pytest.mark.usefixtures("model")
def test_options_of_runs_are_refused_without_them(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs.tsv").write_bytes(encode(rows_of(2), "tsv"))
    assert main(["predict", "--model", "run", "--pairs", "pairs.tsv", "--out", "o.tsv", "--max-bad", "3"]) == 2
    assert "--max-bad goes with --engine local or --engine ray" in capsys.readouterr().err


@pytest.mark.usefixtures("model")
def test_states_of_a_folder_of_files(capsys: pytest.CaptureFixture[str]) -> None:
    from towers import load

    Path("texts").mkdir()
    texts = ["the dog runs", "a cat", "the cat sleeps well"]
    for number, text in enumerate(texts):
        Path(f"texts/{number}.tsv").write_text(f"text\n{text}\n")
    options = ["--vectors", "vectors.txt", "--side", "right", "--out-format", "parquet", "--json"]
    assert main(["encode", "--model", "run", "--sentences", "texts", "--out", "states", *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["bad"], said["parts"]) == (3, 0, 3)
    found = polars.read_parquet("states/*.parquet")
    assert found["text"].to_list() == texts
    states = load("run", vectors="vectors.txt").encode(texts, side="right")
    torch.testing.assert_close(torch.tensor(found["state"].to_list()), states)


def killed_runs(folder: Path, every: int, forks: Forks) -> str:
    script = Path(__file__).parents[1] / "helpers/killed_runs.py"
    done = subprocess.run([forks.python, script, folder, str(every)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_a_killed_run_goes_on(tmp_path: Path, forks: Forks) -> None:
    assert " kills; a whole run has " in killed_runs(tmp_path, 9, forks)


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_step_goes_on(tmp_path: Path, forks: Forks) -> None:
    assert " kills; a whole run has " in killed_runs(tmp_path, 1, forks)


@pytest.mark.slow
@pytest.mark.usefixtures("model")
def test_a_killed_worker_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    """The first worker that sees the mark kills itself, as the kernel does where memory is short."""
    from towers.data.parts import Part, plan
    from towers.scale.local_engine import run_local

    Path("mark").touch()
    Path("pairs.tsv").write_bytes(encode(rows_of(12), "tsv"))
    _, parts = plan(["pairs.tsv"], "tsv", rows=3)
    done = sorted(run_local(dies_once, parts, 2))
    assert done == [part.number for part in parts]
    with pytest.raises(ValueError, match="a worker was killed 3 times, and no part was done in between"):
        list(run_local(dies, [Part(0, 0, 0, 0, 0, 0)], 2))


def dies_once(part: Any) -> Any:
    if part.number == 2 and Path("mark").exists():
        Path("mark").unlink()
        os.kill(os.getpid(), 9)
    return Numbered(part.number)


def dies(part: Any) -> Any:
    os.kill(os.getpid(), 9)


class Numbered(int):
    """Stands for a report; `part` is its number."""

    @property
    def part(self) -> int:
        return int(self)


def test_pace_says_the_rate_and_the_end() -> None:
    seconds, out = [0.0], StringIO()
    going = Pace(10_000, 1_000, "pairs", stream=out, clock=lambda: seconds[0], now=lambda: datetime(2027, 1, 1, 23, 59))
    assert going.line() == "1,000 of 10,000 pairs (10 %)"
    seconds[0] = 10
    going.add(500)
    assert out.getvalue() == ""
    seconds[0] = 30
    going.add(1_000)
    assert out.getvalue() == "2,500 of 10,000 pairs (25 %), 50 a second, ends at 2027-01-02 00:01\n"
    going.clear()


@pytest.mark.usefixtures("model")
def test_without_ray_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from towers.scale import ray_engine

    Path("pairs.tsv").write_bytes(encode(rows_of(2), "tsv"))
    monkeypatch.setattr(ray_engine, "find_spec", lambda _: None)
    run("--pairs", "pairs.tsv", engine="ray", code=2)
    assert 'ray is not installed: pip install "towers[ray]"' in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("workers", "cpus", "said"),
    [
        (4, 4, "--workers 4: this Ray has 4 CPUs, .* it would wait for ever; say --workers 3 or fewer"),
        (None, 1, "this Ray has 1 CPU: it needs one for reading and one for each actor; say --engine local"),
    ],
)
def test_never_more_actors_than_cpus_less_one(workers: int | None, cpus: int, said: str) -> None:
    from towers.scale.ray_engine import checked_workers

    with pytest.raises(ValueError, match=said):
        checked_workers(workers, cpus)
    assert checked_workers(3, 4) == checked_workers(None, 4) == 3
