"""Sentence pairs as rows of a table of vectors: batches of similar length, and the fingerprint of all pairs."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from towers.kernels.order import offsets_of
from towers.ragged import Ragged

WINDOW = 50
"""Batches per window: the shuffled pairs of a window are sorted by length together."""
ROWS = 4096
"""The number of vectors that are hashed together."""


class Batch(NamedTuple):
    """Some pairs.

    Attributes:
        left: the word ids of the left sentences, with the table of vectors.
        right: those of the right sentences.
        labels: the labels "batch", or None.
        index: the positions of the pairs among those that they are from.

    >>> from towers.data import sample_pairs
    >>> batch = next(sample_pairs(3).batches(2))
    >>> len(batch.left.lengths), batch.index.tolist()
    (2, [0, 2])
    """

    left: Ragged
    right: Ragged
    labels: Tensor | None
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (hides tuple.index)


def batch_order(
    left: Tensor, right: Tensor, batch_size: int, seed: int | None, *, by_length: bool = True
) -> list[Tensor]:
    """The positions of the pairs of each batch, given the lengths of both sides.

    Without a seed: sorted by length. With one: shuffled, sorted by length within windows of 50 batches, cut into
    batches, and the batches shuffled. So a batch has similar lengths, and every epoch has other batches. Without
    `by_length` and with a seed: shuffled, and cut into batches of any lengths.
    """
    pairs = len(left)
    if pairs == 0:
        return []
    key = left * (right.max() + 1) + right
    if seed is None:
        return list(key.argsort(stable=True).split(batch_size))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(pairs, generator=generator)
    if not by_length:
        return list(order.split(batch_size))
    window = torch.arange(pairs) // (WINDOW * batch_size)
    order = order[(window * (key.max() + 1) + key[order]).argsort(stable=True)]
    batches = order.split(batch_size)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def reorder(ids: Ragged, index: Tensor) -> Ragged:
    """The sentences of `ids` that `index` names, in that order."""
    lengths = ids.lengths[index]
    offsets = offsets_of(lengths)
    starts = ids.offsets[:-1][index] - offsets[:-1]
    places = torch.arange(int(offsets[-1])) + starts.repeat_interleave(lengths)
    return Ragged.unchecked(ids.values[places], offsets)


def cut(ids: Ragged, table: Tensor, sizes: list[int]) -> Iterator[Ragged]:
    """Cut the sentences into batches of these sizes, each with the table of vectors for its ids."""
    lengths = ids.lengths
    uniform = int(lengths[0]) if bool((lengths == lengths[:1]).all()) and len(lengths) else None
    ends, first = ids.offsets.tolist(), 0
    for size in sizes:
        last = first + size
        offsets = ids.offsets[first : last + 1] - ends[first]
        yield Ragged.unchecked(ids.values[ends[first] : ends[last]], offsets, uniform, table)
        first = last


def fingerprint(left: Ragged, right: Ragged, table: Tensor, labels: Tensor | None) -> str:
    """A hash of the sentences: their lengths, the vectors of their words, and their labels.

    A training does not continue with pairs of another fingerprint. The order of the table's rows makes no difference.
    """
    codes = torch.cat([_folded(rows) for rows in table.split(ROWS)])
    digest = hashlib.sha256()
    for side in (left, right):
        for part in (side.offsets, codes[side.values]):
            digest.update(part.contiguous().numpy().tobytes())
    if labels is not None:
        digest.update(labels.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _folded(rows: Tensor) -> Tensor:
    """One int64 for each row of a table (rows, width); it depends on every bit of the row."""
    bits = rows.contiguous().view(torch.int32).to(torch.int64)
    weights = torch.arange(1, rows.shape[1] + 1, dtype=torch.int64) * 0x9E3779B97F4A7C1 | 1
    return (bits * weights).sum(1)
