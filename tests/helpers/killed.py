"""`towers fit`, killed at random moments and gone on with: run as a script, in a process that forks.

    python tests/helpers/killed.py FOLDER KILLS

The process has imported everything and started no thread, so that each run costs a fork and its own work. What the
folder of a run holds when its process is gone is looked at each time. Prints a line for each kill, and fails if a run
does not end with the same weights as the one that nobody killed.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
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


def start(*arguments: str) -> int:
    """Fork, and be the command there."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            with open("out.txt", "w") as out, open("err.txt", "w") as err:
                sys.stdout, sys.stderr = out, err
                code = main(arguments)
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_after(child: int, seconds: float) -> bool:
    """Whether it was killed before it had ended."""
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return ended(child) == -signal.SIGKILL


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
    began = time.perf_counter()
    assert ended(start(*BEGIN, "--out", "whole")) == 0, Path("err.txt").read_text()
    whole = time.perf_counter() - began
    moments, done = random.Random(1), 0
    while done < kills:
        shutil.rmtree("run", ignore_errors=True)
        for _ in range(2):  # each run is killed twice, more would mostly hit its end
            child = start("fit", "--resume", "run") if Path("run").exists() else start(*BEGIN, "--out", "run")
            if kill_after(child, moments.uniform(0, whole)) and Path("run").exists():  # else it had not begun
                done += 1
                print(f"kill {done}: {standing()}", flush=True)
        code = ended(start("fit", "--resume", "run") if Path("run").exists() else start(*BEGIN, "--out", "run"))
        assert code == 0, (code, Path("err.txt").read_text())
        assert same("whole", "run"), "the weights are others"
        assert not list(Path("run").glob(".*")), os.listdir("run")
    print(f"{done} kills; a whole run took {whole:.2f} s")


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
