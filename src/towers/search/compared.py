"""The score of a pair for heads that are more than a sum over one difference: first quickly, then exactly."""

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.ensemble import Ensemble
from towers.kernels.cpu import heads_call
from towers.kernels.cpu.heads_call import BLOCK, FEWEST, Folded
from towers.model import TwoTowers
from towers.search.head import Head, Side

NUMBERS = 1 << 21
"""Numbers of states of pairs that are compared exactly at a time."""


class Compared:
    """The score of a pair from the states themselves: presets, several outputs, ensembles.

    Of one output the score is the logit. Of several it is the mean degree of the bins, from 0 to 1, or for the class
    number `output` its log-odds, the logarithm of p / (1 - p).

    `exact` computes scores in float64, with sums of a fixed order, and rounds them once to the weights' dtype: a pair
    has the same score wherever it is met. `quick` computes them in the weights' dtype, in any order, and says how far
    from the exact ones they are at most. So only pairs that may be among the best are computed exactly. The features of
    pairs are folded into fewer products (`Folded`).
    """

    def __init__(self, model: TwoTowers, side: Side, output: int | None) -> None:
        self.dtype = torch.promote_types(model.dense.weight.dtype, torch.float32)
        members = model.each() if isinstance(model, Ensemble) else [model]
        self._heads = [_folded(member, side) for member in members]
        self._quick_heads = [head.to(self.dtype) for head in self._heads]
        self._sizes = [member.hidden for member in members]
        self.outputs, self.output = model.outputs, output
        self.dense = self.hidden = model.hidden

    def item_rows(self, states: Tensor) -> Tensor:
        """The rows of items: their states."""
        return states.resolve_neg().detach().to("cpu", self.dtype, copy=True)

    def query_rows(self, item_rows: Tensor) -> Tensor:
        """The rows of the same states as queries."""
        return item_rows

    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        return all(bool(torch.isfinite(part).all()) for head in self._quick_heads for part in head)

    def may_overflow(self, queries: Tensor, largest_item: float) -> bool:
        """Whether a score of these queries, or a part of it, may be above what the dtype holds."""
        largest = self._largest_logits(queries, torch.full((self.hidden,), largest_item, dtype=torch.float64))
        return not bool((largest < torch.finfo(self.dtype).max / 8).all())

    def may_overflow_among(self, largest_item: float) -> bool:
        """The same, where items are the queries."""
        return self.may_overflow(torch.full((1, self.hidden), largest_item), largest_item)

    def quick(self, queries: Tensor, blocks: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Scores "queries count" of the first `count` items of blocks, in float32 mostly, and "queries" in float64: how
        far from those of `exact` they are at most."""
        rows = blocks.transpose(1, 2).flatten(0, 1)[:count]
        largest_items = torch.maximum(rows.amax(0), -rows.amin(0)).double()
        use_c = heads_call.serves(self.dtype)
        logits: list[Tensor] = []
        sides = zip(queries.split(self._sizes, 1), blocks.split(self._sizes, 1), strict=True)
        for head, (own, some) in zip(self._quick_heads, sides, strict=True):
            logits.append((heads_call.logits if use_c else _logits)(own, some, head)[:, :, :count])
        return self._scores(logits), self._error(self._largest_logits(queries, largest_items), use_c)

    def exact(self, queries: Tensor, which: Tensor, rows: Tensor) -> Tensor:
        """Scores "pairs" of queries and items, each pair as if it were alone.

        Args:
            queries: "queries hidden".
            which: "pairs", the query of each pair, in ascending order.
            rows: "pairs hidden", its item.
        """
        size = max(1, NUMBERS // self.hidden)
        parts = [self._exact(queries, which[at : at + size], rows[at : at + size]) for at in range(0, len(which), size)]
        return torch.cat([queries.new_empty(0), *parts])

    def _exact(self, queries: Tensor, which: Tensor, rows: Tensor) -> Tensor:
        asked, counts = which.unique_consecutive(return_counts=True)
        first = F.pad((-(-counts // BLOCK)).cumsum(0), (1, 0))  # the blocks of each query
        place = torch.arange(len(which)) + (first[:-1] * BLOCK - counts.cumsum(0) + counts).repeat_interleave(counts)
        blocks = torch.zeros(int(first[-1]), self.hidden, BLOCK, dtype=torch.float64)
        blocks[place // BLOCK, :, place % BLOCK] = rows.double()
        use_c = heads_call.serves(torch.float64)
        logits: list[Tensor] = []
        sides = zip(queries[asked].double().split(self._sizes, 1), blocks.split(self._sizes, 1), strict=True)
        for head, (own, some) in zip(self._heads, sides, strict=True):
            logits.append((heads_call.logits if use_c else _slow_logits)(own, some, head, first))
        return self._scores(logits)[place].to(self.dtype)

    def tangents(self, queries: Tensor, rows: Tensor, best: int) -> tuple[Tensor, Tensor]:
        """The head's mean derivatives by |a - b| and by b, "queries hidden" each, at the best of some items.

        Args:
            queries: the a, "queries hidden", at least one.
            rows: the b, "items hidden".
            best: how many of them, those with the highest scores, count for a query.
        """
        bends, slopes = zip(*(self._tangent(query, rows, best) for query in queries), strict=True)
        return torch.stack(bends), torch.stack(slopes)

    def _tangent(self, query: Tensor, rows: Tensor, best: int) -> tuple[Tensor, Tensor]:
        """Those of one query."""
        own, others = query.split(self._sizes), rows.split(self._sizes, 1)
        with torch.inference_mode(False), torch.enable_grad():
            units = [_units(*sides) for sides in zip(own, others, self._quick_heads, strict=True)]
            layers = zip(units, self._quick_heads, strict=True)
            logits = [_second_layer(some, head).clone().requires_grad_() for some, head in layers]
            scores = self._scores(logits)
            gradients = torch.autograd.grad(scores.sum(), logits)
        places = scores.detach().topk(min(best, len(rows))).indices
        bend, slope = list[Tensor](), list[Tensor]()
        for some, gradient, one, head in zip(units, gradients, own, self._quick_heads, strict=True):
            by_unit = ((gradient.T @ head.weights) * (some > 0))[places].mean(0)
            bend.append(head.absolute @ by_unit)
            slope.append(_slope(one, head) @ by_unit)
        return torch.cat(bend), torch.cat(slope)

    def _scores(self, logits: list[Tensor]) -> Tensor:
        """Scores "..." of logits "outputs ..." of each member."""
        if self.outputs == 1:
            every = torch.stack([one[0] for one in logits])
            if len(logits) == 1:
                return every[0]
            return _log_sum_exp(F.logsigmoid(every)) - _log_sum_exp(F.logsigmoid(-every))
        every = logits[0]
        if len(logits) > 1:
            every = _log_sum_exp(torch.stack([one - _log_sum_exp(one) for one in logits]))
        if self.output is None:
            powers = (every - every.amax(0)).exp()
            return _sum([power * bin for bin, power in enumerate(powers)]) / _sum(powers) / (self.outputs - 1)
        others = torch.cat([every[: self.output], every[self.output + 1 :]])
        return every[self.output] - _log_sum_exp(others)

    def _largest_logits(self, queries: Tensor, largest_items: Tensor) -> Tensor:
        """Upper bounds "queries" of the sums of absolute values that a logit of each query is made from."""
        found = torch.zeros(len(queries), dtype=torch.float64)
        sides = zip(queries.double().abs().split(self._sizes, 1), largest_items.split(self._sizes), strict=True)
        for head, (own, other) in zip(self._heads, sides, strict=True):
            units = (own + other) @ (head.absolute.abs() + head.linear.abs()) + (own * other) @ head.product.abs()
            sums = (units + head.bias.abs()) @ head.weights.abs().T + head.offsets.abs()
            found = torch.maximum(found, sums.amax(1))
        return found

    def _error(self, largest: Tensor, by_c: bool) -> Tensor:
        """How far a quick score is from the exact one at most, given `_largest_logits`.

        Of a logit: each of the roundings that are made one after the other moves it by a share `unit` of that sum at
        most, and 1 % covers their products and the errors of `exact`. A degree or log-odds moves by not more than twice
        what all logits move by, and twice again where log-softmax comes first. Computing it adds some more roundings,
        of logits and of sums over outputs and members.
        """
        unit = torch.finfo(self.dtype).eps / 2
        units = max(len(head.bias) for head in self._heads)
        roundings = heads_call.roundings(max(self._sizes), units) if by_c else 2 * max(self._sizes) + units + 8
        error = 1.01 * roundings * (unit * largest + torch.finfo(self.dtype).tiny)
        if len(self._heads) == 1 and self.outputs == 1:
            return error
        several = len(self._heads) > 1 and self.outputs > 1
        steepest = (2 if several else 1) * (1 if self.output is None else 2)
        return steepest * error + (16 * largest + 8 * (self.outputs + len(self._heads)) + 64) * unit


AnyHead = Head | Compared


def _sum(parts: Iterable[Tensor]) -> Tensor:
    """In their order."""
    first, *others = parts
    return reduce(torch.add, others, first)


def _log_sum_exp(parts: Tensor) -> Tensor:
    """Over the first axis, in its order."""
    most = parts.amax(0)
    return most + _sum((parts - most).exp()).log()


def _folded(model: TwoTowers, side: Side) -> Folded:
    """The head of a model in float64."""
    weight, bias, weights, offsets = (
        part.detach().to("cpu", torch.float64)
        for part in (model.dense.weight, model.dense.bias, model.logit.weight, model.logit.bias)
    )
    by_feature = dict(zip(model.pair_features.features, weight.split(model.hidden, 1), strict=True))
    nothing = torch.zeros(len(weight), model.hidden, dtype=torch.float64)
    positive, negative = (by_feature.get(name, nothing) for name in ("positive difference", "negative difference"))
    # relu(x) is half of |x| + x.
    absolute = by_feature.get("absolute difference", nothing) + (positive + negative) / 2
    linear = by_feature.get("difference", nothing) + (positive - negative) / 2
    more = (0, -len(bias) % FEWEST)
    return Folded(
        F.pad(absolute.T, more),
        F.pad(linear.T if side == "right" else -linear.T, more),
        F.pad(by_feature.get("product", nothing).T, more),
        F.pad(bias, more),
        F.pad(weights, more),
        offsets,
    ).to(torch.float64)


def _slope(query: Tensor, head: Folded) -> Tensor:
    return head.product * query[:, None] - head.linear


def _units(query: Tensor, items: Tensor, head: Folded) -> Tensor:
    """The dense layer's units "items units" of one query, after the relu."""
    constant = head.bias + (query.double() @ head.linear.double()).to(query.dtype)
    return torch.addmm(constant, (items - query).abs_(), head.absolute).addmm_(items, _slope(query, head)).relu_()


def _second_layer(units: Tensor, head: Folded) -> Tensor:
    """Logits "outputs items"."""
    return (units @ head.weights.T + head.offsets).T


# Without C code.


def _logits(queries: Tensor, blocks: Tensor, head: Folded) -> Tensor:
    """As `heads_call.logits`, in any order."""
    items = blocks.transpose(1, 2).flatten(0, 1)
    found = [_second_layer(_units(query, items, head), head) for query in queries]
    return torch.stack(found, 1) if found else queries.new_empty(len(head.offsets), 0, len(items))


def _slow_logits(queries: Tensor, blocks: Tensor, head: Folded, first: Tensor) -> Tensor:
    """As `heads_call.logits`: each operation rounds once, so that what else is computed with it changes no bit."""
    items = blocks.transpose(1, 2).flatten(0, 1)
    own = queries.repeat_interleave(first.diff() * BLOCK, 0)
    apart, product = own - items, own * items
    features = ((head.absolute, apart.abs()), (head.linear, apart), (head.product, product))
    units = head.bias.expand(len(items), -1).clone()
    for weight, feature in features:
        if bool(weight.any()):
            for number in range(len(weight)):
                units += feature[:, number : number + 1] * weight[number]
    found = head.offsets[:, None].expand(-1, len(items)).clone()
    for unit in range(len(head.bias)):
        found += head.weights[:, unit : unit + 1] * units[:, unit].clamp(min=0)
    return found
