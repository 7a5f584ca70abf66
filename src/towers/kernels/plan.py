# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""How a batch will be walked: where the walk is cut, and which way each part takes; from a model of their costs.

The sentences stand longest first and are walked over from left to right, so that the batch shrinks. The walk is cut
into segments at the ends of some sentences. Dynamic programming finds the cuts and ways of least cost, from the
lengths alone: the same lengths always give the same plan, whatever the number of threads.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from torch import Tensor

from towers.kernels.costs import Cost, costs

BLOCK = 65_536  # numbers of state of a block of sentences that is walked over by itself: more fall out of the cache


class Cut(NamedTuple):
    """One segment: some steps of neighbouring sentences, longest first."""

    way: str
    first: int  # sentence, longest first
    start: int  # step
    sizes: list[int]  # sentences that run at each step
    stay: int  # sentences that go on behind it

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
            steps = f"{cut.start}-{cut.start + len(cut.sizes) - 1}"
            lines.append(f"  {cut.way:<8} sentences {cut.first}+{cut.sizes[0]:<6} steps {steps:<9} rows {cut.rows}")
        return "\n".join(lines)


def plan(
    lengths: Tensor | int, batch: int, method: str, *, input_size: int, hidden: int, training: bool, onednn: bool
) -> Plan:
    """Of lengths ("batch", on the CPU), or of one length that all have.

    `onednn`: whether oneDNN can run it (float32, no projection); else every segment goes "steps".
    """
    ways = costs(input_size, hidden, training)
    if not onednn:
        ways = {"steps": ways["steps"]}
    elif method != "auto":
        ways = {method: ways[method]}
    if isinstance(lengths, int):
        order, sizes, tokens = None, [lengths] * batch, lengths * batch
        blocks = [(0, [batch] * lengths)] if lengths and batch else []
        running = batch if lengths else 0
    else:
        order = lengths.argsort(descending=True, stable=True) if batch > 1 else None
        ordered = lengths if order is None else lengths.index_select(0, order)
        sizes = ordered.tolist()
        tokens = sum(sizes)
        running = batch - sizes.count(0)
        blocks = [
            (first, running_counts(sizes[first : first + most]))
            for most in [max(1, BLOCK // hidden)]
            for first in range(0, running, most)
        ]
    cuts, total = [], 0.0
    for first, counts in blocks:
        found, cost = _cut(first, counts, ways)
        cuts += found
        total += cost
    return Plan(order, running, batch, tokens, tuple(cuts), total, total < 400)


def running_counts(sizes: list[int]) -> list[int]:
    """How many sentences still run at each step, of sizes that fall."""
    counts: list[int] = []
    for rank in range(len(sizes), 0, -1):
        more = sizes[rank - 1] - len(counts)
        if more > 0:
            counts += [rank] * more
    return counts


def _cut(first: int, counts: list[int], ways: dict[str, Cost]) -> tuple[list[Cut], float]:
    """The cheapest way from the first step to the last, over some of the steps at which sentences end."""
    stops = _candidates(counts)
    words = [0, *accumulate(counts)]
    best: list[tuple[float, int, str]] = [(0.0, 0, "")]  # to reach each stop: cost, stop before, way
    for index in range(1, len(stops)):
        stop, found = stops[index], (float("inf"), 0, "")
        for before in range(index):
            start = stops[before]
            steps, reach = stop - start, best[before][0]
            for way, cost in ways.items():
                rows = counts[start] * steps if way == "buckets" else words[stop] - words[start]
                total = reach + cost.call + cost.step * steps + cost.row * rows
                if total < found[0]:
                    found = (total, before, way)
        best.append(found)
    cuts: list[Cut] = []
    index = len(stops) - 1
    while index:
        _, before, way = best[index]
        start, stop = stops[before], stops[index]
        stay = counts[stop] if stop < len(counts) else 0
        cuts.append(Cut(way, first, start, counts[start:stop], stay))
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
