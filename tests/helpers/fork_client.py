"""Hands a command to the server of `forked.py`: its arguments, folder, environment and open files, later its signals.

`Forks` makes programs of this file: above it they have the line "#!", ADDRESS, of the server, and PROGRAM, its own path.
It starts in some milliseconds, because it imports little; the process that does the work is a fork of the server.
"""

import contextlib
import json
import os
import signal
import socket
import sys

ADDRESS: str
PROGRAM: str


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def send(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(child, number)


def main() -> None:
    streams = [number for number in range(3) if is_open(number)]
    for _ in range(3 - len(streams)):
        os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: the connection must get another one
    early = [signal.SIGINT, signal.SIGTERM]
    signal.pthread_sigmask(signal.SIG_BLOCK, early)
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(ADDRESS)
        job = {"program": PROGRAM, "arguments": sys.argv[1:], "folder": os.getcwd(), "streams": streams}
        text = json.dumps(job | {"environment": dict(os.environ)}).encode()
        socket.send_fds(server, [len(text).to_bytes(8, "big")], streams)
        server.sendall(text)
        answers = server.makefile()
        child = int(answers.readline())
        for number in early:
            signal.signal(number, lambda number, _: send(child, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, early)
        code = int(answers.readline())
    if code < 0:  # killed by a signal, so this process is too
        with contextlib.suppress(OSError):  # SIGKILL is always that
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
