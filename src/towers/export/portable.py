"""TwoTowers for torch.export: as they are, or in torch's own operations alone where towers is not installed."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from towers.ensemble import Ensemble
from towers.export.portable_lstm import Padded
from towers.layers.step_pool import Reduce
from towers.layers.word_features import WordFeatures
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
        self.kernel_words, self.reduce = tower.kernel_words, tower.reduce
        self.conv, self.pool, self.word_map = tower.conv, tower.pool, tower.word_map
        self.lstm = Padded(tower.lstm) if tower.hidden else None
        self.walks = tower.walks
        self.words = nn.ModuleList(part for part in (tower.word_maximum, tower.word_mean) if part is not None)

    def forward(self, sentences: Tensor, lengths: Tensor | None) -> Tensor:
        """Each sentence to its own end; one more row follows the words, see `portable_lstm`."""
        batch, words = sentences.shape[:2]
        if lengths is None:
            lengths = torch.full((batch,), words, device=sentences.device)
        fitting = (lengths >= self.kernel_words) & (lengths <= words)
        message = f"a length is below {self.kernel_words}, or above the number of words"
        torch._assert_async(fitting.all(), message)  # pyright: ignore[reportPrivateUsage]
        padded = F.pad(sentences, (0, 0, 0, 1))
        if self.word_map is not None:
            padded = _linear(padded, self.word_map.linear)
        states = [self._walk(padded, lengths - self.kernel_words + 1)] if self.walks else []
        states += [_of_words(padded, lengths, part) for part in self.words if isinstance(part, WordFeatures)]
        return torch.cat(states, 1)

    def _walk(self, padded: Tensor, steps: Tensor) -> Tensor:
        """What the LSTM says of the phrases, or what `reduce` does."""
        features: Tensor = padded if self.conv is None else self._phrases(padded)  # pyright: ignore
        if self.lstm is None:
            return _over_steps(features, steps, self.reduce)
        last = self.reduce == "last"
        output, h_n, _ = self.lstm(features.transpose(0, 1), steps, outputs=not last)
        return torch.cat(list(h_n.unbind()), 1) if last else _over_steps(output.transpose(0, 1), steps, self.reduce)

    def _phrases(self, padded: Tensor) -> Tensor:
        """The largest features of neighbouring words (batch, steps + 1, features)."""
        steps = padded.shape[1] - self.kernel_words + 1
        shares = [padded[:, place : place + steps] @ row.t() for place, row in enumerate(self.conv.weight)]
        return (self.conv.bias + sum(shares)).unflatten(2, (-1, self.pool.size)).amax(3)


def _of_words(padded: Tensor, lengths: Tensor, part: WordFeatures) -> Tensor:
    reduced = _over_steps(_linear(padded, part.linear), lengths, part.reduce)
    return F.relu(reduced) if part.reduce == "max" else reduced


def _over_steps(values: Tensor, lengths: Tensor, reduce: Reduce | str) -> Tensor:
    """The last, largest or mean value (batch, width) of the first `lengths` of values (batch, steps, width)."""
    if reduce == "last":
        return values.gather(1, (lengths - 1).reshape(-1, 1, 1).expand(-1, -1, values.shape[2])).squeeze(1)
    real = (torch.arange(values.shape[1], device=values.device) < lengths.unsqueeze(1)).unsqueeze(2)
    if reduce == "max":
        return torch.where(real, values, float("-inf")).amax(1)
    return torch.where(real, values, 0.0).sum(1) / lengths.unsqueeze(1)


def _linear(values: Tensor, layer: Any) -> Tensor:
    """A PhraseConv of one word."""
    return F.linear(values, layer.weight[0], layer.bias)
