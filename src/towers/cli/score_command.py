"""`towers score`: the score of two sentences."""

import argparse
from pathlib import Path

from towers.cli.arguments import Parser

HELP = """
Print the score of two sentences, in the range of the labels that the model learned from; of a model that learned
classes, the probability of each, the most probable first.

  $ towers score --model towers-run "a happy ram was spotted by the lass" "the lass noticed a ram"
  0.9330

A sentence that begins with - goes behind --, as do all that follow: towers score -- "- yes" "no".

With --explain, a line for each word follows: how much lower the score is without it, the largest change first. Of a
model of classes that is the probability of --class, or of the most probable one.

  $ towers score --model towers-run "a happy ram was spotted by the lass" "the lass noticed a ram" --explain | head -n 4
  0.9330
  +0.9248	left	was
  +0.9231	left	ram
  +0.7759	right	ram
"""


def add_options(score: Parser) -> None:
    """The options of the command."""
    score.set_defaults(run=run)
    score.add_argument("left", metavar="LEFT", help="the left sentence")
    score.add_argument("right", metavar="RIGHT", help="the right sentence")
    score.add_argument("--explain", action="store_true", help="also print how much each word moves the score")
    add_class(score)
    add_model(score)


def add_class(parser: Parser) -> None:
    """The option that says which class's probability is the score."""
    parser.add_argument(
        "--class", dest="class_name", metavar="NAME", help="of a model of classes: its probability is the score"
    )


def add_model(parser: Parser) -> None:
    """The options that say which model answers, for `similar` too."""
    parser.add_argument("--model", type=Path, metavar="DIR", help="folder of a run (the newest towers-run*)")
    parser.add_argument("--vectors", type=Path, metavar="FILE", help="the same word vectors, for words that DIR lacks")


def run(arguments: argparse.Namespace) -> None:
    """Load, score, print."""
    from towers.cli.common import answering

    with answering(arguments) as model:
        left, right = str(arguments.left), str(arguments.right)
        if arguments.class_name is not None:
            model.output_of(arguments.class_name)  # an unknown name is refused
        score = model.score(left, right)
        if isinstance(score, dict):
            for name, probability in sorted(score.items(), key=lambda item: -item[1]):
                if arguments.class_name in (None, name):
                    print(f"{probability:.4f}\t{name}")
        else:
            print(f"{score:.4f}")
        if arguments.explain:
            for side, _, word, effect in model.explain(left, right, class_name=arguments.class_name):
                print(f"{effect:+.4f}\t{side}\t{word}")
