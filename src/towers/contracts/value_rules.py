"""Rules on values: which may be looked at, and how, in eager code and in a graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor  # pyright: ignore

from towers.contracts import modes
from towers.contracts.codegen.size_checks import NUMBERS
from towers.contracts.layouts import RaggedAxis


def applies(package: str, owner: object, *operands: object) -> bool:
    """Whether a condition on these can be looked at: on ints always, on values where no device has to wait.

    In a graph torch's own assert looks at them. Under vmap they are left out: a rule for one row cannot stop all.
    """
    switch = modes.switch
    mode = switch.of(package, owner) if switch.unusual else switch.mode
    for operand in operands:
        values = operand.offsets if isinstance(operand, RaggedAxis) else operand
        if isinstance(values, Tensor):
            if not (_in_graph(values) or modes.may_read(values, mode)):
                return False
        elif not isinstance(values, NUMBERS):
            return False
    return True


def counts(operand: Any) -> Any:
    """What is compared: a number, values, or the lengths of a ragged axis."""
    return operand.lengths if isinstance(operand, RaggedAxis) else operand


def holds(compare: Callable[[Any, Any], Any], subject: Any, bound: Any, text: str) -> bool:
    """Whether a condition holds, for every value of a tensor; in a graph an assert of torch's says so later."""
    fine = compare(subject, bound)
    if not isinstance(fine, Tensor):
        return bool(fine)
    if torch.compiler.is_compiling():
        torch.ops.aten._assert_async.msg(fine.all(), f"{text} does not hold")
        return True
    return bool(fine.all())


def _in_graph(values: Tensor) -> bool:
    return torch.compiler.is_compiling() and not is_batchedtensor(values)
