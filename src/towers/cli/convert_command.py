"""`towers convert`: a network of Keras becomes a folder of towers, and a folder a file of Keras."""

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from towers.cli.arguments import Parser

if TYPE_CHECKING:
    from towers.keras.read_network import Converted
    from towers.model import TwoTowers

HELP = """
Carry a network of two towers over from Keras, or back. The end of a name says what it is: .keras, .h5 and .weights.h5
are files of Keras 1, 2 or 3; anything else is a folder as `towers fit` saves it. Keras is not needed, and no code that
a file holds is run. Reading a file of Keras and writing one need the extra "keras" (pip install "towers[keras]": pyfive
reads, h5py writes).

Left is the first operand of Subtract, the sentence that the other one is subtracted from, whatever the order of inputs
and names in the file; where they differ, a note says so.

  $ towers convert towers-run model.keras | tail -n 2
  compared with Keras's equations on 8 drawn pairs: logits differ by at most 2.4e-07
  saved model.keras

  towers convert model.keras my-model
  towers convert old.h5 my-model --lambda squeeze_1=squeeze --explain
  towers convert only.weights.h5 my-model --like another-model

A file of weights alone (.weights.h5) does not say the length of a fixed tower, the gates' function and the sides: they
are those of the network in --like. Its left tower takes the first convolution and the first LSTM in the order of the
layers in the file, its right tower the second ones; a note says which. Its sizes are checked.

Before it says that it is done, it reads back what it wrote and compares the network with the equations of Keras in
float64, on sentences drawn from a fixed seed. Nothing is written where it refuses.
"""

ENDINGS = (".keras", ".h5")
_CLOSE = 1e-4
"""Of logits. float32 is a hundred times closer; a wrong layout is a thousand times further away."""


def add_options(convert: Parser) -> None:
    """The options of the command."""
    convert.set_defaults(run=run)
    convert.add_argument("source", type=Path, metavar="IN", help="a file of Keras, or a folder")
    convert.add_argument("target", type=Path, metavar="OUT", help="a folder, or a file of Keras; must not exist yet")
    convert.add_argument(
        "--like",
        type=Path,
        metavar="DIR",
        help="for weights alone: a folder with a network of its sizes, left tower first",
    )
    convert.add_argument(
        "--lambda",
        dest="lambdas",
        action="append",
        default=[],
        metavar="LAYER=WHAT",
        help="what a Lambda layer does: squeeze, expand_dims or subtract; may be given several times",
    )
    convert.add_argument("--explain", action="store_true", help="say of each array how it was turned, and why")


def run(arguments: argparse.Namespace) -> None:
    """Convert, compare, and print what went where."""
    source, target = arguments.source, arguments.target
    inwards = _is_keras(source)
    if source.is_file() and not inwards:
        raise ValueError(f"{source}: is neither a folder of towers nor a file of Keras (.keras, .h5, .weights.h5)")
    if inwards == _is_keras(target):
        both = "files of Keras" if inwards else "folders"
        raise ValueError(f"{source} and {target}: both are {both} by their names; one ends in .keras, .h5, .weights.h5")
    if not inwards and (arguments.like is not None or arguments.lambdas):
        option = "--lambda" if arguments.lambdas else "--like"
        raise ValueError(f"{option} goes with a file of Keras that is read; {source} is none: leave the option out")
    if target.exists() or target.is_symlink():
        raise ValueError(f"{target}: exists; give a name that is free")
    if not target.absolute().parent.is_dir():
        raise ValueError(f"{target.absolute().parent}: no folder; make it first")
    (_inwards if inwards else _outwards)(arguments)


def _is_keras(path: Path) -> bool:
    return path.suffix in ENDINGS or (path.is_dir() and (path / "metadata.json").is_file())


def _inwards(arguments: argparse.Namespace) -> None:
    from towers.keras.network_plan import Needs
    from towers.keras.parity import largest_difference
    from towers.keras.read_network import convert
    from towers.model import TwoTowers

    like = None if arguments.like is None else TwoTowers.load(arguments.like)
    try:
        found = convert(arguments.source, like, dict(map(_lambda, arguments.lambdas)))
    except Needs as error:
        raise ValueError(f"{error.problem} {error.option}") from None
    difference = _checked(arguments.source, largest_difference(arguments.source, found))
    folder = Path(tempfile.mkdtemp(dir=arguments.target.absolute().parent, prefix=f".{arguments.target.name}."))
    try:
        found.model.save(folder)
        TwoTowers.load(folder)
        os.chmod(folder, 0o777 & ~_umask())
        folder.rename(arguments.target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _tell(arguments, found, difference)


def _outwards(arguments: argparse.Namespace) -> None:
    from towers import checkpoint, keras
    from towers.keras.parity import largest_difference
    from towers.keras.read_network import convert
    from towers.keras.write_network import refuse_other_parts
    from towers.model import TwoTowers

    model = TwoTowers.load(arguments.source)
    refuse_other_parts(model, arguments.target)
    folder = Path(tempfile.mkdtemp(dir=arguments.target.absolute().parent, prefix=f".{arguments.target.name}."))
    try:
        partial = folder / arguments.target.name
        keras.save(model, partial)
        found = convert(partial, model if partial.name.endswith(".weights.h5") else None, {})
        difference = _checked(arguments.target, largest_difference(partial, found))
        _same(model, found.model)
        checkpoint.replace(arguments.target, lambda place: shutil.copyfile(partial, place))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _tell(arguments, found, difference)


def _lambda(text: str) -> tuple[str, str]:
    layer, found, what = text.partition("=")
    if not found:
        raise ValueError(f"--lambda {text}: LAYER=WHAT belongs there, such as squeeze_1=squeeze")
    return layer, what


def _checked(path: Path, difference: float) -> float:
    if not difference < _CLOSE:
        raise ValueError(
            f"{path}: the network and Keras's equations differ by {difference:.1e}; please report this file"
        )
    return difference


def _same(model: "TwoTowers", back: "TwoTowers") -> None:
    for (name, wanted), found in zip(model.state_dict().items(), back.state_dict().values(), strict=True):
        if not wanted.equal(found):
            raise ValueError(f"{name}: is another after it was written and read; nothing was kept")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _tell(arguments: argparse.Namespace, found: "Converted", difference: float) -> None:
    plan = found.plan
    for side, tower in (("left", plan.left), ("right", plan.right)):
        words = "any number of" if tower.words is None else tower.words
        print(
            f"{side}: {words} words of {tower.vector_width} numbers, phrases of {tower.kernel_words} words, "
            f"{tower.filters} filters, maximum of {tower.pool}, LSTM of {tower.hidden} ({tower.recurrent_activation})"
        )
    if plan.shared:
        print("both towers are one: shared weights")
    rows = [(move.layer, move.theirs, move.ours, str(tuple(move.shape)), move.how) for move in found.moves]
    rows = [row if arguments.explain else row[:4] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    if plan.left.embedding is not None:
        print(
            "note: the network looks its words up in an Embedding, which is no part of the towers: "
            f"towers.keras.convert_layer(PATH, {plan.left.embedding.name!r}) reads its table"
        )
    for remark in found.remarks:
        print(f"note: {remark}")
    if not plan.probabilities:
        print("note: TwoTowers.probability adds a sigmoid that this network does not have")
    print(f"compared with Keras's equations on 8 drawn pairs: logits differ by at most {difference:.1e}")
    print(f"saved {arguments.target}")
