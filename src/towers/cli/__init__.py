"""The command `towers`."""

import argparse
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType

from towers.cli.parser import parser

_NO_MEMORY = re.compile("can't allocate memory|out of memory|Storage size calculation overflowed", re.IGNORECASE)

_SMALLER = {
    "fit": "a smaller --batch-size, or smaller sizes of the network",
    "predict": "a smaller --batch-size, or smaller sizes of the network",
    "encode": "fewer --workers, or shorter sentences",
    "explain": "fewer --words, or smaller sizes of the network",
    "verify": "smaller sizes of the network",
    "export": "smaller sizes of the network",
    "about": "another machine",
}
"""What a command needs where the memory does not suffice; the others read sentences."""


class _Terminated(BaseException):
    """The process was told to terminate."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code.

    0: success. 1: `verify` found no proof. 2: an error that the user can correct; it is one line on standard error,
    without a traceback. 130: Ctrl-C. 141: the reader closed standard output. 143: SIGTERM.
    """
    try:
        with _terminable():
            return _run(parser().parse_args(argv))
    except KeyboardInterrupt as error:
        _say_end("interrupted", error)
        return 128 + signal.SIGINT
    except _Terminated as error:
        _say_end("terminated", error)
        return 128 + signal.SIGTERM


def _run(arguments: argparse.Namespace) -> int:
    try:
        code = arguments.run(arguments) or 0
        print(end="", flush=True)
        return code
    except BrokenPipeError:  # the reader of the output has ended: `towers predict --out - | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in (errno.ENOSPC, errno.EIO):
            error.filename = "standard output"  # files are named where they are written
        _give_up_output()
        if (
            isinstance(error, ConnectionError) and not _is_main()
        ):  # the main process, or the process that ended, prints the reason
            return 2
        print(f"towers {arguments.command}: {_told(error)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:  # on the CPU torch raises plain RuntimeErrors where memory is short
        if not (isinstance(error, MemoryError) or _NO_MEMORY.search(str(error))):
            raise
        problem = f"the memory does not suffice; take {_SMALLER.get(arguments.command, 'fewer or shorter sentences')}"
        print(f"towers {arguments.command}: {_noted(problem, error)}", file=sys.stderr)
        return 2


def _give_up_output() -> None:
    """Drop what standard output cannot take: Python flushes it once more at its end, and would fail again."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _terminable() -> Generator[None]:
    """Turn SIGTERM into an exception, as Python does with Ctrl-C, so that unfinished files are removed."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _say_end(what: str, error: BaseException) -> None:
    """Print what ended the command, with the notes of the exception. Of several processes only the main one prints."""
    if _is_main():
        print(f"\ntowers: {_noted(what, error)}", file=sys.stderr)


def _is_main() -> bool:
    # No import here: the signal may have interrupted the import of torch, which cannot be started again.
    processes = sys.modules.get("towers.training.processes")
    is_main = getattr(processes, "is_main", None)
    return is_main is None or bool(is_main(alone=False))


def _told(error: Exception) -> str:
    """An error's text in one line. For errors of the operating system the file name comes first, as in our own."""
    if isinstance(error, OSError) and error.filename is not None:
        problem = "is a folder; name a file" if isinstance(error, IsADirectoryError) else error.strerror
        return _noted(f"{error.filename}: {problem}", error)
    return _noted("; ".join(line.strip() for line in str(error).splitlines() if line.strip()), error)


def _noted(text: str, error: BaseException) -> str:
    return "; ".join([text, *getattr(error, "__notes__", [])])
