"""Through `torch.lstm`: sentences of similar lengths in a few groups, each padded to its longest. No case is refused.

longest first     a a a a a a       Every group is one call of torch.lstm (oneDNN on the CPU, cuDNN on CUDA), with the
                  b b b b . .       gradient that torch has for it. On the CPU the cheapest groups are chosen.
                  -----------       Elsewhere there is one group, so that nothing waits for the device.
                  c c c
                  d d .             Sentences are read backwards by their index, not by torch's second direction.

h_n is the output of each sentence's last word. A cell is no output: where c_n is wanted, one more input, which is 1 in
padding and 0 in words, closes the input gate and opens the forget gate, so that c stays as it is after the last word.
"""

import math
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.kernels.batch import Batch, Parameters, State, Weights, connected
from towers.kernels.cpu.threads import one_thread, set_own_threads
from towers.kernels.stacked import run_layers


class Cost(NamedTuple):
    """The cost of a group in microseconds: of a call, of each step, of each row; and of groups beside their calls.

    The numbers in `_cost` fit medians of torch.lstm over 4 to 64 steps, 1 to 1024 sentences and 6 to 128 hidden units
    on one thread. They hold for any number of threads, so that this number changes no bit of the results.
    A group of many rows takes memory that the system maps anew at each call, page by page, which costs as much again.
    The rows of `benchmarks/lstm.py`, run with TOWERS_NATIVE=off, show what groups gain.
    """

    call: float
    step: float
    row: float
    mapped: float = 0.0  # of a row, where memory is mapped anew
    most: float = math.inf  # rows, for which it is not
    sorting: float = 0.0  # of groups beside their calls
    copied: float = 0.0  # the same, of each row of the batch

    def of(self, sentences: int, steps: int) -> float:
        """Of a group of this size."""
        rows = sentences * steps
        return self.call + steps * self.step + rows * (self.row + (self.mapped if rows >= self.most else 0.0))

    def training(self) -> "Cost":
        """With the backward pass, which keeps three times the bytes."""
        call, step, row, mapped, most, sorting, copied = self
        return Cost(TRAINING * call, TRAINING * step, TRAINING * row, TRAINING * mapped, most / 3,
                    BACKWARD * sorting, BACKWARD * copied)  # fmt: skip


TRAINING = 4.3  # times the cost of the forward pass alone
SORTING, COPY, BACKWARD = 180.0, 4e-4, 3.0
"""What groups cost beside their calls, in microseconds: once, and for each number of the input, which is copied.

With a backward pass it is BACKWARD times as much.
"""
SURE = 0.85
"""Groups are chosen where they take at most this part of one call's time: the costs fit one machine, not every one."""
FEW = 64
"""Lengths that Python adds and compares sooner than torch."""
MAPPED = 32 << 20
"""Bytes, from which on the C library asks the system for memory at each call (M_MMAP_THRESHOLD, see mallopt(3))."""
ONE_THREAD = 10.0
"""A step of fewer microseconds is faster on one thread than on two, which wait for each other at each step.

`python benchmarks/run.py lstm --only "batch 32,"` with TOWERS_NATIVE=off shows the gain: on two threads 32 sentences of
64 words through 6 hidden units take 1.3 times as long as on one.
"""

CLOSED = 1e15  # sigmoid of its negative is 0; its square is finite in float32, which second derivatives need
CLOSED_HALF = 3e4  # the same in float16


def run(batch: Batch, state: State, weights: Weights, *, outputs: bool = True) -> tuple[Tensor | None, State]:
    """See `towers.kernels`. If the longest length is not known, this waits for the device once."""
    values, count = batch.values, state[0].shape[1]
    choice = choose(batch, count, weights) if count and values.shape[0] else None
    if choice is None:
        width = state[0].shape[2] * (1 + weights.bidirectional)
        tensors = (values, *weights.flat)  # they have gradients, and the states are no aliases, which may be changed
        output = connected(values.new_zeros(*values.shape[:-1], width), *tensors) if outputs else None
        return output, (connected(state[0], *tensors), connected(state[1], *tensors))
    stands = batch.starts is None and values.dim() == 3
    if stands and not choice.padded:
        steps, words = choice.groups[0].steps, values.shape[1]
        output, h_n, c_n = _call(values if steps == words else values[:, :steps], state, weights, batch_first=True)
        output = F.pad(output, (0, 0, 0, words - steps)) if outputs and steps < words else output
        return output if outputs else None, (h_n, c_n)
    lengths = batch.lengths
    if stands and lengths is not None and not outputs and state[0].shape[0] == 1 and values.is_cpu:
        return None, (_last(values, lengths, choice, state, weights), state[1])
    return run_groups(Groups(batch, choice), state, weights, outputs=outputs)


def run_groups(groups: "Groups", state: State, weights: Weights, *, outputs: bool) -> tuple[Tensor | None, State]:
    """All layers over one choice of groups."""
    return run_layers(partial(groups.run, cells=outputs), groups.batch.values, state, weights, outputs=outputs)


class Group(NamedTuple):
    """Sentences that are neighbours in the order of a choice."""

    sentences: int
    steps: int
    shortest: int = 0  # no sentence is shorter; 0 where this is not known


class Choice(NamedTuple):
    """Groups of sentences, longest first."""

    groups: list[Group]
    order: Tensor | None = None  # of the sentences, so that groups are neighbours; None: as they are
    padded: bool = True  # whether some steps of some sentences may be padding
    empty: bool = True  # whether some sentences may have no word


def choose(batch: Batch, count: int, weights: Weights) -> Choice | None:
    """The groups of a batch; None where it has no word."""
    values, lengths = batch.values, batch.lengths
    if lengths is None:
        return Choice([Group(count, batch.longest, batch.longest)], padded=False) if batch.longest else None
    if not values.is_cpu:
        longest = int(lengths.max()) if batch.longest is None else batch.longest
        return Choice([Group(count, longest)]) if longest else None
    if count <= FEW:
        known = lengths.tolist()
        shortest, longest, words = min(known), max(known), sum(known)
    else:
        shortest, longest = map(int, lengths.aminmax())
        words = int(lengths.sum())
    if not longest:
        return None
    rows = count * longest
    plain = values.dtype == torch.float32 and not weights.projected
    cost = _cost(weights.flat[0].shape[1], weights.hidden, plain)
    padding = cost.row * (rows - words)
    if padding > cost.sorting and _gain(cost, padding) > cost.sorting + cost.copied * rows:
        if torch.is_grad_enabled() and any(part.requires_grad for part in (values, *weights.flat)):
            cost = cost.training()
        falling, order = lengths.sort(descending=True, stable=True)
        groups, total = _cheapest(falling.tolist(), cost)
        if total + cost.sorting + cost.copied * rows < SURE * cost.of(count, longest):
            return Choice(groups, order, empty=not shortest)
    return Choice([Group(count, longest, shortest)], None, shortest < longest, not shortest)


def _gain(cost: Cost, padding: float) -> float:
    """About what groups save, without looking at the lengths: where these are uniform, n groups leave 1/n of padding.

    Its derivative is 0 where n = sqrt(padding / call).
    """
    return max(0.0, math.sqrt(padding) - math.sqrt(cost.call)) ** 2


@lru_cache(64)
def _cost(inputs: int, hidden: int, plain: bool) -> Cost:
    products, memory = 4 * hidden * (inputs + hidden), 16 * hidden  # bytes of a row
    if not (plain and torch.backends.mkldnn.is_available()):  # each step is several operations
        return Cost(110, 40, 0.3 + 3e-5 * products, sorting=SORTING, copied=COPY * inputs)
    call, step = 65 + 7e-4 * products, 0.35 + 4.5e-5 * products  # which read the weights
    return Cost(call, step, 0.065 + 1.7e-5 * products, 4.5e-4 * memory, MAPPED / memory, SORTING,
                COPY * inputs)  # fmt: skip


def _cheapest(falling: list[int], cost: Cost) -> tuple[list[Group], float]:
    """The cheapest groups of sentences, longest first, and their cost.

    They may end at about a dozen places: at eighths, and after 1, 2, 4, … sentences of the first eighth.
    """
    count = len(falling)
    eighth = max(1, count // 8)
    inner = {*range(0, count, eighth), *(1 << power for power in range(eighth.bit_length()))}
    whole = {end if end < 32 else end // 32 * 32 for end in inner}  # oneDNN's threads share 32 rows best
    ends = sorted({0, count} | {end for end in whole if end < count})
    longest = [max(falling[end], 1) for end in ends[:-1]]
    best, origin = [0.0], [0]  # of the sentences before each place: the least cost, and where their last group starts
    call, step, row, mapped, most, _, _ = cost
    for end in ends[1:]:
        least, start = math.inf, 0
        for at, (known, first, steps) in enumerate(zip(best, ends, longest, strict=False)):
            rows = (end - first) * steps
            total = known + call + steps * step + rows * (row + mapped if rows >= most else row)
            if total < least:
                least, start = total, at
        best.append(least)
        origin.append(start)
    groups, last = list[Group](), len(ends) - 1
    while last:
        first = origin[last]
        groups.append(Group(ends[last] - ends[first], longest[first], falling[ends[last] - 1]))
        last = first
    return groups[::-1], best[-1]


def _last(values: Tensor, lengths: Tensor, choice: Choice, state: State, weights: Weights) -> Tensor:
    """h_n alone, of padded sentences through one layer in one direction, on the CPU: with the fewest operations."""
    (groups, order, _, empty), (h, c) = choice, state
    if _to_clean(values):
        padding = torch.arange(values.shape[1], device="cpu") >= lengths.unsqueeze(1)
        values = values.masked_fill(padding.unsqueeze(2), 0)
    words = lengths.clamp(min=1) if empty else lengths
    if order is None:
        h_n = _ends(groups[0], values, words, state, weights)
    else:
        counts = [group.sentences for group in groups]
        hs = h.index_select(1, order).split(counts, 1)
        cs = hs if c is h else c.index_select(1, order).split(counts, 1)
        xs, known = (part.index_select(0, order).split(counts) for part in (values, words))
        parts = zip(groups, xs, known, hs, cs, strict=True)
        h_n = torch.cat([_ends(group, x, own, (h_0, c_0), weights) for group, x, own, h_0, c_0 in parts], 1)
        h_n = torch.empty_like(h_n).index_copy_(1, order, h_n)
    return torch.where(lengths.unsqueeze(1) > 0, h_n, h) if empty else h_n


def _ends(group: Group, x: Tensor, lengths: Tensor, state: State, weights: Weights) -> Tensor:
    """h_n of a group's sentences, none of which is empty."""
    count, steps, shortest = group
    x = x if x.shape[1] == steps else x[:, :steps]
    y, h_n, _ = _call(x.transpose(0, 1), state, weights)
    return h_n if shortest == steps else _picked(y, _before(count), lengths)


def _picked(y: Tensor, before: Tensor, lengths: Tensor) -> Tensor:
    """Each sentence's last output of "steps sentences width"; `before`: the rows one step before their first."""
    return y.view(1, -1, y.shape[2]).index_select(1, torch.add(before, lengths, alpha=y.shape[1]))


class Groups:
    """The sentences of a batch, group by group.

    Args:
        batch: the sentences.
        choice: their groups.
    """

    def __init__(self, batch: Batch, choice: Choice) -> None:
        groups, order, padded, empty = choice
        self.batch, self.order, self.padded, self.empty = batch, order, padded, padded and empty
        self.sizes = [group[:2] for group in groups]
        self._counts = [group.sentences for group in groups]
        self.stands = order is None and batch.starts is None and batch.values.dim() == 3
        self._indices: dict[bool, Tensor] = {}
        # Made when first needed; not cached properties, whose lock torch.compile cannot read.
        self._starts_made: tuple[Tensor, ...] | None = None
        self._lengths_made: tuple[Tensor, ...] | None = None
        self._padding_made: Tensor | None = None

    def run(
        self, values: Tensor, state: State, parameters: Parameters, reverse: bool, outputs: bool, *, cells: bool
    ) -> tuple[Tensor | None, State]:
        """One layer in one direction, see `stacked.Direction`; `cells`: whether c_n is wanted."""
        marked = cells and self.padded
        weights = Weights(_flat(parameters, marked=marked), len(parameters.biases), parameters.weight_hr is not None,
                          1, False, 0.0)  # fmt: skip
        parts = zip(self._take(values, reverse, marked), *map(self._split, state), strict=True)
        results = [_call(x, (h, c), weights) for x, h, c in parts]
        ys, hs, cs = [list(kind) for kind in zip(*results, strict=True)]
        h_n = self.last(ys, state[0]) if self.padded else self._joined(hs)
        c_n = self._joined(cs) if cells or not self.padded else state[1]  # not wanted
        return self._give(ys, reverse) if outputs else None, (h_n, c_n)

    def _split(self, state: Tensor) -> tuple[Tensor, ...]:
        """h or c of each group."""
        if len(self.sizes) == 1 and self.order is None:
            return (state,)
        ordered = state if self.order is None else state.index_select(1, self.order)
        return ordered.split(self._counts, 1)

    def _joined(self, states: list[Tensor]) -> Tensor:
        """h or c of all sentences in the order of the batch."""
        joined = states[0] if len(states) == 1 else torch.cat(states, 1)
        return joined if self.order is None else torch.empty_like(joined).index_copy_(1, self.order, joined)

    def last(self, ys: list[Tensor], h_0: Tensor) -> Tensor:
        """The output of each sentence's last word; the state that came in where it has none."""
        lasts: list[Tensor] = []
        for y, lengths in zip(ys, self._lengths, strict=True):
            before = torch.arange(-y.shape[1], 0, device=y.device)
            lasts.append(_picked(y, before, lengths.clamp(min=1) if self.empty else lengths))
        h_n = self._joined(lasts)
        if not self.empty or self.batch.lengths is None:
            return h_n
        return torch.where(self.batch.lengths.unsqueeze(1) > 0, h_n, h_0)

    def _take(self, values: Tensor, reverse: bool, marked: bool) -> list[Tensor]:
        """The inputs of each group, "steps sentences inputs"."""
        if self.stands and not reverse:
            x = values[:, : self.sizes[0][1]].transpose(0, 1)
        else:
            x = values.flatten(0, -2).index_select(0, self._index(reverse))
        if marked or (self.padded and (x.dim() == 3 or self.empty) and _to_clean(values)):
            pads = self._padding.view(*x.shape[:-1], 1)
            x = x.masked_fill(pads, 0)
            x = torch.cat((x, pads.to(x.dtype)), -1) if marked else x
        if x.dim() == 3:
            return [x]
        parts = x.split([count * steps for count, steps in self.sizes])
        return [part.view(steps, count, x.shape[1]) for part, (count, steps) in zip(parts, self.sizes, strict=True)]

    def _give(self, ys: list[Tensor], reverse: bool) -> Tensor:
        """The outputs in the rows of the values; 0 in a row of no sentence."""
        shape = self.batch.values.shape[:-1]
        if self.stands and not reverse:
            y = ys[0].masked_fill(self._padding.view(*ys[0].shape[:2], 1), 0) if self.padded else ys[0]
            return F.pad(y.transpose(0, 1), (0, 0, 0, shape[1] - len(y)))
        rows = torch.cat([y.flatten(0, 1) for y in ys])
        index = self._index(reverse)
        index = index.masked_fill(self._padding, self.batch.rows) if self.padded else index
        places = torch.full((self.batch.rows + 1,), len(rows), device=index.device)
        places = places.scatter(0, index, torch.arange(len(rows), device=index.device))[:-1]
        return F.pad(rows, (0, 0, 0, 1)).index_select(0, places).view(*shape, rows.shape[1])

    def _index(self, reverse: bool) -> Tensor:
        """The row of the values for each step of each sentence; in padding, that of the sentence's last step.

        For a sentence without words it is some row.
        """
        if reverse not in self._indices:
            parts: list[Tensor] = []
            for starts, lengths, (_, steps) in zip(self._starts, self._lengths, self.sizes, strict=True):
                step = torch.arange(steps, device=starts.device).unsqueeze(1)
                if self.padded:
                    step = step.minimum(lengths - 1)
                parts.append((starts + (lengths - 1 - step if reverse else step)).flatten())
            index = parts[0] if len(parts) == 1 else torch.cat(parts)
            self._indices[reverse] = index.clamp(0, self.batch.rows - 1) if self.empty else index
        return self._indices[reverse]

    @property
    def _starts(self) -> tuple[Tensor, ...]:
        """Of each group."""
        if self._starts_made is None:
            self._starts_made = self._by_group(self.batch.places(sum(self._counts))[0])
        return self._starts_made

    @property
    def _lengths(self) -> tuple[Tensor, ...]:
        """Of each group."""
        if self._lengths_made is None:
            lengths = self.batch.lengths
            lengths = self.batch.places(sum(self._counts))[1] if lengths is None else lengths
            self._lengths_made = self._by_group(lengths)
        return self._lengths_made

    def _by_group(self, part: Tensor) -> tuple[Tensor, ...]:
        if self.order is not None:
            part = part.index_select(0, self.order)
        return part.split(self._counts) if len(self._counts) > 1 else (part,)

    @property
    def _padding(self) -> Tensor:
        """Which steps of which sentences are padding, group by group."""
        if self._padding_made is None:
            parts: list[Tensor] = []
            for lengths, (_, steps) in zip(self._lengths, self.sizes, strict=True):
                parts.append((torch.arange(steps, device=lengths.device).unsqueeze(1) >= lengths).flatten())
            self._padding_made = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self._padding_made


@lru_cache(8)
def _before(count: int) -> Tensor:
    """The row of each sentence's output one step before its first; kept, as making them takes a while."""
    with torch.inference_mode(False):
        return torch.arange(-count, 0, device="cpu")


def _to_clean(values: Tensor) -> bool:
    """Whether padding must be filled with 0: a gradient of 0 times what is not finite there is not 0.

    What reading their sum gains: row "padding that is finite" of `python benchmarks/run.py quick-paths`. No device is
    waited for.
    """
    if not torch.is_grad_enabled():
        return False
    return not values.is_cpu or not math.isfinite((values.detach() if values.requires_grad else values).sum().item())


def _call(x: Tensor, state: State, weights: Weights, *, batch_first: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """torch.lstm of "steps sentences inputs", or batch first; a single bias is passed with zeros as the second one."""
    flat = weights.flat
    if weights.biases == 1:
        size = 3 + weights.projected
        parts = [flat[first : first + size] for first in range(0, len(flat), size)]
        flat = [part for own in parts for part in (*own[:3], torch.zeros_like(own[2]), *own[3:])]
    training = torch.is_grad_enabled() or weights.dropout > 0
    how = (weights.biases > 0, weights.num_layers, weights.dropout, training, weights.bidirectional, batch_first)
    if not x.is_cpu or weights.projected:
        with nullcontext() if torch.compiler.is_compiling() else _no_warning():
            return torch.lstm(x, state, flat, *how)
    threads = torch.get_num_threads()
    if threads == 1:
        return torch.lstm(x, state, flat, *how)
    step = x.shape[1 - batch_first] * _cost(x.shape[2], weights.hidden, plain=True).row
    with one_thread(step < ONE_THREAD):
        y, h_n, c_n = torch.lstm(x, state, flat, *how)
    if step < ONE_THREAD and y.grad_fn is not None:
        y.grad_fn.register_prehook(_threads_set_to(1))
        y.grad_fn.register_hook(_threads_set_to(threads))
    return y, h_n, c_n


def _threads_set_to(count: int) -> Callable[..., None]:
    """A hook of a node of autograd."""

    def set_threads(*_: object) -> None:
        set_own_threads(count)

    return set_threads


@contextmanager
def _no_warning() -> Generator[None]:
    """Without torch's warnings that oneDNN has no projection, and that cuDNN copies weights into one block."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN")
        yield


def _flat(parameters: Parameters, *, marked: bool) -> tuple[Tensor, ...]:
    """The parameters one after the other, with weights for the input that marks padding."""
    w_ih, w_hh, biases, w_hr = parameters
    if marked:
        closed = torch.zeros(4, w_hh.shape[0] // 4, dtype=w_ih.dtype, device=w_ih.device)
        closed[1] = CLOSED_HALF if w_ih.dtype == torch.float16 else CLOSED
        closed[0] = -closed[1]
        w_ih = torch.cat((w_ih, closed.view(-1, 1)), 1)
    return (w_ih, w_hh, *biases, *([] if w_hr is None else [w_hr]))
