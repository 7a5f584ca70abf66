"""`towers index`: encode the sentences of a file once, for many searches."""

import argparse
from pathlib import Path

from towers.cli.arguments import Parser
from towers.cli.score_command import add_model

HELP = """
Encode the sentences of a file, one on each line, with the right tower, and write them as an index for `towers search
--index`. Its ids are line numbers. It serves the model that made it, and no other.

  $ printf 'a ram noticed the lass\\nthe lass noticed a ram\\nthe dog chased a boy\\n' >corpus.txt
  $ towers index --model towers-run --corpus corpus.txt --out corpus.index
  3 sentences are in corpus.index
"""


def add_options(index: Parser) -> None:
    """The options of the command."""
    index.set_defaults(run=run)
    index.add_argument("--corpus", type=Path, required=True, metavar="FILE", help="a sentence on each line")
    index.add_argument("--out", type=Path, required=True, metavar="FILE", help="the index")
    add_model(index)


def run(arguments: argparse.Namespace) -> None:
    """Encode and write."""
    from towers.cli.search_job import index

    index(arguments)
