"""What the options of several commands share. Nothing heavy is imported, so that `towers --help` answers at once."""

import argparse
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

FORMATS = ("tsv", "csv", "jsonl", "parquet")


class Parser(argparse.ArgumentParser):
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


def add_vectors(add: Callable[..., argparse.Action]) -> None:
    """The options about word vectors."""
    add("--vectors", type=Path, metavar="FILE", help="word vectors")
    add(
        "--missing",
        choices=["hash", "zero"],
        help="a word without a vector: one made from its letters, or zeros (hash)",
    )


def add_columns(add: Callable[..., argparse.Action]) -> None:
    """The options about the columns of a file of pairs."""
    add("--left-column", metavar="NAME", help="column of the left sentence (sentence1)")
    add("--right-column", metavar="NAME", help="column of the right sentence (sentence2)")
    add("--split", choices=["rule", "spaces"], help="how text becomes words: by the built-in rule, or at spaces (rule)")
    add(
        "--fit-length",
        choices=["pad-or-cut"],
        help="for a tower of a fixed number of words: fill up or cut its sentences (default: an error)",
    )


def add_machine(add: Callable[..., argparse.Action]) -> None:
    """The options about the machine."""
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1 (auto: CUDA if there is one)")
    add(
        "--precision",
        choices=["32-true", "bf16-mixed", "bf16-true", "64-true"],
        help="in Lightning's words (32-true)",
    )


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
