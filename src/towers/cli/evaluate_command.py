"""`towers evaluate`: measure a model on labelled pairs."""

import argparse
from pathlib import Path

from towers.cli.arguments import Parser, add_columns
from towers.cli.score_command import add_model

HELP = """
Measure a model on sentence pairs with labels. Of degrees: Pearson's r, Spearman's rho, and the mean squared error in
the range of the labels. Of yes and no: accuracy, F1, AUC. Of classes: accuracy, and the means of F1 and AUC over the
classes (one against the others). Calibration is the expected calibration error. It warns of a result that is not above
the majority class, or above the cosine of mean vectors.

  $ printf 'sentence1\\tsentence2\\tlabel\\n' >labelled.tsv
  $ printf 'a happy ram was spotted by the lass\\tthe lass noticed a ram\\t1\\n' >>labelled.tsv
  $ printf 'the lass noticed a ram\\ta tired ox was chased\\t0\\n' >>labelled.tsv
  $ towers evaluate --model towers-run --pairs labelled.tsv | grep accuracy
  1.0000	accuracy

Column names, label range and classes are those that the model was trained with; options replace them.
"""


def add_options(evaluate: Parser) -> None:
    """The options of the command."""
    evaluate.set_defaults(run=run)
    evaluate.add_argument("--pairs", type=Path, required=True, metavar="FILE", help="sentence pairs with labels")
    add_model(evaluate)
    add_columns(evaluate.add_argument)
    evaluate.add_argument("--label-column", metavar="NAME", help="(that of the training)")
    evaluate.add_argument("--label-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="(that of the training)")
    evaluate.add_argument("--yes", metavar="VALUE", help="the value of the label column that means yes")
    evaluate.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out pairs with a sentence that is empty or too short, or without a label (default: an error)",
    )
    evaluate.add_argument("--json", action="store_true", help="print a JSON object")


def run(arguments: argparse.Namespace) -> None:
    """Load, measure, print."""
    from towers.cli.evaluate_job import evaluate

    evaluate(arguments)
