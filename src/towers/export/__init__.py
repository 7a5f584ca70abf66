"""TwoTowers or RaggedLSTM as a file that runs where towers is not installed: ONNX, torch.export's or AOTInductor's."""

import copy
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from towers.export.interface import TRIED, Batch, Input, Interface, TowersInterface
from towers.export.lstm_interface import LSTMInterface
from towers.layers.lstm import RaggedLSTM
from towers.model import TwoTowers

__all__ = ["Exported", "Format", "export"]

Format = Literal["onnx", "torch", "aoti"]

_CLOSE = 1e-4

Runner = Callable[[Batch], tuple[Tensor, ...]]


class Exported(NamedTuple):
    """What was written.

    Attributes:
        path: the file.
        inputs: its inputs, in their order.
        outputs: its outputs, in their order.
        largest_difference: between the outputs of the file and of the model, on the batches that compare them.
    """

    path: Path
    inputs: tuple[Input, ...]
    outputs: tuple[Input, ...]
    largest_difference: float

    def __str__(self) -> str:
        lines = ["inputs", *(f"  {entry}" for entry in self.inputs)]
        lines += ["outputs" if len(self.outputs) > 1 else "output", *(f"  {entry}" for entry in self.outputs)]
        compared = f"{len(TRIED)} drawn batches: file and model differ by at most {self.largest_difference:.1e}"
        return "\n".join([*lines, compared, f"saved {self.path}"])


def export(
    model: TwoTowers | RaggedLSTM,
    path: str | PathLike[str],
    *,
    format: Format = "onnx",
    ids: bool = False,
    table: Tensor | None = None,
    words: Sequence[str] | None = None,
    states: bool = False,
    with_towers: bool = False,
) -> Exported:
    """Write a file for any batch and any number of words that the towers take, and compare it with the model.

    Of TwoTowers, inputs are `left`, `right` (batch, words, width), and int64 `left_lengths`, `right_lengths` (batch)
    for each tower of any number of words; the output is `logit` (batch), whose sigmoid is the probability. A length
    that the tower does not take ends in an error when the file runs.

    Of a RaggedLSTM, inputs are `input`, in the order of its `batch_first`, and int64 `lengths` (batch), from 0 to the
    number of steps; outputs are `output`, `h_n` and `c_n`. Every option is exported: layers, directions, biases, gates
    and, but for ONNX, whose LSTM has none, projections. There is no dropout in the file. Its ONNX file
    is for onnxruntime: OpenVINO (2026.4, on a CPU) ignores the lengths of ONNX's LSTM, on which files of TwoTowers do
    not rely.

    Args:
        model: in float32; it is copied to the CPU.
        path: appears whole, after file and model were compared.
        format: "onnx" (opset 18, standard operators), "torch" (for torch.export.load) or "aoti" (compiled, for
            torch._inductor.aoti_load_package; it needs a C++ compiler, and checks the sizes of inputs only if
            AOTI_RUNTIME_CHECK_INPUTS=1 is set when the file runs).
        ids: take word ids (batch, words) in place of vectors; with `table` inside the file, without it as the input
            `table` (vocabulary, width).
        table: float32 vectors (vocabulary, width).
        words: the word of each row of the table, for the file's metadata (a JSON list, "words").
        states: of a RaggedLSTM, take `h_0` and `c_0` as inputs too.
        with_towers: of format "torch", keep towers' own operations. Such a program is faster, and runs only where
            towers is installed: `from towers import RaggedLSTM` comes before torch.export.load.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        OSError: the file cannot be written.
        ValueError: the format is none of the three, the model or the table is not float32, widths differ, a layer of a
            tower was replaced, an option is not one of this kind of model, ONNX has no such LSTM, no C++ compiler was
            found, or file and model differ.

    >>> import tempfile
    >>> from towers import TwoTowers
    >>> from towers.export import export
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     exported = export(TwoTowers(), f"{folder}/model.pt2", format="torch")
    >>> print(exported.inputs[1])
    right: float32 (batch, 5, 300)
    """
    if format not in get_args(Format):
        raise ValueError(f"format is {format!r}; one of {', '.join(get_args(Format))} belongs there")
    if with_towers and format != "torch":
        raise ValueError(f"with_towers is for format torch; {format} has no place for towers' own operations")
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise ValueError(f"{name} is {parameter.dtype}; files are float32: model.float() first")
    interface: Interface
    if isinstance(model, RaggedLSTM):
        _check_lstm(model, format, ids or table is not None or words is not None)
        interface = LSTMInterface(model, states)
    else:
        _check_towers(model, ids, table, states)
        if words is not None and (table is None or len(words) != len(table)):
            rows = "there is no table" if table is None else f"the table has {len(table)} rows"
            raise ValueError(f"words has {len(words)} words; {rows}")
        place = ("outside" if table is None else "inside") if ids else None
        kept = None if words is None else tuple(words)
        interface = TowersInterface(model, "ids" if ids else "vectors", table, place, kept)
    path = Path(path)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{path.absolute().parent}: no folder; make it first")
    folder = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name}."))
    try:
        written = folder / f"network.{'onnx' if format == 'onnx' else 'pt2'}"
        run = _writer(format, with_towers)(interface, written)
        difference = _compared(interface, run, path)
        written.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Exported(path, tuple(interface.inputs()), tuple(interface.outputs()), difference)


def _check_lstm(lstm: RaggedLSTM, format: Format, words: bool) -> None:
    if words:
        raise ValueError("ids, table and words are for TwoTowers; a RaggedLSTM takes vectors")
    if type(lstm).forward is not RaggedLSTM.forward:
        raise ValueError(f"{type(lstm).__name__} has a forward of its own, which would not be in the file")
    if lstm.proj_size and format == "onnx":
        raise ValueError(f"ONNX's LSTM has no projection (proj_size={lstm.proj_size}); formats torch and aoti have")


def _check_towers(model: TwoTowers, ids: bool, table: Tensor | None, states: bool) -> None:
    from towers.layers.phrases import PhraseConv
    from towers.layers.pool import FeaturePool

    if states:
        raise ValueError("states is for a RaggedLSTM; towers begin with zeros")
    if model.has_other_parts:
        raise ValueError("the model has parts that are not exported yet: only TwoTowers' usual ones are")
    for side, tower in (("left", model.left), ("right", model.right)):
        if (type(tower.conv), type(tower.pool), type(tower.lstm)) != (PhraseConv, FeaturePool, RaggedLSTM):
            raise ValueError(f"{side}: one of its layers was replaced; Tower's own layers are exported")
    if table is not None and not ids:
        raise ValueError("table goes with ids=True")
    if ids and model.left.vector_width != model.right.vector_width:
        raise ValueError("with ids both towers read one table; their vector_width differ")
    if table is not None and (table.dim() != 2 or table.shape[1] != model.left.vector_width):
        raise ValueError(f"table is {tuple(table.shape)}; (vocabulary, {model.left.vector_width}) belongs there")
    if table is not None and table.dtype != torch.float32:
        raise ValueError(f"table is {table.dtype}; float32 belongs there")


def _writer(format: Format, with_towers: bool) -> Callable[[Interface, Path], Runner]:
    """What writes a file and gives a function that runs it."""
    if format == "onnx":
        from towers.export.onnx_file import write_onnx

        return write_onnx
    from towers.export import torch_program

    if format == "torch":
        return partial(torch_program.write_program, with_towers=with_towers)
    return torch_program.write_compiled


def _compared(interface: Interface, run: Runner, path: Path) -> float:
    largest = 0.0
    for seed, (sentences, words) in enumerate(TRIED):
        batch = interface.draw(sentences, words, seed)
        pairs = zip(interface.outputs(), run(batch), interface.expected(batch), strict=True)
        for entry, found, wanted in pairs:
            if found.shape != wanted.shape:
                came, expected = tuple(found.shape), tuple(wanted.shape)
                raise ValueError(f"{path}: {entry.name} is {came} where the model gives {expected}; not kept")
            difference = float((found - wanted).abs().max()) if found.numel() else 0.0
            if not difference < _CLOSE:
                raise ValueError(f"{path}: file and model differ by {difference:.1e} on a drawn batch; not kept")
            largest = max(largest, difference)
    return largest
