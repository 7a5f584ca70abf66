"""A number that is drawn, such as the place of a random crop: it is a symbol that can be each number of its range.

As in `layer_rules`, the first argument of a rule is the symbols of the run.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from towers.contracts.proofs.fast_meta import items_of, made, plain, shape_of
from towers.contracts.proofs.layer_rules import first_batch_size
from towers.contracts.proofs.symbols import Symbols


def randint(symbols: Symbols, *given: Any, **options: Any) -> Any:
    """torch.randint(low, high, size) and torch.randint(high, size), of which the range is noted."""
    named = [options.pop(name) for name in ("low", "high", "size") if name in options]
    numbers = [*given, *named]
    if not 2 <= len(numbers) <= 3 or not options.keys() <= {"dtype", "device", "generator"}:
        return NotImplemented
    low, high = numbers[:2] if len(numbers) == 3 else (0, numbers[0])
    shape = shape_of((items_of(numbers[-1]),))
    if shape is None or not all(isinstance(each, (int, SymInt)) for each in (low, high)):
        return NotImplemented
    if not low < high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    result = made(shape, options.get("dtype") or torch.int64)
    if not result.is_inference():  # which has no version
        symbols.drawn[id(result)] = (result, result._version, low, high - 1)
    return result


def item(symbols: Symbols, input: Any) -> Any:
    """Tensor.item of numbers that were drawn."""
    _, version, low, high = symbols.drawn.get(id(input), (None, -1, 0, 0))
    if version < 0 or input._version != version or not all(type(size) is int and size == 1 for size in input.shape):
        return NotImplemented
    return symbols.fresh("a random number", low, high)


def part(symbols: Symbols, input: Any, index: Any) -> Any:
    """Tensor.__getitem__ at places that were drawn: those at the start stand for them, where all lie in the tensor."""
    if symbols.any_value and plain(input):
        places = items_of(index) if isinstance(index, tuple) else [index]
        if any(_drawn(symbols, each) for each in places):
            moved = _from_the_start(symbols, input, places)
            return NotImplemented if moved is None else input[moved]
    return first_batch_size(symbols, input, index)


def _drawn(symbols: Symbols, place: Any) -> bool:
    """Whether an index depends on a number that was drawn."""
    ends: tuple[Any, ...] = (place.start, place.stop) if type(place) is slice else (place,)
    return any(isinstance(each, SymInt) and each.node.expr.free_symbols & symbols.any_value for each in ends)


def _from_the_start(symbols: Symbols, input: Tensor, places: list[Any]) -> tuple[Any, ...] | None:
    """An index of parts of the same sizes, which lie in the same way; None where that is not known."""
    if any(isinstance(each, (Tensor, list)) or each is None or type(each) is bool for each in places):
        return None
    dots = [at for at, each in enumerate(places) if each is Ellipsis]
    if len(dots) > 1 or len(places) - len(dots) > input.dim():
        return None
    after = input.dim() - len(places)
    moved: list[Any] = []
    for at, each in enumerate(places):
        size: Any = input.shape[at + after if dots and at > dots[0] else at] if each is not Ellipsis else 0
        if not _drawn(symbols, each):
            moved.append(each)
        elif type(each) is slice:
            start, stop = 0 if each.start is None else each.start, size if each.stop is None else each.stop
            if each.step not in (None, 1) or not _known(start >= 0, start <= stop, stop <= size):
                return None
            moved.append(slice(0, stop - start))
        elif _known(each >= 0, each < size):
            moved.append(0)
        else:
            return None
    return tuple(moved)


def _known(*truths: Any) -> bool:
    """Whether comparisons are so without a question."""
    return all(statically_known_true(truth) for truth in truths)


def narrow(symbols: Symbols, input: Any, dim: Any, start: Any, length: Any) -> Any:
    """torch.narrow and Tensor.narrow at a place that was drawn."""
    if not plain(input) or type(dim) is not int or not -input.dim() <= dim < input.dim() or not _drawn(symbols, start):
        return NotImplemented
    if not _known(start >= 0, length >= 0, start + length <= input.shape[dim]):
        return NotImplemented
    return input.narrow(dim, 0, length)


RULES: dict[Any, Callable[..., Any]] = {
    torch.randint: randint,
    Tensor.item: item,
    Tensor.__getitem__: part,
}
