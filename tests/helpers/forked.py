"""Processes that have imported everything already: each costs a fork and its own work, not the import of torch.

`Forks` starts a server that imports what the command, the README's examples and a training run import. It has no
thread, and forks for each job. `Forks.python` and `Forks.command` are programs that one runs as one runs `python` and
`towers`: by subprocess or in a shell, with any standard streams, environment and folder, and with signals.
`Forks.with_torch` is a `python` that has imported torch and nothing else that is not Python's own: for what is about the
imports of towers.

A test runs the real ones where it is about how a process begins or ends: the import of torch, a warning while it imports,
memory at its peak, a signal or a closed stream before Python has started.
"""

import contextlib
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, cast

SECONDS = 240  # that a job may take; SIGALRM ends it then
CLIENT = Path(__file__).with_name("fork_client.py")


class Forks:
    """The server, from another process. It ends with the `with` statement.

    Args:
        folder: of a server that another process has started, and stops.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._own = tempfile.TemporaryDirectory(prefix="forks-") if folder is None else None
        self.folder = Path(self._own.name) if self._own is not None else cast(Path, folder)
        self.python, self.command = str(self.folder / "python"), str(self.folder / "towers")
        self.with_torch = str(self.folder / "python-with-torch")

    def start(self) -> None:
        """Start it. What is run before it has imported everything waits for that."""
        address = str(self.folder / "socket")
        self._server = subprocess.Popen(
            [sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for program in (self.python, self.command, self.with_torch):
            where = with_torch_only(address) if program == self.with_torch else address
            head = f"#!{sys.executable} -IS\nADDRESS, PROGRAM = {where!r}, {program!r}\n"
            Path(program).write_text(head + CLIENT.read_text("utf8").partition('"""\n\n')[2])
            Path(program).chmod(0o755)
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "listening\n"

    def wait(self) -> "Forks":
        """Wait until it has imported everything, so that no limit of what is run counts that time."""
        subprocess.run([self.python, "-c", ""], check=True)
        return self

    def stop(self) -> None:
        """End it, and what it runs."""
        self._server.communicate()
        assert self._own is not None
        self._own.cleanup()

    def __enter__(self) -> "Forks":
        self.start()
        return self.wait()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def towers(self, arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command `towers` in a folder."""
        return self.run([self.command, *arguments], cwd=folder, env=os.environ | environment)

    def script(self, path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a Python file in a folder; a warning is an error."""
        return self.run([self.python, "-W", "error", str(path)], cwd=folder)

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command whose program is one of these, or starts one, without standard input."""
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, **options
        )


class Server:
    """Forks for each connection; tells it the number of the process, and when that has ended its code."""

    def __init__(self, address: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen()
        self._jobs: dict[int, socket.socket] = {}

    def serve(self) -> None:
        """Until standard input ends."""
        self._ended, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            ready, _, _ = select.select([sys.stdin, self._ended, self._listener, *self._jobs.values()], [], [])
            if sys.stdin in ready:
                for child in self._jobs:
                    os.kill(child, signal.SIGKILL)
                return
            if self._ended in ready:
                os.read(self._ended, 4096)
            for child, client in list(self._jobs.items()):
                if client in ready and not client.recv(1):  # the client was killed: so is what it stands for
                    os.kill(child, signal.SIGKILL)
                self._answer(child, client)
            if self._listener in ready:
                self._start(self._listener.accept()[0])

    def _start(self, client: socket.socket) -> None:
        head, files, _, _ = socket.recv_fds(client, 8, 3)
        with client.makefile("rb") as rest:
            job = json.loads(rest.read(int.from_bytes(head)))
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for other in (client, self._listener, *self._jobs.values()):
                other.close()
            be(**job, files=files)
        for file in files:
            os.close(file)
        client.sendall(b"%d\n" % child)
        self._jobs[child] = client

    def _answer(self, child: int, client: socket.socket) -> None:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            del self._jobs[child]
            with client, contextlib.suppress(BrokenPipeError):
                client.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def be(
    program: str, arguments: list[str], folder: str, environment: dict[str, str], streams: list[int], files: list[int]
) -> NoReturn:
    """Be the process of a job, and end without taking the interpreter down, which would cost more than most jobs."""
    import numpy as np

    code: object = 1
    try:
        take_streams(streams, files)
        signal.alarm(SECONDS)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        random.seed()
        np.random.seed()
        sys.executable = str(Path(program).with_name("python"))  # of processes that this one starts
        code = run_towers(program, arguments) if Path(program).name == "towers" else run_python(arguments)
    except SystemExit as ended:
        code = ended.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except OSError:
                code = 120
        os._exit(code if isinstance(code, int) else 1)


def take_streams(streams: list[int], files: list[int]) -> None:
    """Make these files the standard streams; one that was closed is closed here, and None as in a new process."""
    for number, file in zip(streams, files, strict=True):
        os.dup2(file, number)
        os.close(file)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        stream = None
        if number in streams:
            lines = 1 if name == "stderr" or os.isatty(number) else -1
            errors = "backslashreplace" if name == "stderr" else None
            stream = open(number, mode, lines, "utf8", errors, closefd=False)  # noqa: SIM115
        else:
            os.close(number)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def run_towers(program: str, arguments: list[str]) -> int:
    from towers.cli import main

    sys.argv = [program, *arguments]
    return main()


def run_python(arguments: list[str]) -> int:
    """What `python` does with these arguments: -W error or -u, then -c CODE, -m MODULE or a file, and its arguments."""
    if arguments[0] == "-u":  # torchrun's; what is printed comes at the end all the same
        arguments = arguments[1:]
    if arguments[:2] == ["-W", "error"]:
        warnings.simplefilter("error")
        arguments = arguments[2:]
    kind, *rest = arguments
    if kind == "-c":
        code, *rest = rest
        sys.argv, sys.path[0] = ["-c", *rest], ""
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), vars(main))
    elif kind == "-m":
        name, *rest = rest
        sys.argv, sys.path[0] = [name, *rest], os.getcwd()
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [kind, *rest], str(Path(kind).parent.resolve())
        runpy.run_path(kind, run_name="__main__")
    return 0


def with_torch_only(address: str) -> str:
    """Of the server whose jobs find torch imported and nothing of towers."""
    return f"{address}-with-torch"


def import_torch() -> None:
    import torch

    torch.set_num_threads(1)


def import_everything() -> None:
    import lightning.pytorch.callbacks.progress.tqdm_progress  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import polars  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torchmetrics.functional.classification  # noqa: F401

    import towers.cli
    import towers.contracts
    import towers.training.run
    import towers.training.trainers

    towers.contracts.verify(towers.FeaturePool(2))  # it imports sympy, and much of torch, when it is first used


def serve(server: Server) -> NoReturn:
    gc.freeze()  # the collector of a child would copy the pages of all that was imported
    gc.enable()
    server.serve()
    os._exit(0)


if __name__ == "__main__":
    first, second = Server(with_torch_only(sys.argv[1])), Server(sys.argv[1])
    print("listening", flush=True)
    gc.disable()
    import_torch()
    if os.fork() == 0:
        serve(first)
    import_everything()
    serve(second)
