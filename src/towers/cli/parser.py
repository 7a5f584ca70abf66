"""The parser of the command: its subcommands, and the completion of shells. Nothing heavy is imported."""

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from towers.cli import (
    about_command,
    convert_command,
    encode_command,
    evaluate_command,
    explain_command,
    export_command,
    fit_command,
    index_command,
    predict_command,
    score_command,
    search_command,
    similar_command,
    verify_command,
)
from towers.cli.arguments import Parser

SHELLS = ("bash", "zsh", "tcsh")

COMMANDS = {
    "fit": (fit_command, "learn from sentence pairs"),
    "predict": (predict_command, "add scores to sentence pairs"),
    "evaluate": (evaluate_command, "measure a model on labelled pairs"),
    "convert": (convert_command, "carry a network over from Keras, or back"),
    "score": (score_command, "the score of two sentences"),
    "similar": (similar_command, "the sentences of a file that fit a query best"),
    "encode": (encode_command, "the states of sentences, for programs and indexes"),
    "index": (index_command, "encode the sentences of a file for many searches"),
    "search": (search_command, "the best sentences of a file for many queries"),
    "export": (export_command, "write a file that runs without towers"),
    "verify": (verify_command, "prove the shape contracts of a module"),
    "explain": (explain_command, "walk through the network, stage by stage"),
    "about": (about_command, "what runs here, for reports of faults"),
}

HELP = """
Two-tower sentence models: one tower reads a sentence, the other a second one, and the network says whether they
belong together.

  $ towers fit --epochs 3
  pairs: train 2000, dev 250, test 250
  vectors: sample, 300 numbers a word; 100.00 % of 40972 tokens and 88 of 88 words have a vector
  network: two towers, left any number of words, right 5 words, 39,313 parameters
  epoch 1/3   train loss 0.6936  accuracy 0.5205  AUC 0.5168   dev loss 0.6876  accuracy 0.5320  AUC 0.5963   1.6 s
  epoch 2/3   train loss 0.4140  accuracy 0.8855  AUC 0.9484   dev loss 0.1808  accuracy 0.9640  AUC 0.9754   1.5 s
  epoch 3/3   train loss 0.1418  accuracy 0.9695  AUC 0.9722   dev loss 0.1443  accuracy 0.9640  AUC 0.9691   1.4 s
  kept epoch 3, best dev loss: loss 0.1443  accuracy 0.9640  AUC 0.9691
  test, 250 pairs: accuracy 0.9640 (majority class 0.5080)  AUC 0.9761  loss 0.1363
  saved in towers-run: config.json, model.safetensors, vectors.safetensors, metrics.json, curves.png
"""


def parser() -> Parser:
    """The command's parser; each subcommand's `run` is in `arguments.run`."""
    top = Parser(prog="towers", description=HELP)
    top.add_argument("--version", action="version", version=f"towers {version('towers')}")
    top.add_argument(
        "--print-completion",
        choices=SHELLS,
        action=PrintCompletion,
        help="print a script that makes a shell complete this command",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (command, summary) in COMMANDS.items():
        command.add_options(commands.add_parser(name, help=summary, description=command.HELP))
    return top


class PrintCompletion(argparse.Action):
    """Print the script for a shell and end."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Called while the options are read: nothing else of the command is wanted."""
        try:
            import shtab
        except ImportError:
            parser.exit(2, 'towers: shtab is not installed: pip install "towers[train]"\n')
        _complete_paths(parser, {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY})
        print(shtab.complete(parser, str(values)))
        parser.exit(0)


def _complete_paths(parser: argparse.ArgumentParser, kinds: dict[str, Any]) -> None:
    """Let shells complete options that take a file or a folder with the names of files and folders."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            for subparser in cast(Any, action).choices.values():
                _complete_paths(subparser, kinds)
        elif action.type is Path:
            vars(action)["complete"] = kinds["DIR" if action.metavar == "DIR" else "FILE"]
