"""TwoTowers for torch.export: as they are, or in torch's own operations alone where towers is not installed."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from towers.ensemble import Ensemble
from towers.export.portable_lstm import Padded
from towers.layers.padded_tower import padded_states
from towers.model import Tower, TwoTowers


class Pairs(nn.Module):
    """The logits of pairs, and those of a second head: from vectors, or from word ids and a table of vectors.

    Args:
        model: the towers.
        ids: whether it takes word ids (batch, words) in place of vectors (batch, words, width).
        table: with ids, the table inside the program; None: an input.
    """

    def __init__(self, model: TwoTowers, *, ids: bool = False, table: Tensor | None = None) -> None:
        super().__init__()
        self.model, self.ids = model, ids
        self.register_buffer("table", None if table is None else table.detach().clone())

    def forward(
        self,
        left: Tensor,
        right: Tensor,
        left_lengths: Tensor | None = None,
        right_lengths: Tensor | None = None,
        table: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (batch) or (batch, outputs), and those of the second head."""
        if self.ids:
            vectors: Any = self.table if table is None else table
            left, right = F.embedding(left, vectors), F.embedding(right, vectors)
        states = self.model.states(left, right, left_lengths, right_lengths)
        logits = self.model.compare(*states)
        return logits if self.model.second is None else (logits, self.model.second(*states))


def make_portable(model: TwoTowers) -> TwoTowers:
    """Put a PortableTower in the place of each tower of a model, and return it."""
    for member in model.each() if isinstance(model, Ensemble) else [model]:
        left: Any = PortableTower(member.left)
        right: Any = left if member.left is member.right else PortableTower(member.right)
        member.left, member.right = left, right
    return model


class PortableTower(nn.Module):
    """The states (batch, width) of padded sentences (batch, words, vector width), as `Tower.forward` has them."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower, self.lstm = tower, Padded(tower.lstm) if tower.hidden else None

    def forward(self, sentences: Tensor, lengths: Tensor | None) -> Tensor:
        """Each sentence to its own end."""
        words = sentences.shape[1]
        if lengths is not None:
            fitting = (lengths >= self.tower.kernel_words) & (lengths <= words)
            message = f"a length is below {self.tower.kernel_words}, or above the number of words"
            torch._assert_async(fitting.all(), message)  # pyright: ignore[reportPrivateUsage]
        return padded_states(self.tower, sentences, lengths, self._walk)

    def _walk(self, features: Tensor, steps: Tensor, outputs: bool) -> Tensor:
        assert self.lstm is not None
        output, h_n, _ = self.lstm(features.transpose(0, 1), steps, outputs=outputs)
        return output.transpose(0, 1) if outputs else h_n
