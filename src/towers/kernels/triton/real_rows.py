"""Rows of sentences given by start and length, in plain torch."""

import torch
from torch import Tensor


def covered(starts: Tensor, lengths: Tensor, rows: int) -> Tensor:
    """Which rows belong to a sentence ("rows"), found without waiting for a device."""
    edges = torch.zeros(rows + 1, dtype=torch.int32, device=starts.device)
    some = (lengths > 0).int()
    return edges.index_add(0, starts, some).index_add(0, starts + lengths, -some).cumsum(0)[:-1] > 0


def contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    """As the kernels read them; a tensor that is so already is not copied."""
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]
