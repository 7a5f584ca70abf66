"""How many threads torch's own operations take."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def threads(one: bool) -> Generator[None]:
    """One thread where more would only wait for each other; in this thread of Python alone."""
    before = torch.get_num_threads()
    if not one or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
