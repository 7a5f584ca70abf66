"""A large batch in slices, so that the working memory stays small."""

from collections.abc import Iterator

import torch
from torch import Tensor

from towers.kernels.batch import is_plain
from towers.ragged import Ragged

WORKING_BYTES = 32 * 2**20
"""The working memory of one slice."""

Slice = tuple[Tensor | Ragged, Tensor | None]
"""Sentences, and their lengths where they are padded."""


def slices(sentences: Tensor | Ragged, lengths: Tensor | None, words: int) -> Iterator[Slice]:
    """The sentences in slices of at most `words` words each, or of one sentence; slices are views.

    There is one slice where the sentences are few, where they are traced, and where gradients are on (the backward pass
    needs the memory of all sentences at once).
    """
    if isinstance(sentences, Tensor) and sentences.is_nested:
        sentences = Ragged.from_jagged(sentences)
    values = sentences if isinstance(sentences, Tensor) else sentences.values
    if torch.is_grad_enabled() or not is_plain(values) or values.is_meta:
        yield sentences, lengths
    elif isinstance(sentences, Tensor):
        yield from _of_padded(sentences, lengths, words)
    else:
        yield from ((part, None) for part in _of_ragged(sentences, words))


def _of_padded(padded: Tensor, lengths: Tensor | None, words: int) -> Iterator[Slice]:
    rows = max(1, words // max(1, padded.shape[1]))
    for first in range(0, max(1, len(padded)), rows):
        yield padded[first : first + rows], None if lengths is None else lengths[first : first + rows]


def _of_ragged(ragged: Ragged, words: int) -> Iterator[Ragged]:
    if ragged.values.shape[0] <= words:
        yield ragged
        return
    offsets, first = ragged.offsets.cpu(), 0
    while first < len(ragged):
        end = int(torch.searchsorted(offsets, offsets[first] + words, right=True)) - 1
        last = max(end, first + 1)
        yield ragged.sentences(first, last)
        first = last
