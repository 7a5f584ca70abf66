"""TwoTowers as a file that runs where towers is not installed: ONNX, a torch.export program, or AOTInductor's."""

import copy
import shutil
import tempfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from towers.export.interface import Input, Interface
from towers.model import TwoTowers

__all__ = ["Exported", "Format", "export"]

Format = Literal["onnx", "torch", "aoti"]

_CLOSE = 1e-4
_TRIED = ((3, 5), (1, 0), (5, 0), (1, 9), (0, 3), (32, 20))
"""Sentences, and words beyond the smallest number, of the batches on which file and model are compared."""

Runner = Callable[[dict[str, Tensor]], Tensor]


class Exported(NamedTuple):
    """What was written: the inputs in their order, and how far file and model are apart."""

    path: Path
    inputs: tuple[Input, ...]
    largest_difference: float

    def __str__(self) -> str:
        lines = [f"  {entry}" for entry in self.inputs]
        compared = f"{len(_TRIED)} drawn batches: file and model differ by at most {self.largest_difference:.1e}"
        return "\n".join(["inputs", *lines, "output", "  logit: float32 (batch)", compared, f"saved {self.path}"])


def export(
    model: TwoTowers,
    path: str | PathLike[str],
    *,
    format: Format = "onnx",
    ids: bool = False,
    table: Tensor | None = None,
) -> Exported:
    """Write a file for any batch and any number of words that the towers take, and compare it with the model.

    Inputs are `left`, `right` (batch, words, width), and int64 `left_lengths`, `right_lengths` (batch) for each tower
    of any number of words; the output is `logit` (batch), whose sigmoid is the probability. A length that the tower
    does not take ends in an error when the file runs.

    Args:
        model: in float32; it is copied to the CPU.
        path: appears whole, after file and model were compared.
        format: "onnx" (opset 18, standard operators), "torch" (for torch.export.load) or "aoti" (compiled, for
            torch._inductor.aoti_load_package; it needs a C++ compiler, and compares the sizes of inputs only with
            AOTI_RUNTIME_CHECK_INPUTS=1 in the environment of who runs it).
        ids: take word ids (batch, words) in place of vectors; with `table` inside the file, without it as the input
            `table` (vocabulary, width).
        table: float32 vectors (vocabulary, width).

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        OSError: the file cannot be written.
        ValueError: the format is none of the three, the model or the table is not float32, widths differ, a layer of a
            tower was replaced, no C++ compiler was found, or file and model differ.
    """
    if format not in get_args(Format):
        raise ValueError(f"format is {format!r}; one of {', '.join(get_args(Format))} belongs there")
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    _check(model, ids, table)
    place = ("outside" if table is None else "inside") if ids else None
    interface = Interface(model, "ids" if ids else "vectors", table, place)
    path = Path(path)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{path.absolute().parent}: no folder; make it first")
    folder = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name}."))
    try:
        partial = folder / f"network.{'onnx' if format == 'onnx' else 'pt2'}"
        run = _writer(format)(interface, partial)
        difference = _compared(interface, run, path)
        partial.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Exported(path, tuple(interface.inputs()), difference)


def _check(model: TwoTowers, ids: bool, table: Tensor | None) -> None:
    from towers.layers.lstm import RaggedLSTM
    from towers.layers.phrases import PhraseConv
    from towers.layers.pool import FeaturePool

    if model.has_other_parts:
        raise ValueError("the model has parts that are not exported yet: only TwoTowers' usual ones are")
    for side, tower in (("left", model.left), ("right", model.right)):
        if (type(tower.conv), type(tower.pool), type(tower.lstm)) != (PhraseConv, FeaturePool, RaggedLSTM):
            raise ValueError(f"{side}: one of its layers was replaced; Tower's own layers are exported")
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise ValueError(f"{name} is {parameter.dtype}; files are float32: model.float() first")
    if table is not None and not ids:
        raise ValueError("table goes with ids=True")
    if ids and model.left.vector_width != model.right.vector_width:
        raise ValueError("with ids both towers read one table; their vector_width differ")
    if table is not None and (table.dim() != 2 or table.shape[1] != model.left.vector_width):
        raise ValueError(f"table is {tuple(table.shape)}; (vocabulary, {model.left.vector_width}) belongs there")
    if table is not None and table.dtype != torch.float32:
        raise ValueError(f"table is {table.dtype}; float32 belongs there")


def _writer(format: Format) -> Callable[[Interface, Path], Runner]:
    """What writes a file and gives a function that runs it."""
    if format == "onnx":
        from towers.export.onnx_file import write_onnx

        return write_onnx
    from towers.export import torch_program

    return torch_program.write_program if format == "torch" else torch_program.write_compiled


def _compared(interface: Interface, run: Runner, path: Path) -> float:
    largest = 0.0
    for seed, (sentences, words) in enumerate(_TRIED):
        batch = interface.draw(sentences, words, seed)
        found, wanted = run(batch), interface.expected(batch)
        if found.shape != wanted.shape:
            raise ValueError(
                f"{path}: gives {tuple(found.shape)} where the model gives {tuple(wanted.shape)}; not kept"
            )
        difference = float((found - wanted).abs().max()) if sentences else 0.0
        if not difference < _CLOSE:
            raise ValueError(f"{path}: file and model differ by {difference:.1e} on a drawn batch; not kept")
        largest = max(largest, difference)
    return largest
