"""A moving average of the weights, which is measured and kept in place of the last step's."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from towers.training.progress import Progress


class Averaging(pl.Callback):
    """After each step the average moves towards the weights: decay x average + (1 - decay) x weights.

    At step n the decay is at most (1 + n) / (10 + n), so that the first weights are soon forgotten, as TensorFlow's
    `ExponentialMovingAverage(decay, num_updates=n)` does. While the dev pairs are measured, the model has the average.
    It comes before `Epochs` in the list of callbacks, which counts the steps and remembers the best weights.
    """

    def __init__(self, progress: Progress, decay: float) -> None:
        self.progress, self.decay = progress, decay
        self.own: dict[str, Tensor] = {}
        """The weights of the last step, while the model has the average."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the average."""
        steps, average = self.progress.steps, self.progress.average
        decay = min(self.decay, (1 + steps) / (10 + steps))
        for name, value in _weights(pl_module).items():
            if name in average and value.is_floating_point():
                average[name] = average[name].to(value.device).lerp_(value, 1 - decay)
            else:
                average[name] = value.clone()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the model the average."""
        self.own = {name: value.clone() for name, value in _weights(pl_module).items()}
        _give(pl_module, self.progress.average)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give it its own weights again."""
        _give(pl_module, self.own)
        self.own = {}


def _weights(pl_module: pl.LightningModule) -> dict[str, Tensor]:
    """The weights of the model, a shared one once by each of its names."""
    model: torch.nn.Module = pl_module.model  # pyright: ignore
    return {name: value.detach() for name, value in model.state_dict().items()}


def _give(pl_module: pl.LightningModule, weights: dict[str, Tensor]) -> None:
    for name, value in _weights(pl_module).items():
        if name in weights:
            value.copy_(weights[name])
