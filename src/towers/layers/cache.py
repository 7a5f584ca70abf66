"""A result that is kept until one of the tensors that it was computed from changes."""

import ctypes
import os
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

_compare: Any = ctypes.CDLL(None).memcmp if os.name == "posix" else None


class VersionedCache:
    """The latest result, and the tensors that it was computed from. Copies and pickles of a cache are empty."""

    def __init__(self) -> None:
        self._latest: tuple[Sequence[object], Sequence[Tensor | None], Tensor] | None = None

    def __reduce__(self) -> tuple[type["VersionedCache"], tuple[()]]:
        return VersionedCache, ()

    def get(
        self, make: Callable[[], Tensor], *, large: Sequence[Tensor], small: Sequence[Tensor], how: Hashable = None
    ) -> Tensor:
        """The result of `make`, computed again if a tensor or `how` has changed since.

        A change is an in-place operation, another storage or another view. For `small` tensors on the CPU the values
        are compared too: this finds a change through `.data`, which torch does not count.
        """
        state = [how, *map(_state, large), *map(_state, small)]  # read first, so that a change during the work counts
        latest = self._latest  # read once: another thread may replace it
        if latest is not None and latest[0] == state and all(map(_equal, latest[1], small)):
            return latest[2]
        copies = [tensor.detach().clone() if tensor.is_cpu else None for tensor in small]
        with torch.inference_mode(False), torch.no_grad():  # a tensor of inference mode cannot be used outside of it
            result = make()
        self._latest = (state, copies, result)
        return result

    def clear(self) -> None:
        """Forget the result."""
        self._latest = None


def can_keep(*tensors: Tensor) -> bool:
    """Whether torch counts the changes of these tensors, and no gradient of them is wanted."""
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return not wanted and not any(tensor.is_inference() for tensor in tensors)


def _state(tensor: Tensor) -> tuple[Any, ...]:
    view = (StorageWeakRef(tensor.untyped_storage()), tensor.storage_offset(), tensor.shape, tensor.stride())
    return (*view, tensor.dtype, tensor._version)


def _equal(copy: Tensor | None, tensor: Tensor) -> bool:
    """Whether no bit has changed. `torch.equal` takes seven times as long: 13 of the 100 µs of a tower's call.

    (`python benchmarks/run.py tower`, row "towers, ids" at batch 1.)
    """
    if copy is None:
        return True
    if _compare is None or not (copy.is_contiguous() and tensor.is_contiguous()):
        return torch.equal(copy, tensor)
    addresses = (ctypes.c_void_p(part.data_ptr()) for part in (copy, tensor))
    return _compare(*addresses, ctypes.c_size_t(tensor.nbytes)) == 0
