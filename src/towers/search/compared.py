"""The score of a pair by the model's own `compare`: for heads that are more than a sum over one difference."""

from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor

from towers.model import TwoTowers
from towers.training.objectives import log_odds, mean_bin

NUMBERS = 1 << 20
"""Features of pairs that are worked on at a time."""


class Compared:
    """The score of a pair from the states themselves: presets, several outputs, ensembles.

    Of one output the score is the logit. Of several it is the mean degree of the bins, from 0 to 1, or for the class
    number `output` its log-odds, the logarithm of p / (1 - p).

    Scores are computed in float64 and then rounded to the weights' dtype, so that equal pairs have equal scores in
    every block.
    """

    weights = None
    """There are no boxes."""

    def __init__(self, model: TwoTowers, side: Literal["left", "right"], output: int | None) -> None:
        self.dtype = torch.promote_types(model.dense.weight.dtype, torch.float32)
        self.model = deepcopy(model).eval().to("cpu", torch.float64).requires_grad_(False)
        self.side, self.output = side, output
        self.dense = self.hidden = model.hidden
        self.bias = torch.zeros(())

    def item_rows(self, states: Tensor) -> Tensor:
        """The rows of items: their states."""
        return states.detach().to("cpu", self.dtype, copy=True)

    def query_rows(self, item_rows: Tensor) -> Tensor:
        """The rows of the same states as queries."""
        return item_rows

    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        return all(bool(torch.isfinite(part).all()) for part in self.model.parameters())

    def may_overflow(self, queries: Tensor, largest_item: float) -> bool:
        """Whether a score of these queries may be above what the dtype holds: the sums in float64 cannot."""
        return False

    def scores(self, queries: Tensor, rows: Tensor) -> Tensor:
        """Scores "queries items" of rows of queries and of items."""
        found = queries.new_empty(len(queries), len(rows))
        size = max(1, NUMBERS // self.model.pair_features.width)
        for place, query in enumerate(queries.double()):
            for first in range(0, len(rows), size):
                some = rows[first : first + size].double()
                sides = (query[None], some) if self.side == "right" else (some, query[None])
                found[place, first : first + size] = self._score(self.model.compare(*sides))
        return found

    def _score(self, logits: Tensor) -> Tensor:
        if self.model.outputs == 1:
            return logits
        return mean_bin(logits.softmax(-1)) if self.output is None else log_odds(logits, self.output)
