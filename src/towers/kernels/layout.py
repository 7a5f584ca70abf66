"""Where every word stands while the sentences are walked over, longest first, segment after segment.

longest first     a a a a a a         cut after 3 steps, the walk has the rows
                  b b b b               buckets    a b c d  a b c d  a b c .     padded to the cut, or
                  c c c                 steps      a b c d  a b c d  a b c       no padding: the batch shrinks
                  d d                   and then   a b  a .  a .  or  a b  a  a
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.kernels.plan import Cut, Plan


@dataclass
class Segment:
    """Some steps of neighbouring sentences (longest first), and the rows that their words have in the walk."""

    cut: Cut
    sentences: slice
    rows: slice
    lengths: Tensor | None  # of these sentences; None: all end with the segment, or behind it
    cells: bool  # whether the last cells are wanted, not only the last h

    @property
    def pads(self) -> Tensor | None:
        """Which of its rows ("steps sentences") are no word; None where all are words."""
        return None if self.lengths is None or self.cut.way != "buckets" else self._after_end

    @property
    def marked(self) -> bool:
        """Whether padding has to be told to leave the cells alone."""
        return self.cells and self.pads is not None

    @cached_property
    def pad_rows(self) -> Tensor | None:
        """Those rows; None where there are none."""
        return None if self.pads is None else self.pads.flatten().nonzero().squeeze(1)

    @cached_property
    def _after_end(self) -> Tensor:
        assert self.lengths is not None
        return torch.arange(self.cut.start, self.cut.stop).unsqueeze(1) >= self.lengths

    @cached_property
    def _begins(self) -> Tensor:
        """The row, within the segment, of each step's first sentence."""
        if self.lengths is None or self.cut.way == "buckets":
            return torch.arange(0, self.rows.stop - self.rows.start, self.cut.sizes[0])
        sizes = torch.tensor(self.cut.sizes)
        return sizes.cumsum(0) - sizes

    @cached_property
    def last(self) -> Tensor | None:
        """The row, within the segment, of the last word that each sentence has in it; None: those of its last step."""
        if self.lengths is None:
            return None
        step = self.lengths.clamp(max=self.cut.stop) - (1 + self.cut.start)
        return self._begins[step] + torch.arange(self.cut.sizes[0])

    @cached_property
    def previous(self) -> Tensor | None:
        """For each row that of the step before, counted from the state that came in; None: they are in order."""
        if self.lengths is None:
            return None
        count = self.cut.sizes[0]
        begins = F.pad(self._begins[:-1] + count, (1, 0)).unsqueeze(1)
        return (begins + torch.arange(count))[~self._after_end]

    def places(self, starts: Tensor, lengths: Tensor, reverse: bool, nowhere: int) -> Tensor:
        """The row of the values of each of its rows; `nowhere` for padding."""
        step = torch.arange(self.cut.start, self.cut.stop).unsqueeze(1)
        places = starts + (lengths - 1 - step if reverse else step)
        if self.lengths is None:
            return places.flatten()
        if self.cut.way == "buckets":
            return places.masked_fill_(self._after_end, nowhere).flatten()
        return places[~self._after_end]


class Rows:
    """Rows of the values in the order of the walk, taken when they are used; padding has those of some word."""

    def __init__(self, values: Tensor, index: Tensor) -> None:
        self._values, self._index = values, index

    def __getitem__(self, rows: slice) -> Tensor:
        """Some of them, copied."""
        return self._values.index_select(0, self._index[rows])

    def of(self, segment: Segment) -> "Rows":
        """Those of a segment."""
        return Rows(self._values, self._index[segment.rows])


class Layout:
    """A plan, laid out over the words of a batch."""

    def __init__(self, plan: Plan, starts: Tensor, lengths: Tensor, values: int, *, cells: bool) -> None:
        self.order, self.one_thread = plan.order, plan.one_thread
        self.order_back = None if plan.order is None else inverse(plan.order)
        self._starts = starts if plan.order is None else starts.index_select(0, plan.order)
        self._lengths = lengths if plan.order is None else lengths.index_select(0, plan.order)
        self._values, self._holes, self._rows = values, values > plan.tokens, 0
        self._indices: dict[tuple[str, bool], Tensor] = {}
        self.segments: list[Segment] = []
        for cut in plan.cuts:
            sentences = slice(cut.first, cut.first + cut.sizes[0])
            rows = slice(self._rows, self._rows + cut.rows)
            even = cut.sizes[-1] == cut.sizes[0] and (plan.order is not None or plan.even)
            own = None if even else self._lengths[sentences]
            self.segments.append(Segment(cut, sentences, rows, own, cells))
            self._rows += cut.rows
        self.padded = self._rows > plan.tokens

    def blocks(self) -> list[list[Segment]]:
        """Segments that follow each other; blocks know nothing of each other."""
        found: list[list[Segment]] = []
        for segment in self.segments:
            if segment.cut.start == 0:
                found.append([])
            found[-1].append(segment)
        return found

    def take(self, values: Tensor, *, reverse: bool) -> Rows:
        """The values in the order of the walk."""
        forth = self._forth(reverse)
        return Rows(values, forth.clamp(max=self._values - 1) if self.padded else forth)

    def give(self, parts: Sequence[Tensor], *, reverse: bool) -> Tensor:
        """Rows of the walk, a part for each segment, in the order of the values; 0 where no sentence is."""
        if self._holes:
            parts = [*parts, parts[0].new_zeros(1, parts[0].shape[1])]
        rows = parts[0] if len(parts) == 1 else torch.cat(list(parts))
        return rows.index_select(0, self._back(reverse))

    def _forth(self, reverse: bool) -> Tensor:
        """For each row of the walk, the row of the values; the one past their end for padding."""
        if ("forth", reverse) not in self._indices:
            parts = [
                segment.places(self._starts[segment.sentences], self._lengths[segment.sentences], reverse, self._values)
                for segment in self.segments
            ]
            self._indices["forth", reverse] = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self._indices["forth", reverse]

    def _back(self, reverse: bool) -> Tensor:
        """For each row of the values, the row of the walk; the one past its end where no sentence is."""
        if ("back", reverse) not in self._indices:
            forth = self._forth(reverse)
            back = torch.full((self._values + 1,), self._rows) if self._holes else forth.new_empty(self._values + 1)
            back[forth] = torch.arange(self._rows)
            self._indices["back", reverse] = back[:-1]
        return self._indices["back", reverse]


def inverse(order: Tensor) -> Tensor:
    """Where each entry of an order stands in it."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
