"""`towers similar`: the sentences of a file that fit a query best."""

import argparse
from pathlib import Path

from towers.cli.arguments import Parser, at_least_one
from towers.cli.score_command import add_class, add_model

HELP = """
Print the sentences of a file, one a line, with the highest scores for a query, best first: the score, a tab, the
sentence. The left tower reads the query, the right tower the sentences.

  $ printf 'a ram noticed the lass\\nthe lass noticed a ram\\nthe dog chased a boy\\n' >statements.txt
  $ towers similar --model towers-run --query "a happy ram was spotted by the lass" --in statements.txt -k 1
  0.9330	the lass noticed a ram
"""


def add_options(similar: Parser) -> None:
    """The options of the command."""
    similar.set_defaults(run=run)
    similar.add_argument("--query", required=True, metavar="TEXT", help="a sentence")
    similar.add_argument(
        "--in", dest="file", type=Path, required=True, metavar="FILE", help="a sentence on each line; -: standard input"
    )
    similar.add_argument("-k", type=at_least_one, default=10, metavar="N", help="how many sentences to print (10)")
    add_class(similar)
    add_model(similar)


def run(arguments: argparse.Namespace) -> None:
    """Load, compare, print."""
    from towers.cli.common import answering
    from towers.cli.sentence_lines import read_lines

    sentences = read_lines(None if arguments.file == Path("-") else arguments.file).sentences
    with answering(arguments) as model:
        scores, places = model.most_similar(arguments.query, sentences, arguments.k, class_name=arguments.class_name)
        for score, place in zip(scores.tolist(), places.tolist(), strict=True):
            print(f"{score:.4f}\t{sentences[place]}")
