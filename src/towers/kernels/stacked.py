"""Layers and directions of an LSTM, one after the other, over code that runs one layer in one direction."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.kernels.batch import Parameters, State, Weights

Direction = Callable[[Tensor, State, Parameters, bool, bool], tuple[Tensor | None, State]]
"""(values, state, parameters, reverse, outputs) -> (output or None, state): one layer in one direction.

`state` is h and c, "1 batch state"; the output has the values' shape but for its last axis.
"""


def run_layers(
    direction: Direction, values: Tensor, state: State, weights: Weights, *, outputs: bool
) -> tuple[Tensor | None, State]:
    """Run all layers; between two of them the outputs of both directions are joined, and dropout is applied."""
    directions = 1 + weights.bidirectional
    ends: list[State] = []  # not list[State](), which torch.compile cannot read
    rows = weights.num_layers * directions
    states = [state] if rows == 1 else list(zip(*(part.split(1) for part in state), strict=True))
    output: Tensor | None = None
    for layer in range(weights.num_layers):
        final = layer == weights.num_layers - 1
        parts: list[Tensor] = []
        for reverse in range(directions):
            h, c = states[layer * directions + reverse]
            y, end = direction(values, (h, c), weights.of(layer, reverse), bool(reverse), outputs or not final)
            ends.append(end)
            parts += [] if y is None else [y]
        output = parts[0] if len(parts) == 1 else torch.cat(parts, -1) if parts else None
        if not final and output is not None:
            values = F.dropout(output, weights.dropout) if weights.dropout else output
    if rows == 1:
        return output, ends[0]
    h_n, c_n = (torch.cat(parts) for parts in zip(*ends, strict=True))
    return output, (h_n, c_n)
