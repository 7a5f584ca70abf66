"""Writing into a tensor whose numbers lie at one place, as `expand` makes it: torch refuses it, but not on symbols."""

from typing import Any

from torch import Tensor

from towers.contracts.proofs.fast_meta import items_of, plain

_NAMES = (
    *("add_", "sub_", "mul_", "div_", "copy_", "addcmul_", "addcdiv_", "lerp_", "clamp_", "relu_", "sigmoid_", "tanh_"),
    *("neg_", "exp_", "sqrt_", "__iadd__", "__isub__", "__imul__", "__itruediv__"),
)

WRITES: set[Any] = {getattr(Tensor, name) for name in _NAMES}
"""What writes into its first argument and looks whether the numbers of that lie apart."""


def refuse_overlaps(func: Any, args: Any) -> None:
    """Refuse what torch refuses, before it is done.

    Raises:
        RuntimeError: some numbers of the tensor that is written lie at one place.
    """
    tensor = args[0]
    if not plain(tensor) or 0 not in _fixed(tensor):
        return
    if func is Tensor.__setitem__:
        index, value = args[1:3] if len(args) == 3 else ((), None)
        parts = items_of(index) if isinstance(index, tuple) else [index]
        if not isinstance(value, Tensor) or not all(type(each) in (int, slice, type(...)) for each in parts):
            return
        tensor = tensor[index]
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if type(stride) is int and stride == 0 and size > 1:
            raise RuntimeError(
                "unsupported operation: more than one element of the written-to tensor refers to a single memory "
                "location. Please clone() the tensor before performing the operation."
            )


def _fixed(tensor: Tensor) -> list[int]:
    """The strides that are numbers."""
    return [stride for stride in tensor.stride() if type(stride) is int]
