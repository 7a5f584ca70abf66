"""How a batch will be walked: where the walk is cut, and which way each part takes; from a model of their costs.

The sentences stand longest first, in blocks of about equally many words, which are walked over side by side, each on
one thread: threads that share a step would wait for each other at every step. A block is walked over from left to
right, so that it shrinks, and cut into segments at the ends of some sentences. Dynamic programming finds the cuts and
ways of least cost, from the lengths alone: the same lengths always give the same plan, whatever the number of threads.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from towers.kernels.costs import PIECES, RUNS, SIDE_BY_SIDE, SORTING, Cost, costs

BLOCK = 65_536  # numbers of state in a block, at most: more fall out of the cache
LEAST = 16  # sentences in a block, at least, if it is not the only one


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
    one_thread: bool  # for each block; else oneDNN shares the one block among all threads

    @property
    def whole(self) -> bool:
        """Whether the batch is one bucket as it stands."""
        return self.order is None and len(self.cuts) == 1 and self.cuts[0].way == "buckets"

    @property
    def even(self) -> bool:
        """Whether no row is padding."""
        return sum(cut.rows for cut in self.cuts) == self.tokens

    def __str__(self) -> str:
        rows = sum(cut.rows for cut in self.cuts)
        blocks = sum(cut.start == 0 for cut in self.cuts)
        lines = [
            f"{self.batch} sentences, {self.tokens} words: about {self.microseconds:.0f} µs a layer on one core, "
            f"blocks {blocks}, {rows - self.tokens} rows of padding"
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
    ways = {way: cost for way, cost in costs(input_size, hidden, training).items() if way != "native"}
    if not onednn:
        ways = {"steps": ways["steps"]}
    elif method != "auto":
        ways = {method: ways[method]}
    counts = [batch] * lengths if isinstance(lengths, int) else running_counts(lengths)
    if not counts:
        return Plan(None, 0, batch, 0, (), 0.0, True)
    tokens, longest, most = sum(counts), len(counts), max(1, BLOCK // hidden)
    even = isinstance(lengths, int) or counts[-1] == batch
    run = RUNS[training]
    whole = _as_they_stand(batch, counts, ways)
    laying = (run.laying + run.laying_hidden * hidden) * tokens + (0 if even else SORTING)
    floor = min(cost.call + cost.step * longest + cost.row * tokens for cost in ways.values())
    pieces = next(count for limit, count in PIECES if floor <= limit)
    share = 1.0 if pieces == 1 else SIDE_BY_SIDE
    as_it_is, took = None, 0.0
    if whole is not None and (whole[0].way == "buckets" or batch <= most):
        alone = whole[1] <= run.alone or whole[0].way != "buckets"
        as_it_is = Plan(None, batch, batch, tokens, (whole[0],), whole[1], alone)
        took = whole[1] if alone else max(run.alone, run.shared * whole[1])
        if took <= share * (floor + laying):
            return as_it_is
    cuts, total = _in_blocks(counts, _blocks(counts, tokens, pieces, most), ways)
    if as_it_is is not None and took <= share * (total + laying):
        return as_it_is
    order = None if isinstance(lengths, int) or even else lengths.argsort(descending=True, stable=True)
    return Plan(order, counts[0], batch, tokens, cuts, total + laying, True)


def _as_they_stand(batch: int, counts: list[int], ways: dict[str, Cost]) -> tuple[Cut, float] | None:
    """All in one segment, without sorting: with padding, or none if all are equally long."""
    steps, even = len(counts), counts[-1] == batch
    buckets = [name for name in ways if name == "buckets"]
    names = (buckets or ways) if even else buckets if counts[0] == batch else []
    found = [(ways[name].call + ways[name].step * steps + ways[name].row * batch * steps, name) for name in names]
    if not found:
        return None
    total, name = min(found)
    return Cut(name, 0, 0, [batch] * steps, 0), total


def _blocks(counts: list[int], tokens: int, pieces: int, most: int) -> list[int]:
    """Where blocks start, and where the last one ends, by rank: about equally many words in each."""
    running, ends = counts[0], [0]
    pieces = max(1, min(pieces, running // LEAST))
    words, rank, goal = 0, running, tokens
    inner: list[int] = []
    for length, stay in enumerate([*counts[1:], 0], 1):  # from the shortest sentences, which are the last ranks
        while len(inner) < pieces - 1 and (words + (rank - stay) * length) * pieces >= goal * (len(inner) + 1):
            missing = goal * (len(inner) + 1) / pieces - words
            inner.append(rank - round(missing / length / 8) * 8)
        words, rank = words + (rank - stay) * length, stay
    for end in [*sorted(inner), running]:
        size = end - ends[-1]
        if size <= 0:
            continue
        parts = -(-size // most)
        first = ends[-1]
        ends += [first + size * part // parts for part in range(1, parts + 1)]
    return ends


def _in_blocks(counts: list[int], ends: list[int], ways: dict[str, Cost]) -> tuple[tuple[Cut, ...], float]:
    """Blocks, longest sentences first, each cut by itself."""
    cuts, total = list[Cut](), 0.0
    for first, end in pairwise(ends):
        own = [min(count, end) - first for count in counts if count > first]
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
