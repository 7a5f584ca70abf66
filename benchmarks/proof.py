"""The faults that `verify` finds in all zoos beside other tools; the time of a proof; modules of public packages."""

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import packages
import proof_peers
import report
import torch
from report import Row
from rich.table import Table
from torch import nn

from towers import Tower, TwoTowers
from towers.contracts import Proof, verify
from towers.contracts.proofs.reality import holds_at
from towers.contracts.proofs.symbolic_inputs import read_subject
from towers.contracts.proofs.trials import Trials
from towers.contracts.subjects import subject

TITLE = "Proofs: the time of each; of all zoos the time of the whole"


def cases(quick: bool) -> list[str]:
    public = [f"package {name}" for name in packages.CASES] if os.environ.get("PROVE_PACKAGES") else []
    return [proof_peers.CASE, "our towers", *public]


def measure(case: str, device: torch.device, *, quick: bool) -> list[Row]:
    if case == "our towers":
        return _times(2 if quick else 15)
    if case == proof_peers.CASE:
        return proof_peers.rows(range(0, 200, 20) if quick else None)
    return _packages(case.removeprefix("package "), quick)


def reach(rows: Sequence[Row]) -> Table:
    return proof_peers.table([row for row in rows if row.case == proof_peers.CASE])


def plot(rows: Sequence[Row], title: str, about: dict[str, object], path: Path) -> None:
    """The picture of all suites, without modules of packages: nothing stands beside them."""
    others = [row for row in rows if not row.case.startswith("package ")]
    report.plot(others or rows, title, about, path)


def _times(rounds: int) -> list[Row]:
    """The time of the first proof and the median of those after it, in a process that has imported everything."""
    rows = []
    for name, make in {"TwoTowers()": TwoTowers, "Tower()": Tower}.items():
        model = make()
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            assert verify(model)
            seconds.append(time.perf_counter() - start)
        warm = sorted(seconds[1:])[len(seconds[1:]) // 2]
        rows.append(Row("proof", "our towers", f"{name}, warm", "one proof", 1e3 * warm, 1.0))
        rows.append(Row("proof", "our towers", f"{name}, first", "one proof", 1e3 * seconds[0], seconds[0] / warm))
    return rows


def _packages(package: str, quick: bool) -> list[Row]:
    """Modules that other people wrote: what verify says of them, and whether real runs agree; none if not installed."""
    if not packages.installed(package):
        print(f"{package} is not installed: no row of it")
        return []
    rows: list[Row] = []
    for name, module in packages.cases(package):
        start = time.perf_counter()
        proof = verify(module)
        seconds = time.perf_counter() - start
        agree, runs = _agreement(module, proof, 8 if quick else 60)
        told = f"holds if {' and '.join(proof.conditions)}" if proof.conditions else proof.verdict
        details = {"verdict": told, "real runs agree": agree, "further real runs": runs, "symbolic runs": proof.runs}
        text = f"{package}, {name}: {told}{'' if agree else ', WRONG'}"
        rows.append(Row("proof", f"package {package}", text, "one proof", 1e3 * seconds, 1.0, details=details))
    return rows


def _agreement(module: nn.Module, proof: Proof, count: int) -> tuple[bool, int]:
    """Whether real runs at sizes of its own choice pass where a proof says so and fail elsewhere, and their number.

    What is not provable says nothing. What failed must fail somewhere.
    """
    if proof.verdict == "not provable":
        return True, 0
    case = read_subject(module, subject(module).signature, (), (), {}).cases()[0]
    trials = Trials(module, {})
    if trials.refused() is not None:
        return True, 0
    chance, spans = random.Random(7), case.spans()
    passed: list[bool] = []
    right = True
    for turn in range(count):
        one = chance.choice([chance.randint(1, 70), 4 * chance.randint(1, 20), 32])
        sizes = {at: chance.choice([one, one, chance.randint(1, 70)]) for at in spans} | {"batch": chance.randint(1, 3)}
        if not all(size in spans[at] for at, size in sizes.items()) or not case.fits(sizes):
            continue
        trial = trials.run(case, sizes, turn)
        if trial is None:
            continue
        passed.append(trial.error is None)
        if proof.verdict != "failed":
            right &= holds_at(proof.conditions, sizes) == passed[-1]
    return right and (proof.verdict != "failed" or not all(passed)), len(passed)
