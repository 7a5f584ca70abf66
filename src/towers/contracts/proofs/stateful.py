"""What a module keeps from one call to the next: sizes of an earlier call must not bind a later one."""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from towers.contracts.proofs.symbolic_inputs import Case

EARLIER = (1, 300)
"""How much larger than its smallest an axis is in the earlier call: less and more than in the later one."""


def keeps_sizes(module: nn.Module) -> bool:
    """Whether a size of the inputs hangs on some part of a module, as itself or as one of a tensor."""
    return any(_symbolic(value) for part in module.modules() for value in vars(part).values())


def _symbolic(value: Any, deep: bool = True) -> bool:
    if isinstance(value, Tensor):
        return not value.is_nested and any(isinstance(size, torch.SymInt) for size in cast(Any, value.shape))
    if deep and isinstance(value, (list, tuple, dict)):
        held: Any = cast(Any, value)
        return any(_symbolic(item, deep=False) for item in (held.values() if isinstance(value, dict) else held))
    return isinstance(value, torch.SymInt)


def earlier_sizes(case: Case) -> Iterator[dict[str, int]]:
    """Numbers for all axes in an earlier call."""
    for more in EARLIER:
        spans = case.spans().items()
        sizes = {name: span.first + (more + at) * span.step for at, (name, span) in enumerate(spans)}
        sizes = {name: sizes[name] if sizes[name] in span else span.first for name, span in spans}
        if case.fits(sizes):
            yield sizes
