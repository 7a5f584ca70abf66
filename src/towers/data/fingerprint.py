"""A short text that tells training pairs from others, so that a training does not go on with other ones."""

import hashlib

import torch
from torch import Tensor

from towers.ragged import Ragged

ROWS = 4096
"""Vectors that are folded at a time."""


def fingerprint(left: Ragged, right: Ragged, table: Tensor, labels: Tensor | None) -> str:
    """Of sentences given as rows of a table: of their lengths, their words' vectors, and their labels.

    In which rows of the table the vectors stand makes no difference.
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
    """One whole number for each row (rows, width), of all of its bits, wherever they stand."""
    bits = rows.contiguous().view(torch.int32).to(torch.int64)
    weights = torch.arange(1, rows.shape[1] + 1, dtype=torch.int64) * 0x9E3779B97F4A7C1 | 1
    return (bits * weights).sum(1)
