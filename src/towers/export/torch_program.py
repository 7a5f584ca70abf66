"""TwoTowers as a torch.export program, and compiled by AOTInductor."""

import inspect
import json
import shutil
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from towers.export.interface import Batch, Interface
from towers.kernels.cpu.tower_operator import kept_in_exports

Runner = Callable[[Batch], tuple[Tensor, ...]]


def program(interface: Interface, *, with_towers: bool = False) -> Any:
    """The program, for every batch and every number of words from the smallest on."""
    batch = interface.draw(3, 5, 0)
    dims: dict[str | int, Any] = {name: torch.export.Dim(name, min=low) for name, low in interface.lowest().items()}
    shapes = {
        entry.name: {place: dims[axis] for place, axis in enumerate(entry.axes) if isinstance(axis, str)}
        for entry in interface.inputs()
    }
    if not with_towers:
        return torch.export.export(interface.portable().eval(), (), batch, dynamic_shapes=shapes)
    with kept_in_exports():
        return torch.export.export(interface.whole().eval(), (), batch, dynamic_shapes=shapes)


def write_program(interface: Interface, path: Path, *, with_towers: bool = False) -> Runner:
    """Write it for torch.export.load; the function runs what was loaded."""
    save: Any = torch.export.save
    save(
        program(interface, with_towers=with_towers), path, extra_files={"towers.json": json.dumps(interface.metadata())}
    )
    load: Any = torch.export.load
    module: Any = load(path).module()
    return lambda batch: _all(module(**batch))


def write_compiled(interface: Interface, path: Path) -> Runner:
    """Compile it for this machine; the function runs what was loaded.

    Raises:
        ValueError: there is no C++ compiler, or this version of torch writes no checks of inputs.
    """
    import torch._inductor

    compiler: Any = torch._inductor

    if not any(map(shutil.which, ("g++", "c++", "clang++", "cl"))):
        raise ValueError("format aoti needs a C++ compiler (g++ or clang++); none was found")
    configs: dict[str, Any] = {"aot_inductor.metadata": interface.metadata()}  # get_metadata() of what is loaded
    if hasattr(compiler.config.aot_inductor, "check_lowerbound"):
        configs["aot_inductor.check_lowerbound"] = False  # of sizes that torch takes to be above 1, such as batches
    with _checking_inputs(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's about its own code
        compiler.aoti_compile_and_package(program(interface), package_path=str(path), inductor_configs=configs)
    run = compiler.aoti_load_package(str(path))
    return lambda batch: _all(run(**batch))


@contextmanager
def _checking_inputs() -> Generator[None]:
    """Compiled files check their inputs, always.

    AOTInductor writes the checks of dtypes, sizes and strides, but a file makes them only where the variable
    AOTI_RUNTIME_CHECK_INPUTS is set, and else computes numbers from whatever it is given (pytorch#141115). Here what
    the file asks the variable with, getenv, is replaced by an answer.
    """
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu

    wrapper: Any = CppWrapperCpu
    usual = getattr(wrapper, "generate_input_output_runtime_checks", None)
    if usual is None or 'getenv("AOTI_RUNTIME_CHECK_INPUTS")' not in inspect.getsource(usual):
        raise ValueError(f"format aoti: this torch ({torch.__version__}) would write no checks of inputs; 2.13 does")

    def written(self: Any) -> None:
        self.prefix.splice_aot('#define getenv(name) "1"')
        usual(self)
        self.prefix.splice_aot("#undef getenv")

    wrapper.generate_input_output_runtime_checks = written
    try:
        yield
    finally:
        wrapper.generate_input_output_runtime_checks = usual


def _all(found: Any) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)
