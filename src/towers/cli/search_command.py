"""`towers search`: the sentences of a file with the highest scores for each query."""

import argparse
from pathlib import Path

from towers.cli.arguments import FORMATS, Parser, add_run, at_least_one
from towers.cli.score_command import add_class, add_model

HELP = """
Find, for each query of a file, the k sentences of another file with the highest scores, best first. Files have a
sentence on each line. The left tower reads the queries, the right tower the sentences. The search is exact: every
sentence is considered, and of equal scores the earlier line comes first.

  $ printf 'a ram noticed the lass\\nthe lass noticed a ram\\nthe dog chased a boy\\n' >corpus.txt
  $ printf 'a happy ram was spotted by the lass\\n' >queries.txt
  $ towers search --model towers-run --corpus corpus.txt --queries queries.txt -k 1 --texts --out -
  query	rank	id	score	text
  1	1	2	0.9330087	the lass noticed a ram

`query` and `id` are line numbers. Results are TSV, CSV, JSON lines or Parquet, by the ending of --out or --out-format.
A file appears whole, at the end.

With --engine, several processes or machines share the queries and the shards of an --index. --out is then a folder with
the file `found`; the same command goes on where an interrupted one stopped. Queries that cannot be read are left out,
up to --max-bad; their reasons are there.

  $ towers index --model towers-run --corpus corpus.txt --out sharded --shard 2
  3 sentences are in 2 shards in sharded
  $ towers search --index sharded --queries queries.txt --engine local -k 1 --out found 2>&1 | cut -d ';' -f 1 | tail -1
  1 query in 2 parts in found
  $ cat found/found.tsv
  query	rank	id	score
  1	1	2	0.9330087
"""


def add_options(search: Parser) -> None:
    """The options of the command."""
    search.set_defaults(run=run, json=False)
    search.add_argument("--corpus", type=Path, metavar="FILE", help="a sentence on each line: what is searched")
    search.add_argument("--index", type=Path, metavar="FILE", help="what `towers index` wrote, a file or a folder")
    search.add_argument(
        "--queries", type=Path, required=True, metavar="FILE", help="a sentence on each line; -: standard input"
    )
    search.add_argument("-k", type=at_least_one, default=10, metavar="N", help="results of each query (10)")
    search.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the results; -: standard output; see --engine"
    )
    search.add_argument("--out-format", choices=FORMATS, help="of the output (what its ending says, or tsv)")
    search.add_argument("--texts", action="store_true", help="add the found sentences, from --corpus")
    add_class(search)
    add_model(search)
    add_run(search.add_argument_group("many queries"), engine=None)


def run(arguments: argparse.Namespace) -> None:
    """Encode, search and write."""
    if arguments.engine is None:
        from towers.cli.search_job import search

        search(arguments)
    else:
        from towers.cli.search_run import search_in_parts

        search_in_parts(arguments)
