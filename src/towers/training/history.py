"""The history of a training: a row for each epoch, which of them was kept, and the picture of their curves."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from towers.training.borrow import quiet
from towers.training.options import require

LOWER_IS_BETTER = frozenset({"loss"})
LAST = "last"
"""In place of a dev metric: the last epoch is kept."""


class DivergedError(ValueError):
    """The loss or a weight became NaN or infinite during training."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training pairs.

    Attributes:
        number: counted from 1.
        train: the metrics of the training pairs, each measured when it was trained on, as in Keras: with weights
            that change from step to step.
        dev: the metrics of the dev pairs after the epoch; empty without dev pairs.
        seconds: how long the epoch took, dev pairs included.
    """

    number: int
    train: dict[str, float]
    dev: dict[str, float]
    seconds: float


@dataclass
class History:
    """The epochs of a training run, and the one whose weights the model ended with.

    Attributes:
        keep_best: the dev metric that chose it, or "last"; not used without dev pairs, where the last epoch is kept.
        majority: the accuracy of always answering the more frequent class of the dev (or training) pairs; None for soft
            labels.
        epochs: one row each.
        best: the number of that epoch; 0 before the first.
    """

    keep_best: str = "loss"
    majority: float | None = None
    epochs: list[Epoch] = field(default_factory=list[Epoch])
    best: int = 0

    def add(self, epoch: Epoch) -> bool:
        """Append a row. Returns whether it is the best so far: the first of equal rows is best; NaN is never better.

        Where both are NaN, as Pearson's r of equal labels is, the loss decides.
        """
        self.epochs.append(epoch)
        last = self.keep_best == LAST or not epoch.dev
        if self.best == 0 or last or self._better(epoch, self.epochs[self.best - 1]):
            self.best = epoch.number
        return self.best == epoch.number

    def _better(self, new: Epoch, old: Epoch) -> bool:
        new_value, old_value = new.dev[self.keep_best], old.dev[self.keep_best]
        if math.isnan(old_value) and math.isnan(new_value) and "loss" in new.dev and "loss" in old.dev:
            return new.dev["loss"] < old.dev["loss"]
        if math.isnan(old_value):
            return not math.isnan(new_value)
        return new_value < old_value if self.keep_best in LOWER_IS_BETTER else new_value > old_value

    @property
    def stale(self) -> int:
        """The number of epochs since the best one."""
        return len(self.epochs) - self.best

    def as_dict(self) -> dict[str, Any]:
        """The history in JSON's types; NaN is not replaced."""
        rows = [{"epoch": e.number, "train": e.train, "dev": e.dev, "seconds": e.seconds} for e in self.epochs]
        return {"best_epoch": self.best, "keep_best": self.keep_best, "majority": self.majority, "epochs": rows}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """The history from `entries`, the result of `as_dict`, where null stands for NaN."""
        rows = [
            Epoch(row["epoch"], _with_nan(row["train"]), _with_nan(row["dev"]), row["seconds"])
            for row in entries["epochs"]
        ]
        return cls(entries["keep_best"], entries["majority"], rows, entries["best_epoch"])


def _with_nan(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in metrics.items()}


def draw_curves(history: History, path: Path) -> None:
    """Loss, and accuracy or Pearson's r, by epoch, for the training and the dev pairs, with the best epoch marked."""
    figure = _figure()
    names = list(history.epochs[0].train)[:2]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _draw(axes, history, name)
    title = f"best epoch: {history.best} of {len(history.epochs)}"
    if history.keep_best == LAST:
        title = f"last epoch: {history.best}"
    elif history.epochs[0].dev:
        value = history.epochs[history.best - 1].dev[history.keep_best]
        title += f" (dev {history.keep_best} {value:.3f})"
    figure.suptitle(title)
    with quiet("matplotlib.font_manager", level=logging.ERROR):  # it logs that its first start is slow
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
    """A figure that leaves matplotlib's global state, and the backend that a notebook chose, unchanged."""
    require("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4))
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.13, top=0.83)  # to look for them takes as long as to draw
    FigureCanvasAgg(figure)
    return figure
