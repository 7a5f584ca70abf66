"""Operations that torch runs by looking at values, or that take a size for a number: what they give on symbolic sizes.

As in `layer_rules`, the first argument is the symbols of the run.
"""

from typing import Any

import torch
from torch import SymFloat, SymInt, Tensor

from towers.contracts.proofs.fast_meta import items_of, made, made_like, plain, shape_of, whole
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


def one_hot(symbols: Symbols, tensor: Any, num_classes: Any = -1) -> Any:
    """F.one_hot of a number of classes that is a size."""
    if not isinstance(num_classes, SymInt) or not plain(tensor) or tensor.dtype != torch.int64:
        return NotImplemented
    if not symbols.from_on(num_classes, 1) and num_classes < 1:
        raise RuntimeError("Class values must be smaller than num_classes.")
    return made((*tensor.shape, num_classes), torch.int64)


def tensor_of(symbols: Symbols, data: Any, **options: Any) -> Any:
    """torch.tensor and torch.as_tensor of numbers some of which are computed from sizes."""
    if isinstance(data, Tensor) or not options.keys() <= {"dtype", "device", "requires_grad"}:
        return NotImplemented
    shape: list[int] = []
    numbers: list[Any] = [data]
    while numbers and isinstance(numbers[0], (list, tuple)):
        counts = {len(items_of(each)) if isinstance(each, (list, tuple)) else -1 for each in numbers}
        if len(counts) > 1:
            return NotImplemented
        shape += counts
        numbers = [inner for each in numbers for inner in items_of(each)]
    symbolic = any(isinstance(each, (SymInt, SymFloat)) for each in numbers)
    if not symbolic or not all(isinstance(each, (int, float, SymInt, SymFloat)) for each in numbers):
        return NotImplemented
    floats = any(isinstance(each, (float, SymFloat)) for each in numbers)
    return made(shape, options.get("dtype") or (torch.get_default_dtype() if floats else torch.int64))


def cov(symbols: Symbols, input: Any, **options: Any) -> Any:
    """torch.cov and torch.corrcoef of floating numbers: a square, but a single number for one variable."""
    if not plain(input) or input.dim() > 2 or not input.dtype.is_floating_point or options.keys() - {"correction"}:
        return NotImplemented
    one = input.dim() < 2 or input.shape[0] == 1
    return made(() if one else (input.shape[0], input.shape[0]), input.dtype)


def topk(symbols: Symbols, input: Any, k: Any, dim: Any = -1, largest: Any = True, sorted: Any = True) -> Any:
    """torch.topk of a number that is computed from sizes, of which torch makes an int."""
    if not isinstance(k, SymInt) or not plain(input) or type(dim) is not int or not -input.dim() <= dim < input.dim():
        return NotImplemented
    if (not symbols.from_on(k, 0) and k < 0) or k > input.shape[dim]:
        raise RuntimeError("selected index k out of range")
    shape = [k if axis == dim % input.dim() else size for axis, size in enumerate(input.shape)]
    return torch.return_types.topk((made(shape, input.dtype), made(shape, torch.int64)))


def full_like(symbols: Symbols, input: Any, fill_value: Any, **options: Any) -> Any:
    """torch.full_like of a number that is computed from sizes."""
    if not isinstance(fill_value, (SymInt, SymFloat)) or not whole(input) or not options.keys() <= {"dtype", "device"}:
        return NotImplemented
    return made(input.shape, options.get("dtype") or input.dtype)


def full(symbols: Symbols, size: Any, fill_value: Any, **options: Any) -> Any:
    """torch.full of a number that is computed from sizes."""
    shape = shape_of((items_of(size),))
    if not isinstance(fill_value, (SymInt, SymFloat)) or shape is None or not options.keys() <= {"dtype", "device"}:
        return NotImplemented
    usual = torch.int64 if isinstance(fill_value, SymInt) else torch.get_default_dtype()
    return made(shape, options.get("dtype") or usual)


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
