"""Modules whose truth is known at every size, found by running them on real tensors and never by the prover."""

import inspect
import math
import random
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple, get_args, get_origin

import torch
from torch import Tensor, nn

SIZES = (*range(1, 41), 48, 63, 64, 65, 96, 100, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025)
"""Of a module with one axis."""
FEW = (*range(1, 13), 16, 17, 20, 24, 32, 33, 49, 64)
"""Of two axes, in every pair; of more, sampled."""


class Known(NamedTuple):
    """A module and the sizes at which its contract holds."""

    module: type[nn.Module]
    holds: str
    """True at exactly those sizes, in Python; `floor` and `ceil` are known."""
    source: str | None = None
    """The public report or the public code that it is after."""
    keeps_state: bool = False
    """It fails only in a call after one of another size."""


def axes(module: nn.Module) -> list[str]:
    """The names of the axes of the arguments of `forward`."""
    found: dict[str, None] = {}
    for hint in _hints(module).values():
        for dim in hint.dim_str.split():
            if re.fullmatch(r"[a-z]\w*", dim):
                found[dim] = None
    return list(found)


def grid(names: list[str], count: int | None = None) -> Iterator[dict[str, int]]:
    """Sizes to try: all pairs of two axes, a fixed sample of more; `count`: only so many of them."""
    dice = random.Random(0)
    if not names:
        points = [()]
    elif len(names) == 1:
        points = [(size,) for size in SIZES]
    elif len(names) == 2:
        points = [(one, two) for one in FEW for two in FEW]
    else:
        points = [tuple(dice.choice(FEW[: dice.choice((4, 9, 19))]) for _ in names) for _ in range(300)]
        points += [(size,) * len(names) for size in FEW]
    if count is not None and len(points) > count:
        points = dice.sample(points, count)
    for point in points:
        if math.prod(point) < 2**17:
            yield dict(zip(names, point, strict=True))


def claimed(holds: str, sizes: dict[str, int]) -> bool:
    """Whether a condition is true at these sizes."""
    return bool(eval(holds, {"floor": math.floor, "ceil": math.ceil, "min": min, "max": max}, dict(sizes)))


def runs(module: nn.Module, sizes: dict[str, int]) -> bool:
    """Whether the module gives what it promises, for at least one kind of values; a wrong shape counts at once."""
    result = _promise(module)
    for kind in range(4):
        try:
            answer = module(**_arguments(module, sizes, kind))
        except Exception:
            continue
        return _fits(answer, result, sizes)
    return False


def truth_differs(known: Known, count: int | None = None) -> list[dict[str, int]]:
    """The sizes at which `holds` is not what happens: each on a fresh copy, or one copy for all if it keeps state."""
    module = known.module()
    wrong: list[dict[str, int]] = []
    failed = False
    for sizes in grid(axes(module), count):
        one = module if known.keeps_state else deepcopy(module)
        torch.manual_seed(0)
        held = runs(one, sizes)
        failed |= not held
        if held != claimed(known.holds, sizes) and not known.keeps_state:
            wrong.append(sizes)
    return [{"never failed": 1}] if known.keeps_state and not failed else wrong


def _hints(module: nn.Module) -> dict[str, Any]:
    forward = inspect.unwrap(type(module).forward)
    hints = {name: hint for name, hint in forward.__annotations__.items() if name != "return"}
    return {name: hint for name, hint in hints.items() if hasattr(hint, "dim_str")}


def _promise(module: nn.Module) -> Any:
    return inspect.unwrap(type(module).forward).__annotations__["return"]


def _size(dim: str, sizes: dict[str, int]) -> int:
    return int(eval(dim, {"min": min, "max": max}, dict(sizes)))


def _arguments(module: nn.Module, sizes: dict[str, int], kind: int) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    for name, hint in _hints(module).items():
        shape = [_size(dim, sizes) for dim in hint.dim_str.split()]
        dtypes = " ".join(hint.dtypes)
        if "bool" in dtypes:
            made[name] = [torch.zeros, torch.ones, torch.ones, torch.zeros][kind](shape, dtype=torch.bool)
        elif "float" in dtypes:
            made[name] = [torch.randn, torch.rand, torch.ones, torch.zeros][kind](shape)
        else:
            made[name] = torch.full(shape, (0, 1, 2, 3)[kind])
    return made


def _fits(answer: Any, promise: Any, sizes: dict[str, int]) -> bool:
    if get_origin(promise) is tuple:
        parts = get_args(promise)
        return len(answer) == len(parts) and all(
            _fits(one, part, sizes) for one, part in zip(answer, parts, strict=True)
        )
    shape = [_size(dim, sizes) for dim in promise.dim_str.split()]
    family = "float" if answer.is_floating_point() else "bool" if answer.dtype == torch.bool else "int"
    return list(answer.shape) == shape and family in " ".join(promise.dtypes)
