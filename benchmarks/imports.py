"""What importing costs: the time of whole Python processes, measured in turns."""

import subprocess
import sys
import time

import torch
from report import Row
from timing import medians

TITLE = "What importing costs (whole process)"
STATEMENTS = ("import torch", "import towers", "from towers import TwoTowers")


def cases(quick: bool) -> list[str]:
    return ["python -c …"]


def measure(case: str, device: torch.device, *, quick: bool) -> list[Row]:
    one_round()  # so that the files are in the system's cache
    timings = medians([one_round() for _ in range(3 if quick else 15)])
    return [
        Row(
            "import", case, statement, "import", timing.milliseconds, timing.time_ratio,
            details={"spread": timing.spread, "rounds": timing.rounds},
        )
        for statement, timing in timings.items()
    ]  # fmt: skip


def one_round() -> dict[str, float]:
    return {statement: process_seconds(statement) for statement in STATEMENTS}


def process_seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start
