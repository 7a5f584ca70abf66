"""One step of the plan in `cuda_minutes`, in a process of its own: a kernel that fails or hangs ends only its step.

    python benchmarks/cuda_steps.py STEP DIR SECONDS [--quick]

Rows are written after each case to DIR/lstm.json, DIR/tower.json, DIR/search.json and DIR/host.json, where `run.py
--resume` finds them.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import cuda_host
import cuda_lstm
import cuda_search
import cuda_tools
import cuda_tower
import torch
from cuda_lstm import Case, Job, Steps
from cuda_minutes import NO_TIME
from report import Row, machine, read_json, write_json
from timing import equal_precision


class Step:
    """Where a step writes, until when, and on which device."""

    def __init__(self, out: Path, seconds: float, quick: bool) -> None:
        self.out, self.quick, self.end = out, quick, time.monotonic() + seconds
        self.device = torch.device("cpu" if quick else "cuda")
        self.complete = True

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows to those of their suites; a case that is there already is replaced."""
        for suite in dict.fromkeys(row.suite for row in rows):
            path, own = self.out / f"{suite}.json", [row for row in rows if row.suite == suite]
            cases = {row.case for row in own}
            before = [row for row in read_json(path) if row.case not in cases] if path.exists() else []
            write_json([*before, *own], machine(self.device), path)

    def done(self, suite: str) -> set[str]:
        path = self.out / f"{suite}.json"
        return {row.case for row in read_json(path)} if path.exists() else set()

    def measure(self, module: ModuleType, cases: Sequence[object], seconds: float) -> None:
        """Case after case while there is time, those that are not there yet; `seconds` of timing for each."""
        done = self.done(module.__name__.removeprefix("cuda_"))
        for case in cases:
            if case.name in done:
                print(f"there already: {case.name}")
                continue
            if self.left < 1:
                self.complete = False
                print(f"no time for {case.name}")
                continue
            self.write(module.measure(case, self.device, quick=self.quick, seconds=seconds))
            print(case.name, flush=True)


def equality(step: Step) -> None:
    """One forward and backward pass of the narrow and the wide kernels against nn.LSTM."""
    few = (Case(6, 4, longest=4), Case(20, 4, longest=3), Case(20, 4, longest=3, precision="bfloat16"))
    for case in few if step.quick else (Case(6, 64), Case(64, 64), Case(128, 64, precision="bfloat16")):
        with cuda_lstm.precision(case.precision) as dtype:
            job = Job(case, step.device, dtype)
            if (chosen := job.ours.backend(job.input, lengths=job.lengths)).name != "triton":
                sys.exit(f"no kernel of ours would run here: {chosen}")
            job.check()
        print(f"as nn.LSTM: {case.name}", flush=True)


def steps(step: Step) -> None:
    sizes = ((6, "float32"), (64, "float32"), (64, "bfloat16"), (128, "float32"), (128, "bfloat16"))
    cases = [Steps(hidden, kind) for hidden, kind in sizes]
    step.measure(cuda_lstm, [Steps(6, "float32", batch=2)] if step.quick else cases, 0.05 if step.quick else 0.25)


def cases(step: Step) -> None:
    """Packed against padded against ours: throughput, host time, waits."""
    few = [Case(20, 2, longest=3)]
    found = [Case(6, 32), Case(6, 4096), Case(64, 32), Case(64, 4096), Case(128, 32), Case(6, 4096, 1.0, longest=512)]
    found += [Case(6, 256, 1.0), Case(64, 256, 1.0)]
    step.measure(cuda_lstm, few if step.quick else found, 0.05 if step.quick else 0.4)


def tower(step: Step) -> None:
    found = [cuda_tower.Case(32_768, kind) for kind in ("tf32", "bfloat16", "float32")]
    few = [cuda_tower.Case(2, "float32", words=3)]
    step.measure(cuda_tower, few if step.quick else found, 0.05 if step.quick else 3)


def search(step: Step) -> None:
    step.measure(cuda_search, cuda_search.cases(step.quick), 0.05 if step.quick else 1)


def host(step: Step) -> None:
    rows = cuda_host.measure(1.5 if step.quick else 4)
    step.write(rows)
    for row in rows:
        print(f"{row.case}: {row.details['host_us']:.0f} µs")


def profile(step: Step) -> None:
    """Where the device's time goes in a training step, to DIR/profile.txt."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [] if step.quick else [torch.profiler.ProfilerActivity.CUDA]
    case = Case(6, 2, longest=3) if step.quick else Case(6, 4096, longest=512)
    with cuda_lstm.precision("float32") as dtype:
        call = Job(case, step.device, dtype).training(cuda_lstm.OURS)
        call()
        with torch.profiler.profile(activities=activities) as found:
            for _ in range(1 if step.quick else 10):
                call()
    by = "self_cpu_time_total" if step.quick else "self_device_time_total"
    text = found.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=60)
    (step.out / "profile.txt").write_text(text, encoding="utf8")
    print(f"{case.name}: {step.out / 'profile.txt'}")


def rest(step: Step) -> None:
    """What of the whole sweep there is time for."""
    of_lstm, of_tower = cuda_lstm.cases(step.quick), cuda_tower.cases(step.quick)
    if step.quick:  # the sizes of the suites' own quick run are large for an interpreter
        of_lstm, of_tower = [Case(6, 2, longest=3)], []
    half = step.left / 2
    end, step.end = step.end, step.end - half
    step.measure(cuda_tower, [case for case in of_tower if isinstance(case, cuda_tower.Case)], 1.0)
    step.end = end
    step.measure(cuda_lstm, of_lstm, 0.05 if step.quick else 0.4)
    step.complete = True  # however much there was time for


STEPS: dict[str, Callable[[Step], None]] = {
    step.__name__: step for step in (equality, steps, cases, tower, search, host, profile, rest)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("seconds", type=float, metavar="SECONDS")
    parser.add_argument("--quick", action="store_true", help="tiny sizes in Triton's interpreter, without a GPU")
    options = parser.parse_args()
    if options.quick:
        torch.set_num_threads(1)
        cuda_tools.HOST_CALLS = 1  # the interpreter takes half a second
    with equal_precision(), cuda_host.as_on_a_gpu() if options.quick else nullcontext():
        step = Step(options.out, options.seconds, options.quick)
        STEPS[options.step](step)
        return 0 if step.complete else NO_TIME


if __name__ == "__main__":
    sys.exit(main())
