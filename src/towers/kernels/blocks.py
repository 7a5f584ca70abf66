"""The last states alone: blocks of sentences of like lengths, each padded to its longest, through oneDNN's LSTM.

longest first     a a a a a a       Nothing is carried from block to block, and no output is written back, so that a
                  b b b b . .       block is a look-up, oneDNN's LSTM with torch's own gradient, and another look-up.
                  -----------       Padding holds any other words: it comes behind a sentence's end and is never read,
                  c c c             but in training, where it would reach the weights' gradient, it is 0.
                  d d .

oneDNN takes at most a quarter longer for 16 units than for 6. Up to 8 units, two sentences that stand side
by side are therefore read as one of twice the width, with each of the weights twice on the
diagonal: the same numbers in memory, half the rows. Zeros do not keep a NaN or an infinity of one sentence
from its neighbour, so that only finite numbers are paired.
"""

import math

import torch
from torch import Tensor

from towers.kernels import buckets
from towers.kernels.batch import Batch, State, Weights, refuse_twice
from towers.kernels.costs import ONE_THREAD, SORTING, Cost, shared
from towers.kernels.layout import inverse
from towers.kernels.plan import Cut, Plan

_FEWEST = 32
"""Larger blocks but the last are multiples of it: on two threads 454 sentences took 1.8 times as long as 448."""

NARROW = 8
"""Units up to which sentences are paired."""

_MANY = 128
"""Sentences from which on it is worth to make such weights."""

_PAIRED = 0.6
"""What a row costs then, beside one that is not paired: measured forward, 512 to 1024 sentences of 8 steps, .62 on one
thread; on two .71 to .79. In training it was not measured by itself."""


def serves(weights: Weights, dtype: torch.dtype, method: str, *, outputs: bool) -> bool:
    """One layer and direction in float32, of which no output is wanted."""
    simple = weights.num_layers == 1 and not weights.bidirectional and not weights.projected
    wanted = not outputs and method != "steps" and dtype == torch.float32
    return simple and wanted and torch.backends.mkldnn.is_available()


def plan(lengths: Tensor | int, batch: int, *, input_size: int, hidden: int, training: bool) -> Plan:
    """The cheapest blocks, by the model of costs, for lengths ("batch", at least one) or one length that all have."""
    cost = shared(input_size, hidden, training)
    cost = cost._replace(row=cost.row * (_PAIRED if hidden <= NARROW and batch >= _MANY else 1))
    if isinstance(lengths, int):
        cuts = _cuts([(0, batch)], [lengths])
        total = _price(cost, batch, lengths)
        return Plan(None, batch if lengths else 0, batch, batch * lengths, cuts if lengths else (), total, _one(total))
    shortest, longest = (int(bound) for bound in lengths.aminmax())
    tokens, total = int(lengths.sum()), _price(cost, batch, longest)
    if shortest and total <= SORTING + 2 * cost.call + cost.row * tokens:
        return Plan(None, batch, batch, tokens, _cuts([(0, batch)], [longest]), total, _one(total))
    falling, order = lengths.sort(descending=True, stable=True)
    running = batch if shortest else int(lengths.count_nonzero())
    ranks = _ranks(running)
    longest_of = falling[ranks[:-1]].tolist() if running else []
    blocks, found = _cheapest(ranks, longest_of, cost)
    if shortest and total <= SORTING + found:
        return Plan(None, batch, batch, tokens, _cuts([(0, batch)], [longest]), total, _one(total))
    found += SORTING
    cuts = _cuts([(ranks[first], ranks[last]) for first, last in blocks], [longest_of[first] for first, _ in blocks])
    return Plan(order, running, batch, tokens, cuts, found, _one(found))


def _price(cost: Cost, sentences: int, steps: int) -> float:
    return cost.call + cost.step * steps + cost.row * sentences * steps


def _one(total: float) -> bool:
    return total < ONE_THREAD


def _cuts(blocks: list[tuple[int, int]], longest: list[int]) -> tuple[Cut, ...]:
    return tuple(
        Cut("buckets", first, 0, [last - first] * steps, 0)
        for (first, last), steps in zip(blocks, longest, strict=True)
    )


def _ranks(running: int) -> list[int]:
    """Where a block may begin or end, longest sentence first."""
    step = max(1, running // 8)
    ranks = {*range(0, running, step), *(1 << power for power in range(12))}
    whole = {rank if rank < _FEWEST else rank // _FEWEST * _FEWEST for rank in ranks if rank < running}
    return sorted({0, running} | whole)


def _cheapest(ranks: list[int], longest: list[int], cost: Cost) -> tuple[list[tuple[int, int]], float]:
    """The cheapest way to part the sentences at some of the ranks; blocks as indices of ranks."""
    best: list[tuple[float, int]] = [(0.0, 0)]
    prices = [(cost.call + cost.step * steps, cost.row * steps) for steps in longest]
    for last in range(1, len(ranks)):
        end = ranks[last]
        options = [best[at][0] + prices[at][0] + prices[at][1] * (end - ranks[at]) for at in range(last)]
        least = min(options)
        best.append((least, options.index(least)))
    blocks, last = list[tuple[int, int]](), len(ranks) - 1
    while last > 0:
        blocks.append((best[last][1], last))
        last = best[last][1]
    return blocks[::-1], best[-1][0]


def run(batch: Batch, chosen: Plan, state: State, weights: Weights, *, training: bool) -> State:
    """h_n; c_n is that of each block's last step."""
    values, order = batch.values, chosen.order
    starts, lengths = batch.places(chosen.batch)
    h_0, c_0 = state[0].squeeze(0), state[1].squeeze(0)
    if order is not None:
        starts, lengths, h_0, c_0 = (part.index_select(0, order) for part in (starts, lengths, h_0, c_0))
    w_ih, w_hh, bias, _ = weights.of(0, 0)
    hidden = w_hh.shape[1]
    bias = w_ih.new_zeros(4 * hidden) if bias is None else bias
    single = buckets.Arrays(*buckets.in_a_row(w_ih, w_hh, bias, torch.zeros_like(bias)))
    pairs = hidden <= NARROW and chosen.batch >= _MANY and math.isfinite(values.detach().sum().item())
    double = _doubled(w_ih, w_hh, bias) if pairs else single
    hs: list[Tensor] = []
    cs: list[Tensor] = []
    sizes = [cut.sizes[0] for cut in chosen.cuts]
    rest = [chosen.batch - chosen.running] if chosen.running < chosen.batch else []
    parts = zip(*(part.split(sizes + rest) for part in (starts, lengths, h_0, c_0)), strict=True)
    for cut, (start, length, h, c) in zip(chosen.cuts, parts, strict=False):
        count, steps = len(start), cut.stop
        step = torch.arange(steps).unsqueeze(1)
        x = values.index_select(0, (start + step).clamp_(max=len(values) - 1).view(-1))
        if training:
            x = x.masked_fill((step >= length).view(-1, 1), 0)
        pair = pairs and count % 2 == 0
        arrays, width = (double, 2 * hidden) if pair else (single, hidden)
        h, c = buckets.in_a_row(h, c)
        h, c = h.view(-1, width), c.view(-1, width)
        y, _, c_n, _ = torch.mkldnn_rnn_layer(
            x.view(steps, len(h), -1), *arrays, h, c, False, [], buckets.LSTM, width, 1, True, False, False, training
        )
        if training and y.requires_grad:
            y.register_hook(lambda _: refuse_twice())  # pyright: ignore
        hs.append(y.view(-1, hidden).index_select(0, (length - 1) * count + torch.arange(count)))
        cs.append(c_n.view(count, hidden))
    if chosen.running < chosen.batch:
        hs.append(h_0[chosen.running :])
        cs.append(c_0[chosen.running :])
    h_n, c_n = (parts[0] if len(parts) == 1 else torch.cat(parts) for parts in (hs, cs))
    if order is not None:
        back = inverse(order)
        h_n, c_n = h_n.index_select(0, back), c_n.index_select(0, back)
    return h_n.unsqueeze(0), c_n.unsqueeze(0)


def _doubled(w_ih: Tensor, w_hh: Tensor, bias: Tensor) -> buckets.Arrays:
    """The weights of two sentences side by side."""
    bias = bias.unflatten(0, (4, 1, -1)).expand(-1, 2, -1).flatten()
    return buckets.Arrays(_on_diagonal(w_ih), _on_diagonal(w_hh), bias, torch.zeros_like(bias))


def _on_diagonal(weight: Tensor) -> Tensor:
    gates = weight.unflatten(0, (4, 1, -1))
    zeros = torch.zeros_like(gates)
    return torch.cat((torch.cat((gates, zeros), 3), torch.cat((zeros, gates), 3)), 1).flatten(0, 2)
