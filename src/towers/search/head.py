"""The two dense layers of a TwoTowers, in two parts: computed once for each query or item, and for each pair."""

import ctypes
import hashlib
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from towers.kernels.cpu import topk_call
from towers.model import TwoTowers

Side = Literal["left", "right"]
ROWS = 1 << 14
"""States that are projected at a time: what is worked on stays in the processor's cache."""


class Head:
    """The score of a pair: `offset + sum_k weights_k relu(query_k - item_k)`, over the `dense` units k.

    With right items it is `compare(query, item)`, with left items `compare(item, query)`: W1 and c1 are the weight and
    the bias of `model.dense`; an item's row is W1 b (left items: -W1 a), and a query's is the same plus c1.
    Every sum has a fixed order, so a state gives the same bits in every batch.
    """

    def __init__(self, model: TwoTowers, side: Side) -> None:
        self.dtype = torch.promote_types(model.dense.weight.dtype, torch.float32)
        weight = self._own(model.dense.weight)
        self.weight = weight if side == "right" else -weight
        self._columns = self.weight.T.contiguous()
        self.bias = self._own(model.dense.bias)
        self.weights = self._own(model.logit.weight)[0].contiguous()
        self.offset = float(self._own(model.logit.bias))
        self._sizes = float(self.weights.double().abs().sum())
        self._most = torch.finfo(self.dtype).max
        self.dense, self.hidden = weight.shape

    def _own(self, parameter: Tensor) -> Tensor:
        return parameter.detach().to("cpu", self.dtype, copy=True)

    def item_rows(self, states: Tensor) -> Tensor:
        """The rows of items: states "count hidden" -> "count dense"."""
        states = states.resolve_neg()  # C reads the numbers as they lie
        if topk_call.serves(self.dtype):
            return topk_call.rows(states.detach().to("cpu", self.dtype), self._columns)
        rows = torch.empty(len(states), self.dense, dtype=self.dtype)
        for first in range(0, len(states), ROWS):
            some = states[first : first + ROWS].detach().to("cpu", self.dtype)
            out = rows[first : first + ROWS]
            columns = zip(some.unsqueeze(2).unbind(1), self.weight.unbind(1), strict=True)
            torch.mul(*next(columns), out=out)
            for numbers, weight in columns:
                out += numbers * weight
        return rows

    def query_rows(self, item_rows: Tensor) -> Tensor:
        """The rows of the same states as queries."""
        return item_rows + self.bias

    def quick(self, queries: Tensor, blocks: Tensor, count: int) -> tuple[Tensor, None]:
        """The scores "queries count" of the first `count` items of blocks; each operation rounds once, so that blocks
        change no bit."""
        units = blocks.transpose(0, 1).flatten(1)[:, :count]
        scores = queries.new_full((len(queries), count), self.offset)
        term = torch.empty_like(scores)
        for unit, weight in enumerate(self.weights.tolist()):
            torch.sub(queries[:, unit : unit + 1], units[unit], out=term)
            scores += term.clamp_(min=0).mul_(weight)
        return scores, None

    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        parts = (self.weight, self.bias, self.weights, torch.tensor(self.offset))
        return all(bool(torch.isfinite(part).all()) for part in parts)

    def may_overflow(self, queries: Tensor, largest_item: float) -> bool:
        """Whether a score of these rows of queries, or a part of it, may be above what the dtype holds."""
        largest = largest_item
        if queries.numel():
            least, most = queries.aminmax()
            largest += max(-float(least), float(most))
        bound = abs(self.offset) + self._sizes * largest
        return not (bound <= self._most and largest <= self._most)  # NaN is not, either

    def may_overflow_among(self, largest_item: float) -> bool:
        """The same, where items are the queries."""
        return self.may_overflow(self.bias, 2 * largest_item)


def fingerprint(model: TwoTowers) -> str:
    """A digest of the sizes and the weights of a model: two models with the same digest give the same scores."""
    hashed = hashlib.sha256()
    if model.has_other_parts:  # their sizes do not say which features the head reads
        hashed.update(repr((model.pair_features.features, model.outputs)).encode())
    state: Mapping[str, Tensor] = model.state_dict()
    for name, value in sorted(state.items()):
        hashed.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        value = value.detach().cpu().contiguous()
        hashed.update(ctypes.string_at(value.data_ptr(), value.nbytes))
    return hashed.hexdigest()[:32]
