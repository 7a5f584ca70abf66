# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""How a batch will be walked: where the walk is cut, and which way each part takes; from a model of their costs.

The sentences stand longest first and are walked over from left to right, so that the batch shrinks. The walk is cut
into segments at the ends of some sentences. Dynamic programming finds the cuts and ways of least cost, from the
lengths alone: the same lengths always give the same plan, whatever the number of threads.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from towers.kernels.costs import ONE_THREAD, SORTING, Cost, costs

BLOCK = 65_536  # numbers of state of a block of sentences that is walked over by itself: more fall out of the cache


class Cut(NamedTuple):
    """One segment: some steps of neighbouring sentences, longest first."""

    way: str
    first: int  # sentence, longest first
    start: int  # step
    sizes: list[int]  # sentences that run at each step
    stay: int  # sentences that go on behind it

    @property
    def stop(self) -> int:
        """The step behind it."""
        return self.start + len(self.sizes)

    @property
    def rows(self) -> int:
        """Rows that it computes; "buckets" pads."""
        return self.sizes[0] * len(self.sizes) if self.way == "buckets" else sum(self.sizes)


@dataclass(frozen=True, eq=False)
class Plan:
    """How a batch is walked, and what that should cost; `str` shows it to people."""

    order: Tensor | None  # of the sentences, longest first; None: as they are
    running: int  # sentences that have a word
    batch: int
    tokens: int
    cuts: tuple[Cut, ...]
    microseconds: float  # of one layer and direction on one core, by the model
    one_thread: bool  # more threads would wait for each other longer than they help

    def __str__(self) -> str:
        rows = sum(cut.rows for cut in self.cuts)
        threads = "one thread" if self.one_thread else "all threads"
        lines = [
            f"{self.batch} sentences, {self.tokens} words: about {self.microseconds:.0f} µs a layer, {threads}, "
            f"{rows - self.tokens} rows of padding"
        ]
        for cut in self.cuts:
            steps = f"{cut.start}-{cut.stop - 1}"
            lines.append(f"  {cut.way:<8} sentences {cut.first}+{cut.sizes[0]:<6} steps {steps:<9} rows {cut.rows}")
        return "\n".join(lines)


def plan(
    lengths: Tensor | int, batch: int, method: str, *, input_size: int, hidden: int, training: bool, onednn: bool
) -> Plan:
    """For a batch of these lengths ("batch", on the CPU; at least one), or of one length that all have.

    `onednn`: whether oneDNN can run it (float32, no projection); else every segment goes "steps".
    """
    ways = costs(input_size, hidden, training)
    if not onednn:
        ways = {"steps": ways["steps"]}
    elif method != "auto":
        ways = {method: ways[method]}
    counts = [batch] * lengths if isinstance(lengths, int) else running_counts(lengths)
    if not counts:
        return Plan(None, 0, batch, 0, (), 0.0, True)
    tokens, longest, most = sum(counts), len(counts), max(1, BLOCK // hidden)
    whole = _as_they_stand(batch, counts, ways)
    if isinstance(lengths, int) or counts[-1] == batch:
        if whole is not None and (whole[0].way == "buckets" or batch <= most):
            return Plan(None, batch, batch, tokens, (whole[0],), whole[1], whole[1] < ONE_THREAD)
        cuts, total = _sorted(counts, most, ways)
        return Plan(None, batch, batch, tokens, cuts, total, total < ONE_THREAD)
    floor = SORTING + min(cost.call + cost.step * longest + cost.row * tokens for cost in ways.values())
    if whole is None or whole[1] > floor:
        cuts, total = _sorted(counts, most, ways)
        if whole is None or total + SORTING < whole[1]:
            order = lengths.argsort(descending=True, stable=True)
            return Plan(order, counts[0], batch, tokens, cuts, total + SORTING, total < ONE_THREAD)
    return Plan(None, batch, batch, tokens, (whole[0],), whole[1], whole[1] < ONE_THREAD)


def _as_they_stand(batch: int, counts: list[int], ways: dict[str, Cost]) -> tuple[Cut, float] | None:
    """All in one segment, without sorting: with padding, or none if all are equally long."""
    steps, even = len(counts), counts[-1] == batch
    names = ways if even else [name for name in ways if name == "buckets" and counts[0] == batch]
    found = [(ways[name].call + ways[name].step * steps + ways[name].row * batch * steps, name) for name in names]
    if not found:
        return None
    total, name = min(found)
    return Cut(name, 0, 0, [batch] * steps, 0), total


def _sorted(counts: list[int], most: int, ways: dict[str, Cost]) -> tuple[tuple[Cut, ...], float]:
    """Blocks of at most so many sentences, longest first, each cut by itself."""
    cuts, total = list[Cut](), 0.0
    for first in range(0, counts[0], most):
        own = counts if counts[0] <= most else [min(count - first, most) for count in counts if count > first]
        found, cost = _cut(first, own, ways)
        cuts += found
        total += cost
    return tuple(cuts), total


def running_counts(lengths: Tensor) -> list[int]:
    """How many sentences still run at each step."""
    count, ended = len(lengths), torch.bincount(lengths).tolist()
    return [count - before for before in accumulate(ended[:-1])]


def _cut(first: int, counts: list[int], ways: dict[str, Cost]) -> tuple[list[Cut], float]:
    """The cheapest way from the first step to the last, over some of the steps at which sentences end."""
    stops, words = _candidates(counts), [0, *accumulate(counts)]
    prices = [(way, way == "buckets", *cost) for way, cost in ways.items()]
    best: list[tuple[float, int, str]] = [(0.0, 0, "")]  # to reach each stop: cost, index of the stop before, way
    for stop in stops[1:]:
        least, found = float("inf"), (0, "")
        for before, start in enumerate(stops[: len(best)]):
            steps, reach = stop - start, best[before][0]
            for way, padded, call, step, row in prices:
                rows = counts[start] * steps if padded else words[stop] - words[start]
                total = reach + call + step * steps + row * rows
                if total < least:
                    least, found = total, (before, way)
        best.append((least, *found))
    cuts: list[Cut] = []
    index = len(stops) - 1
    while index:
        _, before, way = best[index]
        start, stop = stops[before], stops[index]
        cuts.append(Cut(way, first, start, counts[start:stop], counts[stop] if stop < len(counts) else 0))
        index = before
    return cuts[::-1], best[-1][0]


def _candidates(counts: list[int]) -> list[int]:
    """Steps at which the walk may be cut: its start, its end, and where a share of the sentences has ended."""
    longest, batch = len(counts), counts[0]
    if counts[-1] == batch:
        return [0, longest]
    left = sorted(
        {*(batch * part // 8 for part in range(1, 8)), *(batch >> part for part in range(4, 13))} - {0}, reverse=True
    )
    stops, step = [0], 0
    for rank in left:
        while step < longest and counts[step] > rank:
            step += 1
        if step > stops[-1] and step < longest:
            stops.append(step)
    return [*stops, longest]
