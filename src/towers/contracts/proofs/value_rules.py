"""Operations that torch runs by looking at values, or that take a size for a number: what they give on symbolic sizes.

As in `layer_rules`, the first argument is the symbols of the run.
"""

from typing import Any

import torch
from torch import SymInt, Tensor

from towers.contracts.proofs.fast_meta import made, made_like
from towers.contracts.proofs.symbols import Symbols


def either(symbols: Symbols, tensor: Tensor) -> Any:
    """`bool(tensor)`: another run takes the other answer."""
    return symbols.either() if tensor.dim() == 0 else NotImplemented


def linspace(symbols: Symbols, start: Any, end: Any, steps: Any = None, **options: Any) -> Any:
    """torch.linspace and torch.logspace of numbers."""
    if not isinstance(steps, SymInt) or isinstance(start, Tensor) or isinstance(end, Tensor):
        return NotImplemented
    return made((steps,), options.get("dtype") or torch.get_default_dtype())


def upper(symbols: Symbols, row: Any, col: Any, offset: Any = 0, **options: Any) -> Any:
    """torch.triu_indices."""
    return _triangle(row, col, offset, options)


def lower(symbols: Symbols, row: Any, col: Any, offset: Any = 0, **options: Any) -> Any:
    """torch.tril_indices."""
    return _triangle(row, col, -offset if type(offset) is int else offset, options)


def _triangle(row: Any, col: Any, offset: Any, options: dict[str, Any]) -> Any:
    """The places of a square above its diagonal; `offset` 1 leaves the diagonal out."""
    if not isinstance(row, SymInt) or type(offset) is not int or offset not in (0, 1) or row != col:
        return NotImplemented
    count = row * (row - 1) // 2 if offset else row * (row + 1) // 2
    return made((2, count), options.get("dtype") or torch.int64)


def ctc_loss(symbols: Symbols, log_probs: Tensor, targets: Tensor, *lengths: Any, **options: Any) -> Any:
    """F.ctc_loss and torch.ctc_loss: (time, batch, classes), targets and the lengths of both, reduction and blank."""
    reduction = options.get("reduction", next((each for each in lengths[3:] if isinstance(each, str)), None))
    if reduction is None:
        reduction = {0: "none", 1: "mean", 2: "sum"}.get(lengths[3] if len(lengths) > 3 else 1, "mean")
    if not log_probs.dtype.is_floating_point or log_probs.dim() not in (2, 3):
        return NotImplemented
    if log_probs.dim() == 3:
        batch = log_probs.shape[1]
        for each in lengths[:2]:
            if isinstance(each, Tensor) and each.shape[0] != batch:
                raise RuntimeError(f"ctc_loss: lengths are {list(each.shape)}; the batch is {batch}")
        if targets.dim() == 2 and targets.shape[0] != batch:
            raise RuntimeError(f"ctc_loss: targets are for a batch of {targets.shape[0]}, not {batch}")
        if reduction == "none":
            return made_like(log_probs, batch)
    return made_like(log_probs)


def not_left_aligned(symbols: Symbols, *args: Any) -> bool:
    """torch._nested_tensor_from_mask_left_aligned: an encoder's padded result has the shape of its input either way."""
    return False
