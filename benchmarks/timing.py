"""Timing on a noisy machine: the candidates take turns, and each is compared with the first one in the same round."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median, quantiles
from typing import NamedTuple, Protocol, runtime_checkable

import torch

Candidates = Mapping[str, Callable[[], object]]


@runtime_checkable
class TimesItself(Protocol):
    """A candidate that runs in another process and reports the time that a call took there."""

    def seconds(self, calls: int) -> float: ...


WARM_UP = 2  # calls that are not measured, before those that are
SLOW = 0.2  # after a first call of more seconds, the next one tells how long a call takes
TURN = 0.01  # seconds that one turn of a candidate lasts at least, so that the error of the clock is small
FEWEST = 5  # the least number of turns of each candidate, even of a slow one


class Timing(NamedTuple):
    milliseconds: float  # median of one call
    time_ratio: float  # median over rounds: this candidate's time divided by the first one's
    spread: float  # distance between the quartiles, divided by the median
    rounds: int


def interleaved(
    candidates: Candidates, device: torch.device, *, seconds: float, fewest: int = FEWEST
) -> dict[str, Timing]:
    """Time the candidates in turns, for about `seconds` in all; the first is the baseline of the others."""
    clock = _cuda_seconds if device.type == "cuda" else _cpu_seconds
    turns: list[dict[str, float]] = []
    with _no_garbage_collection():
        calls = {name: max(1, round(TURN / _warm(call, clock))) for name, call in candidates.items()}
        end = time.perf_counter() + seconds
        while len(turns) < fewest or time.perf_counter() < end:
            turns.append(_one_round(candidates, calls, clock, start=len(turns)))
    return medians(turns)


def medians(turns: list[dict[str, float]]) -> dict[str, Timing]:
    """Medians over rounds. A round has the seconds of every candidate; its first one is the baseline."""
    baseline = next(iter(turns[0]))
    timings = {}
    for name in turns[0]:
        times = [turn[name] for turn in turns]
        ratios = [turn[name] / turn[baseline] for turn in turns]
        low, middle, high = quantiles(times, n=4)
        timings[name] = Timing(1e3 * median(times), median(ratios), (high - low) / middle, len(turns))
    return timings


def _one_round(candidates: Candidates, calls: Mapping[str, int], clock: Callable, start: int) -> dict[str, float]:
    names, first = list(candidates), start // 2 % len(candidates)
    order = names[first:] + names[:first]  # each comes first in some rounds
    order = order[::-1] if start % 2 else order  # and none is always behind the one that leaves the memory in pieces
    times = {name: clock(candidates[name], calls[name]) for name in order}
    return {name: times[name] for name in names}


def _warm(call: Callable[[], object], clock: Callable) -> float:
    """Seconds of a call once it is warm; the first call may compile, which takes seconds."""
    first = clock(call, 1)
    if first > SLOW:
        return min(first, clock(call, 1))
    for _ in range(WARM_UP - 1):
        call()
    return clock(call, 1)


def _cpu_seconds(call: Callable[[], object], calls: int) -> float:
    if isinstance(call, TimesItself):
        return call.seconds(calls)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def _cuda_seconds(call: Callable[[], object], calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3 / calls


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def equal_precision() -> Iterator[None]:
    """TF32 off everywhere: by default cuDNN uses it and matrix products do not."""
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
