"""Every left with every right state, a block at a time: what orders the pairs after each other."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from towers.model import TwoTowers
from towers.training.objectives import Objective, log_odds
from towers.training.prediction import answering

BLOCK = 1 << 22
"""Features of pairs that are held at a time."""


class Distinct(NamedTuple):
    """The distinct ones of some states: equal states are compared once, so that their scores are equal to the last bit.

    Attributes:
        states: the distinct states "distinct hidden", in the order in which they come first.
        which: the number of its distinct state, for each of the states "states".
    """

    states: Tensor
    which: Tensor

    @classmethod
    def of(cls, states: Tensor) -> "Distinct":
        """The distinct states; 0 and -0 are the same."""
        number: dict[bytes, int] = {}
        rows = (states.float() + 0.0).cpu().numpy()
        which = torch.tensor(
            [number.setdefault(row.tobytes(), len(number)) for row in rows], dtype=torch.int64, device="cpu"
        )
        if len(number) == len(states):
            return cls(states, which)
        first = which.new_full((len(number),), len(states))
        first = first.scatter_reduce(0, which, torch.arange(len(states), device="cpu"), "amin")
        return cls(states[first.to(states.device)], which)

    def fill(self, result: Tensor, first: int, found: Tensor) -> None:
        """Write what was found for the distinct states from number `first` on to the rows of all states."""
        if len(self.states) == len(self.which):
            result[first : first + len(found)] = found
            return
        places = ((self.which >= first) & (self.which < first + len(found))).nonzero()[:, 0]
        for some in places.split(len(found)):  # no more at a time than was found
            result[some] = found[self.which[some] - first]

    def spread(self, of_distinct: Tensor, axis: int) -> Tensor:
        """What was found for each distinct state, for each state."""
        return of_distinct if len(self.states) == len(self.which) else of_distinct.index_select(axis, self.which)


def every_pair(
    network: TwoTowers, objective: Objective, left: Distinct, right: Distinct, output: int | None
) -> Iterator[Tensor]:
    """What orders the pairs, some distinct left states with all right states at a time, "some right".

    It is the logits; the log-odds of the class number `output`; or of a network of bins the degrees.

    Args:
        network: compares the states.
        objective: what its logits mean.
        left: the left states, of which each distinct one is compared once.
        right: the right states.
        output: the number of a class; None for a network of degrees.
    """
    size = max(1, BLOCK // max(network.pair_features.width, network.dense.out_features))
    rows = max(1, size // max(1, len(right.which)))
    for some in left.states.split(rows) if len(left.states) else ():
        with torch.inference_mode(), answering(network, some.device.type):
            blocks = [_ranked(network, objective, some, others, output) for others in right.states.split(size)]
            found = right.spread(torch.cat(blocks, 1), 1)
        yield found


def _ranked(network: TwoTowers, objective: Objective, lefts: Tensor, rights: Tensor, output: int | None) -> Tensor:
    logits = network.compare(lefts[:, None], rights[None]).float().cpu()
    if network.outputs == 1:
        return logits
    return objective.answer(logits) if output is None else log_odds(logits, output)
