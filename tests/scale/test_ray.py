"""Ray Data on a real Ray of this machine, which the tests start: four CPUs, no statistics, a limit of time.

One Ray serves all of them, since it takes seconds to begin.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import towers
from towers.cli import main
from towers.scale import Scorer

from ..helpers.predicting import decode, encode, make_model, rows_of

pytestmark = pytest.mark.slow
SECONDS = 240


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray")
    pytest.importorskip("pyarrow")
    os.environ["PYTHONPATH"] = str(Path(towers.__file__).parent.parent)
    signal.alarm(SECONDS)
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    signal.alarm(0)
    yield ray
    ray.shutdown()


@pytest.fixture(autouse=True)
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    make_model()
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)


def run(*options: str, code: int = 0) -> None:
    given = ["--model", "run", "--vectors", "vectors.txt", "--pairs", "pairs.tsv", "--part-rows", "10"]
    assert main(["predict", *given, "--engine", "ray", *options]) == code


def test_a_run_is_that_of_one_process(ray: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The same files, by actors that load their model once each; one more actor than there may be is refused."""
    rows = rows_of(80)
    rows[33] = (rows[33][0], "", rows[33][2])
    Path("pairs.tsv").write_bytes(encode(rows, "tsv"))
    run("--out", "out", "--workers", "4", code=2)
    assert "--workers 4: this Ray has 4 CPUs, of which it needs one for reading" in capsys.readouterr().err
    run("--out", "out", "--workers", "2", "--max-bad", "1")
    assert capsys.readouterr().out.startswith("79 pairs in 8 parts in out; ")
    local = [
        "--model",
        "run",
        "--vectors",
        "vectors.txt",
        "--pairs",
        "pairs.tsv",
        "--part-rows",
        "10",
        "--max-bad",
        "1",
    ]
    assert main(["predict", *local, "--engine", "local", "--out", "alone"]) == 0
    for path in Path("alone").glob("[pb]*-*"):
        assert Path("out", path.name).read_bytes() == path.read_bytes()
    done = [json.loads(line) for line in Path("out/done.jsonl").read_text().splitlines()]
    assert sorted(entry["part"] for entry in done) == list(range(8))
    assert 1 <= len({entry["worker"] for entry in done}) <= 2
    assert {entry["loads"] for entry in done} == {1}


DRIVER = """
import os, signal, sys
from towers.cli import main
from towers.scale.run_folder import RunFolder

real = RunFolder.record

def record(self, done):
    if len(self.done) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, done)

RunFolder.record = record
sys.exit(main(sys.argv[2:]))
"""


def test_a_killed_driver_loses_nothing_and_repeats_nothing(ray: Any) -> None:
    """Killed when two parts are noted, and a third one is written but not noted; then the same command ends the run."""
    Path("pairs.tsv").write_bytes(encode(rows_of(60), "tsv"))
    given = ["predict", "--model", "run", "--vectors", "vectors.txt", "--pairs", "pairs.tsv", "--part-rows", "6"]
    assert main([*given, "--engine", "local", "--out", "alone"]) == 0
    wanted = {path.name: path.read_bytes() for path in Path("alone").glob("part-*")}
    journal = Path("out/done.jsonl")
    for noted, code in (("2", -signal.SIGKILL), ("99", 0)):
        before = journal.read_bytes() if journal.exists() else b""
        command = [sys.executable, "-c", DRIVER, noted, *given, "--engine", "ray", "--workers", "1"]
        ended = subprocess.run([*command, "--out", "out"], capture_output=True, text=True)
        assert ended.returncode == code, ended.stderr
        assert journal.read_bytes().startswith(before)
        there = {path.name: path.read_bytes() for path in Path("out").glob("part-*")}
        assert len(there) >= 3
        assert there.items() <= wanted.items()
    parts = [json.loads(line)["part"] for line in journal.read_text().splitlines()]
    assert sorted(parts) == list(range(10))
    assert there == wanted
    assert not list(Path("out").glob(".*"))


def test_a_search_is_that_of_one_process(ray: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(30)
    for name, place in (("queries.txt", 1), ("corpus.txt", 2)):
        Path(name).write_text("".join(f"{row[place]}\n" for row in rows))
    model = ["--model", "run", "--vectors", "vectors.txt"]
    assert main(["index", *model, "--corpus", "corpus.txt", "--out", "corpus", "--shard", "12"]) == 0
    given = ["search", *model, "--index", "corpus", "--queries", "queries.txt", "-k", "4", "--part-rows", "10"]
    assert main([*given, "--engine", "local", "--out", "alone"]) == 0
    capsys.readouterr()
    assert main([*given, "--engine", "ray", "--workers", "2", "--out", "out"]) == 0
    assert capsys.readouterr().out.startswith("30 queries in 9 parts in out; ")
    assert Path("out/found.tsv").read_bytes() == Path("alone/found.tsv").read_bytes()


def test_an_error_of_a_part_is_one_line(ray: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lines = encode(rows_of(40), "jsonl").split(b"\n")
    lines[35] = b'{"id": "3\\t5", "sentence1": "the dog", "sentence2": "a cat"}'
    Path("pairs.jsonl").write_bytes(b"\n".join(lines))
    given = ["--model", "run", "--vectors", "vectors.txt", "--pairs", "pairs.jsonl", "--part-rows", "10"]
    assert main(["predict", *given, "--engine", "ray", "--out", "out", "--out-format", "tsv"]) == 2
    err = capsys.readouterr().err
    assert "pairs.jsonl, line 36: has a tab or a line end in a cell, which TSV cannot hold" in err
    assert "parts are done in out; the same command goes on from there" in err
    assert "Traceback" not in err


def test_a_scorer_alone(ray: Any) -> None:
    """In tasks and in actors; an actor that is killed is replaced, and no row is lost or there twice."""
    pyarrow = pytest.importorskip("pyarrow")
    data = pytest.importorskip("ray.data")
    rows = rows_of(60)
    table = pyarrow.table({name: [row[at] for row in rows] for at, name in enumerate(("id", "sentence1", "sentence2"))})
    scorer = Scorer("run", vectors="vectors.txt")
    scored = data.from_arrow(table).map_batches(scorer, batch_format="pyarrow", batch_size=16).take_all()
    model = towers.load("run", vectors="vectors.txt")
    assert sorted(int(row["id"]) for row in scored) == list(range(60))
    for row in scored:
        assert row["probability"] == pytest.approx(model.score(row["sentence1"], row["sentence2"]), abs=1e-6)
    parts = data.from_arrow(table).repartition(12)
    options: dict[str, Any] = {"compute": data.ActorPoolStrategy(size=2), "num_cpus": 1, "batch_format": "pyarrow"}
    options |= {"fn_constructor_args": (scorer, str(Path("mark").absolute()))}
    Path("mark").touch()
    scored = parts.map_batches(DiesOnce, **options).take_all()
    assert sorted(int(row["id"]) for row in scored) == list(range(60))
    assert not Path("mark").exists()


class DiesOnce:
    """A scorer in an actor; the first one that meets row 30 while there is a mark is killed."""

    def __init__(self, scorer: Scorer, mark: str) -> None:
        self.scorer, self.mark = scorer, Path(mark)

    def __call__(self, batch: Any) -> Any:
        if "30" in batch["id"].to_pylist() and self.mark.exists():
            self.mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.scorer(batch)


def test_no_ray_at_an_address(ray: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pairs.tsv").write_bytes(encode(rows_of(4), "tsv"))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nmore")

    monkeypatch.setattr(ray, "init", refuse)
    run("--out", "out", "--address", "auto", code=2)
    err = capsys.readouterr().err
    assert "--address auto: there is no Ray: Could not find any running Ray instance." in err
    assert err.count("\n") == 1
    assert decode(Path("pairs.tsv").read_bytes(), "tsv")[0] == ("id", "sentence1", "sentence2")
