"""`towers --print-completion SHELL`: what makes a shell complete the command; shtab writes it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")


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
            import shtab  # pyright: ignore[reportMissingTypeStubs]
        except ImportError:
            parser.exit(2, 'towers: shtab is not installed: pip install "towers[train]"\n')
        _complete_paths(parser, {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY})
        print(shtab.complete(parser, str(values)))
        parser.exit(0)


def _complete_paths(parser: argparse.ArgumentParser, kinds: dict[str, Any]) -> None:
    """Options that name files and folders are completed by those that there are."""
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            below: dict[str, argparse.ArgumentParser] = dict(action.choices or {})  # type: ignore[arg-type]
            for subparser in below.values():
                _complete_paths(subparser, kinds)
        elif action.type is Path:
            action.complete = kinds[str(action.metavar)]  # type: ignore[attr-defined]
