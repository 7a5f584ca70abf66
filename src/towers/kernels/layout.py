# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Where every word stands while the sentences are walked over, longest first, segment after segment.

longest first     a a a a a a         two segments, cut after 3 steps:
                  b b b b               buckets    a b c d  a b c d  a b c .     padded to the cut
                  c c c                 steps      a b c d  a b c d  a b c       the batch shrinks
                  d d                   … then     a b  a .  a .    or    a b  a  a
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from towers.kernels.plan import Cut, Plan


@dataclass
class Segment:
    """Some steps of neighbouring sentences (longest first), and the rows that their words have in the walk."""

    way: str
    start: int  # its first step
    sentences: slice
    rows: slice
    steps: int
    sizes: list[int]  # sentences that run at each step
    stay: int  # sentences, of these, that go on in the next segment
    whole: int  # sentences, of these, that do not end before the segment does
    last: Tensor  # row, within the segment, of the last word that each sentence has in it
    pads: Tensor | None  # rows, within the segment, that are no word
    table: Tensor  # "steps sentences": row within the segment
    running: Tensor | None  # "steps sentences": which of them have a row; None: all

    @property
    def previous(self) -> Tensor:
        """For each row that of the step before, counted from the state of the first step's sentences."""
        count = self.table.shape[1]
        table = torch.cat((torch.arange(count).unsqueeze(0) - count, self.table[:-1])) + count
        return table.flatten() if self.running is None else table[self.running]


class Layout:
    """A plan, laid out over the words of a batch."""

    def __init__(self, plan: Plan, starts: Tensor, lengths: Tensor, rows: int) -> None:
        self.order, self.rows, self._values = plan.order, 0, rows
        self.starts = starts if plan.order is None else starts.index_select(0, plan.order)
        self.lengths = lengths if plan.order is None else lengths.index_select(0, plan.order)
        self.segments = [self._segment(cut) for cut in plan.cuts]
        self.back_order = None if plan.order is None else _inverse(plan.order)
        self.running = plan.running
        ends = [segment.last[segment.stay :] + segment.rows.start for segment in self.segments]
        places = [slice(s.sentences.start + s.stay, s.sentences.stop) for s in self.segments]
        self.ends = torch.empty(plan.running, dtype=torch.int64)
        for place, end in zip(places, ends, strict=True):
            self.ends[place] = end
        self._indices: dict[bool, tuple[Tensor, Tensor]] = {}

    def _segment(self, cut: Cut) -> Segment:
        count, steps = cut.sizes[0], len(cut.sizes)
        sentences = slice(cut.first, cut.first + count)
        lengths = self.lengths[sentences]
        padded, ragged = cut.way == "buckets", cut.sizes[-1] != count
        columns = torch.arange(count)
        if padded or not ragged:
            begins, size = torch.arange(steps) * count, steps * count
        else:
            sizes = torch.tensor(cut.sizes)
            begins, size = sizes.cumsum(0) - sizes, sum(cut.sizes)
        table = begins.unsqueeze(1) + columns
        running = torch.arange(cut.start, cut.start + steps).unsqueeze(1) < lengths if ragged else None
        last = begins[lengths.clamp(max=cut.start + steps) - 1 - cut.start] + columns
        pads = (~running).flatten().nonzero().squeeze(1) if padded and running is not None else None
        rows = slice(self.rows, self.rows + size)
        self.rows += size
        return Segment(
            way=cut.way,
            start=cut.start,
            sentences=sentences,
            rows=rows,
            steps=steps,
            sizes=cut.sizes,
            stay=cut.stay,
            whole=cut.sizes[-1],
            last=last,
            pads=pads,
            table=table,
            running=None if padded else running,
        )

    def index(self, reverse: bool) -> tuple[Tensor, Tensor]:
        """For each row of the walk a row of the values, and for each row of the values that of the walk.

        A pad takes its sentence's first word, which nobody reads; where values belong to no sentence, the row is the
        one past the end of the walk.
        """
        if reverse not in self._indices:
            parts = [self._places(segment, reverse) for segment in self.segments]
            forth = parts[0] if len(parts) == 1 else torch.cat(parts)
            back = torch.full((self._values + 1,), self.rows)
            back[forth] = torch.arange(self.rows)
            back = back[: self._values]
            self._indices[reverse] = (forth.clamp(max=max(self._values - 1, 0)), back)
        return self._indices[reverse]

    def _places(self, segment: Segment, reverse: bool) -> Tensor:
        step = torch.arange(segment.start, segment.start + segment.steps).unsqueeze(1)
        starts, lengths = self.starts[segment.sentences], self.lengths[segment.sentences]
        places = starts + (lengths - 1 - step if reverse else step)
        if segment.running is not None:
            return places[segment.running]
        places = places.flatten()
        return places if segment.pads is None else places.index_fill_(0, segment.pads, self._values)


def _inverse(order: Tensor) -> Tensor:
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return back
