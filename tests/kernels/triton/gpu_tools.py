"""What tests on a GPU need besides the kernels: no wait for the device, and a sanitizer that works here."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def no_waiting() -> Iterator[None]:
    """An error in place of any wait for the device that torch knows of; the mode itself warns that it is a prototype."""
    torch.cuda.synchronize()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype feature")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype feature")
            torch.cuda.set_sync_debug_mode("default")


def sanitizer_refusal(program: str, tool: str) -> str | None:
    """Why compute-sanitizer cannot work here, if it cannot: a sandbox may keep it from the device."""
    trivial = "import torch; torch.ones(1, device='cuda').add_(1).item()"
    command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", trivial]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode == 0:
        return None
    return f"compute-sanitizer cannot run one addition here: {(done.stdout + done.stderr).strip()[-300:]}"
