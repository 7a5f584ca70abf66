"""What the options of several commands share. Nothing heavy is imported, so that `towers --help` answers at once."""

import argparse
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

FORMATS = ("tsv", "csv", "jsonl", "parquet")


class Parser(argparse.ArgumentParser):
    """A parser that keeps the line breaks of descriptions and takes no abbreviated options.

    An abbreviation that is clear today could become ambiguous with a later option and break a script.
    """

    def __init__(self, **options: Any) -> None:
        own: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**options | own)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Refuse an unknown option in the name of its subcommand, with the nearest known option."""
        self._given: list[str] = list(sys.argv[1:] if args is None else args)
        known, others = super().parse_known_args(args, namespace)
        if others:
            self.error(f"unrecognized arguments: {' '.join(others)}{self._hint(others[0])}")
        return known, others

    def _hint(self, argument: str) -> str:
        option = argument.partition("=")[0]
        near = get_close_matches(option, self._option_string_actions, n=1) if option.startswith("-") else []
        return f"; did you mean {near[0]}?" if near and near[0] != option else ""

    def error(self, message: str) -> NoReturn:
        """Print the error in one line; argparse's own method lists all options before the error.

        argparse reports a missing option before a misspelt one. Here a misspelt one comes first: it is the cause.
        """
        if " are required: -" in message:
            hints = [(argument, self._hint(argument)) for argument in self._given if argument.startswith("--")]
            message = next((f"unrecognized arguments: {name}{hint}" for name, hint in hints if hint), message)
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help tells more)\n")


def add_vectors(add: Callable[..., argparse.Action]) -> None:
    """The options about word vectors."""
    add("--vectors", type=Path, metavar="FILE", help="word vectors; glove-6b-50d: GloVe 6B, of the extra vectors")
    add(
        "--missing",
        choices=["hash", "zero"],
        help="the vector of a word that the file lacks: hashed from its letters, or zeros (hash; of presets zero)",
    )


def add_columns(add: Callable[..., argparse.Action]) -> None:
    """The options about the columns of a file of pairs."""
    add("--format", choices=FORMATS, help="of the pairs (what the ending says, without .gz)")
    add(
        "--separator",
        type=separator,
        metavar="CHARACTER",
        help="between the fields of a CSV file; 'tab' for a tab (the comma, or what the header has instead)",
    )
    add("--left-column", metavar="NAME", help="column of the left sentence (sentence1)")
    add("--right-column", metavar="NAME", help="column of the right sentence (sentence2)")
    add(
        "--split",
        choices=["rule", "spaces"],
        help="how text becomes words: by the built-in rule, or at spaces; Chinese, Japanese and Thai need 'spaces' and "
        "text that was divided into words beforehand (rule)",
    )
    add(
        "--fit-length",
        choices=["pad-or-cut"],
        help="for a tower of a fixed number of words: pad or cut its sentences (default: an error)",
    )


def add_machine(add: Callable[..., argparse.Action]) -> None:
    """The options about the machine."""
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1 (auto: CUDA if there is one)")
    add(
        "--precision",
        choices=["32-true", "bf16-mixed", "bf16-true", "64-true"],
        help="number format, by Lightning's names (32-true)",
    )


def add_run(group: Any, *, engine: str | None) -> None:
    """The options of a run that writes a folder of parts; `engine` is the default."""
    add = group.add_argument
    told = f" ({engine})" if engine else ""
    add(
        "--engine",
        choices=["local", "ray"],
        default=engine,
        help=f"write a folder of parts, from which an interrupted run goes on; by processes here, or by Ray{told}",
    )
    add("--workers", type=at_least_one, metavar="N", help="processes (local: 1; ray: one for each CPU but one)")
    add("--address", metavar="ADDRESS", help="of the cluster of Ray, as ray.init takes it (a new Ray, of this machine)")
    add("--max-bad", type=not_negative, default=0, metavar="N", help="rows without an answer that are accepted (0)")
    add("--part-rows", type=at_least_one, default=50_000, metavar="N", help="rows of each part (50000)")


def check_no_run(arguments: argparse.Namespace) -> None:
    """Refuse the options of `add_run` that say something, where there is no engine.

    Raises:
        ValueError: there is one.
    """
    for name, usual in (("address", None), ("workers", None), ("max_bad", 0), ("part_rows", 50_000)):
        if getattr(arguments, name) != usual:
            raise ValueError(f"--{name.replace('_', '-')} goes with --engine local or --engine ray")


def separator(text: str) -> str:
    """A character, or a tab by its name."""
    named = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(named) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one character, nor 'tab'")
    return named


def words(text: str) -> int | None:
    """`any` as None, or a number."""
    if text == "any":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'any' nor a number of words") from None


def devices(text: str) -> int | str:
    """A number of processes, or another value that Lightning knows; it is checked later."""
    return at_least_one(text) if text.lstrip("-").isdecimal() else text


def picture(text: str) -> Path:
    """For an option: the name of an SVG file."""
    if not text.endswith(".svg"):
        raise argparse.ArgumentTypeError(f"{text!r} must end in .svg")
    return Path(text)


def at_least_one(text: str) -> int:
    """A whole number of at least 1."""
    return whole(text, 1, None)


def not_negative(text: str) -> int:
    """A whole number of at least 0."""
    return whole(text, 0, None)


def seed(text: str) -> int:
    """A seed that every random number generator accepts: 0 to 2**32 - 1."""
    return whole(text, 0, 2**32 - 1)


def whole(text: str, low: int, high: int | None) -> int:
    """A whole number within limits."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < low or (high is not None and number > high):
        limit = f"less than {low}" if number < low else f"more than {high}"
        raise argparse.ArgumentTypeError(f"{number} is {limit}")
    return number
