"""`towers export`: a trained network as a file that runs where towers is not installed."""

import argparse
from pathlib import Path
from typing import Any

from towers.cli.arguments import Parser

HELP = """
Write a network as a file that runs without towers, in ONNX Runtime or in torch alone, for any batch and any number of
words that its towers take. File and network are compared on drawn batches before the file appears.

  $ towers export --model towers-run --out model.onnx
  inputs
    left: float32 (batch, left_words, 300)
    right: float32 (batch, 5, 300)
    left_lengths: int64 (batch)
  output
    logit: float32 (batch)
  6 drawn batches: file and model differ by at most 1.2e-07
  saved model.onnx

Each tower of any number of words has an input of lengths: where the right one is such a tower, there is right_lengths,
int64 (batch), too. The sigmoid of the logit is the probability. A model that answers with classes or bins has a logit
for each; their softmax is the probability. A second head is the output second_logit. The file's metadata says all this,
with the names of the classes. A length that a tower does not take ends in an error when the file runs, as does an id
without a row.

  towers export --model towers-run --format torch --out model.pt2       for torch.export.load
  towers export --model towers-run --format aoti --out model.pt2        compiled for this machine, by its C++ compiler
  towers export --model towers-run --from ids --out model.onnx          word ids, and the table of vectors as an input
  towers export --model towers-run --from ids --table inside --out model.onnx     the vectors that the folder has

With the table inside, an id is the row of a word: the file's metadata has the words in their order ("words"). A word
that is not among them has no id; with the table outside, whoever runs the file gives any vectors.
"""


FORMATS = "for ONNX Runtime; for torch.export.load; for AOTInductor, which needs a C++ compiler here (onnx)"


def add_options(export: Parser) -> None:
    """The options of the command."""
    export.set_defaults(run=run)
    export.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="a folder of `towers fit`, `towers convert` or `save`"
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    export.add_argument("--format", choices=["onnx", "torch", "aoti"], default="onnx", help=FORMATS)
    export.add_argument(
        "--from",
        dest="source",
        choices=["vectors", "ids"],
        default="vectors",
        help="what the file takes: word vectors, or word ids and a table of vectors (vectors)",
    )
    export.add_argument(
        "--with-towers",
        action="store_true",
        help="with --format torch, keep towers' own operations: faster, but the file runs only where towers is",
    )
    export.add_argument(
        "--table",
        choices=["inside", "outside"],
        help="with --from ids, where the vectors are: in the file, those that the folder of the model has, or an "
        "input (outside)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write, compare and print."""
    from towers.ensemble import load_network
    from towers.export import Labels, export
    from towers.model_config import Config

    ids = arguments.source == "ids"
    if arguments.table is not None and not ids:
        raise ValueError("--table goes with --from ids; from vectors there is no table")
    model, table, words = load_network(arguments.model), None, None
    config = Config(arguments.model)
    labels = Labels(config.classes, config.second_classes, config.label_range, config.second_label_range)
    if arguments.table == "inside":
        from towers.data.kept_vectors import FILE, load_vectors

        if not (arguments.model / FILE).is_file():
            raise ValueError(f"{arguments.model}: has no word vectors ({FILE}); --table outside serves without them")
        vectors = load_vectors(arguments.model)
        words = vectors.known
        table = vectors.table[: len(words)]
    options: dict[str, Any] = {"ids": ids, "table": table, "words": words, "with_towers": arguments.with_towers}
    options["labels"] = labels
    print(export(model.float(), arguments.out, format=arguments.format, **options))
