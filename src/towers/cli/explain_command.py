"""`towers explain`: walk through the network, stage by stage."""

import argparse
from pathlib import Path

from towers.cli.arguments import Parser, at_least_one, picture

HELP = """
Walk both towers stage by stage: what arrives, what the stage demands, what leaves, how many weights it has and why.
Then answer, by trying it out, why an LSTM accepts any number of steps, and what happens with a wrong width.

  $ towers explain --words 9 | head -n 6
  left: sentences of any number of words from 2
    conv: PhraseConv: every 2 neighbouring words become a phrase of 32 features
      arrives  (batch, words, 300)  here (3, 9, 300)
      demands  batch words 300; batch >= 0; words >= 2
      leaves   (batch, words-1, 32)  here (3, 8, 32)
      weights  19,232 = 32 filters x (2 words x 300 + 1 bias)
"""


def add_options(explain: Parser) -> None:
    """The options of the command."""
    explain.set_defaults(run=run)
    explain.add_argument(
        "--words", type=at_least_one, metavar="N", help="words of a sentence (9, or what a tower takes)"
    )
    explain.add_argument(
        "--model", type=Path, metavar="DIR", help="a folder that `towers fit` saved (the original network)"
    )
    explain.add_argument(
        "--picture", type=picture, metavar="FILE.svg", help="draw both towers: what arrives, what is demanded"
    )
    explain.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Walk through the towers, answer the questions, and print."""
    from towers.cli.explanation import explain

    explain(arguments)
