"""The command `towers`."""

import os
import sys
from collections.abc import Sequence

from towers.cli.options import parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code: 0, 2 for what the user can mend, 130 after Ctrl-C.

    What the user can mend is told in a line on standard error, without a traceback.
    """
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        print("\ntowers: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has gone: `towers fit | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError) as error:
        print(f"towers {arguments.command}: {_told(error)}", file=sys.stderr)
        return 2
    return 0


def _told(error: Exception) -> str:
    """An error's text; the system's own say the file first, as ours do."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
