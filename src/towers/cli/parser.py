"""The options of the command, without anything heavy: `towers --help` answers at once."""

import argparse
from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from towers.cli import texts
from towers.cli.completion import SHELLS, PrintCompletion


def parser() -> argparse.ArgumentParser:
    """The command's parser; each subcommand's `run` is in `arguments.run`."""
    top = _Parser(prog="towers", description=texts.TOP)
    top.add_argument("--version", action="version", version=f"towers {version('towers')}")
    top.add_argument(
        "--print-completion",
        choices=SHELLS,
        action=PrintCompletion,
        help="print what makes a shell complete this command",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    fit = commands.add_parser(
        "fit",
        help="learn from sentence pairs",
        description=texts.FIT,
        argument_default=argparse.SUPPRESS,  # an option that was not given is not there: the library has its default
    )
    fit.set_defaults(run=_fit)
    _add_run(fit)
    _add_files(fit)
    _add_sizes(fit)
    _add_training(fit)
    predict = commands.add_parser("predict", help="add probabilities to sentence pairs", description=texts.PREDICT)
    predict.set_defaults(run=_predict, device="auto", precision="32-true")
    _add_prediction(predict)
    verify = commands.add_parser("verify", help="prove the shape contracts of a module", description=texts.VERIFY)
    verify.set_defaults(run=_verify)
    _add_verification(verify)
    explain = commands.add_parser("explain", help="walk through the network, stage by stage", description=texts.EXPLAIN)
    explain.set_defaults(run=_explain)
    _add_explanation(explain)
    return top


class _Parser(argparse.ArgumentParser):
    """Descriptions as they are written, and only whole option names: a later option must not change a script."""

    def __init__(self, **options: object) -> None:
        fixed = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**{**options, **fixed})  # type: ignore[arg-type]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """An option that no command has is refused by the command that was given it, with the nearest that it has."""
        known, others = super().parse_known_args(args, namespace)
        if others:
            option = others[0].partition("=")[0]
            near = get_close_matches(option, self._option_string_actions, n=1) if option.startswith("-") else []
            hint = f"; did you mean {near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(others)}{hint}")
        return known, others

    def error(self, message: str) -> NoReturn:
        """One line, and where to read on; argparse shows all options first, and what is wrong at their end."""
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help tells more)\n")


def _fit(arguments: argparse.Namespace) -> None:
    from towers.cli.fit_command import run

    run(arguments)


def _predict(arguments: argparse.Namespace) -> None:
    from towers.cli.predict_command import run

    run(arguments)


def _explain(arguments: argparse.Namespace) -> None:
    from towers.cli.explain_command import run

    run(arguments)


def _verify(arguments: argparse.Namespace) -> int:
    from towers.cli.verify_command import run

    return run(arguments)


def _add_files(fit: argparse.ArgumentParser) -> None:
    files = fit.add_argument_group("files", "without --train: the built-in sample")
    files.add_argument("--train", type=Path, metavar="FILE", help="sentence pairs to learn from")
    files.add_argument("--dev", type=Path, metavar="FILE", help="pairs that choose the best epoch (default: the last)")
    files.add_argument("--test", type=Path, metavar="FILE", help="held-out pairs, measured at the end")
    _add_vectors(files.add_argument)
    _add_columns(files.add_argument)
    files.add_argument("--label-column", metavar="NAME", help="default: label")
    files.add_argument(
        "--label-range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="what labels mean 'no' and 'yes'; those between are degrees (default: 0 1)",
    )


def _add_run(fit: argparse.ArgumentParser) -> None:
    run = fit.add_argument_group("the run")
    run.add_argument("--out", type=Path, metavar="DIR", help="default: towers-run, or the next free towers-run-N")
    run.add_argument("--overwrite", action="store_true", help="let --out replace the run that it holds")
    run.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="go on with a run, with the options it began with; with more --epochs, after its end too",
    )
    run.add_argument(
        "--save-every",
        type=float,
        metavar="SECONDS",
        help="how often to save what --resume goes on from, at a step's end (30; 0: after each step)",
    )
    run.add_argument(
        "--tensorboard", action="store_true", help="write events to DIR/tensorboard (needs the extra tensorboard)"
    )
    run.add_argument("--json", action="store_true", help="one JSON object a line on standard output: start, epoch, end")


def _add_vectors(add: Callable[..., argparse.Action]) -> None:
    add("--vectors", type=Path, metavar="FILE", help="word vectors")
    add(
        "--missing",
        choices=["hash", "zero"],
        help="a word without a vector: one made from its letters, or zeros (hash)",
    )


def _add_columns(add: Callable[..., argparse.Action]) -> None:
    add("--left-column", metavar="NAME", help="column of the left sentence (sentence1)")
    add("--right-column", metavar="NAME", help="column of the right sentence (sentence2)")
    add("--split", choices=["rule", "spaces"], help="how text becomes words: by the built-in rule, or at spaces (rule)")
    add(
        "--fit-length",
        choices=["pad-or-cut"],
        help="for a tower of a fixed number of words: fill up or cut its sentences (default: an error)",
    )


def _add_sizes(fit: argparse.ArgumentParser) -> None:
    sizes = fit.add_argument_group("the network")
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
    sizes.add_argument("--pool", type=int, metavar="N", help="features of which the largest is kept (4)")
    sizes.add_argument("--hidden", type=int, metavar="N", help="LSTM units (6)")
    sizes.add_argument("--dense", type=int, metavar="N", help="units of the head (16)")
    sizes.add_argument("--chunk", type=int, metavar="N", help="steps that the LSTM takes at a time (all)")


def _add_training(fit: argparse.ArgumentParser) -> None:
    training = fit.add_argument_group("training")
    training.add_argument("--epochs", type=at_least_one, metavar="N", help="times through the training pairs (10)")
    training.add_argument(
        "--batch-size", type=at_least_one, metavar="N", help="pairs of a step, over all processes (5)"
    )
    training.add_argument("--lr", type=float, metavar="X", help="learning rate (0.001)")
    training.add_argument("--seed", type=seed, metavar="N", help="of initial weights and batches (0)")
    training.add_argument(
        "--keep-best",
        choices=["loss", "accuracy", "auc", "pearson"],
        help="the dev metric that chooses the epoch (loss; pearson where labels are degrees)",
    )
    training.add_argument(
        "--patience", type=at_least_one, metavar="N", help="end after N epochs in which that was not better (never)"
    )
    _add_machine(training.add_argument)
    training.add_argument(
        "--devices", type=devices, metavar="N", help="processes of this machine: N, auto, or CUDA devices as 0,2 (1)"
    )
    training.add_argument("--nodes", type=at_least_one, metavar="N", help="machines (1)")
    training.add_argument(
        "--strategy", metavar="NAME", help="Lightning's word for how processes work together: auto, ddp, ... (auto)"
    )


def _add_machine(add: Callable[..., argparse.Action]) -> None:
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1 (auto: CUDA if there is one)")
    add(
        "--precision",
        choices=["32-true", "bf16-mixed", "bf16-true", "64-true"],
        help="in Lightning's words (32-true)",
    )


def _add_prediction(predict: argparse.ArgumentParser) -> None:
    files = predict.add_argument_group("files")
    files.add_argument("--model", type=Path, required=True, metavar="DIR", help="folder that `towers fit` saved")
    files.add_argument(
        "--pairs", type=Path, required=True, metavar="FILE", help="sentence pairs, without labels; -: standard input"
    )
    files.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the same rows, and `probability`; -: standard output"
    )
    formats = ["tsv", "csv", "jsonl", "parquet"]
    files.add_argument("--format", choices=formats, help="of the pairs (what the ending says)")
    files.add_argument("--out-format", choices=formats, help="of the output (what its ending says; as the pairs)")
    _add_vectors(files.add_argument)
    _add_columns(files.add_argument)
    machine = predict.add_argument_group("machine")
    machine.add_argument(
        "--batch-size", type=at_least_one, default=256, metavar="N", help="sentences that a tower reads at a time (256)"
    )
    _add_machine(machine.add_argument)
    predict.add_argument("--json", action="store_true", help="say what was done as a JSON object")


def _add_verification(verify: argparse.ArgumentParser) -> None:
    verify.add_argument("module", metavar="PACKAGE.MODULE:NAME", help="the module, or what makes it")
    verify.add_argument("--contract", metavar="TEXT", help='attach one first: "Int batch words -> batch words 300"')
    verify.add_argument(
        "--where", action="append", default=[], metavar="CONDITION", help='"time %% 2 == 0"; may be given several times'
    )
    verify.add_argument("--trace", action="store_true", help="show the shapes at every boundary too")
    verify.add_argument("--json", action="store_true", help="print everything as JSON")


def _add_explanation(explain: argparse.ArgumentParser) -> None:
    explain.add_argument(
        "--words", type=at_least_one, metavar="N", help="words of a sentence (9, or what a tower takes)"
    )
    explain.add_argument(
        "--model", type=Path, metavar="DIR", help="a folder that `towers fit` saved (the original network)"
    )
    explain.add_argument("--json", action="store_true", help="print everything as JSON")


def words(text: str) -> int | None:
    """`any` as None, or a number."""
    if text == "any":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'any' nor a number of words") from None


def devices(text: str) -> int | str:
    """A number of processes, or Lightning's other words, looked at later."""
    return at_least_one(text) if text.lstrip("-").isdecimal() else text


def at_least_one(text: str) -> int:
    """A count that cannot be 0."""
    return _whole(text, 1, None)


def seed(text: str) -> int:
    """A number that every generator of random numbers takes."""
    return _whole(text, 0, 2**32 - 1)


def _whole(text: str, low: int, high: int | None) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < low or (high is not None and number > high):
        limit = f"less than {low}" if number < low else f"more than {high}"
        raise argparse.ArgumentTypeError(f"{number} is {limit}")
    return number
