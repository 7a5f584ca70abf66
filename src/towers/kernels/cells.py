"""The weights of one layer and direction, in the forms in which the ways use them, and the gradients on their way back.

In PyTorch sigmoid is six times faster than tanh on a CPU, and tanh(x) = 1 - 2 sigmoid(-2x). With the weights of g times
-2 and the cell kept as u = -2 c, an LSTM needs nothing but sigmoids:

    o, i, f, s = sigmoid(input @ x + recurrent @ h + bias)      s = sigmoid(-2 g'), g' being g before its tanh
    u = f * u + 4 * i * (s - 1/2)                               = -2 (f * c + i * tanh(g'))
    h = o - 2 * o * sigmoid(u)                                  = o * tanh(c)

Powers of two cost no accuracy.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class Parameters(NamedTuple):
    """Of one layer and direction, named as nn.LSTM's, gates in its order i, f, g, o."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias: Tensor | None  # the sum of all there are
    weight_hr: Tensor | None


class Cell(NamedTuple):
    """The same for the equations above: gates in columns, in the order o, i, f, s."""

    input: Tensor  # "input_size 4*hidden"
    recurrent: Tensor  # "state 4*hidden"
    bias: Tensor  # "4*hidden"
    projection: Tensor | None  # "hidden state"

    @classmethod
    def of(cls, weights: Parameters) -> Self:
        """Reorder and scale."""
        w_ih, w_hh, bias, w_hr = weights
        bias = w_ih.new_zeros(len(w_ih)) if bias is None else bias
        sizes = [w_ih.shape[1], w_hh.shape[1], 1]
        i_f, g, o = _gates(torch.cat((w_ih, w_hh, bias.unsqueeze(1)), 1), (2, 1, 1))
        input, recurrent, bias = torch.cat((o, i_f, g * -2)).split_with_sizes(sizes, 1)
        return cls(input.t(), recurrent.t(), bias.squeeze(1).contiguous(), None if w_hr is None else w_hr.t())


class CellGradient:
    """Sums of the gradients of a Cell, a product for each chunk of steps."""

    def __init__(self, cell: Cell) -> None:
        (inputs, gates), states = cell.input.shape, len(cell.recurrent)
        self._all = cell.input.new_zeros(gates, inputs + states + 1)
        self._input, self._recurrent, self._bias = self._all.split_with_sizes([inputs, states, 1], 1)
        self.projection = None if cell.projection is None else torch.zeros_like(cell.projection.t())

    def add(self, gates: Tensor, x: Tensor, h: Tensor) -> None:
        """Of rows: the gradient of their gates before the sigmoid, their input, and the state they started from."""
        self._input.addmm_(gates.t(), x)
        self._recurrent.addmm_(gates.t(), h)
        self._bias.add_(gates.sum(0).unsqueeze(1))

    def add_projection(self, full: Tensor, g_h: Tensor) -> None:
        """Of rows: the state before its projection, and the gradient of that after it."""
        if self.projection is not None:
            self.projection.addmm_(g_h.t(), full)

    def parameters(self) -> Parameters:
        """As gradients of nn.LSTM's."""
        o, i_f, s = _gates(self._all, (1, 2, 1))
        sizes = [part.shape[1] for part in (self._input, self._recurrent, self._bias)]
        input, recurrent, bias = torch.cat((i_f, s * -2, o)).split_with_sizes(sizes, 1)
        return Parameters(input, recurrent, bias.squeeze(1), self.projection)


def _gates(rows: Tensor, counts: tuple[int, int, int]) -> tuple[Tensor, ...]:
    """Blocks of rows, of the given numbers of gates."""
    return rows.split_with_sizes([count * (len(rows) // 4) for count in counts])
