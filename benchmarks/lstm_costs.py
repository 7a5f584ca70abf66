"""What a segment of RaggedLSTM's walk costs in each way: the measurements behind the model in towers/kernels/costs.py.

python benchmarks/run.py lstm-costs                                     measures
python benchmarks/lstm_costs.py benchmarks/results/cpu/lstm-costs.json  fits, and prints the constants
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from report import Row
from timing import interleaved
from torch import nn

from towers.kernels import Batch, cpu, walk
from towers.kernels.cells import Parameters
from towers.kernels.layout import Layout
from towers.kernels.plan import Cut, Plan

TITLE = "What a segment of the walk costs"
WAYS = (*walk.WAYS, "native")
FEATURES = ("call", "step", "step_hidden", "row", "row_hidden", "row_products")


class Case(NamedTuple):
    hidden: int
    batch: int
    steps: int

    @property
    def name(self) -> str:
        return f"hidden {self.hidden}, batch {self.batch}, steps {self.steps}"


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case(6, 8, 4)]
    sizes = [(batch, steps) for batch in (1, 8, 32, 128, 512) for steps in (2, 8, 32)]
    found = [Case(hidden, *size) for hidden in (6, 16, 32, 64, 128) for size in sizes]
    return [case for case in found if case.hidden * case.batch <= 65_536]


def measure(case: Case, device: torch.device, *, quick: bool) -> list[Row]:
    """Rows of all ways in both phases, sentences of equal length, the threads as they are."""
    jobs = {f"{way} {phase}": job(case, way, phase) for phase in ("forward", "training") for way in WAYS}
    threads, rows = torch.get_num_threads(), list[Row]()
    for used in sorted({1, threads}):
        torch.set_num_threads(used)
        for name, timing in interleaved(jobs, device, seconds=0.05 if quick else 0.2).items():
            way, phase = name.split()
            details = case._asdict() | {"threads": used, "rounds": timing.rounds}
            rows.append(
                Row(
                    "lstm-costs",
                    case.name,
                    f"{way}, {used} threads",
                    phase,
                    timing.milliseconds,
                    timing.time_ratio,
                    None,
                    details,
                )
            )
    torch.set_num_threads(threads)
    return rows


def job(case: Case, way: str, phase: str):
    """One segment: forward, or forward and backward."""
    hidden, batch, steps = case
    lstm = nn.LSTM(hidden, hidden)
    weights = Parameters(lstm.weight_ih_l0.detach(), lstm.weight_hh_l0.detach(), lstm.bias_ih_l0.detach(), None)
    layout: Layout | cpu.Layout
    if way == "native":
        layout = cpu.Layout(Batch(torch.empty(batch * steps, hidden), None, None, steps), batch)
    else:
        cut = Cut(way, 0, 0, [batch] * steps, 0)
        plan = Plan(None, batch, batch, batch * steps, (cut,), 0.0, False)
        layout = Layout(plan, torch.arange(batch) * steps, torch.full((batch,), steps), batch * steps, cells=False)
    module = cpu if way == "native" else walk
    values, zeros = torch.randn(batch * steps, hidden), torch.zeros(batch, hidden)

    def call() -> None:
        save = phase == "training"
        with torch.no_grad():
            run = module.forward(layout, values, (zeros, zeros), weights, reverse=False, outputs=False, save=save)
            if save:
                gradients = (torch.ones_like(zeros), torch.zeros_like(zeros))
                module.backward(layout, values, run.kept, None, *gradients, reverse=False, wants_values=True)

    return call


def fit(rows: list[dict], way: str, phase: str) -> dict[str, float]:
    """Least squares of relative errors with no coefficient below 0, on one thread."""
    best: dict[tuple[int, int, int], float] = {}
    for row in rows:
        if row["implementation"] == f"{way}, 1 threads" and row["phase"] == phase:
            key = (row["hidden"], row["batch"], row["steps"])
            best[key] = min(best.get(key, 1e9), 1e3 * row["milliseconds"])
    table = torch.tensor([features(*key) for key in best], dtype=torch.float64)
    measured = torch.tensor(list(best.values()), dtype=torch.float64)
    columns = list(range(table.shape[1]))
    while True:
        scaled = table[:, columns] / measured.unsqueeze(1)
        found = torch.linalg.lstsq(scaled, torch.ones_like(measured)).solution
        if found.min() >= 0:
            break
        columns.pop(int(found.argmin()))
    error = (scaled @ found - 1).abs()
    print(f"{way} {phase}: median error {error.median():.0%}, worst {error.max():.0%}")
    constants = dict.fromkeys(FEATURES, 0.0)
    constants |= {
        FEATURES[column]: float(f"{value:.3g}") for column, value in zip(columns, found.tolist(), strict=True)
    }
    return constants


def features(hidden: int, batch: int, steps: int) -> list[float]:
    """What the model is linear in: input_size = hidden here; products are thousands of multiply-adds."""
    rows = batch * steps
    return [1, steps, steps * hidden, rows, rows * hidden, rows * 4 * hidden * (hidden + hidden) / 1000]


if __name__ == "__main__":
    measured = json.loads(Path(sys.argv[1]).read_text())["rows"]
    for phase in ("forward", "training"):
        for way in WAYS:
            print(fit(measured, way, phase))
