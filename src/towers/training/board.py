"""TensorBoard's events."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from towers.training.progress import Progress

FOLDER = "tensorboard"
LOSS_EVERY = 50
"""Steps between two losses of single batches."""


class Board(pl.Callback):
    """Writes each epoch's metrics, and now and then a batch's loss, over the number of steps.

    It stands behind `Epochs` among the callbacks. Where a run goes on, what was written after its state is taken back.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self.purge = progress.steps + 1  # what stands after the state is of steps that are lost
        self.writer: Any = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a batch's loss."""
        if trainer.is_global_zero and self.progress.steps % LOSS_EVERY == 0:
            self._open().add_scalar("loss/batch", float(outputs["loss"]), self.progress.steps)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the row."""
        if trainer.is_global_zero:
            row = self.progress.history.epochs[-1]
            for part, metrics in (("train", row.train), ("dev", row.dev)):
                for name, value in metrics.items():
                    self._open().add_scalar(f"{name}/{part}", value, self.progress.steps)
            self._open().flush()

    def _open(self) -> Any:
        """The writer; it is there with the first event, when the folder is this run's."""
        from torch.utils.tensorboard import SummaryWriter

        if self.writer is None:
            self.writer = SummaryWriter(str(self.folder), purge_step=self.purge)
        return self.writer

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the file."""
        self.teardown(trainer, pl_module, "fit")
