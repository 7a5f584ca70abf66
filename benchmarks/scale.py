"""Many rows and many items: how the speed grows with workers, and memory at the peak, in processes of their own.

Speeds are those of the steady state: parts count that were done while each worker had done one, and none its last one.
A worker has one thread, so that two are compared with one on as many cores more; the runs take turns. Other programs on
these cores make the ratio smaller. Of Ray there are rows where it is installed; a model that is loaded twice by an
actor would be counted.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from report import COLOURS, Row, save
from scale_reach import reach as reach

from towers import TwoTowers
from towers.data import sample_pairs
from towers.scale.cores import cores
from towers.training import fit

TITLE = "Many rows and many items"
CHILD = Path(__file__).with_name("scale_child.py")
PHASES = ("speed", "peak memory")
WORKERS = (1, 2)
ROUNDS = 3


class Case(NamedTuple):
    what: str
    sizes: tuple[int, ...]  # rows and those of a part; or rows of several runs; or items and those of a part

    @property
    def name(self) -> str:
        texts = {
            "local": "towers predict, {:,} pairs, local",
            "ray": "towers predict, {:,} pairs, Ray",
            "memory": "memory of towers predict",
            "index": "memory of an index, {:,} items",
        }
        return texts[self.what].format(*self.sizes)


def cases(quick: bool) -> list[Case]:
    """Of tiny sizes; or all."""
    rows, pairs, items = (400, 20), (200, 1000), (100_000, 5000)
    if not quick:
        rows, pairs, items = (400_000, 10_000), (40_000, 200_000), (10_000_000, 100_000)
    ray = [Case("ray", rows)] if find_spec("ray") and find_spec("pyarrow") else []
    return [Case("local", rows), *ray, Case("memory", pairs), Case("index", items)]


def measure(case: Case, device: torch.device, *, quick: bool) -> list[Row]:
    """Rows of speeds; or of memory at the peak, where `time_ratio` is the ratio of peaks."""
    with TemporaryDirectory() as folder:
        if case.what in ("local", "ray"):
            return _speeds(case, Path(folder), 1 if quick else ROUNDS)
        return (_predict_memory if case.what == "memory" else _index_memory)(case, Path(folder))


def _speeds(case: Case, folder: Path, rounds: int) -> list[Row]:
    count, part = case.sizes
    several = [workers for workers in WORKERS if case.what == "ray" or workers <= cores()]
    found: dict[int, list[dict[str, float]]] = {workers: [] for workers in several}
    for number in range(rounds):
        for workers in several:
            out = folder / f"{workers} {number}"
            options = ["--part-rows", str(part), "--workers", str(workers), "--out", str(out)]
            options += ["--engine", "local"] if case.what == "local" else []
            seconds = _run("predict" if case.what == "local" else "ray", *_given(folder, count), *options)["seconds"]
            found[workers].append({"seconds": seconds, **steady(out, part)})
    rows = list[Row]()
    for workers, runs in found.items():
        ratio = median(one["speed"] / own["speed"] for one, own in zip(found[WORKERS[0]], runs, strict=True))
        details = {"workers": workers, **{name: max(run[name] for run in runs) for name in ("loads", "loads_of_one")}}
        name = f"{workers} worker{'s' if workers > 1 else ''}"
        whole, speed = (median(run[name] for run in runs) for name in ("seconds", "speed"))
        rows.append(Row("scale", case.name, name, PHASES[0], 1e3 * whole, ratio, speed, details))
    return rows


def steady(out: Path, part: int) -> dict[str, float]:
    """Rows a second of the steady state of a run, and how often models were loaded, by all and by one worker."""
    journal = [json.loads(line) for line in (out / "done.jsonl").read_text().splitlines()]
    times, loads = dict[str, list[float]](), dict[str, int]()
    for done in journal:
        assert done["rows"] == part, "a row has no answer"
        times.setdefault(done["worker"], []).append((out / f"part-{done['part']:05}.tsv").stat().st_mtime)
        loads[done["worker"]] = max(done["loads"], loads.get(done["worker"], 0))
    start, end = max(map(min, times.values())), min(map(max, times.values()))
    inside = [sorted(time for time in own if start <= time <= end) for own in times.values()]
    if min(map(len, inside)) < 2:  # so few parts, as of --quick, that a worker comes too late for them
        inside = [sorted(time for own in times.values() for time in own)]
    speed = sum(part * (len(own) - 1) / (own[-1] - own[0]) for own in inside)
    return {"speed": speed, "loads": sum(loads.values()), "loads_of_one": max(loads.values())}


def _predict_memory(case: Case, folder: Path) -> list[Row]:
    rows, first = list[Row](), 0.0
    for count in case.sizes:
        given = _given(folder, count)
        run = _run("predict", *given, "--engine", "local", "--out", str(folder / str(count)))
        rows.append(_memory_row(case, f"{count:,} pairs", run, run["peak"], first := first or run["peak"], {}))
    return rows


def _index_memory(case: Case, folder: Path) -> list[Row]:
    items, part = case.sizes
    file, rows = str(folder / "items.index"), list[Row]()
    for name, *given in ((f"parts of {part:,}", part, file), ("one part", items)):
        run = _run("index", str(items), *map(str, given))
        shares = {"over_rows": run["grown"] / run["rows"], "over_laid_out": run["grown"] / run["laid_out"]}
        first = rows[0].details["bytes"] if rows else run["grown"]
        rows.append(_memory_row(case, name, run, run["grown"], first, {"items": items, **shares}))
    run = _run("mapped", file)
    shares = {"items": items, "over_rows": run["grown"] / run["rows"]}
    return [*rows, _memory_row(case, "memory-mapped", run, run["grown"], rows[0].details["bytes"], shares)]


def _memory_row(case: Case, name: str, run: dict[str, float], size: float, first: float, more: dict[str, float]) -> Row:
    details = {"bytes": size, **more}
    return Row("scale", case.name, name, PHASES[1], 1e3 * run["seconds"], size / first, None, details)


def _run(what: str, *given: str) -> dict[str, float]:
    """What a new process with one thread for each worker prints, and its seconds."""
    alone = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, CHILD, what, *given], env=os.environ | alone, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{CHILD.name} {what} {' '.join(given)}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1]) | {"seconds": time.perf_counter() - start}


_sample = lru_cache(2)(sample_pairs)


def _given(folder: Path, count: int) -> list[str]:
    """Options: a small trained model, and a file of pairs of the built-in sample."""
    model, pairs = folder / "model", folder / f"{count}.tsv"
    if not model.exists():
        torch.manual_seed(0)
        fit(TwoTowers(), _sample(200), epochs=1, out=model, progress=False)
    if not pairs.exists():
        some = _sample(count)
        lines = ("\t".join(map(" ".join, pair)) for pair in zip(some.left, some.right, strict=True))
        pairs.write_text("\n".join(["sentence1\tsentence2", *lines]) + "\n")
    return ["--model", str(model), "--pairs", str(pairs)]


def summary(rows: Sequence[Row]) -> str:
    """Rows a second, or megabytes at the peak, and the ratio to the case's first row."""
    lines = list[str]()
    for row in rows:
        if row.phase == PHASES[0]:
            text = f"{row.words_per_second:10,.0f} rows a second, {1 / row.time_ratio:5.2f} times the first"
            text += f", {row.details['loads']} models loaded"
        else:
            text = f"{row.details['bytes'] / 2**20:10,.1f} MB at the peak, {row.time_ratio:5.2f} of the first"
        lines.append(f"{text}  {row.case}, {row.implementation}")
    return "\n".join(lines)


def plot(rows: Sequence[Row], title: str, about: dict[str, object], path: Path) -> None:
    """Rows a second, and megabytes at the peak."""
    figure = Figure(figsize=(12, 1.5 + 0.3 * len(rows)), layout="constrained")
    for axes, phase, unit in zip(figure.subplots(1, 2), PHASES, ("rows a second", "MB"), strict=True):
        own = [row for row in rows if row.phase == phase]
        sizes = [row.words_per_second if phase == PHASES[0] else row.details["bytes"] / 2**20 for row in own]
        bars = axes.barh([f"{row.case}, {row.implementation}" for row in own], sizes, color=COLOURS[1])
        axes.bar_label(bars, fmt="{:,.0f}", padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel(f"{phase}, {unit}")
    figure.suptitle(f"{title}\n{about['name']}, one thread for each worker, torch {about['torch']}", fontsize=11)
    save(figure, path)
