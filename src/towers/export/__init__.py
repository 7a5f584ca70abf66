"""TwoTowers or RaggedLSTM as a file that runs where towers is not installed: ONNX, torch.export's or AOTInductor's."""

import copy
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from towers.ensemble import Ensemble
from towers.export.interface import TRIED, UNNAMED, Batch, Input, Interface, Labels, TowersInterface
from towers.export.lstm_interface import LSTMInterface
from towers.layers.lstm import RaggedLSTM
from towers.layers.pair_head import PairFeatures, PairHead
from towers.layers.phrases import PhraseConv
from towers.layers.pool import FeaturePool
from towers.layers.word_dropout import WordDropout
from towers.layers.word_features import WordFeatures
from towers.layers.word_map import WordMap
from towers.model import Tower, TwoTowers

__all__ = ["Exported", "Format", "Labels", "export"]

Format = Literal["onnx", "torch", "aoti"]

EXPORTED = frozenset(
    {TwoTowers, Ensemble, Tower, PhraseConv, FeaturePool, RaggedLSTM, WordMap, WordFeatures, WordDropout, PairFeatures,
     PairHead, nn.Linear, nn.Dropout, nn.ModuleList}
)  # fmt: skip
"""The layers of TwoTowers: what is not one of them would not be in the file."""

_CLOSE = 1e-4
"""How much a file may differ, beside the largest value of the output, or beside 1."""

_LARGEST_ONNX = (1 << 31) - (1 << 20)
"""The limit of protobuf, less 1 MiB for everything that is no number."""

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
    labels: Labels = UNNAMED,
    states: bool = False,
    with_towers: bool = False,
) -> Exported:
    """Write a file for any batch and any number of words that the towers take, and compare it with the model.

    Of TwoTowers and ensembles of them, inputs are `left`, `right` (batch, words, width), and int64 `left_lengths`,
    `right_lengths` (batch) for each tower of any number of words. The output is `logit` (batch), whose sigmoid is the
    probability; of several outputs it is (batch, outputs). A second head is the output `second_logit` (batch, outputs).
    A length that the tower does not take, a word id that is no row of the table, or another batch on one side, ends in
    an error when the file runs; ids past the end of a sentence are not read. A NaN in a word makes the logits of its
    pair NaN, as in the model; in ONNX an infinite number does so, too. Torch programs and AOTInductor packages are
    called by keyword.

        torch.export.load("model.pt2").module()(left=left, right=right, left_lengths=lengths)

    Of a RaggedLSTM, inputs are `input`, in the order of its `batch_first`, and int64 `lengths` (batch), from 0 to the
    number of steps; outputs are `output`, `h_n` and `c_n`. Every option is exported: layers, directions, biases, gates
    and, but for ONNX, whose LSTM has none, projections. There is no dropout in the file.

    Args:
        model: in float32; it is copied to the CPU. Of a model or an ensemble from `towers.load(folder)`, its `network`.
        path: ends in .onnx, or in .pt2 for the two others; it appears whole, after file and model were compared.
        format: "onnx" (opset 18, standard operators), "torch" (for torch.export.load) or "aoti" (compiled, for
            torch._inductor.aoti_load_package; it needs a C++ compiler, and takes contiguous inputs).
        ids: take word ids (batch, words) in place of vectors; with `table` inside the file, without it as the input
            `table` (vocabulary, width).
        table: float32 vectors (vocabulary, width).
        words: the word of each row of the table, for the file's metadata (a JSON list, "words").
        labels: what the outputs mean, for the file's metadata.
        states: of a RaggedLSTM, take `h_0` and `c_0` as inputs too.
        with_towers: of format "torch", keep towers' own operations, but for hard sigmoids, which have none. Such a
            program is faster, and runs only where towers is installed: `from towers import RaggedLSTM` comes before
            torch.export.load.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        OSError: the file cannot be written.
        TypeError: `model` is neither TwoTowers nor a RaggedLSTM.
        ValueError: the format is none of the three, the path ends otherwise or is a folder, the model or the table is
            not float32 or not finite, widths differ, a layer or a forward was replaced, the model cannot be copied, an
            option is not one of this kind of model, ONNX has no such LSTM, the table is too large for an ONNX file,
            there are not as many classes as outputs, no C++ compiler was found, or file and model differ.

    >>> import tempfile
    >>> from towers import TwoTowers
    >>> from towers.export import Exported, Labels, export
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/model.pt2"
    ...     exported: Exported = export(TwoTowers(), path, format="torch", labels=Labels(label_range=(1, 5)))
    >>> print(exported.inputs[1])
    right: float32 (batch, 5, 300)
    """
    if format not in get_args(Format):
        raise ValueError(f"format is {format!r}; one of {', '.join(get_args(Format))} belongs there")
    path, ending = Path(path), ".onnx" if format == "onnx" else ".pt2"
    if path.suffix != ending:
        others = "formats torch and aoti write .pt2" if format == "onnx" else "format onnx writes .onnx"
        raise ValueError(f"{path}: the name of a file of format {format} ends in {ending}; {others}")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name a file")
    if with_towers and format != "torch":
        raise ValueError(f"with_towers is for format torch; {format} has no place for towers' own operations")
    if not isinstance(model, TwoTowers | RaggedLSTM):  # pyright: ignore[reportUnnecessaryIsInstance]
        more = ": give its network" if isinstance(getattr(model, "network", None), TwoTowers) else ""
        raise TypeError(f"model is {type(model).__name__}; TwoTowers and RaggedLSTM are exported{more}")
    model = _copied(model)
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise ValueError(f"{name} is {parameter.dtype}; files are float32: model.float() first")
        if not parameter.isfinite().all():
            raise ValueError(f"{name} has a value that is not finite; train the model again")
    interface: Interface
    if isinstance(model, RaggedLSTM):
        _check_lstm(model, format, ids or table is not None or words is not None)
        interface = LSTMInterface(model, states)
    else:
        _check_towers(model, ids, table, states)
        if format == "onnx" and table is not None:
            _check_size(model, table)
        _check_finite(table)
        _check_labels(model, labels)
        if words is not None and (table is None or len(words) != len(table)):
            rows = "there is no table" if table is None else f"the table has {len(table)} rows"
            raise ValueError(f"words has {len(words)} words; {rows}")
        place = ("outside" if table is None else "inside") if ids else None
        kept = None if words is None else tuple(words)
        interface = TowersInterface(model, "ids" if ids else "vectors", table, place, kept, labels)
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


def _copied(model: TwoTowers | RaggedLSTM) -> TwoTowers | RaggedLSTM:
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(f"{name} is on the meta device: it has no numbers; load them first")
    try:
        model = copy.deepcopy(model)
    except RuntimeError as error:
        reason = str(error).split(". ")[0][:200]
        raise ValueError(
            f"the model cannot be copied ({reason}): make weights that are computed, such as pruned ones, parameters "
            "first (torch.nn.utils.prune.remove)"
        ) from None
    return model.cpu().eval().requires_grad_(False)


def _check_size(model: TwoTowers, table: Tensor) -> None:
    """All numbers are in one ONNX file, which is one message of protobuf."""
    size = 4 * (table.numel() + sum(parameter.numel() for parameter in model.parameters()))
    if size > _LARGEST_ONNX:
        raise ValueError(
            f"the table and the weights are {size / 1e9:.1f} GB; an ONNX file holds at most {_LARGEST_ONNX / 1e9:.1f} "
            "GB: leave the table outside (table=None, --table outside), take fewer words, or format torch"
        )


def _check_lstm(lstm: RaggedLSTM, format: Format, words: bool) -> None:
    if words:
        raise ValueError("ids, table and words are for TwoTowers; a RaggedLSTM takes vectors")
    if type(lstm).forward is not RaggedLSTM.forward:
        raise ValueError(f"{type(lstm).__name__} has a forward of its own, which would not be in the file")
    if lstm.proj_size and format == "onnx":
        raise ValueError(f"ONNX's LSTM has no projection (proj_size={lstm.proj_size}); formats torch and aoti have")


def _check_towers(model: TwoTowers, ids: bool, table: Tensor | None, states: bool) -> None:
    if states:
        raise ValueError("states is for a RaggedLSTM; towers begin with zeros")
    for name, module in cast("Any", model).named_modules():
        if type(module) not in EXPORTED:
            where = name or "the model"
            raise ValueError(f"{where} was replaced by a {type(module).__name__}, for which there is no export")
    if table is not None and not ids:
        raise ValueError("table goes with ids=True")
    if ids and model.left.vector_width != model.right.vector_width:
        raise ValueError("with ids both towers read one table; their vector_width differ")
    if table is not None and (table.dim() != 2 or table.shape[1] != model.left.vector_width):
        raise ValueError(f"table is {tuple(table.shape)}; (vocabulary, {model.left.vector_width}) belongs there")
    if table is not None and table.dtype != torch.float32:
        raise ValueError(f"table is {table.dtype}; float32 belongs there")


def _check_finite(table: Tensor | None) -> None:
    if table is not None and len(rows := (~table.isfinite().all(1)).nonzero()):
        many = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
        raise ValueError(f"table has {many} with a number that is not finite, the first is row {int(rows[0])}")


def _check_labels(model: TwoTowers, labels: Labels) -> None:
    heads = (("classes", labels.classes, model), ("second_classes", labels.second_classes, model.second))
    for name, classes, head in heads:
        if classes is not None and (head is None or len(classes) != head.outputs):
            outputs = "there is no second head" if head is None else f"the model has {head.outputs} outputs"
            raise ValueError(f"labels: {name} has {len(classes)} names; {outputs}")


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
            if not difference < _CLOSE * max(1.0, float(wanted.abs().max()) if wanted.numel() else 0.0):
                raise ValueError(f"{path}: file and model differ by {difference:.1e} on a drawn batch; not kept")
            largest = max(largest, difference)
    return largest
