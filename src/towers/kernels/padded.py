# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Sentences of equal length together, through torch's own padded path: one call for each length, no padding."""

import torch
from torch import Tensor

from towers.kernels import State, Weights


def run(values: Tensor, offsets: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
    """See `towers.kernels`."""
    lengths = offsets.diff()
    order = lengths.argsort(stable=True)
    sizes, counts = lengths[order].unique_consecutive(return_counts=True)
    rows = order.split(counts.tolist())
    tokens = [
        (offsets[group].unsqueeze(1) + torch.arange(size)).flatten()
        for group, size in zip(rows, sizes.tolist(), strict=True)
    ]
    outputs: list[Tensor] = []
    states: list[State] = []
    for group, index, size in zip(rows, tokens, sizes.tolist(), strict=True):
        group, index = group.to(values.device), index.to(values.device)
        start = (state[0].index_select(1, group), state[1].index_select(1, group))
        output, end = run_equal(values.index_select(0, index), size, start, weights)
        outputs.append(output)
        states.append(end)
    back, token_back = order.argsort().to(values.device), torch.cat(tokens).argsort().to(values.device)
    h_n, c_n = (torch.cat(parts, 1).index_select(1, back) for parts in zip(*states, strict=True))
    return torch.cat(outputs).index_select(0, token_back), (h_n, c_n)


def run_equal(values: Tensor, words: int, state: State, weights: Weights) -> tuple[Tensor, State]:
    """All sentences have the same number of words: nothing to sort, and no offsets to read."""
    output, h_n, c_n = torch.lstm(
        values.unflatten(0, (-1, words)),
        state,
        weights.flat,
        weights.biases,
        weights.num_layers,
        weights.dropout,
        weights.training,
        weights.bidirectional,
        True,
    )
    return output.flatten(0, 1), (h_n, c_n)
