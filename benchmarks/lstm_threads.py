"""RaggedLSTM on one thread and on all threads, in turns: more threads must never be slower."""

from collections.abc import Callable

import torch
from lstm import Case, forward, implementations, lengths_of, training
from report import Row
from timing import interleaved

TITLE = "RaggedLSTM on one thread and on all"
OURS = "towers.RaggedLSTM"


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case(6, 8, 0.5)]
    return [Case(hidden, batch, 0.5) for hidden in (6, 32, 128) for batch in (1, 2, 8, 32, 256, 1024)]


def measure(case: Case, device: torch.device, *, quick: bool) -> list[Row]:
    """Rows of both phases, from at least five rounds; one thread is the baseline."""
    lengths, words = lengths_of(case)
    paths, weights = implementations(case, lengths, device)
    padded, rows, all_of_them = torch.randn(case.batch, words, case.input_size), list[Row](), torch.get_num_threads()
    try:
        for phase, job in (("forward", forward), ("training", training)):
            call = job(paths[OURS], padded, weights[OURS])
            calls = {f"{count} threads": on(count, call) for count in (1, all_of_them)}
            for name, timing in interleaved(calls, device, seconds=0.1 if quick else 0.5).items():
                speed = lengths.sum().item() / timing.milliseconds * 1e3
                details = case._asdict() | {"spread": timing.spread, "rounds": timing.rounds}
                rows.append(
                    Row("lstm-threads", case.name, name, phase, timing.milliseconds, timing.time_ratio, speed, details)
                )
    finally:
        torch.set_num_threads(all_of_them)
    return rows


def on(threads: int, call: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        torch.set_num_threads(threads)
        return call()

    return run


def summary(rows: list[Row]) -> str:
    """The time on one thread over the time on all threads: above 1, all threads are faster."""
    lines = ["Time on one thread over the time on all threads (above 1: all threads are faster)."]
    for row in rows:
        if row.implementation != "1 threads":
            lines.append(f"{1 / row.time_ratio:6.2f}  {row.phase:<9} {row.case}")
    worst = min((1 / row.time_ratio for row in rows if row.implementation != "1 threads"), default=1.0)
    return "\n".join([*lines, f"{worst:6.2f}  at worst"])
