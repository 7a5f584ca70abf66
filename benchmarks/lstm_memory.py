"""The memory of training with sentences of different lengths: how much the peak grows over the inputs.

Each implementation runs one forward and backward pass in a process of its own, which asks the system for its peak.
"""

import subprocess
import sys
import time
from pathlib import Path

import torch
from lstm import Case, implementations, lengths_of, training
from report import Row

TITLE = "Peak memory of training an LSTM over sentences of different lengths"
NAMES = ("padded nn.LSTM", "packed nn.LSTM", "towers.RaggedLSTM")


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case(6, 32, 0.5)]
    return [Case(hidden, 4096, share) for hidden in (6, 32, 128) for share in (1.0, 0.5, 0.25, 0.1)]


def measure(case: Case, device: torch.device, *, quick: bool) -> list[Row]:
    """Rows of training; `time_ratio` is the ratio of the peaks."""
    rows, first = list[Row](), 0.0
    for name in NAMES:
        start = time.perf_counter()
        command = [sys.executable, __file__, name, *(str(part) for part in case)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        grown, seconds = float(done.stdout), time.perf_counter() - start
        first = first or grown
        details = case._asdict() | {"grown_bytes": grown, "measures": "peak memory; milliseconds are the process's"}
        rows.append(Row("lstm-memory", case.name, name, "training", 1e3 * seconds, grown / first, None, details))
    return rows


def summary(rows: list[Row]) -> str:
    """Megabytes, and the share of the padded LSTM's."""
    return "\n".join(
        f"{grown:8.1f} MB  {row.time_ratio:5.2f} of padded  {row.implementation:<18} {row.case}"
        for row, grown in ((row, row.details["grown_bytes"] / 2**20) for row in rows)
    )


def peak() -> int:
    """The peak memory of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main(name: str, case: Case) -> None:
    lengths, words = lengths_of(case)
    padded = torch.randn(case.batch, words, case.input_size)
    paths, weights = implementations(case, lengths, torch.device("cpu"))
    small = implementations(case._replace(batch=2), lengths[:2], torch.device("cpu"))
    training(small[0][name], padded[:2], small[1][name])()  # memory for what is loaded at first use does not count
    call = training(paths[name], padded, weights[name])
    before = peak()
    call()
    print(peak() - before)


if __name__ == "__main__":
    hidden, batch, share, law = sys.argv[2:]
    main(sys.argv[1], Case(int(hidden), int(batch), float(share), law))
