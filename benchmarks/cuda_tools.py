"""What the suites for a GPU share: what a call costs beside the device's time, precision, a picture of lines."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
from matplotlib.figure import Figure
from report import COLOURS, Row, save
from timing import FEWEST, Timing

HOST_CALLS = 7  # whose median is the host time

PRECISIONS = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
"""float32: TF32 off, ours by three products of TF32 parts; tf32: allowed in all products; bfloat16: inputs, weights."""

TOLERANCES = {"float32": (1e-5, 1e-4), "tf32": (2e-2, 5e-2), "bfloat16": (5e-2, 2e-1)}
"""By how much results and gradients may differ from the first implementation's, of their largest entry."""


def fewest(quick: bool) -> int:
    """Turns of each candidate at least."""
    return 2 if quick else FEWEST


@contextmanager
def precision(name: str) -> Iterator[torch.dtype]:
    """The same setting for cuDNN's and all other products; what inputs and weights are stored in."""
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = name != "float32"
        yield PRECISIONS[name]
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def beside(call: Callable[[], object], device: torch.device) -> dict[str, object]:
    """Milliseconds until the host has handed a call over, how often it waited for the device, bytes at the peak."""
    found: dict[str, object] = {"host_ms": host_milliseconds(call, device), "device_waits": waits(call, device)}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        synchronize(device)
        found["peak_bytes"] = torch.cuda.max_memory_allocated() - before
    return found


def host_milliseconds(call: Callable[[], object], device: torch.device) -> float:
    times: list[float] = []
    for _ in range(HOST_CALLS):
        synchronize(device)
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    synchronize(device)
    return median(times)


def waits(call: Callable[[], object], device: torch.device) -> int:
    """Calls that made the host wait for the device, as torch itself notices them."""
    if device.type != "cuda":
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(one.message) for one in heard)


def line_through(points: Mapping[int, float]) -> tuple[float, float]:
    """Slope and intercept of the best line through (steps, milliseconds), in microseconds."""
    x = torch.tensor(list(points), dtype=torch.float64)
    y = torch.tensor(list(points.values()), dtype=torch.float64)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return 1e3 * float(slope), 1e3 * float(y.mean() - slope * x.mean())


def compare(case: str, name: str, found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], kind: str) -> None:
    """Refuse an implementation whose results (the first tensor) or gradients (the others) are not the first one's."""
    for at, (one, other) in enumerate(zip(found, expected, strict=True)):
        one, other = one.float(), other.float().reshape(one.shape)
        distance, allowed = (one - other).abs().max(), TOLERANCES[kind][at > 0] * max(1.0, other.abs().max())
        if not distance <= allowed:
            raise AssertionError(f"{case}: {name} is {distance:.1e} away from the first; at most {allowed:.1e}")


def rows_of(
    suite: str, case: str, phase: str, timings: Mapping[str, Timing], calls: Mapping[str, Callable[[], object]],
    device: torch.device, words: int, details: Mapping[str, object],
) -> list[Row]:  # fmt: skip
    return [
        Row(
            suite, case, name, phase, timing.milliseconds, timing.time_ratio, words / timing.milliseconds * 1e3,
            {**details, **beside(calls[name], device), "spread": timing.spread, "rounds": timing.rounds},
        )
        for name, timing in timings.items()
    ]  # fmt: skip


def lines(
    panels: Mapping[str, Sequence[Row]], x: str, xlabel: str, title: str, about: Mapping[str, object], path: Path
) -> None:
    """A panel for each phase and group of rows: words per second against one of their details."""
    phases = ("forward", "training")
    figure = Figure(figsize=(5 * len(phases), 1.2 + 3.2 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), len(phases), sharex=True, squeeze=False)
    for (name, rows), across in zip(panels.items(), grid, strict=True):
        names = list(dict.fromkeys(row.implementation for row in rows))
        for phase, axes in zip(phases, across, strict=True):
            for colour, implementation in zip(COLOURS * 3, names, strict=False):
                shown = [row for row in rows if (row.implementation, row.phase) == (implementation, phase)]
                shown.sort(key=lambda row: float(str(row.details[x])))
                at, speeds = [row.details[x] for row in shown], [row.words_per_second for row in shown]
                axes.plot(at, speeds, marker="o", color=colour, label=implementation)
            axes.set(xscale="log", yscale="log", title=f"{name}, {phase}", xlabel=xlabel, ylabel="words per second")
            axes.spines[["top", "right"]].set_visible(False)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
    figure.suptitle(f"{title}\n{about['name']}, torch {about['torch']}", fontsize=11)
    save(figure, path)
