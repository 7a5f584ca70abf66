"""What training leaves behind besides the weights: a row for each epoch, and which of them was kept."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

LOWER_IS_BETTER = frozenset({"loss"})


@dataclass(frozen=True)
class Epoch:
    """One pass over the training pairs.

    Attributes:
        number: counted from 1.
        train: the metrics of the training pairs, each measured when it was trained on (as Keras does): weights that
            change from step to step.
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
        keep_best: the dev metric that chose it; without dev pairs it is the last epoch, whatever stands here.
        majority: the accuracy on those pairs of always answering the commoner class; None for soft labels.
        epochs: one row each.
        best: the number of that epoch; 0 before the first.
    """

    keep_best: str = "loss"
    majority: float | None = None
    epochs: list[Epoch] = field(default_factory=list[Epoch])
    best: int = 0

    def add(self, epoch: Epoch) -> bool:
        """Append a row; true if it is the best so far. Among equals the earliest is best, and a number beats NaN."""
        self.epochs.append(epoch)
        if self.best == 0 or not epoch.dev or self._better(epoch, self.epochs[self.best - 1]):
            self.best = epoch.number
        return self.best == epoch.number

    def _better(self, new: Epoch, old: Epoch) -> bool:
        new_value, old_value = new.dev[self.keep_best], old.dev[self.keep_best]
        if math.isnan(old_value):
            return not math.isnan(new_value)
        return new_value < old_value if self.keep_best in LOWER_IS_BETTER else new_value > old_value

    @property
    def stale(self) -> int:
        """Epochs since the best."""
        return len(self.epochs) - self.best

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it; NaN is left to whoever writes."""
        rows = [{"epoch": e.number, "train": e.train, "dev": e.dev, "seconds": e.seconds} for e in self.epochs]
        return {"best_epoch": self.best, "keep_best": self.keep_best, "majority": self.majority, "epochs": rows}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """What `as_dict` gave, NaN written as null."""
        rows = [
            Epoch(row["epoch"], _with_nan(row["train"]), _with_nan(row["dev"]), row["seconds"])
            for row in entries["epochs"]
        ]
        return cls(entries["keep_best"], entries["majority"], rows, entries["best_epoch"])


def _with_nan(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in metrics.items()}
