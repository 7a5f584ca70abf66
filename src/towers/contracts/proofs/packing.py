"""Shapes of packing and padding again: how many steps and tokens there are only the lengths tell."""

from typing import Any

import torch
from torch import Tensor

from towers.contracts.proofs.fast_meta import first_or_last, made_like
from towers.contracts.proofs.symbols import Symbols


def pack(symbols: Symbols, input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """torch._pack_padded_sequence: data of a new number of tokens, batch sizes of a new number of steps."""
    batch, time = input.shape[:2] if batch_first else (input.shape[1], input.shape[0])
    if lengths.dim() != 1 or lengths.shape[0] != batch:
        problem = f"Expected `len(lengths)` to be equal to batch_size, but got {lengths.shape[0]} (batch_size={batch})"
        raise RuntimeError(problem)
    if batch == 0:
        raise RuntimeError("Cannot pack an empty batch")
    steps = symbols.fresh("longest", 1, time)
    tokens = symbols.fresh("tokens", 1, batch * time)
    batch_sizes = torch.empty(steps, dtype=torch.int64, device="cpu")
    symbols.packed[id(batch_sizes)] = (batch_sizes, batch)
    return made_like(input, tokens, *input.shape[2:]), batch_sizes


def pad(
    symbols: Symbols, data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: Any
) -> Any:
    """torch._pad_packed_sequence: as long as the longest sentence, or total_length."""
    if id(batch_sizes) not in symbols.packed:
        return NotImplemented
    batch = batch_sizes_of(symbols, batch_sizes)
    sizes = (batch, total_length) if batch_first else (total_length, batch)
    return made_like(data, *sizes, *data.shape[1:]), made_like(data, batch, dtype=torch.int64)


def first_batch_size(symbols: Symbols, tensor: Tensor, index: Any) -> Any:
    """`batch_sizes[0]` is the batch; other tensors have rows."""
    if type(index) is int and index == 0 and id(tensor) in symbols.packed:
        return batch_sizes_of(symbols, tensor)
    return first_or_last(symbols, tensor, index)


def batch_sizes_of(symbols: Symbols, batch_sizes: Tensor) -> Any:
    """How many sentences were packed."""
    return symbols.packed[id(batch_sizes)][1]
