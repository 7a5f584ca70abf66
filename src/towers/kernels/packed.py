"""All sentences in one packed sequence, through torch's own packed path: any mixture of lengths in one call."""

import torch
from torch import Tensor

from towers.kernels import State, Weights
from towers.kernels.order import time_order


def run(values: Tensor, offsets: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
    """See `towers.kernels`."""
    index, batch_sizes, order = time_order(offsets)
    index, order = index.to(values.device), order.to(values.device)
    output, h_n, c_n = torch.lstm(
        values.index_select(0, index),
        batch_sizes,
        [part.index_select(1, order) for part in state],
        weights.flat,
        weights.biases,
        weights.num_layers,
        weights.dropout,
        weights.training,
        weights.bidirectional,
    )
    back = order.argsort()
    return output.index_select(0, index.argsort()), (h_n.index_select(1, back), c_n.index_select(1, back))
