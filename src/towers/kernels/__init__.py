"""The ways to run an LSTM over sentences end to end, one file each, behind one interface.

Each file has `run(values, offsets, state, weights) -> (output, (h_n, c_n))`:
values "tokens input_size", offsets "batch+1" on the CPU with no empty sentence and at least one sentence,
state (h_0, c_0) as nn.LSTM's, output "tokens output_size", h_n and c_n at each sentence's own end.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """An LSTM's parameters in the order of nn.LSTM (two biases each, or none), and how they are used."""

    flat: list[Tensor]
    biases: bool
    num_layers: int
    dropout: float
    training: bool
    bidirectional: bool


State = tuple[Tensor, Tensor]
