"""TwoTowers in torch's own operations alone: what is exported where towers is not installed.

The LSTM is a loop over steps that the compiler keeps as a loop, so that one program serves every number of words. One
more row follows the words, so that no size is ever 1, which torch.export would take for a constant.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop  # pyright: ignore[reportUnknownVariableType]
from torch.nn import functional as F

from towers.kernels.recurrence import GATES
from towers.model import Tower, TwoTowers


class Portable(nn.Module):
    """The logits of pairs: `model.forward` with lengths, in torch's own operations.

    Args:
        model: whose weights are copied.
        ids: whether it takes word ids (batch, words) and a table of vectors in place of the vectors.
        table: the table, inside the program; None: an input.
    """

    def __init__(self, model: TwoTowers, *, ids: bool = False, table: Tensor | None = None) -> None:
        super().__init__()
        self.left = PortableTower(model.left)
        self.right = self.left if model.right is model.left else PortableTower(model.right)
        self.dense, self.logit = _linear(model.dense), _linear(model.logit)
        self.ids = ids
        self.register_buffer("table", None if table is None else table.detach().clone())

    def forward(
        self,
        left: Tensor,
        right: Tensor,
        left_lengths: Tensor | None = None,
        right_lengths: Tensor | None = None,
        table: Tensor | None = None,
    ) -> Tensor:
        """Logits (batch) of left and right (batch, words, width), or ids (batch, words)."""
        if self.ids:
            vectors: Any = self.table if table is None else table
            left, right = F.embedding(left, vectors), F.embedding(right, vectors)
        difference = self.left(left, left_lengths) - self.right(right, right_lengths)
        return self.logit(F.relu(self.dense(difference))).squeeze(-1)


class PortableTower(nn.Module):
    """The last states (batch, hidden) of sentences (batch, words, width)."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.words, self.kernel_words, self.hidden = tower.words, tower.kernel_words, tower.hidden
        self.pool, self.gate = tower.pool.size, GATES[tower.lstm.recurrent_activation]
        self.kernel = _kept(tower.conv.weight.transpose(1, 2))  # (kernel_words, width, filters)
        self.bias = _kept(tower.conv.bias)
        self.inputs, self.recurrent = _kept(tower.lstm.weight_ih_l0.t()), _kept(tower.lstm.weight_hh_l0.t())
        self.lstm_bias = _kept(tower.lstm.bias_ih_l0)

    def forward(self, sentences: Tensor, lengths: Tensor | None) -> Tensor:
        """Each sentence to its own end."""
        words = sentences.shape[1]
        if lengths is not None:
            fitting = (lengths >= self.kernel_words) & (lengths <= words)
            message = f"a length is below {self.kernel_words}, or above the number of words"
            torch._assert_async(fitting.all(), message)  # pyright: ignore[reportPrivateUsage]
        gates, steps = self._gates(sentences), words - self.kernel_words + 1
        state = sentences.new_zeros(sentences.shape[0], self.hidden)

        def going(step: Tensor, h: Tensor, c: Tensor) -> Tensor:
            return step < steps

        def walk(step: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            shares = gates.index_select(1, step.unsqueeze(0)).squeeze(1)
            i, f, g, o = (shares + h @ self.recurrent).chunk(4, 1)
            cell = self.gate(f) * c + self.gate(i) * g.tanh()
            hidden = self.gate(o) * cell.tanh()
            if lengths is None:
                return step + 1, hidden, cell
            active = (step <= lengths - self.kernel_words).unsqueeze(1)
            return step + 1, torch.where(active, hidden, h), torch.where(active, cell, c)

        start = torch.zeros((), dtype=torch.int64, device=sentences.device)
        loop = cast("Any", while_loop)
        return loop(going, walk, (start, state, state.clone()))[1]

    def _gates(self, sentences: Tensor) -> Tensor:
        """The input's share of the gates (batch, steps + 1, 4 hidden): phrases, maximum, and one row after the end."""
        padded = F.pad(sentences, (0, 0, 0, 1))
        steps = padded.shape[1] - self.kernel_words + 1
        phrases = self.bias + sum(padded[:, place : place + steps] @ row for place, row in enumerate(self.kernel))
        features = phrases.unflatten(2, (-1, self.pool)).amax(3)
        return features @ self.inputs + self.lstm_bias


def _kept(parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone().contiguous(), requires_grad=False)


def _linear(layer: nn.Linear) -> nn.Linear:
    copied = nn.Linear(layer.in_features, layer.out_features, device="meta")
    copied.weight, copied.bias = _kept(layer.weight), _kept(layer.bias)
    return copied
