"""TwoTowers for torch.export: as they are, or in torch's own operations alone where towers is not installed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from towers.ensemble import Ensemble
from towers.export.portable_lstm import Padded, assert_in_file, assert_int64_in_file
from towers.layers.lstm import RaggedLSTM
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
        towers = {type(model), type(model.left), type(model.right)}
        self.one_operation = towers == {TwoTowers, Tower} and model.second is None  # `towers::pair`, perhaps
        self.lowest = {"left": model.left.kernel_words, "right": model.right.kernel_words}
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
        self._check_lengths("left", left, left_lengths)
        self._check_lengths("right", right, right_lengths)
        if self.ids:
            vectors: Any = self.table if table is None else table
            left = _looked_up("left", left, left_lengths, vectors)
            right = _looked_up("right", right, right_lengths, vectors)
        if self.one_operation:
            return self.model(left, right, left_lengths, right_lengths)
        states = self.model.states(left, right, left_lengths, right_lengths)
        logits = self.model.compare(*states)
        return logits if self.model.second is None else (logits, self.model.second(*states))

    def _check_lengths(self, side: str, sentences: Tensor, lengths: Tensor | None) -> None:
        if lengths is not None:
            assert_int64_in_file(lengths)
            fitting = (lengths >= self.lowest[side]) & (lengths <= sentences.shape[1])
            demand = f"a length is below {self.lowest[side]}, or above the number of words"
            assert_in_file(fitting.all(), f"{side}_lengths: {demand}")


def _looked_up(side: str, ids: Tensor, lengths: Tensor | None, table: Tensor) -> Tensor:
    """The vectors (batch, words, width); ids past the end of a sentence are not read, and count as 0."""
    if lengths is not None:
        ids = torch.where(torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1), ids, 0)
    fitting = ((ids >= 0) & (ids < table.shape[0])).all()
    assert_in_file(fitting, f"{side}: an id is below 0, or above the last row of the table")
    return F.embedding(ids, table)


def make_portable(model: TwoTowers) -> TwoTowers:
    """Put a PortableTower in the place of each tower of a model, and return it."""
    return _replaced(model, PortableTower)


def make_whole(model: TwoTowers) -> TwoTowers:
    """Keep towers' own operations where there are some: hard sigmoids have none; chunks of steps change nothing."""

    def whole(tower: Tower) -> nn.Module:
        tower.chunk = None
        return PortableTower(tower) if tower.hidden and has_no_operation(tower.lstm) else tower

    return _replaced(model, whole)


def has_no_operation(lstm: RaggedLSTM) -> bool:
    """Whether towers runs an LSTM step by step, and has no operation of its own for it."""
    return lstm.recurrent_activation != "sigmoid"


def _replaced(model: TwoTowers, replace: Callable[[Tower], nn.Module]) -> TwoTowers:
    for member in model.each() if isinstance(model, Ensemble) else [model]:
        left: Any = replace(member.left)
        right: Any = left if member.left is member.right else replace(member.right)
        member.left, member.right = left, right
    return model


class PortableTower(nn.Module):
    """The states (batch, width) of padded sentences (batch, words, vector width), as `Tower.forward` has them.

    Lengths are checked before.
    """

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower, self.lstm = tower, Padded(tower.lstm) if tower.hidden else None
        self.kernel_words = tower.kernel_words

    def forward(self, sentences: Tensor, lengths: Tensor | None) -> Tensor:
        """Each sentence to its own end."""
        return padded_states(self.tower, sentences, lengths, self._walk)

    def _walk(self, features: Tensor, steps: Tensor, outputs: bool) -> Tensor:
        assert self.lstm is not None
        output, h_n, _ = self.lstm(features.transpose(0, 1), steps, outputs=outputs)
        return output.transpose(0, 1) if outputs else h_n
