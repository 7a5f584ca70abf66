"""`towers about`: what runs here; for reports of faults."""

import argparse
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from towers.cli.arguments import Parser

HELP = """
Print what runs here: versions, the native code and why it runs or not, threads, GPU and Triton. Put it into a report of
a fault.

  $ towers about | cut -d : -f 1
  towers
  Python
  system
  processor
  packages
  native code
  threads
  GPU
  Triton
  environment
"""

PACKAGES = ("torch", "einops", "jaxtyping", "beartype", "numpy")
FURTHER = ("lightning", "torchmetrics", "safetensors", "polars", "h5py", "onnx", "onnxruntime", "huggingface_hub")
VARIABLES = ("TOWERS_NATIVE", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "TRITON_INTERPRET")
"""Variables of the environment that change which code runs."""


def add_options(about: Parser) -> None:
    """The command has none."""
    about.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print a line for each fact. What is broken is said in its line, and ends nothing."""
    for name, fact in facts():
        print(f"{name}: {fact}")


def facts() -> Iterator[tuple[str, str]]:
    """Names and values, in the order in which they are printed."""
    import towers

    yield "towers", f"{version('towers')}, {Path(towers.__file__).parent}"
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "system", platform.platform()
    yield "processor", f"{_processor()}, {os.cpu_count()} cores"
    yield "packages", ", ".join(_versions())
    yield "native code", _native()
    yield "threads", _threads()
    yield "GPU", _gpu()
    yield "Triton", _version("triton") or "not installed"
    yield "environment", ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ) or "-"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions() -> Iterator[str]:
    """Of those that towers needs, and of those that are there."""
    for package in (*PACKAGES, *FURTHER):
        found = _version(package)
        if found is not None or package in PACKAGES:
            yield f"{package} {found or 'is not installed'}"


def _native() -> str:
    from towers.kernels.cpu import library
    from towers.kernels.cpu.built import REPORT

    try:
        refusal = library.why_not()
    except (ImportError, ValueError) as error:
        return f"none: {error}"
    if refusal is not None:
        return f"none: {refusal}"
    built = REPORT.read_text(encoding="utf8").strip() if REPORT.exists() else "its build left no report"
    return f"{library.level()} ({built})"


def _threads() -> str:
    import torch

    from towers.kernels.cpu.threads import parallel_for

    own = "C code runs on them" if parallel_for() is not None else "C code runs on one: this torch shares none"
    return f"{torch.get_num_threads()} of torch; {own}"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none that torch can use"
    told: list[str] = []
    for number in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(number)
        told.append(f"{torch.cuda.get_device_name(number)}, compute capability {major}.{minor}")
    return f"{'; '.join(told)}; CUDA {torch.version.cuda}"
