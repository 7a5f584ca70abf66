"""The zoo: the faults that `verify` finds, beside jaxtyping at run time and torchtyc; and the time of a proof."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import packages
import torch
from report import Row
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "zoo"))

from harness import FILES, FOLDER, specimens, with_contract, with_jaxtyping

from towers import Tower, TwoTowers
from towers.contracts import Proof, verify
from towers.contracts.proofs.copies import own_signature
from towers.contracts.proofs.reality import holds_at
from towers.contracts.proofs.symbolic_inputs import read_subject
from towers.contracts.proofs.trials import Trials
from towers.contracts.subjects import subject

TITLE = "The zoo: found / missed / false alarms / not provable"
SIZES = ((3,), (3, 8))
"""Steps beyond the smallest size of each axis: one or two ordinary batches, as people try them."""


def cases(quick: bool) -> list[str]:
    public = [f"package {name}" for name in packages.CASES] if os.environ.get("PROVE_PACKAGES") else []
    return ["zoo", "our towers", *public]


def measure(case: str, device: torch.device, *, quick: bool) -> list[Row]:
    if case == "our towers":
        return _times(2 if quick else 15)
    if case.startswith("package "):
        return _packages(case.removeprefix("package "), quick)
    rows = [_row("towers.contracts.verify", *_ours())]
    rows += [_row(f"jaxtyping at run time, {len(steps)} sizes", *_at_run_time(steps)) for steps in SIZES]
    theirs = _torchtyc()
    return rows + ([] if theirs is None else [_row("torchtyc", *theirs)])


def _row(name: str, counts: dict[str, int], seconds: float) -> Row:
    told = f"{counts['found']} / {counts['missed']} / {counts['false alarms']} / {counts['not provable']}"
    return Row("proof", "zoo", f"{name}: {told}", "whole zoo", 1e3 * seconds, 1.0, details=dict(counts))


def count(verdicts: list[tuple[bool, str]]) -> dict[str, int]:
    """The four numbers of the table, from pairs of (is it faulty, verdict)."""
    return {
        "found": sum(faulty and verdict == "bad" for faulty, verdict in verdicts),
        "missed": sum(faulty and verdict != "bad" for faulty, verdict in verdicts),
        "false alarms": sum(not faulty and verdict == "bad" for faulty, verdict in verdicts),
        "not provable": sum(not faulty and verdict == "unknown" for faulty, verdict in verdicts),
    }


def _ours() -> tuple[dict[str, int], float]:
    words = {"proven": "good", "not provable": "unknown"}
    zoo = list(specimens(with_contract, "ours"))
    start = time.perf_counter()
    verdicts = [(each.fault is not None, words.get(verify(each.module()).verdict, "bad")) for each in zoo]
    return count(verdicts), time.perf_counter() - start


def _at_run_time(steps: tuple[int, ...]) -> tuple[dict[str, int], float]:
    """Random inputs of one or two ordinary sizes, which jaxtyping and beartype check at the call."""
    plain = list(specimens(with_contract, "shapes"))
    checked = list(specimens(with_jaxtyping, "jaxtyping"))
    verdicts: list[tuple[bool, str]] = []
    start = time.perf_counter()
    for shape, specimen in zip(plain, checked, strict=True):
        contracted = shape.module()
        case = read_subject(contracted, own_signature(contracted), (), (), {}).cases()[-1]
        errors = []
        for step in steps:
            places = enumerate(case.spans().items())
            sizes = {name: span.first + (step + place) * span.step for place, (name, span) in places}
            spans = case.spans()
            sizes = {name: size if size in spans[name] else spans[name].first for name, size in sizes.items()}
            module = specimen.module()
            run = Trials(module, {}).call
            errors.append(run(module, case, sizes, (3, 0, 0), None) if case.fits(sizes) else None)
        verdicts.append((specimen.fault is not None, "bad" if any(errors) else "good"))
    return count(verdicts), time.perf_counter() - start


def _torchtyc() -> tuple[dict[str, int], float] | None:
    """`torchtyc check`, if it is installed: a specimen is bad if an error is reported in one of its own methods."""
    program = shutil.which("torchtyc", path=str(Path(sys.executable).parent)) or shutil.which("torchtyc")
    if program is None:
        return None
    start = time.perf_counter()
    files = [str(FOLDER / f"{name}.py") for name in FILES]
    command = [program, "check", "--format", "json", "--severity", "error", "--python", sys.executable, *files]
    run = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER)
    errors = {each["function"].partition(".")[0] for each in json.loads(run.stdout)["diagnostics"] if each["function"]}
    seconds = time.perf_counter() - start
    verdicts = [(each.fault is not None, "bad" if each.module.__name__ in errors else "good") for each in specimens()]
    return count(verdicts), seconds


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
