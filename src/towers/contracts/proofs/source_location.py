"""Where in the user's code something happens, and torch's own talk about it kept quiet."""

import inspect
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import torch

_TORCH = str(Path(torch.__file__).parent)
_CONTRACTS = str(Path(__file__).parent.parent)
_LAYERS = str(Path("torch", "nn", "modules"))
_PYTHON, _PACKAGES = str(Path(inspect.__file__).parent), str(Path(torch.__file__).parent.parent)


def running_at(stop: str) -> str:
    """File and line that run now, seen from a function `run` of the file `stop`; a layer of torch's where none else."""
    frame = inspect.currentframe()
    found = ""
    while frame is not None:
        file = frame.f_code.co_filename
        if file == stop and frame.f_code.co_name == "run":
            break
        if not _is_ours(file) and (
            not file.startswith(_TORCH) or (_LAYERS in file and not found and not file.endswith("module.py"))
        ):
            found = f"{Path(file).name}:{frame.f_lineno}"
            if not file.startswith(_TORCH):
                break
        frame = frame.f_back
    return found


def raised_at(trace: TracebackType | None) -> str:
    """File and line of the user's code that an error came through last."""
    found = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(_TORCH) and not _is_ours(file):
            found = f"{Path(file).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _is_ours(file: str) -> bool:
    """Whether the code is of contracts, was made from text, or is of Python's own library."""
    return file.startswith((_CONTRACTS, "<")) or (file.startswith(_PYTHON) and not file.startswith(_PACKAGES))


@contextmanager
def quiet() -> Generator[None]:
    """Without the tracebacks that fake tensors log for each shape that does not fit."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
