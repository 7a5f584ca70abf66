"""The benchmarks run, refuse wrong results, and write what later readers rely on."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import geometric_mean
from types import ModuleType
from typing import Any

import pytest
import torch

from ..helpers.forked import Forks

MODULES = (
    "contracts",
    "public_code",
    "lstm",
    "imports",
    "report",
    "run",
    "timing",
    "sick",
    "tower",
    "tower_reach",
    "tower_parts",
    "tower_picture",
    "others",
    "lstm_memory",
    "lstm_threads",
    "lstm_report",
    "proof",
    "proof_peers",
    "peer_sources",
    "reading",
    "quick_paths",
    "search",
    "search_heads",
    "scale",
    "scale_reach",
    "export",
)
SUITES = (
    "lstm", "tower", "lstm-memory", "lstm-threads", "contracts", "proof", "import", "reading", "quick-paths",
    "search", "search-heads", "scale", "export",
)  # fmt: skip
UNMEASURED = set[str]()
"""Suites without results in benchmarks/results/cpu."""
Called = Callable[..., dict[str, Any]]
COLUMNS = {"suite", "case", "implementation", "phase", "milliseconds", "time_ratio", "words_per_second"}


@pytest.fixture
def benchmarks(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The modules of `benchmarks/`, imported as `python benchmarks/run.py` imports them, and forgotten afterwards."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture
def called(benchmarks: dict[str, ModuleType]) -> Called:
    """In place of `timing.interleaved`: everything is called, and nothing timed."""

    def called(calls: dict[str, Callable[[], object]], device: torch.device, **how: float) -> dict[str, Any]:
        for call in calls.values():
            call()
        return dict.fromkeys(calls, benchmarks["timing"].Timing(1.0, 1.0, 0.0, 1))

    return called


@pytest.fixture
def script(repository: Path) -> Path:
    return repository / "benchmarks" / "run.py"


def run(script: Path, *arguments: str | Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, script, *arguments], capture_output=True, text=True, timeout=300)


def test_smallest_lstm_case(benchmarks: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch):
    lstm, device = benchmarks["lstm"], torch.device("cpu")
    rows = lstm.measure(lstm.Case(hidden=6, batch=4, share=0.5), device, quick=True)
    names = ["padded nn.LSTM", "packed nn.LSTM", "towers.RaggedLSTM"]
    assert [(row.phase, row.implementation) for row in rows] == [
        (phase, name) for phase in ("forward", "training") for name in names
    ]
    assert all(row.milliseconds > 0 and row.words_per_second > 0 for row in rows)
    assert [row.time_ratio for row in rows if row.implementation == names[0]] == [1, 1]


@pytest.mark.parametrize("law", ["uniform", "log-normal", "outlier"])
@pytest.mark.parametrize("share", [0.75, 0.5, 0.25, 0.1])
def test_lengths_have_the_share_of_real_positions(benchmarks: dict[str, ModuleType], share: float, law: str):
    lstm = benchmarks["lstm"]
    lengths, words = lstm.lengths_of(lstm.Case(hidden=6, batch=1000, share=share, law=law))
    assert lengths.min() >= 1
    assert lengths.max() == words == 32
    assert lengths.double().mean() / words == pytest.approx(share, abs=0.03)


def test_lengths_of_one_sentence_of_equal_ones_and_of_a_corpus(benchmarks: dict[str, ModuleType]):
    lstm = benchmarks["lstm"]
    assert lstm.lengths_of(lstm.Case(6, 1, 0.25))[0].tolist() == [16]
    assert set(lstm.lengths_of(lstm.Case(6, 32, 1.0, "equal"))[0].tolist()) == {64}
    lengths, words = lstm.lengths_of(lstm.Case(6, 4096, None, "sick"))
    assert lengths.max() == words
    assert lengths.double().mean() == pytest.approx(9.62, abs=0.2)


def test_the_sweep_has_every_combination_and_all_names_differ(benchmarks: dict[str, ModuleType]):
    cases = benchmarks["lstm"].cases(False)
    assert len({case.name for case in cases}) == len(cases) == 5 * (5 + 4 * 14)


def test_a_run_goes_on_where_it_stopped(
    called: Called,
    benchmarks: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    run, lstm, read = benchmarks["run"], benchmarks["lstm"], benchmarks["report"].read_json
    monkeypatch.setattr(lstm, "interleaved", called)
    arguments = ["lstm", "--quick", "--only", "hidden 64,", "--out", str(tmp_path)]
    run.main(arguments)
    assert "geometric mean" in capsys.readouterr().out
    first = read(tmp_path / "lstm.json")
    assert {row.case for row in first} == {"hidden 64, batch 32, sick"}
    lstm.measure = None
    run.main([*arguments, "--resume"])
    assert read(tmp_path / "lstm.json") == first


def test_peak_memory_is_that_of_a_process(
    benchmarks: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, forks: Forks
):
    memory, lstm = benchmarks["lstm_memory"], benchmarks["lstm"]
    monkeypatch.setattr(sys, "executable", forks.python)
    rows = memory.measure(lstm.Case(16, 512, 0.5), torch.device("cpu"), quick=True)
    assert [row.implementation for row in rows] == list(memory.NAMES)
    state = 512 * 16 * 16 * 4  # of half of the positions, in bytes: the least that each has to keep
    assert all(row.details["grown_bytes"] > state for row in rows)


def test_the_steady_speed_of_workers_and_the_memory_of_an_index(
    benchmarks: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, forks: Forks, tmp_path: Path
):
    scale = benchmarks["scale"]
    times = {"a": [10, 12, 14, 16], "b": [11, 14, 17]}  # both have done a part, and have one to do, from 11 to 16
    every = [(worker, time) for worker, own in times.items() for time in own]
    for part, (_, time) in enumerate(every):
        (tmp_path / f"part-{part:05}.tsv").touch()
        os.utime(tmp_path / f"part-{part:05}.tsv", (time, time))
    lines = [
        {"part": part, "rows": 60, "worker": worker, "loads": 1 + (worker == "b" and time == 17)}
        for part, (worker, time) in enumerate(every)
    ]
    (tmp_path / "done.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert scale.steady(tmp_path, 60) == {"speed": 60 / 2 + 60 / 3, "loads": 3, "loads_of_one": 2}

    monkeypatch.setattr(sys, "executable", forks.python)
    parts, one, mapped = scale.measure(scale.Case("index", (100_000, 5000)), torch.device("cpu"), quick=True)
    assert [row.implementation for row in (parts, one, mapped)] == ["parts of 5,000", "one part", "memory-mapped"]
    assert min(row.details["over_rows"] for row in (parts, one)) > 0.8  # what was free before is taken first
    assert mapped.details["over_rows"] < 0.5
    names = {case.name for case in scale.cases(quick=False)}
    aims = benchmarks["scale_reach"]
    assert {aims.LOCAL, aims.MEMORY, aims.INDEX} <= names <= {case for case, *_ in aims.AIMS}
    rows = [replace(parts, case=aims.INDEX, implementation="parts of 100,000"), replace(one, case=aims.INDEX)]
    shares = {"over_rows": 1.21, "over_laid_out": 1.19}
    rows = [replace(row, details=shares) for row in rows]
    columns = [list(column.cells) for column in scale.reach(rows).columns]
    assert columns[2:] == [[*["not measured"] * 4, "1.19", "1.19", "1.21", "1.21", "not measured"],
                           [*[""] * 4, "yes", "yes", "no", "no", ""]]  # fmt: skip
    about = benchmarks["report"].machine(torch.device("cpu"))
    scale.plot([parts, one, mapped], "a title", about, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("wrong", ["states", "gradients"])
def test_a_wrong_result_is_refused_before_timing(benchmarks: dict[str, ModuleType], wrong: str):
    lstm = benchmarks["lstm"]
    case = lstm.Case(hidden=6, batch=4, share=0.5)
    paths, weights = lstm.implementations(case, lstm.lengths_of(case)[0], torch.device("cpu"))
    right = paths["towers.RaggedLSTM"]
    off = {
        "states": lambda states: states * 1.001,
        "gradients": lambda states: states + 0.01 * (states - states.detach()),
    }
    paths["towers.RaggedLSTM"] = lambda padded: off[wrong](right(padded))
    with pytest.raises(
        AssertionError, match=r"hidden 6, batch 4, 50% real, uniform: towers\.RaggedLSTM is .* away from padded"
    ):
        lstm.check(case, paths, weights, torch.randn(4, case.longest, case.input_size))


def test_smallest_cases_of_contracts(benchmarks: dict[str, ModuleType]):
    contracts, device = benchmarks["contracts"], torch.device("cpu")
    for case in ("3 tensors + result", "1 tensor, refused"):
        candidates, _, _ = contracts.eager(case, device, True)
        names = ["plain", "towers.contracts", "hand-written ifs", "jaxtyping + beartype"]
        assert list(candidates) == names
    assert contracts.operations_of(contracts.linear, [torch.ones(2, 3, 32), torch.ones(4, 32)]) > 0
    rows = contracts.measure("off", device, quick=True)
    assert [row.implementation for row in rows] == ["plain", "towers.contracts"]
    assert rows[0].details["over_plain_us"] == 0


def test_the_table_of_all_zoos_without_the_peers(
    benchmarks: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    peers = benchmarks["proof_peers"]
    monkeypatch.setattr(peers, "_installed", lambda package: False)
    monkeypatch.delitem(peers.TOOLS, "torch.export")
    names = [sample.module.__name__ for sample in peers.samples(peers.unchecked)]
    rows = peers.rows([names.index(name) for name in ("Score", "ScoreSound", "MeanOfBatch")])
    found = {row.implementation: list(row.details.values()) for row in rows}
    assert found.pop("towers.contracts.verify") == [2, 0, 0, 0]
    assert found == {f"jaxtyping at run time, {text}": [1, 1, 0, 0] for text in ("1 size", "2 sizes")}
    assert (
        "pyrefly and pyrefly-torch-stubs not installed: no row of pyrefly and its torch stubs"
        in capsys.readouterr().out
    )
    columns = [list(column.cells) for column in peers.table(rows).columns]
    assert columns[1:5] == [["2", "1", "1"], ["0", "1", "1"], ["0"] * 3, ["0"] * 3]


def test_what_counts_in_the_table_of_all_zoos(benchmarks: dict[str, ModuleType]):
    peers = benchmarks["proof_peers"]
    by_name = {sample.module.__name__: sample for sample in peers.samples(peers.unchecked)}
    faulty, sound = by_name["LearnedPositions"], by_name["FlashCausal"]
    verdicts = [(each, verdict) for each in (faulty, sound) for verdict in ("bad", "good", "unknown")]
    assert peers.count(verdicts) == {"found": 1, "missed": 1, "false alarms": 1, "undecided": 2}


def test_modules_are_written_anew_as_each_checker_reads_them(benchmarks: dict[str, ModuleType]):
    peers = benchmarks["proof_peers"]
    some = [each for each in peers.samples(peers.unchecked) if each.module.__name__ == "BothDirectionsSound"]
    lines = [
        peers.source("written", some, style).text.splitlines()
        for style in (peers.PYREFLY, peers.JAXTYPING, peers.SHAPEFLOW)
    ]
    forwards = [next(line.strip() for line in text if "def forward" in line) for text in lines]
    assert forwards == [
        "def forward(self, words: Shaped[Tensor, '[batch, time, 8]']) -> Shaped[Tensor, '[batch, time, 2*6]']:",
        "def forward(self, words: Float[Tensor, 'batch time 8']) -> Float[Tensor, 'batch time 2*6']:",
        "def forward(self, words: Annotated[Tensor, Shape('batch', 'time', 8)]) -> Annotated[Tensor, Shape('batch', 'time', '2*6')]:",
    ]
    assert "    @shape_vars('batch, time')" in lines[0]
    assert all("class BothDirectionsSound(nn.Module):" in text for text in lines)
    assert all(any("nn.LSTM(8, self.hidden" in line for line in text) for text in lines), "the inherited constructor"


def test_the_times_of_proofs(benchmarks: dict[str, ModuleType]):
    rows = benchmarks["proof"].measure("our towers", torch.device("cpu"), quick=True)
    assert [row.implementation for row in rows] == [
        "TwoTowers(), warm",
        "TwoTowers(), first",
        "Tower(), warm",
        "Tower(), first",
    ]
    assert all(row.milliseconds > 0 for row in rows)


def test_a_check_that_refuses_nothing_is_not_timed(benchmarks: dict[str, ModuleType]):
    contracts = benchmarks["contracts"]
    fits, wrong = [torch.zeros(1, 2, 32)], [torch.zeros(1, 2, 31)]
    with pytest.raises(AssertionError, match=r"ours accepts a tensor of \(1, 2, 31\)"):
        contracts.check({"plain": contracts.one, "ours": contracts.one}, fits, wrong)
    with pytest.raises(AssertionError, match=r"plain: not the function's own result"):
        contracts.check({"plain": lambda x: x + 1}, fits, wrong)


@pytest.fixture
def untimed(called: Called, benchmarks: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The suite `tower` on made-up sentences, without Keras, everything called and nothing timed."""
    monkeypatch.setattr(benchmarks["sick"], "DATA", Path("nowhere"))
    monkeypatch.setattr(benchmarks["tower"], "started_keras", dict)
    monkeypatch.setattr(benchmarks["tower"], "interleaved", called)
    monkeypatch.setattr(benchmarks["tower"], "compiled", partial(benchmarks["tower"].compiled, backend="eager"))
    return benchmarks["tower"]


@pytest.mark.parametrize("model", ["tower", "two towers"])
def test_smallest_tower_case(untimed: ModuleType, model: str):
    rows = untimed.measure(untimed.Case(model, 3), torch.device("cpu"), quick=True)
    assert {row.phase for row in rows} == {"forward", "training"}
    names = [row.implementation for row in rows if row.phase == "forward"]
    assert names[:4] == ["floor: one matrix product", "floor: a copy of the rows", "towers, vectors", "towers, ids"]
    assert {"torch, packed, ids", "ONNX Runtime, vectors"} <= set(names)
    assert all("made-up" in row.details["sentences"] for row in rows)


def test_the_case_without_padding_and_the_reach_of_pairs(untimed: ModuleType, benchmarks: dict[str, ModuleType]):
    case = untimed.Case("no padding, 2 threads", 1)
    rows = untimed.measure(case, torch.device("cpu"), quick=True)
    names = [row.implementation for row in rows]
    assert names[0] == "towers, padded vectors"
    assert {"torch, padded, vectors", "ONNX Runtime, exported"} <= set(names)
    times = {"towers, padded vectors": 0.5, "ONNX Runtime, exported": 1.0}
    timed = [replace(row, milliseconds=times.get(row.implementation, 9.0)) for row in rows]
    columns = [list(column.cells) for column in benchmarks["tower_reach"].reach(timed).columns]
    assert [column[0] for column in columns[1:]] == ["1", "at most 0.8", "0.50", "yes", ""]


def test_wrong_states_and_wrong_gradients_of_a_tower_are_refused(
    untimed: ModuleType, benchmarks: dict[str, ModuleType]
):
    case = untimed.Case("tower", 3)
    given = benchmarks["sick"].sentences(3, torch.device("cpu"))
    jobs = untimed.torch_jobs(untimed.Tower(), given)
    untimed.check(case, jobs)
    wrong = jobs["torch, packed, ids"].module
    wrong.forward = lambda *given, right=wrong.forward: right(*given) * 1.001
    with pytest.raises(AssertionError, match=r"tower, batch 3: torch, packed, (vectors|ids) is .* away; at most"):
        untimed.check(case, jobs)


def test_the_reach_of_the_towers_says_what_is_met(benchmarks: dict[str, ModuleType], tmp_path: Path):
    row, rows = benchmarks["report"].Row, []
    times = {"floor: one matrix product": 2.0, "towers, vectors": 3.0, "towers, ids": 0.5, "torch, padded, ids": 9.0}
    times |= {"Keras, JAX, vectors": 12.0, "Keras, TensorFlow, vectors": 30.0, "Keras, JAX, ids": 6.0}
    times |= {
        "floor: two matrix products": 2.5,
        "floor: a copy of the rows": 0.1,
        "part: LSTM": 0.25,
    }
    for batch in (32, 1024):
        details = {"model": "tower", "batch": batch}
        for name, ms in times.items():
            rows += [row("tower", "a case", name, phase, ms, 1.0, 1e6, details) for phase in ("forward", "training")]
    columns = [list(column.cells) for column in benchmarks["tower_reach"].reach(rows).columns]
    assert columns[1] == ["1024", "32", "1024", "32", "1024", "1024", "1024"]
    assert columns[3] == ["4.00", "4.00", "4.00", "4.00", "1.50", "6.00", "12.00"]
    assert columns[4] == ["no", "yes", "yes", "yes", "no", "yes", "yes"]
    assert columns[5] == ["6.00", "6.00", "4.80", "4.80", "1.00", "30.00", "60.00"]
    shares = [list(column.cells) for column in benchmarks["tower_parts"].profile(rows).columns]
    assert shares[0] == [
        f"{phase}, from {kind}" for phase in ("forward", "training") for kind in ("vectors", "ids") for _ in "12"
    ]
    assert [column[2] for column in shares[1:]] == ["32", "500", "50", "", "50"]
    benchmarks["tower_picture"].plot(
        rows, "a title", benchmarks["report"].machine(torch.device("cpu")), tmp_path / "a.png"
    )
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_another_process_times_itself_and_its_end_is_no_silence(benchmarks: dict[str, ModuleType], tmp_path: Path):
    python = tmp_path / "python"  # answers as keras_tower.py does, and ends when asked for something else
    answer = "import json, sys\nfor line in sys.stdin:\n    asked = json.loads(line)\n"
    answer += "    assert asked['do'] == 'time'\n    print(0.25 * asked['calls'], flush=True)\n"
    python.write_text(f"#!{sys.executable}\n{answer}")
    python.chmod(0o755)
    keras = benchmarks["others"].Keras("jax", str(python), 1)
    timing = benchmarks["timing"].interleaved(
        {"here": lambda: None, "there": benchmarks["others"].Elsewhere(keras, "forward ids")},
        torch.device("cpu"),
        seconds=0,
    )
    assert timing["there"].milliseconds == 250
    with pytest.raises(RuntimeError, match=r"Keras ended with code 1 at \{'do': 'load'"):
        keras.ask(do="load", file="none")
    keras.end()


def test_ratios_are_taken_within_rounds(benchmarks: dict[str, ModuleType]):
    # The machine slows down tenfold halfway: the medians of the times would say 10, each round says 2.
    rounds = [{"base": 1.0, "other": 2.0}] * 3 + [{"base": 10.0, "other": 20.0}] * 2
    timings = benchmarks["timing"].medians(rounds)
    assert [timings[name].time_ratio for name in ("base", "other")] == [1, 2]
    assert timings["other"].milliseconds == 2000


def test_report(benchmarks: dict[str, ModuleType], tmp_path: Path):
    report = benchmarks["report"]
    about = report.machine(torch.device("cpu"))
    rows = [
        report.Row("lstm", f"case {case}", name, phase, 2.0, ratio, 1e6, {"batch": 32})
        for case in range(3)
        for name, ratio in (("base", 1.0), ("slower", 3.0), ("faster", 0.5))
        for phase in ("forward", "training")
    ]
    report.write_json(rows, about, tmp_path / "lstm.json")
    report.plot(rows, "a title", about, tmp_path / "lstm.png")
    assert report.read_json(tmp_path / "lstm.json") == rows
    assert report.read_machine(tmp_path / "lstm.json") == about
    assert (tmp_path / "lstm.png").read_bytes().startswith(b"\x89PNG")
    assert report.table(rows, "a title").row_count == 12


def test_a_file_of_results_has_its_columns_once_and_a_line_for_each_row(
    benchmarks: dict[str, ModuleType], tmp_path: Path
):
    report, path = benchmarks["report"], tmp_path / "a.json"
    common = ("tower", "a case", "ours", "forward", 1234.56789, 0.00012344999)
    rows = [
        report.Row(*common, None, {"share": None, "points": {"64": 1 / 3}}),
        report.Row(*common, 1e6, {"share": 0.25, "points": {}}),
        report.Row(*common, 2e6, {"batch": 123456}),
    ]
    report.write_json(rows, {"device": "cpu"}, path)
    tables = json.loads(path.read_text())["tables"]
    assert [len(table["rows"]) for table in tables] == [2, 1], "a table for each set of columns"
    assert [set(table["columns"]) - COLUMNS for table in tables] == [{"share", "points"}, {"batch"}]
    found = report.read_json(path)
    assert [row.details for row in found] == [
        {"share": None, "points": {"64": 0.3333}}, {"share": 0.25, "points": {}}, {"batch": 123456}
    ]  # fmt: skip
    assert {(row.milliseconds, row.time_ratio) for row in found} == {(1235, 0.0001234)}
    assert [line[0] for line in path.read_text().splitlines()] == ["{", '"', "[", "[", "]", "[", "]"]
    assert report.read_machine(path) == {"device": "cpu"}


def test_machine_names_a_folder(benchmarks: dict[str, ModuleType]):
    name = benchmarks["report"].folder_name
    assert name({"device": "cuda", "name": "NVIDIA H100 80GB HBM3"}) == "nvidia-h100-80gb-hbm3"
    assert name({"device": "cpu", "name": "Some(R) CPU @ 2.10GHz", "cores": 2}) == "some-r-cpu-2-10ghz-2-cores"


def test_unknown_suite(script: Path, forks: Forks):
    refused = run(script, "lstn", python=forks.python)
    assert refused.returncode == 2
    assert "no suite lstn; there are lstm, tower, lstm-memory" in refused.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_no_cuda_device(script: Path, forks: Forks):
    refused = run(script, "lstm", "--device", "cuda", python=forks.python)
    assert refused.returncode == 2
    assert "torch sees no CUDA device here" in refused.stderr


def test_missing_package_names_the_install_line(script: Path, forks: Forks):
    # Rich made unimportable, then the script run as the main module, as Python does it.
    code = f"import runpy, sys; sys.path.insert(0, {str(script.parent)!r})\n"
    code += (
        "for name in ['rich', *(name for name in sys.modules if name.startswith('rich.'))]: sys.modules[name] = None\n"
    )
    code += f"runpy.run_path({str(script)!r}, run_name='__main__')"
    refused = forks.run([forks.python, "-c", code])
    assert refused.returncode == 1
    assert 'pip install -e ".[bench]"' in refused.stderr


def test_what_was_measured_is_shown_again(
    benchmarks: dict[str, ModuleType], repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run, results = benchmarks["run"], repository / "benchmarks" / "results" / "cpu"
    assert {name for name in run.SUITES if not (results / f"{name}.json").exists()} == UNMEASURED
    for name in run.SUITES.keys() - UNMEASURED:
        shutil.copy(results / f"{name}.json", tmp_path)
        run.main([name, "--show", "--out", str(tmp_path)])
        shown = capsys.readouterr().out
        assert f"{name}.json" in shown
        assert "device cpu" in shown
        assert benchmarks["report"].read_json(results / f"{name}.json")[-1].case in shown
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_results_that_are_not_there_name_the_command_that_measures_them(script: Path, tmp_path: Path, forks: Forks):
    refused = run(script, "lstm", "--show", "--out", tmp_path, python=forks.python)
    assert refused.returncode == 1
    assert f"lstm.json does not exist; python benchmarks/run.py lstm --out {tmp_path} measures it" in refused.stderr


def test_results_are_small_and_the_readme_shows_every_picture(repository: Path):
    if not shutil.which("git") or not (repository / ".git").exists():
        pytest.skip("git knows which results belong to the repository, and this is no checkout")
    command = ["git", "ls-files", "benchmarks/results"]
    tracked = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    files = [repository / name for name in tracked.stdout.split()]
    pictures = [file for file in files if file.suffix == ".png"]
    assert sum(file.stat().st_size for file in files if file not in pictures) < 600_000
    assert all(file.stat().st_size < 80_000 for file in pictures)
    readme = (repository / "README.md").read_text("utf8")
    assert [file.name for file in pictures if f"({file.relative_to(repository).as_posix()})" not in readme] == []


def test_the_answers_of_the_readme_are_those_that_were_measured(benchmarks: dict[str, ModuleType], repository: Path):
    rows = {row.case: row.details for row in benchmarks["report"].read_json(
        repository / "benchmarks" / "results" / "cpu" / "answers.json")}  # fmt: skip
    table = (repository / "README.md").read_text("utf8").split("| Pearson's r | entailment |\n", 1)[1].split("\n\n")[0]
    cases = [
        "similarity, entailment beside, one model",
        "similarity, entailment beside, ensembles of 3",
        "similarity, entailment beside, cross-validation",
        "similarity, one model",
        "similarity, ensembles of 3",
        "small, entailment beside, one model",
        "small, one model",
        "seed with word maximum, one model",
        "seed alone, one model",
        "entailment, one model",
        "entailment, ensembles of 3",
        "MiniLM, speed",
    ]
    for case, line in zip(cases, table.splitlines()[1:], strict=True):
        parameters, r, accuracy = (cell.strip() for cell in line.strip("|").split("|")[1:])
        found, part = rows[case], "held_out" if "cross" in case else "test"
        assert parameters == f"{found.get('parameters', 802_208):,}"
        assert (r == "") == (f"{part}_r" not in found)
        assert r == "" or abs(float(r) - found[f"{part}_r"]) < 5.6e-4, case  # both are rounded
        assert (accuracy == "") == (f"{part}_accuracy" not in found)
        assert accuracy == "" or abs(float(accuracy[:-2]) / 100 - found[f"{part}_accuracy"]) < 5.6e-4, case


@pytest.fixture
def figures(repository: Path) -> dict[str, list[str]]:
    """The README's table of figures: for each suite the cells of its lines, one text a line."""
    found: dict[str, list[str]] = {}
    for line in (repository / "README.md").read_text("utf8").splitlines():
        *cells, suite = [cell.strip() for cell in line.strip("|").split("|")]
        found.setdefault(suite.strip("`"), []).append(" | ".join(cells[1:]))
    return found


def test_the_figures_of_the_readme_are_those_that_were_measured(
    benchmarks: dict[str, ModuleType], repository: Path, figures: dict[str, list[str]]
):
    def measured(suite: str) -> dict[tuple[str, str], dict[str, Any]]:
        """For each case and phase its rows by implementation."""
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for row in benchmarks["report"].read_json(repository / f"benchmarks/results/cpu/{suite}.json"):
            rows.setdefault((row.case, row.phase), {})[row.implementation] = row
        return rows

    ours, theirs = "towers.contracts", "jaxtyping + beartype"
    for case, line in zip(("1 tensor", "3 tensors"), figures["contracts"], strict=True):
        over = {
            name: row.details["over_plain_us"]
            for name, row in measured("contracts")[f"{case} + result", "call"].items()
        }
        assert line == f"{over[ours]:.2f} µs | {theirs} {over[theirs]:.1f} µs"

    modules, of_tools = next((phase, rows) for (case, phase), rows in measured("proof").items() if case == "all zoos")
    columns = benchmarks["proof_peers"].COLUMNS
    tools = {name: row.details for name, row in of_tools.items()}
    ours, theirs = tools["towers.contracts.verify"], [each for name, each in tools.items() if "verify" not in name]
    assert (ours["missed"], ours["false alarms"]) == (0, 0)
    most = max(theirs, key=lambda each: each["found"])
    assert figures["proof"] == [
        f"{ours['found']}, no false alarm | at most {most['found']}, {most['false alarms']} false alarms"
    ]
    text = (repository / "README.md").read_text("utf8")
    assert f"the {modules} of the zoos" in text
    for name, row in of_tools.items():
        numbers = [str(row.details[column]) for column in columns]
        assert " | ".join([f"| {name}", *numbers, f"{row.milliseconds / 1e3:.0f} |"]) in text

    means, worst = dict[tuple[str, str], float](), list[float]()
    for phase in ("forward", "training"):
        times = [
            {name: row.time_ratio for name, row in rows.items()}
            for key, rows in measured("lstm").items()
            if key[1] == phase
        ]
        best = [min(each["padded nn.LSTM"], each["packed nn.LSTM"]) / each["towers.RaggedLSTM"] for each in times]
        packed = [each["packed nn.LSTM"] / each["towers.RaggedLSTM"] for each in times]
        means |= {(phase, "best"): geometric_mean(best), (phase, "packed"): geometric_mean(packed)}
        worst.append(min(best))
    for line, beside, rest in zip(
        figures["lstm"], ("best", "packed"), (f"; at worst {min(worst):.2f}", ""), strict=True
    ):
        assert line.startswith(
            f"forward {means['forward', beside]:.1f}, training {means['training', beside]:.1f}{rest} |"
        )

    memory = measured("lstm-memory")["hidden 32, batch 4096, 25% real, uniform", "training"]
    padded, packed, own = (row.details["grown_bytes"] / 2**20 for row in memory.values())
    assert figures["lstm-memory"] == [f"{own:.0f} MB | padded {padded:.0f} MB, packed {packed:.0f} MB"]

    def beside_keras(phase: str, kind: str) -> str:
        """The least and the most that one tower is faster than the best Keras."""
        ratios = []
        for batch in (256, 1024, 4096):
            times = {name: row.milliseconds for name, row in measured("tower")[f"tower, batch {batch}", phase].items()}
            keras = [time for name, time in times.items() if name.startswith("Keras") and name.endswith(kind)]
            ratios.append(min(keras) / times[f"towers, {kind}"])
        return " to ".join(f"{ratio:.2g}" for ratio in (min(ratios), max(ratios)))

    from_vectors, from_ids = (line.split(" | ")[0] for line in figures["tower"])
    assert (
        from_vectors == f"forward {beside_keras('forward', 'vectors')}, training {beside_keras('training', 'vectors')}"
    )
    assert from_ids == beside_keras("forward", "ids")


@pytest.mark.slow
def test_quick_run_of_all_suites(script: Path, tmp_path: Path):
    done = run(script, "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for suite in SUITES:
        tables = json.loads((tmp_path / f"{suite}.json").read_text())["tables"]
        assert tables
        for table in tables:
            assert set(table["columns"]) >= COLUMNS
            assert table["rows"]
            assert all(row[table["columns"].index("suite")] == suite for row in table["rows"])
        assert (tmp_path / f"{suite}.png").read_bytes().startswith(b"\x89PNG")


def test_exported_files_give_the_same_before_they_are_timed(
    called: Called, benchmarks: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
):
    export = benchmarks["export"]
    monkeypatch.setattr(export, "interleaved", called)
    pytest.importorskip("onnxruntime")
    rows = export.measure(export.Case(3), torch.device("cpu"), quick=True)
    files = ["onnxruntime", "torch.export", "torch.export, with towers"]
    assert [row.implementation for row in rows] == ["towers, eager", *files]
    right = export._runners(True)["onnxruntime"]
    export._runners(True)["onnxruntime"] = lambda batch: right(batch) + 1e-3
    with pytest.raises(AssertionError, match="onnxruntime gives other logits"):
        export.measure(export.Case(3), torch.device("cpu"), quick=True)
