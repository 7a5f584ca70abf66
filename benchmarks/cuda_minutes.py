"""All that a GPU has to show, in minutes: `python benchmarks/run.py cuda --minutes 6`.

The plan's steps run one after the other, each in a process of its own with its own limit of time. What a step leaves is
given to the rest of the sweep. Results are written as they come: a run that is cut off leaves what it has, and the same
command with `--resume` measures what is missing. Without it the results of an earlier run move to DIR/before first.
`python benchmarks/run.py cuda --quick` is the dry run: the same plan without a GPU, at tiny sizes in Triton's
interpreter, with the host times, which need no GPU.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cuda_lstm
import cuda_reach
import cuda_tower
from report import Row, read_json, read_machine
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
TESTS = "tests/kernels/triton"


class Planned(NamedTuple):
    """A step: its name, its share of the time, what it does, and for tests what pytest is told.

    Shares are seconds of a plan of 400; they are scaled to the minutes that there are.
    """

    name: str
    seconds: float
    what: str
    tests: tuple[str, ...] = ()  # on a GPU
    quick_tests: tuple[str, ...] = ()  # in the interpreter


PROCESSES = str(min(12, os.cpu_count() or 1))
SERIAL = "wait or graph or compiled or exported"
PLAN = (
    Planned("equality", 25, "narrow and wide kernels against nn.LSTM, once"),
    Planned("tests", 100, "equality tests of all kernels, in parallel",
            ("-m", "cuda", "-n", PROCESSES, "-k", f"not ({SERIAL})", TESTS),
            ("-k", "own or far", f"{TESTS}/test_lstm.py")),
    Planned("serial", 45, "waits, graphs, compile, export",
            ("-m", "cuda", "-k", SERIAL, TESTS), ("-k", "exported", f"{TESTS}/test_layers.py")),
    Planned("steps", 60, "time per step, hidden 6, 64 and 128"),
    Planned("cases", 60, "packed, padded, buckets and ours in eight cases"),
    Planned("host", 10, "host time of a call, kernels not launched"),
    Planned("tower", 30, "a tower beside a copy of its vectors, in three precisions"),
    Planned("search", 30, "the search kernel beside torch, 10^6 and 10^7 items"),
    Planned("profile", 15, "where the device's time goes in a training step"),
    Planned("rest", 25, "as much of the whole sweep as there is time for"),
)  # fmt: skip
NO_TIME = 75  # what a step ends with that had no time for all its cases: EX_TEMPFAIL, which pytest never ends with
QUICK_MINUTES, QUICK_LIMIT = 1.95, 40.0
"""Of the dry run, and the seconds of each of its steps: most of them import torch."""


class Outcome(NamedTuple):
    name: str
    result: str  # "done", "cut off" (stopped, or without time for all its cases), "failed" or "not run"
    seconds: float
    last: str  # the last line that the step printed


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Later:
    """Signals that end the plan wait from here until `come`: one that came while a step is started would leave it."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.before = {number: signal.signal(number, lambda told, _: self.told.append(told)) for number in ENDING}

    def come(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        for number in self.told:
            signal.raise_signal(number)


@contextmanager
def ending_with_its_step() -> Iterator[None]:
    """A plan that is told to end stops the step that runs, which is in a session of its own, and is not told.

    SIGHUP comes where a connection to the GPU's machine breaks.
    """

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@ending_with_its_step()
def main(minutes: float, out: Path, console: Console, *, quick: bool, resume: bool = False) -> bool:
    """Run the plan; whether every step was done."""
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        move_aside(out)
    console.print(f"results: {out}; a run that is ended goes on with --resume", soft_wrap=True)
    total = 60 * (QUICK_MINUTES if quick else minutes)
    end, planned = time.monotonic() + total, sum(step.seconds for step in PLAN)
    outcomes: list[Outcome] = []
    for step in PLAN:
        left = end - time.monotonic()
        share = QUICK_LIMIT if quick else step.seconds * total / planned
        limit = left if step.name == "rest" else min(left, share)
        outcome = run(step, out, limit, quick) if limit > 1 else Outcome(step.name, "not run", 0, "no time was left")
        outcomes.append(outcome)
        console.print(f"{outcome.name}: {outcome.result}, {outcome.seconds:.0f} s of {limit:.0f}: {outcome.last}")
        write(outcomes, out, quick)
    for part in (plan_table(outcomes), reach(out, quick)):
        console.print(part)
    draw(out)
    print(out)
    return all(outcome.result == "done" for outcome in outcomes)


def move_aside(out: Path) -> None:
    """What an earlier run left goes to DIR/before: its rows would stand among those of today's code."""
    names = [f"{suite}.{kind}" for suite in ("lstm", "tower", "search", "host") for kind in ("json", "png")]
    names += ["cuda.txt", "profile.txt", *(f"{step.name}.log" for step in PLAN)]
    if left := [out / name for name in names if (out / name).exists()]:
        before = out / "before"
        before.mkdir(exist_ok=True)
        for path in left:
            path.replace(before / path.name)


def command(step: Planned, out: Path, limit: float, quick: bool) -> list[str]:
    tests = step.quick_tests if quick else step.tests
    if tests:
        return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    inner = max(limit - 3, 1)  # the step stops by itself before it is stopped
    own = [sys.executable, str(HERE / "cuda_steps.py"), step.name, str(out.resolve()), f"{inner:.1f}"]
    return [*own, "--quick"] if quick else own


def run(step: Planned, out: Path, limit: float, quick: bool) -> Outcome:
    """Run a step and keep what it printed in DIR/STEP.log; at its limit it is stopped, and all that it started."""
    environment = {**os.environ, "TRITON_INTERPRET": "1" if quick else "0"}
    start, log = time.monotonic(), out / f"{step.name}.log"
    with log.open("w", encoding="utf8") as file:
        signals, process = Later(), None
        try:
            process = subprocess.Popen(
                command(step, out, limit, quick), cwd=HERE.parent, env=environment, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            signals.come()
            result = {0: "done", NO_TIME: "cut off"}.get(process.wait(limit), "failed")
        except subprocess.TimeoutExpired:
            result = "cut off"
        finally:
            if process is None:
                signals.come()
            elif process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    printed = log.read_text("utf8", errors="replace").strip().splitlines()
    return Outcome(step.name, result, time.monotonic() - start, printed[-1] if printed else "")


def plan_table(outcomes: list[Outcome]) -> Table:
    found = Table(title="the plan's steps")
    for heading in ("step", "what", "result", "seconds", "last line"):
        found.add_column(heading)
    what = {step.name: step.what for step in PLAN}
    for outcome in outcomes:
        found.add_row(outcome.name, what[outcome.name], outcome.result, f"{outcome.seconds:.0f}", outcome.last)
    return found


def rows_of(out: Path, suite: str) -> list[Row]:
    path = out / f"{suite}.json"
    return read_json(path) if path.exists() else []


def reach(out: Path, quick: bool) -> Table:
    """The aims beside what was measured; what the interpreter took says nothing about a GPU and is not shown."""
    of_lstm, of_tower = ([] if quick else rows_of(out, suite) for suite in ("lstm", "tower"))
    lines = cuda_reach.of_lstm(of_lstm) + cuda_reach.of_tower(of_tower)
    return cuda_reach.table([*lines, *cuda_reach.of_host(rows_of(out, "host"))])


def write(outcomes: list[Outcome], out: Path, quick: bool) -> None:
    """DIR/cuda.txt: the steps so far, and what was reached so far."""
    whole = out / "cuda.part"
    with whole.open("w", encoding="utf8") as file:
        console = Console(file=file, width=160)
        console.print(plan_table(outcomes))
        console.print(reach(out, quick))
    whole.replace(out / "cuda.txt")


def draw(out: Path) -> None:
    for suite in (cuda_lstm, cuda_tower):
        name = suite.__name__.removeprefix("cuda_")
        if rows := rows_of(out, name):
            suite.plot(rows, suite.TITLE, read_machine(out / f"{name}.json"), out / f"{name}.png")
