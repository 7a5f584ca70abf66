"""The suite `lstm` on a GPU: ours fused, and nn.LSTM packed, padded, and padded in buckets of like lengths.

The job, the same for all: padded input and lengths, both on the device, to each sentence's last state; in training the
gradients of input and weights besides. All of a path's own work is timed, fetching lengths to the host included.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import cuda_reach
import torch
from cuda_tools import beside, compare, fewest, line_through, lines, precision, rows_of
from report import Row
from rich.table import Table
from sick import LENGTHS
from timing import interleaved
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from towers import RaggedLSTM

TITLE = "LSTM over sentences of different lengths"
HIDDEN, BATCHES = (6, 16, 32, 64, 128), (1, 32, 256, 1024, 4096)
SHARES, LAWS = (1.0, 0.75, 0.25, 0.1), ("log-normal", "one outlier", "SICK's")
BUCKETS = 8
OURS = "towers.RaggedLSTM"
WALKS = (64, 128, 256, 512)  # longest sentences between which time per step is measured

Path_ = Callable[[Tensor], Tensor]  # padded input -> last states


class Case(NamedTuple):
    hidden: int
    batch: int
    share: float = 0.5  # of the positions that are real words, with uniform lengths
    law: str = "uniform"
    longest: int = 64
    precision: str = "float32"

    @property
    def name(self) -> str:
        law = f"{self.share:.0%} real" if self.law == "uniform" else f"{self.law} lengths"
        return f"hidden {self.hidden}, batch {self.batch}, longest {self.longest}, {law}, {self.precision}"

    @property
    def input_size(self) -> int:
        return 8 if self.hidden == 6 else self.hidden  # 8 into 6 is the towers' own LSTM


class Steps(NamedTuple):
    """Time per step: what a longer longest sentence costs, with few sentences."""

    hidden: int
    precision: str
    batch: int = 32

    @property
    def name(self) -> str:
        return f"time per step, hidden {self.hidden}, batch {self.batch}, {self.precision}"


def cases(quick: bool) -> list[Case | Steps]:
    if quick:
        return [Case(6, 32), Case(64, 32, precision="bfloat16"), Steps(6, "float32", batch=2)]
    found = [Case(hidden, batch) for hidden in HIDDEN for batch in BATCHES]
    found += [Case(hidden, 256, share) for hidden in HIDDEN for share in SHARES]
    found += [Case(hidden, 256, law=law, longest=34 if law == "SICK's" else 64) for hidden in (6, 64) for law in LAWS]
    found += [Case(hidden, batch, longest=512) for hidden in HIDDEN for batch in (32, 4096)]
    found += [Case(6, 4096, share=1.0, longest=512)]
    found += [Case(hidden, 1024, precision=kind) for hidden in (6, 64) for kind in ("tf32", "bfloat16")]
    steps = [Steps(hidden, kind) for hidden in HIDDEN for kind in ("float32", "tf32", "bfloat16")]
    return [*found, *steps]


def measure(case: Case | Steps, device: torch.device, *, quick: bool, seconds: float | None = None) -> list[Row]:
    """`seconds`: of timing for each phase, or for each point of a line; None: as the whole suite takes them."""
    if isinstance(case, Steps):
        return measure_steps(case, device, quick=quick, seconds=seconds)
    rows: list[Row] = []
    with precision(case.precision) as dtype:
        job = Job(case, device, dtype)
        job.check()
        words = int(job.lengths.sum())
        details = {**case._asdict(), "words": words, "real_share": round(words / (case.batch * case.longest), 4)}
        for phase in ("forward", "training"):
            calls = job.calls(phase)
            timings = interleaved(calls, device, seconds=seconds or (0.3 if quick else 2.0), fewest=fewest(quick))
            rows += rows_of("lstm", case.name, phase, timings, calls, device, words, details)
    return rows


def measure_steps(case: Steps, device: torch.device, *, quick: bool, seconds: float | None) -> list[Row]:
    """Slope and intercept over the longest length, all sentences equally long; the ratio is that of the slopes."""
    rows: list[Row] = []
    walks = (2, 4) if quick else WALKS
    with precision(case.precision) as dtype:
        jobs = {
            longest: Job(Case(case.hidden, case.batch, 1.0, "uniform", longest), device, dtype) for longest in walks
        }
        for job in jobs.values():
            job.check()
        for phase in ("forward", "training"):
            points: dict[str, dict[int, float]] = {}
            for longest, job in jobs.items():
                timings = interleaved(
                    job.calls(phase), device, seconds=seconds or (0.1 if quick else 1.0), fewest=fewest(quick)
                )
                for name, timing in timings.items():
                    points.setdefault(name, {})[longest] = timing.milliseconds
            slopes = {name: line_through(found) for name, found in points.items()}
            base = next(iter(slopes.values()))[0]
            for name, (slope, intercept) in slopes.items():
                details = {**case._asdict(), "microseconds_a_step": slope, "intercept_microseconds": intercept}
                details |= {"points": points[name], **beside(jobs[walks[-1]].calls(phase)[name], device)}
                last = points[name][walks[-1]]
                rows.append(
                    Row(
                        "lstm", case.name, name, phase, last, slope / base, case.batch * walks[-1] / last * 1e3, details
                    )
                )
    return rows


def lengths_of(case: Case) -> Tensor:
    """By the case's law, on the CPU; one sentence is the longest."""
    generator, longest = torch.Generator().manual_seed(0), case.longest
    if case.law == "SICK's":
        lengths = 3 + torch.multinomial(torch.tensor(LENGTHS, dtype=torch.float), case.batch, True, generator=generator)
    elif case.law == "log-normal":
        lengths = (0.12 * longest * (0.7 * torch.randn(case.batch, generator=generator)).exp()).round().long()
    else:
        share = 0.1 if case.law == "one outlier" else case.share
        low, high = max(1, round((2 * share - 1) * longest)), min(longest, round(2 * share * longest))
        lengths = torch.randint(low, max(high, low) + 1, (case.batch,), generator=generator)
    lengths = lengths.clamp(1, longest)
    lengths[case.batch // 2] = longest
    return lengths


class Job:
    """One case's input and paths; all paths have the same numbers for weights."""

    def __init__(self, case: Case, device: torch.device, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.case = case
        self.lengths = lengths_of(case).to(device)
        self.input = torch.randn(case.batch, case.longest, case.input_size, device=device).to(dtype)
        theirs = nn.LSTM(case.input_size, case.hidden, batch_first=True, device=device, dtype=dtype)
        self.ours = ours = RaggedLSTM(case.input_size, case.hidden, device=device, dtype=dtype)
        ours.load_state_dict(theirs.state_dict())
        lengths, sentence = self.lengths, torch.arange(case.batch, device=device)

        def packed(input: Tensor) -> Tensor:
            there = pack_padded_sequence(input, lengths.cpu(), batch_first=True, enforce_sorted=False)
            return theirs(there)[1][0][0]

        def padded(input: Tensor) -> Tensor:
            return theirs(input)[0][sentence, lengths - 1]

        def buckets(input: Tensor) -> Tensor:
            """Sorted by length and cut into groups of equal size, each padded to its own longest."""
            ordered, order = lengths.cpu().sort()
            order = order.to(input.device)
            groups = zip(ordered.chunk(BUCKETS), order.chunk(BUCKETS), strict=True)
            ends = [
                theirs(input[rows, : int(some[-1])])[0][sentence[: len(rows)], lengths[rows] - 1]
                for some, rows in groups
            ]
            return torch.cat(ends)[order.argsort()]

        def fused(input: Tensor) -> Tensor:
            return ours.last(input, lengths=lengths)[0]

        self.paths: Mapping[str, Path_] = {
            "nn.LSTM, packed": packed,
            "nn.LSTM, padded": padded,
            f"nn.LSTM, {BUCKETS} buckets": buckets,
            OURS: fused,
        }
        self.weights = {
            name: list((ours if path is fused else theirs).parameters()) for name, path in self.paths.items()
        }

    def calls(self, phase: str) -> dict[str, Callable[[], object]]:
        make = self.forward if phase == "forward" else self.training
        return {name: make(name) for name in self.paths}

    def forward(self, name: str) -> Callable[[], object]:
        def call() -> Tensor:
            with torch.no_grad():
                return self.paths[name](self.input)

        return call

    def training(self, name: str) -> Callable[[], tuple[Tensor, ...]]:
        """Forward and backward; the input asks for its gradient too, as behind a layer that is trained."""
        input = self.input.detach().requires_grad_()

        def call() -> tuple[Tensor, ...]:
            states = self.paths[name](input)
            return torch.autograd.grad(states.float().square().sum(), [input, *self.weights[name]])

        return call

    def check(self) -> None:
        """All paths agree before any is timed, and each has compiled what it calls, without gradients too."""
        found = {name: (self.forward(name)(), *self.training(name)()) for name in self.paths}
        expected = next(iter(found.values()))
        for name, result in found.items():
            compare(self.case.name, name, result, expected, self.case.precision)


def reach(rows: list[Row]) -> Table:
    return cuda_reach.table(cuda_reach.of_lstm(rows))


def plot(rows: list[Row], title: str, about: Mapping[str, object], path: Path) -> None:
    """Words per second against batch, for few and many units."""
    usual = [row for row in rows if "microseconds_a_step" not in row.details]
    fixed = {name: value for name, value in Case(0, 0)._asdict().items() if name not in ("hidden", "batch")}
    swept = [row for row in usual if all(row.details[name] == value for name, value in fixed.items())] or usual
    shown = sorted({row.details["hidden"] for row in swept} & {6, 16, 64}) or [swept[0].details["hidden"]]
    panels = {
        f"hidden {hidden}": of_hidden
        for hidden in shown
        if (of_hidden := [row for row in swept if row.details["hidden"] == hidden])
    }
    lines(panels, "batch", "sentences of a batch, half of the positions real, longest 64", title, about, path)
