"""The C library loaded anew in this process, as the environment asks; and the levels that this processor can run."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from towers.kernels.cpu import door, library

CACHES = (library.code, library._loaded, library.asked, library._warn_once, door._lstm_code)


@contextmanager
def loaded_anew() -> Iterator[pytest.MonkeyPatch]:
    """As in a process that has not asked for C code yet; at the end too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TOWERS_NATIVE", raising=False)
        forget()
        try:
            yield patch
        finally:
            forget()


def forget() -> None:
    for cached in CACHES:
        cached.cache_clear()


@contextmanager
def at_level(level: str) -> Iterator[None]:
    """With TOWERS_NATIVE set so; a level that this machine cannot run is skipped."""
    with loaded_anew() as patch:
        patch.setenv("TOWERS_NATIVE", level)
        if level != "off" and library.why_not() is not None:
            pytest.skip(f"the C code cannot run: {library.why_not()}")
        yield
