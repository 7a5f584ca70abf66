"""`towers index`: encode the sentences of a file once, for many searches."""

import argparse
from pathlib import Path

from towers.cli.arguments import Parser, at_least_one
from towers.cli.score_command import add_model

HELP = """
Encode the sentences of a file, one on each line, with the right tower, and write them as an index for `towers search
--index`. Its ids are line numbers. It serves the model that made it, and no other.

  $ printf 'a ram noticed the lass\\nthe lass noticed a ram\\nthe dog chased a boy\\n' >corpus.txt
  $ towers index --model towers-run --corpus corpus.txt --out corpus.index
  3 sentences are in corpus.index

A corpus beyond the memory of a machine is divided: with --shard N, --out is a folder with an index for every N
sentences, which are searched side by side, with the same results. After an interruption the same command goes on with
the first shard that is not there.

  $ towers index --model towers-run --corpus corpus.txt --out corpus --shard 2
  3 sentences are in 2 shards in corpus
"""


def add_options(index: Parser) -> None:
    """The options of the command."""
    index.set_defaults(run=run)
    index.add_argument("--corpus", type=Path, required=True, metavar="FILE", help="a sentence on each line")
    index.add_argument("--out", type=Path, required=True, metavar="FILE", help="the index; with --shard, a folder")
    index.add_argument("--shard", type=at_least_one, metavar="N", help="sentences of each shard (all in one)")
    add_model(index)


def run(arguments: argparse.Namespace) -> None:
    """Encode and write."""
    from towers.cli.index_job import index

    index(arguments)
