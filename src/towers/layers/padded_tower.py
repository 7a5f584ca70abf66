"""A whole tower on padded sentences, in torch's own operations but for the LSTM: for programs that are exported.

`Tower.forward` takes the padding away first. How many words remain is data, of which not every exporter makes a size.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Walk = Callable[[Tensor, Tensor, bool], Tensor]
"""What runs the LSTM over features (batch, steps, width) with lengths: its outputs, if they are asked for, else h_n."""


def padded_states(tower: Any, sentences: Tensor, lengths: Tensor | None, walk: Walk) -> Tensor:
    """The states (batch, width) of sentences (batch, words, vector width), as `Tower.forward` has them.

    One more row follows the words, so that no size is ever 1, which torch.export would take for a constant.

    Args:
        tower: a Tower.
        lengths: checked before; None: all words are real.
    """
    batch, words = sentences.shape[:2]
    if lengths is None:
        lengths = torch.full((batch,), words, dtype=torch.int64, device=sentences.device)
    padded = F.pad(sentences, (0, 0, 0, 1))
    if tower.word_map is not None:
        padded = _of_each_word(padded, tower.word_map.linear)
    states: list[Tensor] = []
    if tower.walks:
        states.append(_walked(tower, padded, lengths - (tower.kernel_words - 1), walk))
    for part in (tower.word_maximum, tower.word_mean):
        if part is not None:
            reduced = _over_steps(_of_each_word(padded, part.linear), lengths, part.reduce)
            states.append(F.relu(reduced) if part.reduce == "max" else reduced)
    return torch.cat(states, 1)


def _walked(tower: Any, padded: Tensor, steps: Tensor, walk: Walk) -> Tensor:
    """What the LSTM says of the phrases, or what `reduce` does."""
    features = padded if tower.conv is None else _phrases(tower, padded)
    if not tower.hidden:
        return _over_steps(features, steps, tower.reduce)
    if tower.reduce == "last":
        return torch.cat(list(walk(features, steps, False).unbind()), 1)
    return _over_steps(walk(features, steps, True), steps, tower.reduce)


def _phrases(tower: Any, padded: Tensor) -> Tensor:
    """The largest features of neighbouring words (batch, steps + 1, features)."""
    steps = padded.shape[1] - (tower.kernel_words - 1)
    shares = [padded[:, at : at + steps] @ tower.conv.weight[at].t() for at in range(tower.kernel_words)]
    phrases, size = tower.conv.bias + sum(shares), tower.pool.size
    return functools.reduce(torch.maximum, [phrases[:, :, at::size] for at in range(size)])


def _over_steps(values: Tensor, lengths: Tensor, reduce: str) -> Tensor:
    """The last, largest or mean value (batch, width) of the first `lengths` of values (batch, steps, width)."""
    if reduce == "last":
        return values.gather(1, (lengths - 1).reshape(-1, 1, 1).expand(-1, -1, values.shape[2])).squeeze(1)
    real = (torch.arange(values.shape[1], device=values.device) < lengths.unsqueeze(1)).unsqueeze(2)
    if reduce == "max":
        return torch.where(real, values, float("-inf")).amax(1)
    return torch.where(real, values, 0.0).sum(1) / lengths.unsqueeze(1)


def _of_each_word(values: Tensor, layer: Any) -> Tensor:
    """A PhraseConv of one word."""
    return F.linear(values, layer.weight[0], layer.bias)
