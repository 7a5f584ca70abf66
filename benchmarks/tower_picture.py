"""The picture of the suite `tower`: words per second against batch size, for one tower, its peers and the floor."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import COLOURS, Row, save

# A line shows the fastest of the implementations whose names begin with this. The towers' line is thicker.
LINES = {"floor": "#888888", "towers": COLOURS[1], "torch": COLOURS[2], "ONNX Runtime": COLOURS[3], "Keras": COLOURS[0]}
NAMES = {"floor": "floor", "torch": "torch, padded or packed", "Keras": "Keras, its best backend"}


def plot(rows: Sequence[Row], title: str, about: dict[str, object], path: Path) -> None:
    """A panel for each phase; from vectors above, from word ids below."""
    rows = [row for row in rows if row.details["model"] == "tower"]
    if not rows:
        return
    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for line, kind in zip(panels, ("vectors", "ids"), strict=True):
        for axes, phase in zip(line, ("forward", "training"), strict=True):
            _draw(axes, [row for row in rows if row.phase == phase and kind in _kinds(row)])
            axes.set_title(f"{phase}, from {kind}" if kind == "vectors" else f"{phase}, from word ids")
    for axes in panels[1]:
        axes.set_xlabel("sentences of a batch")
    for axes in panels[:, 0]:
        axes.set_ylabel("real words per second")
    figure.suptitle(
        f"{title}: one tower\n{about['name']}, {about['threads']} threads, torch {about['torch']}", fontsize=11
    )
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    save(figure, path)


def _kinds(row: Row) -> tuple[str, ...]:
    if row.implementation.startswith("floor"):
        return ("ids",) if "copy" in row.implementation else ("vectors",)
    return (row.implementation.rpartition(", ")[2],)


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    for start, colour in LINES.items():
        best: dict[int, float] = {}
        for row in rows:
            if row.implementation.startswith(start):
                batch, speed = int(str(row.details["batch"])), row.words_per_second or 0.0
                best[batch] = max(best.get(batch, 0.0), speed)
        style = (
            {"linestyle": ":"} if start == "floor" else {"marker": "o", "linewidth": 3 if start == "towers" else 1.5}
        )
        axes.plot(list(best), list(best.values()), color=colour, label=NAMES.get(start, start), **style)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    batches = sorted({int(str(row.details["batch"])) for row in rows})
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.grid(alpha=0.3)
