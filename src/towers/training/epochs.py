"""Lightning callbacks: measure each epoch, remember the best weights, save the state, write TensorBoard events."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from towers.data import SentencePairs
from towers.training.borrow import Stop
from towers.training.history import DivergedError, Epoch
from towers.training.loop import Batches, Collected, TowersModule
from towers.training.metrics import Measures
from towers.training.options import Settings
from towers.training.processes import Together
from towers.training.progress import Progress, own_stream, restore, tensors_of
from towers.training.run import Run

ASK_EVERY = 10
"""Steps between two agreements of several processes on whether to save or to end; each agreement makes them wait."""
BOARD_FOLDER = "tensorboard"
LOSS_EVERY = 50
"""Steps between two losses of single batches in TensorBoard."""


class Epochs(pl.Callback):
    """After each epoch: measure, add a row to the history, remember the best weights, call `on_epoch`."""

    def __init__(
        self,
        progress: Progress,
        train: Batches,
        dev: Batches | None,
        *,
        measures: Measures,
        settings: Settings,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> None:
        self.progress, self.train, self.dev, self.measures = progress, train, dev, measures
        self.settings, self.on_epoch = settings, on_epoch
        self.started = 0.0
        self.losses: list[Tensor] = []
        """The losses of the steps that were not checked yet."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Set this process's share of the batches, and the batch at which the training continues."""
        for batches in (self.train, self.dev):
            if batches is not None:
                batches.rank, batches.processes = trainer.global_rank, trainer.world_size
        self.train.epoch, self.train.start = self.progress.epoch, self.progress.batch

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give this process random numbers of its own."""
        own_stream(_towers(pl_module), Together(trainer))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started = time.perf_counter() - self.progress.seconds

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the learning rate of the step."""
        steps = self.settings.epochs * -(-len(self.train.pairs) // self.train.batch_size)
        _towers(pl_module).set_lr(min(self.progress.steps, steps), steps)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch, and stop if its loss is not finite: on CUDA some steps later, to wait for it less often."""
        self.progress.batch += 1
        self.progress.steps += 1
        self.progress.seconds = time.perf_counter() - self.started
        self.losses.append(outputs["loss"].detach())
        if pl_module.device.type == "cpu" or len(self.losses) == ASK_EVERY:
            self._check_losses()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the row, unless the model diverged. Lightning has read the dev pairs before."""
        self._check_losses()
        _check_weights(pl_module, self.progress)
        module, together, progress = _towers(pl_module), Together(trainer), self.progress
        train = self.measures.of(_all(module.train_logits, self.train.pairs, together), self.train.pairs)
        dev: dict[str, float] = {}
        if self.dev is not None:
            dev = self.measures.of(_all(module.logits, self.dev.pairs, together), self.dev.pairs)
            if not math.isfinite(dev["loss"]):
                raise _diverged(
                    f"the loss of the dev pairs after step {progress.steps} is {dev['loss']:g}", progress, module.lr
                )
            if self.dev.pairs.second is not None:
                dev |= self.measures.of_second(_all(module.second_logits, self.dev.pairs, together), self.dev.pairs)
        else:  # nothing else reads the weights of the last step
            _check_answers(module, self.train, progress)
        row = Epoch(
            number=progress.epoch + 1,
            train=train,
            dev=dev,
            seconds=time.perf_counter() - self.started,
        )
        if progress.history.add(row) and self.dev is not None:
            weights: dict[str, Tensor] = progress.average or module.model.state_dict()
            progress.best_weights = {name: value.detach().clone() for name, value in weights.items()}
        progress.batch, progress.seconds = 0, 0.0
        self.train.epoch, self.train.start = progress.epoch, 0
        trainer.should_stop = progress.over(self.settings.epochs, self.settings.patience)
        if together.main and self.on_epoch is not None:
            self.on_epoch(row)

    def _check_losses(self) -> None:
        losses = [float(loss) for loss in self.losses]
        self.losses.clear()
        if wrong := [place for place, loss in enumerate(losses) if not math.isfinite(loss)]:
            step = self.progress.steps - len(losses) + 1 + wrong[0]
            raise _diverged(f"the loss of step {step} is {losses[wrong[0]]:g}", self.progress, self.settings.lr)


class Keeper(pl.Callback):
    """Saves the state of the training in the run's folder, and ends the training after a signal.

    It comes after `Epochs` in the list of callbacks and uses its counts.
    """

    def __init__(self, run: Run, progress: Progress, train: Batches, settings: Settings, stop: Stop) -> None:
        self.run, self.progress, self.train, self.settings, self.stop = run, progress, train, settings, stop
        self.before: dict[str, Tensor] | None = None
        """The tensors of the state from which a run continues, or None."""
        self.saved = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the run's state, or save the first one."""
        if self.before is not None:
            restore(self.before, _towers(pl_module), Together(trainer))
        self.before = None
        self.stop.listen()
        self._save(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time. After the last batch of an epoch this waits for the epoch's row."""
        if self.progress.batch < len(self.train) + self.train.start:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if it is time."""
        self._look(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the state from which more epochs can continue."""
        self._save(trainer, pl_module)

    def _look(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        together = Together(trainer)
        if together.count > 1 and self.progress.batch % ASK_EVERY:
            return
        wish = self.stop.wanted or int(time.monotonic() - self.saved >= self.settings.save_every)
        wish = together.largest(wish)  # 1 means to save; neither signal has this number
        if wish:
            self._save(trainer, pl_module)
        if wish > 1:
            together.largest(
                0
            )  # wait until the first process has saved: its launcher may kill it as soon as another process ends
            self.stop.act(wish)

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _check_weights(pl_module, self.progress)
        together = Together(trainer)
        tensors = tensors_of(_towers(pl_module), len(self.train.pairs), self.progress, together)
        if together.main:
            self.run.save({"settings": self.settings.as_dict(), **self.progress.as_dict()}, tensors)
        self.saved = time.monotonic()


class Board(pl.Callback):
    """Writes TensorBoard events: the metrics of each epoch, and the loss of every 50th batch.

    It comes after `Epochs` in the list of callbacks. In a resumed run it removes the events after the saved state.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self.purge = progress.steps + 1  # events after the saved state belong to lost steps
        self.writer: Any = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the batch's loss."""
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
        """The writer. It is made with the first event, when the folder belongs to this run."""
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


def _check_weights(pl_module: pl.LightningModule, progress: Progress) -> None:
    module = _towers(pl_module)
    for name, weight in module.model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise _diverged(f"{name} is not finite after step {progress.steps}", progress, module.lr)


def _check_answers(module: TowersModule, batches: Batches, progress: Progress) -> None:
    share = next(iter(Batches(batches.pairs, batches.batch_size)))
    if not bool(module.answers(module.transfer_batch_to_device(share, module.device, 0)).isfinite().all()):
        raise _diverged(f"the answers after step {progress.steps} are not finite", progress, module.lr)


def _diverged(problem: str, progress: Progress, lr: float) -> DivergedError:
    advice = f"take a learning rate below {lr:g}; nothing was kept of this epoch"
    return DivergedError(f"training diverged: {problem} (epoch {progress.epoch + 1}); {advice}")


def _towers(pl_module: pl.LightningModule) -> TowersModule:
    assert isinstance(pl_module, TowersModule)
    return pl_module


def _all(collected: Collected, pairs: SentencePairs, together: Together) -> Tensor:
    """The logits of all pairs: those of each are in one process, and 0 in the others."""
    logits = together.sum(collected.dense(len(pairs))[0])
    collected.clear()
    return logits
