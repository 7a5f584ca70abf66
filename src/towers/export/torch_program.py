"""The same as a torch.export program, and compiled by AOTInductor."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from towers.export.interface import Interface
from towers.export.onnx_file import metadata
from towers.export.portable import Portable

Runner = Callable[[dict[str, Tensor]], Tensor]


def program(interface: Interface) -> Any:
    """The program, for every batch and every number of words from the smallest on."""
    module = Portable(interface.model, ids=interface.source == "ids", table=interface.table).eval()
    batch = interface.draw(3, 5, 0)
    lowest = {"batch": 0, "vocabulary": 2}
    lowest |= {f"{side}_words": tower.kernel_words for side, tower in interface.sides()}
    dims: dict[str | int, Any] = {name: torch.export.Dim(name, min=low) for name, low in lowest.items()}
    shapes = {
        entry.name: {place: dims[axis] for place, axis in enumerate(entry.axes) if isinstance(axis, str)}
        for entry in interface.inputs()
    }
    return torch.export.export(module, (), batch, dynamic_shapes=shapes)


def write_program(interface: Interface, path: Path) -> Runner:
    """Write it for torch.export.load; the function runs what was loaded."""
    save: Any = torch.export.save
    save(program(interface), path, extra_files={"towers.json": json.dumps(metadata(interface))})
    load: Any = torch.export.load
    module: Any = load(path).module()
    return lambda batch: module(**batch)


def write_compiled(interface: Interface, path: Path) -> Runner:
    """Compile it for this machine; the function runs what was loaded.

    Raises:
        ValueError: there is no C++ compiler.
    """
    import torch._inductor

    compiler: Any = torch._inductor

    if not any(map(shutil.which, ("g++", "c++", "clang++", "cl"))):
        raise ValueError("format aoti needs a C++ compiler (g++ or clang++); none was found")
    compiler.aoti_compile_and_package(program(interface), package_path=str(path))
    run = compiler.aoti_load_package(str(path))
    return lambda batch: run(**batch)
