"""The curves of a training: loss, and accuracy or Pearson's r, by epoch."""

import logging
from pathlib import Path
from typing import Any

from towers.training.borrow import quiet
from towers.training.extras import require
from towers.training.history import History


def draw_curves(history: History, path: Path) -> None:
    """Loss, and accuracy or Pearson's r, by epoch, for the training and the dev pairs, with the best epoch marked."""
    figure = _figure()
    names = list(history.epochs[0].train)[:2]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _draw(axes, history, name)
    title = f"best epoch: {history.best} of {len(history.epochs)}"
    if history.epochs[0].dev:
        value = history.epochs[history.best - 1].dev[history.keep_best]
        title += f" (dev {history.keep_best} {value:.3f})"
    figure.suptitle(title)
    with quiet("matplotlib.font_manager", level=logging.ERROR):  # it announces that it is slow the first time
        figure.savefig(path, dpi=120, format="png")


def _draw(axes: Any, history: History, name: str) -> None:
    numbers = [epoch.number for epoch in history.epochs]
    best = history.epochs[history.best - 1]
    axes.plot(
        numbers, [epoch.train[name] for epoch in history.epochs], "o--", color="tab:gray", label="train, while learning"
    )
    if best.dev:
        axes.plot(numbers, [epoch.dev[name] for epoch in history.epochs], "o-", color="tab:blue", label="dev")
    axes.axvline(history.best, color="tab:orange", linewidth=1, label="best epoch")
    axes.plot(history.best, (best.dev or best.train)[name], "*", color="tab:orange", markersize=16, zorder=3)
    if name == "accuracy" and history.majority is not None:
        axes.axhline(history.majority, color="black", linewidth=1, linestyle=":", label="majority class")
    axes.set(xlabel="epoch", title={"pearson": "Pearson's r"}.get(name, name))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()


def _figure() -> Any:
    """A figure of its own: matplotlib's global state, and the backend that a notebook chose, stay as they are."""
    require("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
