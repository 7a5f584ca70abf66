"""`towers index` and `towers search`: what the model says of every pair, sorted."""

import gzip
import io
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars
import pytest
import torch
from tests.test_answers import LEFT, RIGHT, expected
from tests.test_answers import folder as folder

import towers
from towers.cli import main, run_job


@pytest.fixture
def files(folder: Path) -> None:
    Path("corpus.txt").write_text("\n".join([RIGHT[0], "", *RIGHT[1:]]) + "\n")
    Path("queries.txt").write_text("\n\n".join(LEFT))


NUMBERS = (1, 3, 4)  # lines of the corpus with a sentence


def wanted(folder: Path, k: int) -> list[tuple[int, int, int, float]]:
    rows = []
    for query, scores in enumerate(expected(folder).tolist()):
        best = sorted(range(3), key=lambda place: -scores[place])[:k]
        rows += [(2 * query + 1, rank, NUMBERS[place], scores[place]) for rank, place in enumerate(best, 1)]
    return rows


def search(*options: str) -> int:
    return main(["search", "--model", "towers-run", "--queries", "queries.txt", "-k", "2", *options])


def agrees(rows: list[dict[str, object]], folder: Path, *, texts: bool = False) -> bool:
    assert [(row["query"], row["rank"], row["id"]) for row in rows] == [row[:3] for row in wanted(folder, 2)]
    scores = torch.tensor([float(str(row["score"])) for row in rows])
    torch.testing.assert_close(scores, torch.tensor([row[3] for row in wanted(folder, 2)]), atol=1e-6, rtol=0)
    return not texts or [row["text"] for row in rows] == [RIGHT[NUMBERS.index(row[2])] for row in wanted(folder, 2)]


@pytest.mark.usefixtures("files")
def test_results_in_all_formats(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search("--corpus", "corpus.txt", "--out", "-", "--texts") == 0
    header, *lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    assert agrees(
        [row | {name: int(row[name]) for name in ("query", "rank", "id")} for row in rows], folder, texts=True
    )
    assert search("--corpus", "corpus.txt", "--out", "found.jsonl") == 0
    assert agrees([json.loads(line) for line in Path("found.jsonl").read_text().splitlines()], folder)
    assert search("--corpus", "corpus.txt", "--out", "found.parquet", "--texts") == 0
    assert agrees(polars.read_parquet("found.parquet").to_dicts(), folder, texts=True)
    assert search("--corpus", "corpus.txt", "--out", "found", "--out-format", "csv") == 0
    assert Path("found").read_text().startswith("query,rank,id,score\n1,1,")


@pytest.mark.usefixtures("files")
def test_queries_on_standard_input(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towers.cli.search_job.SEARCHED", 1)
    options = ("--corpus", "corpus.txt", "--out", "found.jsonl", "--queries", "-")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(Path("queries.txt").read_bytes())))
    assert search(*options) == 0
    assert agrees([json.loads(line) for line in Path("found.jsonl").read_text().splitlines()], folder)
    for given, said in (
        (b"a dog runs\n\nram\n", "standard input, line 3: left sentence 0 ('ram') has 1 word"),
        (b"\n", "standard input: there is no sentence in it"),
        (None, "standard input is closed"),
    ):
        monkeypatch.setattr("sys.stdin", given if given is None else SimpleNamespace(buffer=io.BytesIO(given)))
        assert search(*options) == 2
        assert said in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.usefixtures("files")
def test_parquet_on_a_full_disk_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert search("--corpus", "corpus.txt", "--out", "-", "--out-format", "parquet") == 2
    said = "standard output: No space left on device; standard output is not whole"
    assert capsys.readouterr().err == f"towers search: {said}\n"


@pytest.mark.usefixtures("files")
def test_tsv_has_no_quotes() -> None:
    sentences = [f'"{sentence}" ' + '"' for sentence in RIGHT]
    Path("corpus.txt").write_text("\n".join(sentences) + "\n")
    assert search("--corpus", "corpus.txt", "--out", "found.tsv", "--texts") == 0
    _, *lines = Path("found.tsv").read_text().splitlines()
    assert lines
    assert {line.split("\t")[4] for line in lines} <= set(sentences)


@pytest.mark.usefixtures("files")
def test_an_index_serves_many_searches(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "--model", "towers-run", "--corpus", "corpus.txt", "--out", "corpus.index"]) == 0
    assert capsys.readouterr().out == "3 sentences are in corpus.index\n"
    assert search("--index", "corpus.index", "--out", "found.jsonl") == 0
    assert agrees([json.loads(line) for line in Path("found.jsonl").read_text().splitlines()], folder)
    assert search("--index", "corpus.index", "--corpus", "corpus.txt", "--texts", "--out", "found.jsonl") == 0
    rows = [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]
    assert agrees(rows, folder, texts=True)


@pytest.mark.usefixtures("files")
def test_texts_are_those_of_the_corpus_of_the_index(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = ["index", "--model", "towers-run", "--corpus", "corpus.txt", "--out"]
    assert main([*index, "one.index"]) == 0
    assert main([*index, "shards", "--shard", "2"]) == 0
    first, *others = Path("corpus.txt").read_text().splitlines()
    Path("turned.txt").write_text("\n".join([others[-1], *others[:-1], first]))
    Path("later.txt").write_text("\n".join(["", first, *others[1:]]))
    for made in ("one.index", "shards"):
        options = ["--index", made, "--texts", "--out", "found.jsonl", "--corpus"]
        for other in ("turned.txt", "later.txt"):
            assert search(*options, other) == 2
            assert f"--corpus {other}: is not what the index was made from" in capsys.readouterr().err
            assert not Path("found.jsonl").exists()
        assert search(*options, "corpus.txt") == 0
        assert capsys.readouterr().err == ""
        Path("found.jsonl").unlink()
    network = towers.load("towers-run").network
    towers.search.Index.load("one.index", network).save("silent.index", about={})
    assert search("--index", "silent.index", "--corpus", "corpus.txt", "--texts", "--out", "found.jsonl") == 0
    assert "the index does not say what it was made from" in capsys.readouterr().err
    assert agrees([json.loads(line) for line in Path("found.jsonl").read_text().splitlines()], folder, texts=True)


@pytest.mark.usefixtures("files")
def test_shards_are_searched_as_one_index(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = ["index", "--model", "towers-run", "--corpus", "corpus.txt", "--out", "corpus"]
    Path("corpus").mkdir()
    Path("corpus/00007.index").write_text("of an interrupted command")
    Path("corpus/.00008.index.77.partial").write_text("half")
    assert main([*index, "--shard", "2"]) == 0
    assert capsys.readouterr().out == "3 sentences are in 2 shards in corpus\n"
    assert sorted(path.name for path in Path("corpus").iterdir()) == ["00000.index", "00001.index", "shards.json"]
    assert search("--index", "corpus", "--out", "found.jsonl") == 0
    assert agrees([json.loads(line) for line in Path("found.jsonl").read_text().splitlines()], folder)
    assert main([*index, "--shard", "2"]) == 2
    assert "--out corpus: is there already; name another folder, or remove it" in capsys.readouterr().err
    Path("corpus/shards.json").unlink()
    assert search("--index", "corpus", "--out", "found.tsv") == 2
    assert "corpus: is no index, or not a whole one: it has no shards.json" in capsys.readouterr().err


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--out", "found.tsv"), "name --corpus FILE, or --index FILE"),
        (("--index", "x", "--texts", "--out", "found.tsv"), "--texts needs --corpus FILE"),
        (("--corpus", "short.txt", "--out", "found.tsv"), "short.txt, line 3: right sentence 1 ('ram') has 1 word"),
        (("--corpus", "table.csv.gz", "--out", "found.tsv"), "table.csv.gz: is a table by its ending; a file with a"),
        (("--corpus", "tab.txt", "--texts", "--out", "found.tsv"), "tab.txt, line 1: has a tab, which TSV cannot hold"),
        (("--corpus", "corpus.txt", "--out", "found.tsv", "-k", "4"), "-k 4: corpus.txt has 3 sentences; say -k 3 or less"),
        (("--corpus", "-", "--out", "found.tsv"), "-: standard input cannot be read twice, as this file is; write it"),
        (("--corpus", "corpus.txt", "--out", "corpus.txt"), "--out corpus.txt: is the file of --corpus"),
        (("--corpus", "corpus.txt", "--out", "no/found.tsv"), "--out no/found.tsv: there is no folder"),
        (("--corpus", "corpus.txt", "--out", "towers-run"), "--out towers-run: is a folder; name a file"),
        (("--corpus", "empty.txt", "--out", "found.tsv"), "empty.txt: there is no sentence in it"),
        (("--corpus", "missing.txt", "--out", "found.tsv"), "missing.txt: No such file or directory"),
        (("--index", "corpus.txt", "--out", "found.tsv"), "corpus.txt: is no index of towers, or is cut off"),
        (("--index", "other.index", "--out", "found.tsv"), "other.index: is an index of another model"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.txt").write_text("\n \n")
    Path("short.txt").write_text(f"{RIGHT[0]}\n\nram\n")
    Path("tab.txt").write_text(RIGHT[0].replace(" ", "\t") + "\n")
    Path("table.csv.gz").write_bytes(gzip.compress(b"text\na ram\n"))
    towers.search.Index(towers.TwoTowers()).save("other.index")
    before = {path.name for path in Path().iterdir()}
    assert search(*options) == 2
    err = capsys.readouterr().err
    assert err.startswith("towers search: ")
    assert said in err
    assert err.count("\n") == 1
    assert {path.name for path in Path().iterdir()} == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("command", ["search", "index"])
def test_what_is_no_regular_file_is_not_replaced(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe")
    queries = ["--queries", "queries.txt"] if command == "search" else []
    assert main([command, "--model", "towers-run", "--corpus", "corpus.txt", *queries, "--out", "pipe"]) == 2
    assert "--out pipe: is no regular file; name one" in capsys.readouterr().err
    assert Path("pipe").is_fifo()


READERS = {
    "tsv": partial(polars.read_csv, separator="\t"),
    "jsonl": polars.read_ndjson,
    "parquet": polars.read_parquet,
}


def search_in_parts(*options: str, code: int = 0) -> None:
    assert search("--index", "corpus", "--engine", "local", "--part-rows", "2", "--out", "out", *options) == code


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("shards", ["1", "2", "9"])
def test_an_engine_finds_the_same(shards: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shards and blocks of queries are searched on their own, and the file has what one search of all finds."""
    assert main(["index", "--model", "towers-run", "--corpus", "corpus.txt", "--out", "corpus", "--shard", shards]) == 0
    for format in ("tsv", "jsonl", "parquet"):
        options = ("--corpus", "corpus.txt", "--texts", "--out-format", format)
        capsys.readouterr()
        search_in_parts(*options, "--out", format)
        parts = len(Path("queries.txt").read_text().splitlines()) // 2 + 1
        parts *= {"1": 3, "2": 2, "9": 1}[shards]
        assert capsys.readouterr().out.startswith(f"{len(LEFT)} queries in {parts} parts in {format}; ")
        file = Path(format, f"found.{format}")
        assert agrees(READERS[format](file).to_dicts(), folder, texts=True)


@pytest.mark.usefixtures("files")
def test_an_engine_goes_on_and_tells_bad_queries_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["index", "--model", "towers-run", "--corpus", "corpus.txt", "--out", "corpus", "--shard", "1"]) == 0
    with Path("queries.txt").open("ab") as file:
        file.write(b"\n\nram\ncaf\xe9 and\n")
    real = run_job.run_local

    def stopped(job: Any, parts: list[Any], workers: int) -> Iterator[Any]:
        yield from real(job, parts[:2], workers)
        raise OSError("stopped")

    monkeypatch.setattr(run_job, "run_local", stopped)
    search_in_parts("--max-bad", "2", code=2)
    assert "stopped; 2 of 15 parts are done in out; the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(run_job, "run_local", real)
    search_in_parts("--max-bad", "2")
    said = capsys.readouterr()
    assert said.out.startswith("4 queries in 15 parts in out; ")
    assert "going on: 2 of 15 parts are done" in said.err
    assert "2 bad rows left out" in said.err
    bad = [json.loads(line) for path in sorted(Path("out").glob("bad-*")) for line in path.read_text().splitlines()]
    assert [(entry["line"], entry["problem"].rpartition("/")[2]) for entry in bad] == [
        (9, "query has 1 word; its tower takes at least 2"),
        (10, "queries.txt, line 10: byte 4 (0xe9) is not UTF-8; save the file as UTF-8"),
    ]
    assert agrees(READERS["tsv"](Path("out/found.tsv")).to_dicts(), folder)
    times = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    search_in_parts("--max-bad", "2")
    assert "nothing was left to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path("out").iterdir()} == times
    search_in_parts("--max-bad", "2", "-k", "1", code=2)
    assert "out: its run has --k 2, not 1; name another folder" in capsys.readouterr().err


@pytest.mark.usefixtures("files")
def test_mistakes_with_an_engine(capsys: pytest.CaptureFixture[str]) -> None:
    index = ["index", "--model", "towers-run", "--corpus", "corpus.txt", "--out", "corpus"]
    assert main(index) == 0
    for options, said in (
        (("--out", "-"), "--out -: with --engine it is a folder"),
        (("--out", "no/out"), "--out no/out: there is no folder no"),
        (("--texts",), "--texts needs --corpus FILE"),
        (("-k", "4"), "-k 4: corpus has 3 sentences; say -k 3 or less"),
        (("--queries", "-"), "--queries -: with --engine a run reads them again when it goes on; write them to a file"),
        (("--workers", "999"), "--workers 999: this process may use"),
        (("--index", "none"), "none: No such file or directory"),
        (("--queries", "none.txt"), "none.txt: No such file or directory"),
    ):
        search_in_parts(*options, code=2)
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
        assert not Path("out").exists()
    Path("bad.txt").write_bytes(b"a dog runs\ncaf\xe9 and\n")
    search_in_parts("--queries", "bad.txt", "-k", "1", code=2)
    assert capsys.readouterr().err.count("bad.txt, line 2") == 1
    assert search("--corpus", "corpus.txt", "--engine", "local", "--out", "out") == 2
    assert "--engine searches an index: make one with towers index" in capsys.readouterr().err
    assert search("--corpus", "corpus.txt", "--workers", "2", "--out", "found.tsv") == 2
    assert "--workers goes with --engine local or --engine ray" in capsys.readouterr().err


@pytest.mark.usefixtures("files")
def test_an_index_in_shards_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = ["index", "--model", "towers-run", "--corpus", "corpus.txt", "--out", "corpus", "--shard", "1"]
    real, saved = towers.search.Index.save, list[str]()

    def save(self: towers.search.Index, path: Path, **options: Any) -> None:
        saved.append(Path(path).name)
        if len(saved) == 3:
            raise OSError("stopped")
        real(self, path, **options)

    monkeypatch.setattr(towers.search.Index, "save", save)
    assert main(index) == 2
    before = {path: path.stat().st_mtime_ns for path in Path("corpus").iterdir()}
    assert len(before) == 2
    capsys.readouterr()
    Path("corpus.txt").write_text(Path("corpus.txt").read_text().replace("a dog", "a cat"))
    assert main(index) == 2
    assert "00001.index there is of another corpus, or of another --shard; name another folder" in (
        capsys.readouterr().err
    )
    Path("corpus.txt").write_text(Path("corpus.txt").read_text().replace("a cat", "a dog"))
    assert main(index) == 0
    said = capsys.readouterr()
    assert "going on: 2 of the shards are done" in said.err
    assert said.out == "3 sentences are in 3 shards in corpus\n"
    assert saved == ["00000.index", "00001.index", "00002.index", "00002.index"]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert search("--index", "corpus", "--corpus", "corpus.txt", "--texts", "--out", "found.jsonl") == 0
    assert agrees([json.loads(line) for line in Path("found.jsonl").read_text().splitlines()], folder, texts=True)
    Path("corpus/shards.json").unlink()
    torch.manual_seed(7)
    towers.search.Index(towers.TwoTowers()).save("corpus/00000.index")
    assert main(index) == 2
    assert "00000.index: is an index of another model" in capsys.readouterr().err
