"""The suites for a GPU run, on the CPU and small: whoever has a GPU need not repair them first."""

import importlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

CPU = torch.device("cpu")
OWN = ("cuda_lstm", "cuda_tower", "cuda_tools", "report")


@pytest.fixture
def benchmarks(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """As `python benchmarks/run.py` imports them; forgotten afterwards, with all that they import from there."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    before = set(sys.modules)
    yield {name: importlib.import_module(name) for name in OWN}
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(repository / "benchmarks")):
            del sys.modules[name]


def written(suite: ModuleType, rows: list, report: ModuleType, folder: Path) -> list[dict]:
    about = report.machine(CPU)
    report.write_json(rows, about, folder / "suite.json")
    suite.plot(rows, suite.TITLE, about, folder / "suite.png")
    assert (folder / "suite.png").stat().st_size > 10_000
    assert report.table(rows, suite.TITLE).row_count > 0
    assert suite.reach(rows).row_count > 5
    return [row.as_json() for row in report.read_json(folder / "suite.json")]


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_case_of_lstm(precision, benchmarks, monkeypatch, tmp_path):
    lstm = benchmarks["cuda_lstm"]
    case = lstm.Case(hidden=6, batch=9, longest=64, precision=precision)
    monkeypatch.setattr(lstm, "interleaved", fewer(lstm.interleaved))
    found = written(lstm, lstm.measure(case, CPU, quick=True), benchmarks["report"], tmp_path)
    names = ["nn.LSTM, packed", "nn.LSTM, padded", "nn.LSTM, 8 buckets", "towers.RaggedLSTM"]
    assert [(row["phase"], row["implementation"]) for row in found] == [
        (phase, name) for phase in ("forward", "training") for name in names
    ]
    assert all(row["host_ms"] > 0 and row["device_waits"] == 0 and row["precision"] == precision for row in found)


def test_the_reach_is_that_of_the_worst_case(benchmarks):
    lstm, report, reach = benchmarks["cuda_lstm"], benchmarks["report"], importlib.import_module("cuda_reach")
    rows = []
    for hidden, batch, ours in ((6, 32, 0.5), (16, 4096, 0.2), (64, 32, 1.0), (128, 32, 3.0), (6, 1, 9.0)):
        case = lstm.Case(hidden, batch)
        for name, milliseconds in (("nn.LSTM, packed", 6.0), ("towers.RaggedLSTM", ours)):
            details = {**case._asdict(), "device_waits": 2 if "packed" in name else 0}
            rows.append(report.Row("lstm", case.name, name, "forward", milliseconds, 1.0, 1.0, details))
    found = {what: value for what, _, value in reach.of_lstm(rows)}
    wanted = {what: bound for what, bound, _ in reach.of_lstm(rows)}
    assert found["forward, times faster than packed, hidden <= 16, half real"] == 12, "batch 1 does not count"
    assert found["forward, times faster than packed, hidden 32-64, half real"] == 6
    assert found["forward, times faster than packed, hidden 128, half real"] == 2
    assert wanted["forward, times faster than packed, hidden 128, half real"] == "reported"
    assert found["training, times faster than packed, hidden <= 16, half real"] is None
    assert found["device waits, forward and training"] == 0
    assert lstm.reach(rows).row_count == len(found)


def test_the_reach_says_what_was_reached(benchmarks):
    reach = importlib.import_module("cuda_reach")
    assert reach.verdict(">= 10", 12.0) == reach.verdict("<= 0.4", 0.4) == reach.verdict("0", 0.0) == "reached"
    assert reach.verdict(">= 10", 9.9) == reach.verdict("<= 0.4", 0.41) == reach.verdict("0", 1.0) == "not reached"
    assert reach.verdict(">= 10", None) == "not run"
    assert reach.verdict("reported", 3.0) == ""


def test_the_plan_goes_on_after_a_step_that_hangs_or_fails(benchmarks, monkeypatch, tmp_path):
    """What a step had written before it was stopped is kept; nothing that it started is left."""
    minutes = importlib.import_module("cuda_minutes")
    codes = {
        "equality": "print('well', flush=True)",
        "steps": "import time; print('begun', flush=True); time.sleep(60)",
        "cases": "import sys; print('wrong'); sys.exit(1)",
        "tower": f"import sys; print('no time for it'); sys.exit({minutes.NO_TIME})",
    }
    plan = [step for step in minutes.PLAN if step.name in codes]
    monkeypatch.setattr(minutes, "PLAN", plan)
    monkeypatch.setattr(minutes, "QUICK_LIMIT", 2.0)
    monkeypatch.setattr(minutes, "command", lambda step, *_: [sys.executable, "-c", codes[step.name]])
    console = importlib.import_module("rich.console").Console(quiet=True)
    monkeypatch.setattr(minutes, "run", noting(minutes.run, outcomes := []))
    assert not minutes.main(1.0, tmp_path, console, quick=True)
    assert [(found.name, found.result, found.last) for found in outcomes] == [
        ("equality", "done", "well"), ("steps", "cut off", "begun"), ("cases", "failed", "wrong"),
        ("tower", "cut off", "no time for it"),
    ]  # fmt: skip
    assert "cut off" in (tmp_path / "cuda.txt").read_text("utf8")


ENDED = """
import sys
sys.path.insert(0, "benchmarks")
import cuda_minutes as minutes, run

minutes.PLAN = [step for step in minutes.PLAN if step.name in ("host", "tower")]
of_step, hangs = minutes.command, ["sh", "-c", "echo $$; exec sleep 600"]
minutes.command = lambda step, *how: hangs if step.name == "tower" else of_step(step, *how)
sys.argv = ["run.py", "cuda", "--quick", "--out", sys.argv[1]]
run.main()
"""


def test_a_run_that_is_ended_midway_leaves_what_it_has(benchmarks, repository, forks, tmp_path):
    """And no process: its second step is there when the run gets the signal, and would sleep for ten minutes."""
    run = subprocess.Popen([forks.python, "-c", ENDED, tmp_path], cwd=repository, stdout=subprocess.DEVNULL)
    log = tmp_path / "tower.log"
    while not (log.exists() and log.read_text().endswith("\n")):
        assert run.poll() is None, "it hangs in its second step"
        time.sleep(0.01)
    run.terminate()
    assert run.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)
    rows = benchmarks["report"].read_json(tmp_path / "host.json")
    assert {row.case for row in rows} == {"last(), hidden 6", "training step, hidden 6", "tower"}
    said = (tmp_path / "cuda.txt").read_text("utf8")
    assert re.search(r"host .* done", said)
    assert re.search(r"host µs, tower, kernels not launched +<= 80 +\d", said)
    assert "tower beside" not in said, "it did not end"


def test_each_signal_that_ends_a_run_ends_its_step(benchmarks):
    """SIGHUP among them, of a connection that breaks: by itself it would leave the step running on the GPU."""
    minutes = importlib.import_module("cuda_minutes")
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        with pytest.raises(SystemExit) as end, minutes.ending_with_its_step():
            os.kill(os.getpid(), number)
        assert end.value.code == 128 + number
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_signal_while_a_step_is_started_ends_the_step(benchmarks, monkeypatch, tmp_path):
    minutes, started, popen = importlib.import_module("cuda_minutes"), list[subprocess.Popen](), subprocess.Popen

    def interrupted(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[0]

    monkeypatch.setattr(minutes, "command", lambda *_: ["sleep", "600"])
    monkeypatch.setattr(minutes.subprocess, "Popen", interrupted)
    with pytest.raises(SystemExit), minutes.ending_with_its_step():
        minutes.run(minutes.PLAN[0], tmp_path, 60.0, quick=True)
    assert started[0].returncode == -signal.SIGKILL
    monkeypatch.setattr(minutes.subprocess, "Popen", lambda *_, **__: 1 / 0)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError):
        minutes.run(minutes.PLAN[0], tmp_path, 60.0, quick=True)
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_an_earlier_run_left_is_kept_apart_unless_it_goes_on(benchmarks, monkeypatch, tmp_path):
    """Its rows would stand among those of today's code, in the table of the reach too."""
    minutes, console = importlib.import_module("cuda_minutes"), importlib.import_module("rich.console").Console
    monkeypatch.setattr(minutes, "PLAN", [])
    (tmp_path / "host.json").write_text('{"machine": {}, "tables": []}')
    (tmp_path / "mine.json").touch()
    assert minutes.main(1.0, tmp_path, console(quiet=True), quick=True, resume=True)
    assert {path.name for path in tmp_path.iterdir()} == {"host.json", "mine.json"}
    assert minutes.main(1.0, tmp_path, console(quiet=True), quick=True)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.json", "before"}
    assert [path.name for path in (tmp_path / "before").iterdir()] == ["host.json"]


def test_a_step_measures_what_is_missing_and_says_what_it_had_no_time_for(benchmarks, monkeypatch, tmp_path, capsys):
    steps, lstm, row = importlib.import_module("cuda_steps"), benchmarks["cuda_lstm"], benchmarks["report"].Row
    monkeypatch.setattr(lstm, "measure", lambda case, *_, **__: [row("lstm", case.name, "ours", "forward", 1.0, 1.0)])
    here, missing = lstm.Case(6, 1), lstm.Case(6, 2)
    step = steps.Step(tmp_path, 60.0, quick=True)
    step.measure(lstm, [here], 0.05)
    step.measure(lstm, [here, missing], 0.05)
    assert capsys.readouterr().out.splitlines() == [here.name, f"there already: {here.name}", missing.name]
    assert step.complete
    late = steps.Step(tmp_path, 0.0, quick=True)
    late.measure(lstm, [missing, lstm.Case(6, 3)], 0.05)
    assert not late.complete
    assert late.done("lstm") == {here.name, missing.name}


def test_a_write_that_is_ended_midway_leaves_the_rows_before(benchmarks, monkeypatch, tmp_path):
    report, path = benchmarks["report"], tmp_path / "lstm.json"
    first = [report.Row("lstm", "a case", "ours", "forward", 1.0, 1.0)]
    report.write_json(first, {}, path)
    write = Path.write_text

    def half(self: Path, text: str, **how: str) -> None:
        write(self, text[: len(text) // 2], **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        report.write_json(first * 2, {}, path)
    assert report.read_json(path) == first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("cuda --quick --show", "no --show; what it printed is in DIR/cuda.txt"),
        ("cuda --quick --only x", "cuda takes no --only"),
        ("cuda --quick --minutes nan", r"minutes \(nan\) must be at least 1"),
        ("cuda --quick", r'cuda needs triton, xdist: pip install -e "\.\[dev\]"'),
        ("cuda --sass", r"cuda needs triton: pip install"),
        ("cude", "no suite cude; there are .*, cuda$"),
    ],
)
def test_what_the_plan_cannot_do_is_said_before_it_starts(arguments, said, benchmarks, monkeypatch, capsys):
    run = importlib.import_module("run")
    monkeypatch.setattr(run, "find_spec", lambda name: None if name != "pytest" else run)
    with pytest.raises(SystemExit) as end:
        run.arguments(arguments.split())
    assert end.value.code == 2
    assert re.search(said, capsys.readouterr().err.strip(), re.MULTILINE)


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_measured(benchmarks, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"results cannot be written to .*file \(File exists\); --out names another"):
        importlib.import_module("run").make(tmp_path / "file")


def noting(call, found):
    return lambda *arguments: (found.append(call(*arguments)), found[-1])[1]


def test_the_host_time_of_each_call_is_measured_without_a_gpu(benchmarks, monkeypatch):
    host = importlib.import_module("cuda_host")
    rows = host.measure(0.0)
    assert {row.case for row in rows} == {"last(), hidden 6", "training step, hidden 6", "tower"}
    assert all(row.details["host_us"] > 0 for row in rows)
    found = importlib.import_module("cuda_reach").of_host(rows)
    assert all(value is not None for _, _, value in found)


def fewer(interleaved):
    return lambda calls, device, seconds, fewest: interleaved(calls, device, seconds=0.01, fewest=fewest)


def test_time_per_step(benchmarks, monkeypatch):
    lstm = benchmarks["cuda_lstm"]

    def clock(calls, device, seconds, fewest):
        # 5 µs and 2 µs a step: what the paths are is not looked at.
        words = next(iter(calls.values()))().shape[0]
        assert words == 2
        longest = lstm.lengths_seen[-1]
        return {
            name: lstm.Timing(0.1 + longest * (0.005 if "packed" in name else 0.002), 1.0, 0.0, 5) for name in calls
        }

    from timing import Timing

    lstm.Timing, lstm.lengths_seen = Timing, []
    monkeypatch.setattr(lstm.Job, "calls", seeing(lstm))
    monkeypatch.setattr(lstm, "interleaved", clock)
    rows = lstm.measure(lstm.Steps(6, "float32", batch=2), CPU, quick=True)
    ours = [row for row in rows if row.implementation == "towers.RaggedLSTM"]
    assert [row.phase for row in ours] == ["forward", "training"]
    for row in ours:
        assert row.details["microseconds_a_step"] == pytest.approx(2)
        assert row.details["intercept_microseconds"] == pytest.approx(100)
        assert row.time_ratio == pytest.approx(0.4)


def seeing(lstm: ModuleType):
    """`Job.calls`, which also notes how long the job's sentences are."""

    def calls(job, phase):
        lstm.lengths_seen.append(job.case.longest)
        return {name: job.forward(name) for name in job.paths}

    return calls


def test_a_first_call_that_compiles_does_not_shorten_the_turns(benchmarks, monkeypatch):
    timing = importlib.import_module("timing")
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def call() -> None:
        calls.append(1)
        now[0] += 3.0 if len(calls) == 1 else 0.001

    timing.interleaved({"ours": call}, CPU, seconds=0.01, fewest=2)
    assert len(calls) == 2 + 2 * 10, "10 calls of 1 ms are a turn of 10 ms"


def test_time_per_step_is_measured_after_all_has_compiled(benchmarks, monkeypatch):
    """The first walk would have the time of compiling in it, and the slope would come out too small."""
    lstm = benchmarks["cuda_lstm"]
    checked, times = [], itertools.count(1.0)
    monkeypatch.setattr(lstm.Job, "check", lambda job: checked.append(job.case.longest))

    def clock(calls, device, seconds, fewest):
        assert checked == [2, 4]
        milliseconds = next(times)
        return {name: importlib.import_module("timing").Timing(milliseconds, 1.0, 0.0, 5) for name in calls}

    monkeypatch.setattr(lstm, "interleaved", clock)
    assert lstm.measure(lstm.Steps(6, "float32", batch=2), CPU, quick=True)


def test_a_check_calls_what_is_timed_without_gradients(benchmarks, monkeypatch):
    """Without gradients the kernels are others: they keep nothing for the backward pass."""
    lstm, grad = benchmarks["cuda_lstm"], []
    real = lstm.RaggedLSTM.last
    monkeypatch.setattr(
        lstm.RaggedLSTM, "last", lambda *a, **k: (grad.append(torch.is_grad_enabled()), real(*a, **k))[1]
    )
    lstm.Job(lstm.Case(6, 4), CPU, torch.float32).check()
    assert set(grad) == {True, False}


@pytest.mark.parametrize("law", ["uniform", "log-normal", "one outlier", "SICK's"])
def test_lengths_follow_their_law(law, benchmarks):
    lstm = benchmarks["cuda_lstm"]
    lengths = lstm.lengths_of(lstm.Case(6, 1000, law=law))
    assert lengths.min() >= 1
    assert lengths.max() <= 64
    assert lengths[500] == 64
    share = {"uniform": 0.5, "log-normal": 0.15, "one outlier": 0.1, "SICK's": 0.15}[law]
    assert lengths.double().mean() / 64 == pytest.approx(share, abs=0.04)


def test_the_whole_sweep_is_there(benchmarks):
    lstm, tower = benchmarks["cuda_lstm"], benchmarks["cuda_tower"]
    found = lstm.cases(False)
    assert len({case.name for case in found}) == len(found)
    usual = [case for case in found if isinstance(case, lstm.Case)]
    assert {case.longest for case in usual} == {64, 512, 34}
    assert {case.share for case in usual} == {1.0, 0.75, 0.5, 0.25, 0.1}
    assert {case.batch for case in usual} == {1, 32, 256, 1024, 4096}
    assert any(isinstance(case, tower.Case) and case.batch * case.words >= 1e6 for case in tower.cases(False))


def test_a_case_of_tower(benchmarks, monkeypatch, tmp_path):
    tower = benchmarks["cuda_tower"]
    monkeypatch.setattr(tower, "interleaved", fewer(tower.interleaved))
    found = written(
        tower, tower.measure(tower.Case(9, "float32", words=6), CPU, quick=True), benchmarks["report"], tmp_path
    )
    names = {row["implementation"] for row in found}
    assert names >= {"torch, packed, vectors", "towers, vectors", "towers, ids", "a copy of the vectors"}
    copies = [row["share_of_copy_bandwidth"] for row in found if row["implementation"] == "a copy of the vectors"]
    assert copies == [0.5, 0.5], "it reads and writes"


@pytest.mark.parametrize("suite", ["cuda_lstm", "cuda_tower"])
def test_a_wrong_result_is_refused_before_timing(suite, benchmarks, monkeypatch):
    module = benchmarks[suite]
    if suite == "cuda_lstm":
        real, case = module.RaggedLSTM.last, module.Case(6, 4)
        monkeypatch.setattr(module.RaggedLSTM, "last", lambda *args, **kw: real(*args, **kw) * 1.01)
    else:
        real, case = module.Tower.forward, module.Case(4, "float32", words=6)
        monkeypatch.setattr(module.Tower, "forward", lambda *args: real(*args) * 1.01)
    with pytest.raises(AssertionError, match=r"float32: towers.* away from the first; at most"):
        module.measure(case, CPU, quick=True)


def test_precision_is_set_for_both_sides_and_put_back(benchmarks):
    tools = benchmarks["cuda_tools"]
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    for name, allowed in (("float32", False), ("tf32", True)):
        with tools.precision(name) as dtype:
            assert dtype == torch.float32
            assert [backend.allow_tf32 for backend in backends] == [allowed] * 2
    assert [backend.allow_tf32 for backend in backends] == before


def test_waits_are_counted(benchmarks, monkeypatch):
    import warnings

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)

    def call() -> None:
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    assert benchmarks["cuda_tools"].waits(call, torch.device("cuda")) == 3


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.parametrize("suite", ["lstm", "tower"])
def test_quick_run_on_a_gpu(suite, benchmarks, repository, tmp_path):
    command = [
        sys.executable,
        repository / "benchmarks" / "run.py",
        suite,
        "--quick",
        "--device",
        "cuda",
        "--out",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    rows = [row.as_json() for row in benchmarks["report"].read_json(tmp_path / f"{suite}.json")]
    ours = [row for row in rows if row["implementation"].startswith("towers") and "device_waits" in row]
    assert ours
    assert all(row["device_waits"] == 0 for row in ours)
