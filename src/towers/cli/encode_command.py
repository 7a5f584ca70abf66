"""`towers encode`: the states of the sentences of a file."""

import argparse
from pathlib import Path

from towers.cli.arguments import FORMATS, Parser, add_run, separator

HELP = """
Add the column `state`, the numbers that a tower says about a sentence, to a table of any size. The output is a folder
of parts; the same command goes on where an interrupted one stopped.

  $ printf 'text\\na happy ram was spotted by the lass\\nthe lass noticed a ram\\n' >sentences.tsv
  $ towers encode --model towers-run --sentences sentences.tsv --out states --out-format jsonl | cut -d ';' -f 1
  2 sentences in 1 part in states
  $ cut -d , -f 1 states/part-00000.jsonl
  {"text": "a happy ram was spotted by the lass"
  {"text": "the lass noticed a ram"
"""


def add_options(encode: Parser) -> None:
    """The options of the command."""
    encode.set_defaults(run=run)
    add = encode.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="folder that `towers fit` saved")
    add("--sentences", type=Path, required=True, metavar="FILE", help="a table, or a folder of tables of one format")
    add("--column", default="text", metavar="NAME", help="the column of the sentences (text)")
    add("--side", choices=["left", "right"], default="left", help="the tower that reads them (left)")
    add("--out", type=Path, required=True, metavar="DIR", help="the folder of the output")
    add("--out-format", choices=FORMATS, help="of the output (as the input)")
    add("--format", choices=FORMATS, help="of the sentences (what the ending says)")
    add("--separator", type=separator, metavar="CHARACTER", help="between the fields of a CSV file")
    add("--vectors", type=Path, metavar="FILE", help="the same word vectors, for words that DIR lacks")
    add_run(encode.add_argument_group("run"), engine="local")
    add("--json", action="store_true", help="say what was done as a JSON object")


def run(arguments: argparse.Namespace) -> None:
    """Encode and write."""
    from towers.cli.run_job import run
    from towers.scale import Encode

    run(arguments, Encode(arguments.column, side=arguments.side), arguments.sentences, "sentences")
