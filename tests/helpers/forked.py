"""Processes that have imported everything already: each costs a fork and its own work, not the import of torch.

A server imports what the command and the README's examples import, starts no thread, and forks for each job. What a
job prints goes through files, so that its standard output is no terminal, as in a pipe.
"""

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn

SECONDS = 240  # that a job may take; SIGALRM ends it then


class Forks:
    """The server, from another process. It ends with the `with` statement."""

    def __enter__(self) -> "Forks":
        command = [sys.executable, __file__]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def towers(self, arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command `towers` in a folder."""
        return self._run({"arguments": ["towers", *arguments], "folder": str(folder), "environment": environment})

    def script(self, path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a Python file in a folder; a warning is an error."""
        return self._run({"arguments": [str(path)], "folder": str(folder), "environment": {}})

    def _run(self, job: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(job), file=self._server.stdin, flush=True)
        code, out, err = json.loads(self._server.stdout.readline())
        return subprocess.CompletedProcess(job["arguments"], code, out, err)


def serve() -> None:
    """Fork for each line of standard input, and answer when the child has ended."""
    for line in sys.stdin:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                for stream, number in ((out, 1), (err, 2)):
                    os.dup2(stream.fileno(), number)
                work(**json.loads(line))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            printed: list[str] = []
            for stream in (out, err):
                stream.seek(0)
                printed.append(stream.read().decode())
        print(json.dumps([code, *printed]), flush=True)


def work(arguments: list[str], folder: str, environment: dict[str, str]) -> NoReturn:
    """Be the job, and end without taking the interpreter down, which would cost more than most jobs."""
    code: object = 1
    try:
        signal.alarm(SECONDS)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        os.environ.update(environment)
        sys.argv = arguments
        code = run_towers() if arguments[0] == "towers" else run_script(arguments[0])
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def run_towers() -> int:
    from towers.cli import main

    return main()


def run_script(path: str) -> int:
    warnings.simplefilter("error")
    sys.path[0] = str(Path(path).parent)
    runpy.run_path(path, run_name="__main__")
    return 0


def import_everything() -> None:
    import lightning.pytorch.callbacks.progress.tqdm_progress  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import polars  # noqa: F401
    import torch
    import torchmetrics.functional.classification  # noqa: F401

    import towers.cli
    import towers.contracts
    import towers.training.run
    import towers.training.trainers  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()  # the collector of a child would copy the pages of all that was imported


if __name__ == "__main__":
    import_everything()
    serve()
