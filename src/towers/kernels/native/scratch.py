# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Memory that C code works in during one call: what is given back to the system and fetched again costs more than the
work. For weights of 128 units, packed, 128 pages are first touched, which takes longer than to pack them.
"""

import threading

import torch
from torch import Tensor

MOST = 1 << 23  # bytes that are kept; what is larger is made anew


class _Kept(threading.local):
    def __init__(self) -> None:
        self.places: dict[str, Tensor] = {}


_kept = _Kept()


def scratch(name: str, count: int, like: Tensor) -> Tensor:
    """Memory for so many numbers, for the next call of C alone; each thread has its own of each name."""
    size = count * like.element_size()
    place = _kept.places.get(name)
    if place is None or place.numel() < size:
        place = torch.empty(size, dtype=torch.uint8, device="cpu")
        if size <= MOST:
            _kept.places[name] = place
    return place
