# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
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
        b = w_ih.new_zeros(len(w_ih)) if bias is None else _to_sigmoids(bias)
        return cls(_to_sigmoids(w_ih).t(), _to_sigmoids(w_hh).t(), b, None if w_hr is None else w_hr.t())


class CellGradient:
    """Sums of the gradients of a Cell, a product for each chunk of steps."""

    def __init__(self, cell: Cell) -> None:
        self.input, self.recurrent = (torch.zeros(w.t().shape, dtype=w.dtype, device=w.device) for w in cell[:2])
        self.bias = torch.zeros_like(cell.bias)
        self.projection = None if cell.projection is None else torch.zeros_like(cell.projection.t())

    def add(self, gates: Tensor, x: Tensor, h: Tensor) -> None:
        """Of rows: the gradient of their gates before the sigmoid, their input, and the state they started from."""
        self.input.addmm_(gates.t(), x)
        self.recurrent.addmm_(gates.t(), h)
        self.bias.add_(gates.sum(0))

    def add_projection(self, full: Tensor, g_h: Tensor) -> None:
        """Of rows: the state before its projection, and the gradient of that after it."""
        if self.projection is not None:
            self.projection.addmm_(g_h.t(), full)

    def parameters(self) -> Parameters:
        """As gradients of nn.LSTM's."""
        input, recurrent, bias = (_from_sigmoids(part) for part in (self.input, self.recurrent, self.bias))
        return Parameters(input, recurrent, bias, self.projection)


def _to_sigmoids(weight: Tensor) -> Tensor:
    i_f, g, o = weight.split([len(weight) // 2, len(weight) // 4, len(weight) // 4])
    return torch.cat((o, i_f, g * -2))


def _from_sigmoids(gradient: Tensor) -> Tensor:
    o, i_f, s = gradient.split([len(gradient) // 4, len(gradient) // 2, len(gradient) // 4])
    return torch.cat((i_f, s * -2, o))
