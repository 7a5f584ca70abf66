"""`towers fit`: learn from sentence pairs."""

import argparse
from pathlib import Path

from towers.cli.arguments import (
    Parser,
    add_columns,
    add_machine,
    add_vectors,
    at_least_one,
    devices,
    seed,
    whole,
    words,
)

HELP = """
Learn from sentence pairs. With no option: the original network on a built-in sample, saved to towers-run or to the
next free towers-run-N. Ctrl-C saves, and says how to go on.

  $ towers fit --epochs 1 --hidden 4 --out small
  pairs: train 2000, dev 250, test 250
  vectors: sample, 300 numbers a word; 100.00 % of 40972 tokens and 88 of 88 words have a vector
  network: two towers, left any number of words, right 5 words, 38,977 parameters
  epoch 1/1   train loss 0.6972  accuracy 0.4975  AUC 0.4968   dev loss 0.6955  accuracy 0.4240  AUC 0.5146   1.5 s
  kept epoch 1, best dev loss: loss 0.6955  accuracy 0.4240  AUC 0.5146
  test, 250 pairs: accuracy 0.4560 (majority class 0.5080)  AUC 0.5011  loss 0.6930
  saved in small: config.json, model.safetensors, vectors.safetensors, metrics.json, curves.png

  $ towers fit --resume small --epochs 2 | tail -n 1
  saved in small: config.json, model.safetensors, vectors.safetensors, metrics.json, curves.png

With files of your own (TSV, CSV, JSON lines or Parquet, by their ending; vectors as GloVe or word2vec text, word2vec
binary or fastText .vec):

  towers fit --train sick.train.tsv --dev sick.dev.tsv --test sick.test.tsv --vectors glove.840B.300d.txt \\
      --left-column tokens1 --right-column tokens2 --split spaces --right-words any --out sick
"""


def add_options(fit: Parser) -> None:
    """The options of the command. One that is not given is absent: the library has its default."""
    fit.set_defaults(run=run)
    fit.argument_default = argparse.SUPPRESS
    _add_run(fit)
    _add_files(fit)
    _add_sizes(fit)
    _add_training(fit)


def kept(text: str) -> int | str:
    """`all`, or a number of words."""
    return text if text == "all" else whole(text, 0, None)


def run(arguments: argparse.Namespace) -> None:
    """Begin a run, or resume one."""
    from towers.cli.fit_job import fit

    fit(arguments)


def _add_run(fit: Parser) -> None:
    run = fit.add_argument_group("the run")
    run.add_argument("--out", type=Path, metavar="DIR", help="default: towers-run, or the next free towers-run-N")
    run.add_argument("--overwrite", action="store_true", help="let --out replace the run that it holds")
    run.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="continue a run with its own options; a finished run too, with more --epochs",
    )
    run.add_argument(
        "--save-every",
        type=float,
        metavar="SECONDS",
        help="time between two saved states for --resume (30; 0: save after each step)",
    )
    run.add_argument(
        "--tensorboard", action="store_true", help="write events to DIR/tensorboard (needs the extra tensorboard)"
    )
    run.add_argument("--json", action="store_true", help="one JSON object a line on standard output: start, epoch, end")


def _add_files(fit: Parser) -> None:
    files = fit.add_argument_group("files", "without --train: the built-in sample")
    files.add_argument("--train", type=Path, metavar="FILE", help="sentence pairs to learn from")
    files.add_argument("--dev", type=Path, metavar="FILE", help="pairs that choose the best epoch (default: the last)")
    files.add_argument("--test", type=Path, metavar="FILE", help="held-out pairs, measured at the end")
    add_vectors(files.add_argument)
    files.add_argument(
        "--keep-words",
        type=kept,
        metavar="all|N",
        help="words of --vectors that the model's folder carries, beside those of the pairs: the first N (200000)",
    )
    add_columns(files.add_argument)
    files.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out pairs with a sentence that is empty or too short, or without a label, and say how many "
        "(default: an error)",
    )
    files.add_argument(
        "--label-column", metavar="NAME", help="numbers, or names of classes, three and more too (label)"
    )
    files.add_argument("--yes", metavar="VALUE", help="the label is 1 where its column has this value, and 0 elsewhere")
    files.add_argument(
        "--second-label-column",
        metavar="NAME",
        help="with --preset: a column of classes that a second head learns from the same states (see --second-weight)",
    )
    files.add_argument(
        "--second-label-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="of a second label that is a degree"
    )
    files.add_argument(
        "--label-range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="the labels that mean 'no' and 'yes'; labels between them are degrees (default: 0 1)",
    )


def _add_sizes(fit: Parser) -> None:
    sizes = fit.add_argument_group("the network")
    sizes.add_argument(
        "--preset",
        choices=["similarity", "entailment", "small", "seed-with-words", "seed"],
        help="a network and a training that answer well, for any number of words: similarity (how alike), entailment "
        "(which class), small (how alike; fast, without word order), seed-with-words (the original tower, and "
        "single words beside it). seed: the original network, to which the other options of this group belong (seed)",
    )
    sizes.add_argument(
        "--ensemble",
        type=at_least_one,
        metavar="N",
        help="train N networks, of N seeds from --seed on, that answer together from one folder; without --resume",
    )
    sizes.add_argument("--left-words", type=words, metavar="any|N", help="words of a left sentence (any)")
    sizes.add_argument(
        "--right-words",
        type=words,
        metavar="any|N",
        help="words of a right sentence (5; with --shared: as left)",
    )
    sizes.add_argument("--shared", action="store_true", help="one tower reads both sentences")
    sizes.add_argument("--kernel-words", type=int, metavar="N", help="neighbouring words of a phrase (2)")
    sizes.add_argument("--filters", type=int, metavar="N", help="features of a phrase (32)")
    sizes.add_argument("--pool", type=int, metavar="N", help="neighbouring features of which the largest is kept (4)")
    sizes.add_argument("--hidden", type=int, metavar="N", help="hidden size of the LSTM (6)")
    sizes.add_argument("--dense", type=int, metavar="N", help="units of the head (16)")
    sizes.add_argument("--chunk", type=int, metavar="N", help="steps that the LSTM reads at a time (all)")


def _add_training(fit: Parser) -> None:
    training = fit.add_argument_group("training", "in parentheses: without it; a preset has values of its own")
    training.add_argument("--epochs", type=at_least_one, metavar="N", help="passes over the training pairs (10)")
    training.add_argument(
        "--batch-size", type=at_least_one, metavar="N", help="pairs of a training step, over all processes (5)"
    )
    training.add_argument("--lr", type=float, metavar="X", help="learning rate (0.001)")
    training.add_argument(
        "--final-lr", type=float, metavar="X", help="learning rate at the end, reached linearly (as --lr)"
    )
    training.add_argument(
        "--optimizer", choices=["keras-adam", "adamw"], help="Keras's Adam, or AdamW with --weight-decay (keras-adam)"
    )
    training.add_argument("--weight-decay", type=float, metavar="X", help="of adamw (0)")
    training.add_argument(
        "--average",
        type=float,
        metavar="X",
        help="keep a moving average of the weights, with this decay, such as .999 (none)",
    )
    training.add_argument(
        "--correlation",
        type=float,
        metavar="X",
        help="of degrees: weight in the loss of 1 - Pearson's r of each batch (0)",
    )
    training.add_argument(
        "--smoothing", type=float, metavar="X", help="of classes: share of a label spread over all classes, as .1 (0)"
    )
    training.add_argument(
        "--second-weight",
        type=float,
        metavar="X",
        help="weight of the second label in the loss; the first one has 1 (.3)",
    )
    training.add_argument(
        "--dropout-samples",
        type=at_least_one,
        metavar="N",
        help="answers to each pair of a batch, each with dropout of its own in the heads (1)",
    )
    training.add_argument(
        "--random-batches",
        dest="by_length",
        action="store_const",
        const=False,
        help="batches of any lengths: slower, and no two lengths go together (of similar lengths)",
    )
    training.add_argument("--seed", type=seed, metavar="N", help="of initial weights and batches (0)")
    training.add_argument(
        "--keep-best",
        choices=["loss", "accuracy", "auc", "pearson", "last"],
        help="the dev metric that chooses the epoch, or last (loss; pearson for degrees, accuracy for classes)",
    )
    training.add_argument(
        "--patience",
        type=at_least_one,
        metavar="N",
        help="stop after N epochs without a better value of that metric (never)",
    )
    add_machine(training.add_argument)
    training.add_argument(
        "--devices", type=devices, metavar="N", help="processes of this machine: N, auto, or CUDA devices as 0,2 (1)"
    )
    training.add_argument("--nodes", type=at_least_one, metavar="N", help="machines (1)")
    training.add_argument(
        "--strategy",
        metavar="NAME",
        help="Lightning's strategy for several processes: auto, ddp, ... (auto)",
    )
