"""`towers fit`, killed at random points of its work and resumed: run as a script, in a process that forks.

    python tests/helpers/killed.py FOLDER KILLS

The process has imported everything and started no thread, so that each run costs a fork and its own work. A point is
the n-th time that a run opens, renames or removes a file in FOLDER: between two of them nothing changes on disk, and
no clock decides which one it is. What the folder of a run holds after each kill is printed. Fails if a run does not
end with the same weights as one that was never killed.
"""

import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import polars  # noqa: F401
import torch
import torchmetrics.functional.classification  # noqa: F401
from lightning.pytorch.callbacks.progress import tqdm_progress  # noqa: F401  (what a run imports, once for all)
from safetensors.torch import load_file

from towers.cli import main
from towers.training import epochs, trainers  # noqa: F401
from towers.training import run as towers_run

WORDS = ("the", "dog", "cat", "runs", "sleeps", "fast", "well", "now")
SIZES = ["--filters", "8", "--pool", "2", "--hidden", "3", "--dense", "4"]
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
BEGIN = ["fit", "--train", "train.tsv", "--dev", "dev.tsv", "--test", "dev.tsv", "--vectors", "vectors.txt", *SIZES]
BEGIN += ["--epochs", "6", "--batch-size", "4", "--lr", "0.02", "--device", "cpu", "--save-every", "0"]


def write_files() -> None:
    numbers = random.Random(0)
    rows = [f"{word} " + " ".join(f"{numbers.gauss(0, 1):.3f}" for _ in range(6)) for word in WORDS]
    Path("vectors.txt").write_text("\n".join(rows) + "\n")
    for name, count in (("train", 23), ("dev", 9)):
        pairs = [
            (" ".join(numbers.choices(WORDS, k=numbers.randint(2, 7))), " ".join(numbers.choices(WORDS, k=5)), i % 2)
            for i in range(count)
        ]
        lines = ["sentence1\tsentence2\tlabel", *("\t".join(map(str, pair)) for pair in pairs)]
        Path(f"{name}.tsv").write_text("\n".join(lines) + "\n")


def watch_files(die_at: int) -> list[int]:
    """Count this process's file events in the current folder from now on; SIGKILL comes before the one of that number.

    Paths are compared as absolute ones: a run opens most of its files by relative paths.
    """
    folder, count = os.path.join(os.getcwd(), ""), [0]

    def look(event: str, arguments: tuple[object, ...]) -> None:
        if event not in FILE_EVENTS or not isinstance(arguments[0], str | os.PathLike):
            return
        if os.path.abspath(arguments[0]).startswith(folder):
            count[0] += 1
            if count[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    return count


def start(*arguments: str, die_at: int = 0) -> int:
    """Fork, and be the command there. It leaves its number of file events in count.txt, unless it is killed."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            with open("out.txt", "w") as out, open("err.txt", "w") as err:
                sys.stdout, sys.stderr = out, err
                count = watch_files(die_at)
                code = main(arguments)
                total = count[0]
            Path("count.txt").write_text(str(total))
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def standing() -> str:
    """How far the killed run has come, from a file that is whole."""
    record = json.loads(Path("run/resume.json").read_text())
    position = f"{len(record['history']['epochs'])} epochs, {record['position']}" if "history" in record else "nothing"
    return f"{position}, {sorted(os.listdir('run'))}"


def outcome(folder: str) -> tuple[dict[str, torch.Tensor], object]:
    metrics = json.loads(Path(folder, "metrics.json").read_text())
    for row in metrics["epochs"]:
        del row["seconds"]
    return load_file(Path(folder, "model.safetensors")), metrics


def same(first: str, second: str) -> bool:
    (one, told), (other, also) = outcome(first), outcome(second)
    return told == also and one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def run(folder: str, kills: int) -> None:
    os.chdir(folder)
    torch.set_num_threads(1)
    write_files()
    towers_run.draw_curves = lambda history, path: path.write_bytes(b"\x89PNG")  # drawing would be half of a run
    assert ended(start(*BEGIN, "--out", "whole")) == 0, Path("err.txt").read_text()
    events = int(Path("count.txt").read_text())
    points, done = random.Random(1), 0
    for _ in range(kills):
        shutil.rmtree("run", ignore_errors=True)
        left = events
        for _ in range(2):  # each run is killed twice
            die_at = points.randint(1, left)
            left = max(left - die_at, 1)
            if ended(start(*begin_or_resume(), die_at=die_at)) == -signal.SIGKILL and Path("run").exists():
                done += 1  # else it had not begun, or had ended before
                print(f"kill {done}: {standing()}", flush=True)
        code = ended(start(*begin_or_resume()))
        assert code == 0, (code, Path("err.txt").read_text())
        assert same("whole", "run"), "the weights are others"
        assert not list(Path("run").glob(".*")), os.listdir("run")
        if done >= kills:
            break
    assert done >= kills, f"only {done} kills"
    print(f"{done} kills; a whole run has {events} file events")


def begin_or_resume() -> list[str]:
    return ["fit", "--resume", "run"] if Path("run").exists() else [*BEGIN, "--out", "run"]


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
