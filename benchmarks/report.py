"""The results of a suite as a table for the terminal, as JSON, and as a picture."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import Image
from rich import box
from rich.table import Table

COLOURS = ("#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d")


@dataclass(frozen=True)
class Row:
    """The time of one implementation for one case in one phase; a case's first implementation is its baseline."""

    suite: str
    case: str
    implementation: str
    phase: str
    milliseconds: float
    time_ratio: float  # its time over the baseline's, both from the same round; below 1 is faster
    words_per_second: float | None = None
    details: dict[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        row = asdict(self)
        return row | row.pop("details")


def machine(device: torch.device) -> dict[str, object]:
    """What a reader needs to know about the machine to judge the numbers."""
    return {
        "device": device.type,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),  # how busy other processes kept it in the last minute
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "precision": "float32, TF32 off",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def folder_name(about: dict[str, object]) -> str:
    """The folder's name for this machine's results, such as `amd-epyc-2-cores` or `nvidia-h100-80gb-hbm3`."""
    name = str(about["name"]) if about["device"] == "cuda" else f"{about['name']} {about['cores']} cores"
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def write_json(rows: Sequence[Row], about: dict[str, object], path: Path) -> None:
    """The machine, then tables: `columns` once, then each row as a list on a line of its own.

    Consecutive rows with the same columns are one table. Numbers have 4 significant digits.
    """
    tables = []
    for columns, of_table in groupby([row.as_json() for row in rows], tuple):
        lines = [json.dumps(list(map(_rounded, row.values())), ensure_ascii=False) for row in of_table]
        tables.append(f'{{"columns": {json.dumps(columns)}, "rows": [\n' + ",\n".join(lines) + "\n]}")
    text = f'{{"machine": {json.dumps(about)},\n"tables": [{", ".join(tables)}]}}\n'
    whole = path.with_suffix(".part")  # a process that is killed while it writes leaves the rows before
    whole.write_text(text, encoding="utf8")
    whole.replace(path)


def _rounded(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _rounded(of_key) for key, of_key in value.items()}
    if not isinstance(value, float):
        return value
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded


def read_machine(path: Path) -> dict[str, object]:
    """The machine on which a file that `write_json` wrote was measured."""
    return json.loads(path.read_text(encoding="utf8"))["machine"]


def read_json(path: Path) -> list[Row]:
    """The rows of a file that `write_json` wrote."""
    names = [field.name for field in fields(Row) if field.name != "details"]
    found = []
    for of_table in json.loads(path.read_text(encoding="utf8"))["tables"]:
        for values in of_table["rows"]:
            row = dict(zip(of_table["columns"], values, strict=True))
            own = {name: row.pop(name) for name in names}
            found.append(Row(**own, details=row))
    return found


def table(rows: Sequence[Row], title: str) -> Table:
    """A block for each case; in it a line for each implementation, with its phases side by side."""
    phases = list(dict.fromkeys(row.phase for row in rows))
    with_words = any(row.words_per_second for row in rows)
    result = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        caption="ratio: time over the time of the case's first line; below 1 is faster",
    )
    result.add_column("", no_wrap=True)
    for phase in phases:
        for heading in (phase, *["words/s"] * with_words, "ratio"):
            result.add_column(heading, justify="right")
    for case, of_case in groupby(rows, lambda row: row.case):
        result.add_section()
        result.add_row(case, style="bold")
        lines: dict[str, dict[str, list[str]]] = {}
        for row in of_case:
            lines.setdefault(row.implementation, {})[row.phase] = _cells(row, with_words)
        for name, cells in lines.items():
            empty = [""] * (2 + with_words)  # for a phase that this implementation does not have
            result.add_row(f"  {name}", *[cell for phase in phases for cell in cells.get(phase, empty)])
    return result


def _cells(row: Row, with_words: bool) -> list[str]:
    words = f"{(row.words_per_second or 0) / 1e6:.3g} M"
    return [_shown(row.milliseconds), *[words] * with_words, f"{row.time_ratio:.2f}"]


def _shown(milliseconds: float) -> str:
    if milliseconds < 0.1:
        return f"{1e3 * milliseconds:.3g} µs"
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds:.0f} ms"


def plot(rows: Sequence[Row], title: str, about: dict[str, object], path: Path) -> None:
    """A panel for each phase, a line for each case: the speed of each implementation relative to the first."""
    phases = list(dict.fromkeys(row.phase for row in rows))
    cases = list(dict.fromkeys(row.case for row in rows))
    figure = Figure(figsize=(2 + 4.5 * len(phases), 2 + 0.5 * len(cases)), layout="constrained")
    panels = figure.subplots(1, len(phases), sharey=True, squeeze=False)[0]
    for phase, axes in zip(phases, panels, strict=True):
        _bars(axes, [row for row in rows if row.phase == phase], cases)
        axes.set_title(phase)
    panels[0].set_yticks(range(len(cases)), cases)
    panels[0].set_ylim(len(cases) - 0.4, -0.6)
    figure.suptitle(f"{title}\n{about['name']}, {about['threads']} threads, torch {about['torch']}", fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 2 * len(phases)), frameon=False)
    save(figure, path)


def save(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write a PNG with a palette of 64 colours, which takes about a third of the bytes.

    `figure.savefig` would draw everything twice: to find its place, and to be seen.
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64).save(path, optimize=True)


def _bars(axes: Axes, rows: Sequence[Row], cases: Sequence[str]) -> None:
    """Bars that start at the baseline: those to the left are slower, those to the right faster."""
    baseline, *names = dict.fromkeys(row.implementation for row in rows)
    axes.axvline(1, color="#444444", label=f"{baseline} (= 1)")
    for number, name in enumerate(names):
        shown = [row for row in rows if row.implementation == name]
        speeds = [1 / row.time_ratio for row in shown]
        places = [cases.index(row.case) + 0.7 * (number + 0.5) / len(names) - 0.35 for row in shown]
        widths = [speed - 1 for speed in speeds]
        axes.barh(places, widths, height=0.6 / len(names), left=1, color=COLOURS[number % len(COLOURS)], label=name)
        for speed, place in zip(speeds, places, strict=True):
            side, align = (-3, "right") if speed < 1 else (3, "left")
            where = {"xytext": (side, 0), "textcoords": "offset points", "ha": align, "va": "center"}
            axes.annotate(f"{speed:.2g}x", (speed, place), fontsize=8, **where)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=7))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x" if value >= 1 else f"1/{1 / value:g}x")
    axes.set_xlabel(f"speed relative to {baseline}: right of the line is faster")
    axes.use_sticky_edges = False  # leave room on both sides for the numbers
    axes.margins(x=0.15)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
