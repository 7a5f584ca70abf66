"""`towers verify`: prove the shape contracts of a module."""

import argparse
import json
import sys
from contextlib import redirect_stdout

from towers.cli.arguments import Parser, picture
from towers.cli.named_module import load

HELP = """
Prove the shape contracts of a module for all sizes, on symbolic sizes and without data. MODULE names an nn.Module, or
something that gives one when it is called without arguments.

  $ towers verify towers:Tower | head -n 8
  Tower: proven
  for all batch >= 0, words >= 2
    module    contract             verdict
    (itself)  Tower.forward        proven
    (itself)  Ragged.from_padded   proven
    conv      PhraseConv.forward   proven
    pool      FeaturePool.forward  proven
    lstm      RaggedLSTM.forward   proven

  towers verify my_package.model:ENCODER --contract "batch time 512 -> batch time 512" --where "time <= 1000"
  towers verify my_package.model:EMBEDDING --contract "Int batch words -> batch words 300"

In a contract a name of jaxtyping's (Float, Int, Bool, Int32, ...) before the axes of a tensor says its dtype; without
one a tensor that comes in has the dtype of the module's parameters.

Exit code 0: proven. 1: not. 2: it could not be tried.
"""


def add_options(verify: Parser) -> None:
    """The options of the command."""
    verify.set_defaults(run=run)
    verify.add_argument("module", metavar="PACKAGE.MODULE:NAME", help="the module, or what makes it")
    verify.add_argument("--contract", metavar="TEXT", help='attach one first: "Int batch words -> batch words 300"')
    verify.add_argument(
        "--where", action="append", default=[], metavar="CONDITION", help='"time %% 2 == 0"; may be given several times'
    )
    verify.add_argument(
        "--seconds", type=_seconds, default=10.0, metavar="NUMBER", help="the time limit of proof and real runs (10)"
    )
    verify.add_argument("--trace", action="store_true", help="show the shapes at every boundary too")
    verify.add_argument(
        "--picture", type=picture, metavar="FILE.svg", help="draw the modules, their shapes and what fails"
    )
    verify.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Verify, print, and return 0 if it is proven, else 1."""
    from towers import checkpoint
    from towers.contracts import attach, trace, verify

    with redirect_stdout(sys.stderr):  # what the module itself prints is not part of the output
        module = load(arguments.module)
        if arguments.contract is not None:
            attach(module, arguments.contract)
        proof = verify(module, where=arguments.where, seconds=arguments.seconds)
    if arguments.picture is not None:
        drawn = proof.to_svg()
        checkpoint.replace(arguments.picture, lambda path: path.write_text(drawn, "utf8"))
    if arguments.json:
        print(json.dumps(proof.to_json(), indent=1))
    else:
        print(proof)
        if arguments.trace:
            print(trace(module, where=arguments.where))
    return 0 if proof else 1


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds, more than 0")
    return seconds
