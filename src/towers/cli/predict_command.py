"""`towers predict`: add scores to a file of sentence pairs."""

import argparse
from pathlib import Path

from towers.cli.arguments import FORMATS, Parser, add_columns, add_machine, add_run, add_vectors, at_least_one

HELP = """
Add the column `probability` to a file of sentence pairs of any size, in the file's own order; a model of labels in
another range than 0 to 1 adds `score`, in that range. A model of classes adds a column of probabilities for each, and
`class`, the most probable one. Word vectors and column names are those that the model was
trained with; options replace them. Where a sentence is empty or too short, the new cell is empty.

  $ printf 'sentence1\\tsentence2\\na happy ram was spotted by the lass\\tthe lass noticed a ram\\n' >pairs.tsv
  $ towers predict --model towers-run --pairs pairs.tsv --out -
  sentence1	sentence2	probability
  a happy ram was spotted by the lass	the lass noticed a ram	0.9330087

Files are TSV, CSV, JSON lines or Parquet, by their ending or --format. A file appears whole, at the end. Standard
output has no mark for its end: it is whole if the exit code is 0.

With --engine, --out is a folder of parts. The same command goes on where an interrupted one stopped, and several
processes or machines share the work. Rows that cannot be read are left out, up to --max-bad; their reasons are there.

  $ towers predict --model towers-run --pairs pairs.tsv --out scored --engine local | cut -d ';' -f 1
  1 pair in 1 part in scored
"""


def add_options(predict: Parser) -> None:
    """The options of the command."""
    predict.set_defaults(run=run, device="auto", precision="32-true")
    files = predict.add_argument_group("files")
    files.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the same as --pairs FILE")
    files.add_argument("--model", type=Path, metavar="DIR", help="folder of a run (the newest towers-run*)")
    files.add_argument(
        "--pairs", type=Path, metavar="FILE", help="sentence pairs, without labels; -: standard input, TSV if typed"
    )
    files.add_argument(
        "--out", type=Path, metavar="FILE", help="the same rows, and their scores; -: standard output (-)"
    )
    files.add_argument("--out-format", choices=FORMATS, help="of the output (what its ending says; as the pairs)")
    files.add_argument(
        "--score-column", metavar="NAME", help="of the output (probability, or score: see above; of classes: class)"
    )
    files.add_argument(
        "--threshold", type=float, metavar="X", help="also add `label`: 1 where the score is at least X, otherwise 0"
    )
    files.add_argument("--label-column", default="label", metavar="NAME", help="what --threshold adds (label)")
    files.add_argument(
        "--line", action="store_true", help="answer each line when it comes, as for pairs that are typed at a terminal"
    )
    add_vectors(files.add_argument)
    add_columns(files.add_argument)
    machine = predict.add_argument_group("machine")
    machine.add_argument(
        "--batch-size", type=at_least_one, default=256, metavar="N", help="sentences that a tower reads at a time (256)"
    )
    add_machine(machine.add_argument)
    add_run(predict.add_argument_group("many rows"), engine=None)
    predict.add_argument("--json", action="store_true", help="say what was done as a JSON object")


def run(arguments: argparse.Namespace) -> None:
    """Read, predict and write."""
    from towers.cli.common import newest

    if (arguments.file is None) == (arguments.pairs is None):
        raise ValueError("name the pairs once: FILE or --pairs FILE, where - is standard input")
    if arguments.out is None and arguments.engine is not None:
        raise ValueError("--engine needs --out DIR, a folder for the parts")
    arguments.pairs = arguments.pairs or arguments.file
    arguments.out = arguments.out or Path("-")
    arguments.model = newest(arguments)
    if arguments.engine is None:
        from towers.cli.predict_job import predict

        predict(arguments)
    else:
        from towers.cli.predict_job import predict_in_parts

        predict_in_parts(arguments)
