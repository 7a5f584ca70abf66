"""A run over many rows, killed by SIGKILL at each of its steps and begun again: run as a script, in a process that forks.

    python tests/helpers/killed_runs.py FOLDER EVERY

A step is an event on a file of the run's folder, as in `killed.py`: between two of them nothing changes on disk, and no
clock decides which one it is. Every EVERY-th step is tried. Fails if the runs together do not leave the same files as
one that was never killed, if a part that was done before the kill is done again, or if a half file stays.
"""

import json
import os
import signal
import sys
from pathlib import Path

import polars  # noqa: F401  (imported once for all forks)
import torch

from towers.cli import run_job  # noqa: F401
from towers.scale import Scorer

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.helpers.killed import ended, start
from tests.helpers.predicting import make_model, rows_of

PARTS = 4
RUN = ["predict", "--model", "run", "--pairs", "pairs.tsv", "--engine", "local", "--part-rows", "6", "--max-bad", "3"]
RUN += ["--vectors", "vectors.txt"]


def write_input() -> None:
    make_model()
    rows = rows_of(6 * PARTS - 1)
    rows[8] = (rows[8][0], "", rows[8][2])
    lines = ["id\tsentence1\tsentence2", *("\t".join(row) for row in rows)]
    lines.insert(15, "a line of one field")
    Path("pairs.tsv").write_text("\n".join(lines) + "\n")


def outputs(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("[pb]*-*")}


def journal(folder: str) -> list[dict[str, object]]:
    path = Path(folder, "done.jsonl")
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def run(folder: str, every: int) -> None:
    os.chdir(folder)
    torch.set_num_threads(1)
    write_input()
    _ = Scorer("run", vectors="vectors.txt").model  # loaded once for all forks
    assert ended(start(*RUN, "--out", "whole")) == 0, Path("err.txt").read_text()
    events, wanted = int(Path("count.txt").read_text()), outputs("whole")
    assert sorted(wanted) == ["bad-00001.jsonl", "bad-00002.jsonl", *(f"part-{part:05}.tsv" for part in range(PARTS))]
    kills = 0
    for die_at in range(2, events + 1, every):  # before the first one nothing is there
        out = f"out-{die_at}"
        code = ended(start(*RUN, "--out", out, die_at=die_at))
        before = journal(out)
        kills += code == -signal.SIGKILL
        assert ended(start(*RUN, "--out", out)) == 0, (die_at, Path("err.txt").read_text())
        assert outputs(out) == wanted, die_at
        after = journal(out)
        assert after[: len(before)] == before, die_at  # what was noted as done is not done again
        assert sorted(entry["part"] for entry in after) == list(range(PARTS)), die_at
        assert not list(Path(out).glob(".*")), (die_at, os.listdir(out))
    assert kills > 0
    print(f"{kills} kills; a whole run has {events} file events")


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
