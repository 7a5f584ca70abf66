"""The zoo: what `verify` finds, beside checks at run time with jaxtyping and beside torchtyc; and what proofs cost."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from report import Row

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "zoo"))

from harness import specimens, with_contract, with_jaxtyping

from towers import Tower, TwoTowers
from towers.contracts import verify
from towers.contracts.proofs.copies import own_signature
from towers.contracts.proofs.inputs import read_subject
from towers.contracts.proofs.samples import real_run

TITLE = "The zoo: found / missed / false alarms / not provable"
SIZES = ((3,), (3, 8))
"""Steps beyond the smallest size, for each axis in turn: what people try, one or two ordinary batches."""


def cases(quick: bool) -> list[str]:
    return ["zoo", "our towers"]


def measure(case: str, device: torch.device, *, quick: bool) -> list[Row]:
    if case == "our towers":
        return _times(3 if quick else 15)
    rows = [_row("towers.contracts.verify", *_ours())]
    rows += [_row(f"jaxtyping at run time, {len(steps)} sizes", *_at_run_time(steps)) for steps in SIZES]
    theirs = _torchtyc()
    return rows + ([] if theirs is None else [_row("torchtyc", *theirs)])


def _row(name: str, counts: dict[str, int], seconds: float) -> Row:
    told = f"{counts['found']} / {counts['missed']} / {counts['false alarms']} / {counts['not provable']}"
    return Row("proof", "zoo", f"{name}: {told}", "whole zoo", 1e3 * seconds, 1.0, details=dict(counts))


def count(verdicts: list[tuple[bool, str]]) -> dict[str, int]:
    """From (is it faulty, verdict) to the four numbers of the table."""
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
    """Random inputs of an ordinary size or two, checked by jaxtyping and beartype at the call."""
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
            sizes = {name: size if size in case.spans()[name] else case.spans()[name].first for name, size in sizes.items()}
            errors.append(real_run(specimen.module(), case, sizes) if case.fits(sizes) else None)
        verdicts.append((specimen.fault is not None, "bad" if any(errors) else "good"))
    return count(verdicts), time.perf_counter() - start


def _torchtyc() -> tuple[dict[str, int], float] | None:
    """The command `torchtyc`, where it is installed, on a file for each specimen."""
    try:
        subprocess.run([sys.executable, "-m", "torchtyc", "--help"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return _run_torchtyc(list(specimens()))


def _run_torchtyc(zoo: list) -> tuple[dict[str, int], float]:
    verdicts: list[tuple[bool, str]] = []
    start = time.perf_counter()
    for each in zoo:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "specimen.py"
            file.write_text(f"from {each.module.__module__} import {each.module.__name__}\n", encoding="utf8")
            run = subprocess.run([sys.executable, "-m", "torchtyc", str(file)], capture_output=True, text=True)
        verdicts.append((each.fault is not None, "bad" if run.returncode else "good"))
    return count(verdicts), time.perf_counter() - start


def _times(rounds: int) -> list[Row]:
    """Seconds of a proof, the first and those after it, in a process that has imported everything."""
    rows = []
    for name, make in {"TwoTowers()": TwoTowers, "Tower()": Tower}.items():
        model = make()
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            assert verify(model)
            seconds.append(time.perf_counter() - start)
        warm = sorted(seconds[1:])[len(seconds[1:]) // 2]
        rows.append(Row("proof", "our towers", f"{name}, warm", "one proof", 1e3 * warm, 1.0, details={"first": seconds[0]}))
        rows.append(Row("proof", "our towers", f"{name}, first", "one proof", 1e3 * seconds[0], seconds[0] / warm))
    return rows
