"""The suite `tower` on a GPU: a tower on many words at once, and then the cases of the CPU's suite.

The job of the first kind: sentences on the device, from vectors or from ids with a fixed table, to their states, and in
training to the gradients of all weights. Beside each time stands the share of the device's bandwidth: bytes of the
vectors, each read once, over what a copy of them reads and writes in that time, measured in the same round.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cuda_reach
import torch
import tower
from cuda_tools import compare, fewest, lines, precision, rows_of
from report import Row
from rich.table import Table
from timing import interleaved
from torch import Tensor, nn

from towers import Ragged, Tower

TITLE = "Towers on a GPU"
WIDTH, VOCABULARY = 300, 20_000
COPY = "a copy of the vectors"
FIRST = "torch, packed, vectors"


class Case(NamedTuple):
    batch: int
    precision: str
    words: int = 32  # of a sentence, on average

    @property
    def name(self) -> str:
        return f"{self.batch} sentences, {self.batch * self.words / 1e6:.2g} million words, {self.precision}"


def cases(quick: bool) -> list[Case | tower.Case]:
    if quick:
        return [Case(40, "float32", words=6), *tower.cases(True)[:1]]
    many = [Case(batch, kind) for batch in (32, 1024, 32_768) for kind in ("float32", "tf32", "bfloat16")]
    return [*many, *tower.cases(False)]


def measure(case: Case | tower.Case, device: torch.device, *, quick: bool, seconds: float | None = None) -> list[Row]:
    """`seconds`: of timing for each phase; None: as the whole suite takes them."""
    if isinstance(case, tower.Case):
        return tower.measure(case, device, quick=quick)
    rows: list[Row] = []
    with precision(case.precision) as dtype:
        jobs = jobs_of(case, device, dtype)
        check(case, jobs)
        vectors = jobs["towers, vectors"].given[0].values
        for phase in ("forward", "training"):
            calls: dict[str, Callable[[], object]] = {name: call_of(job, phase) for name, job in jobs.items()}
            if (phase, case.precision, device.type) == ("forward", "float32", "cuda"):
                calls["towers, vectors, true float32 products"] = exact(jobs["towers, vectors"])
            calls[COPY] = vectors.clone
            timings = interleaved(calls, device, seconds=seconds or (0.3 if quick else 4.0), fewest=fewest(quick))
            details = {**case._asdict(), "tokens": len(vectors)}
            found = rows_of("tower", case.name, phase, timings, calls, device, len(vectors), details)
            for row in found:
                row.details["share_of_copy_bandwidth"] = timings[COPY].milliseconds / (2 * row.milliseconds)
            rows += found
    return rows


class Job(NamedTuple):
    module: nn.Module
    given: tuple[Any, ...]


def jobs_of(case: Case, device: torch.device, dtype: torch.dtype) -> dict[str, Job]:
    """Ours from vectors, ids and padded vectors; plain torch packed and padded. All have the same weights."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 2 * case.words - 1, (case.batch,), generator=generator)
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    ids = torch.randint(0, VOCABULARY, (int(lengths.sum()),), generator=generator)
    table = torch.randn(VOCABULARY, WIDTH, generator=generator).to(device, dtype)
    of_ids = Ragged(ids, offsets).to(device).with_table(table)
    vectors = of_ids.vectors()
    padded, given = vectors.to_padded()
    torch.manual_seed(0)
    ours = Tower(device=device, dtype=dtype)
    plain = {way: tower.PlainTower(ours, way == "packed") for way in ("packed", "padded")}
    return {
        FIRST: Job(plain["packed"], (padded, given)),
        "torch, padded, vectors": Job(plain["padded"], (padded, given)),
        "towers, vectors": Job(ours, (vectors,)),
        "towers, padded vectors": Job(ours, (padded, given)),
        "towers, ids": Job(ours, (of_ids,)),
    }


def call_of(job: Job, phase: str) -> Callable[[], object]:
    parameters = list(job.module.parameters())

    def forward() -> Tensor:
        with torch.no_grad():
            return job.module(*job.given)

    def training() -> tuple[Tensor | None, ...]:
        states = job.module(*job.given)
        return torch.autograd.grad(states.float().square().sum(), parameters, allow_unused=True)

    return forward if phase == "forward" else training


def exact(job: Job) -> Callable[[], object]:
    """The tower with products in true float32, which the phrases' operator takes as an argument."""
    from towers.kernels import Batch
    from towers.kernels.triton.phrase_features import phrase_features

    model, (given,) = job.module, job.given
    assert isinstance(model, Tower)

    def call() -> Tensor:
        with torch.no_grad():
            conv = model.conv
            features, _ = phrase_features(
                given.values, None, conv.weight, conv.bias, None, model.pool.size, "ieee", False
            )
            batch = Batch(features, given.offsets[:-1], given.lengths - 1, None)
            return model.lstm.run_batch(batch, len(given), outputs=False)[1][0][-1]

    return call


def check(case: Case, jobs: Mapping[str, Job]) -> None:
    """All agree before any is timed: states, and the gradient of the convolution's bias, which has one layout."""
    results: dict[str, list[Tensor]] = {}
    for name, job in jobs.items():
        states = job.module(*job.given)
        bias = dict(job.module.named_parameters())["conv.bias" if isinstance(job.module, Tower) else "bias"]
        results[name] = [states.detach(), *torch.autograd.grad(states.float().square().sum(), bias)]
    for name, found in results.items():
        compare(case.name, name, found, results[FIRST], case.precision)


def reach(rows: list[Row]) -> Table:
    return cuda_reach.table(cuda_reach.of_tower(rows))


def plot(rows: list[Row], title: str, about: Mapping[str, object], path: Path) -> None:
    """Words per second against the number of sentences."""
    many = [row for row in rows if "tokens" in row.details]
    panels = {
        kind: of_kind
        for kind in ("float32", "tf32", "bfloat16")
        if (of_kind := [row for row in many if row.details["precision"] == kind])
    }
    lines(panels, "batch", "sentences of a batch, 32 words each on average", title, about, path)
