"""Lightning's Trainer with the settings of this package, and its progress bar."""

import sys
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm, TQDMProgressBar
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from towers.training.loop import TowersModule
from towers.training.options import Settings
from towers.training.processes import environment, started_outside


class ProgressBar(TQDMProgressBar):
    """One bar on standard error with the epoch's steps and the latest loss; it is removed at the end."""

    def __init__(self, epochs: int, done: int = 0) -> None:
        super().__init__(refresh_rate=10)
        self.epochs, self.done = epochs, done
        self.bars: list[Tqdm] = []

    def init_train_tqdm(self) -> Tqdm:
        """The bar of the steps of an epoch."""
        self.bars.append(Tqdm(leave=False, dynamic_ncols=True, file=sys.stderr, smoothing=0, disable=self.is_disabled))
        return self.bars[-1]

    def init_predict_tqdm(self) -> Tqdm:
        """The bar of the batches that are measured or predicted."""
        return self.init_train_tqdm()

    def init_validation_tqdm(self) -> Tqdm:
        """No bar for the dev pairs of an epoch, which take little time."""
        return Tqdm(disable=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start the bar of an epoch; epochs are counted from 1."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(f"epoch {self.done + trainer.current_epoch + 1}/{self.epochs}")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the bar, so that the next message has its own line."""
        for bar in self.bars:
            bar.close()

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The latest loss, read only at every tenth step, because reading waits for the device."""
        loss = pl_module.loss if isinstance(pl_module, TowersModule) else None
        return {} if loss is None else {"loss": f"{float(loss):.4f}"}


def alone(
    device: torch.device, precision: Any, *, bar: bool, epochs: int = 1, callbacks: Sequence[pl.Callback] = ()
) -> pl.Trainer:
    """A Trainer with one process and one device, whatever the environment says."""
    return _trainer(
        accelerator=device.type,
        devices=_numbered(device) or 1,
        precision=precision,
        max_epochs=epochs,
        callbacks=[*callbacks, *([ProgressBar(epochs)] if bar else [])],
        plugins=[LightningEnvironment()],
    )


def of_settings(settings: Settings, *, done: int, midway: bool, bar: bool, callbacks: list[pl.Callback]) -> pl.Trainer:
    """A Trainer for the epochs after the first `done` ones; `midway`: the next epoch is partly done.

    Raises:
        ValueError: Lightning refuses devices, nodes or strategy, or torchrun or SLURM started another number of
            processes.
    """
    try:
        trainer = _trainer(
            accelerator=settings.place.type,
            devices=_numbered(settings.place) or settings.devices,
            num_nodes=settings.nodes,
            strategy=settings.strategy,
            precision=settings.precision,
            max_epochs=settings.epochs - done,
            callbacks=[*callbacks, *([ProgressBar(settings.epochs, done)] if bar else [])],
            plugins=[LightningEnvironment()] if settings.alone else environment(),
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=int(midway),  # the first epoch is shorter than the others
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        words = f"devices ({settings.devices}), nodes ({settings.nodes}), strategy ({settings.strategy!r})"
        raise ValueError(f"{words}: {' '.join(str(error).split())}") from None
    _check_processes(trainer, settings)
    return trainer


def _numbered(device: torch.device) -> list[int] | None:
    """The device's number in Lightning's form, or None if it has none."""
    return [device.index] if device.type == "cuda" and device != torch.device("cuda") else None


def _check_processes(trainer: pl.Trainer, settings: Settings) -> None:
    strategy = trainer.strategy
    whole = isinstance(strategy, DDPStrategy | SingleDeviceStrategy)
    if not whole or isinstance(strategy.launcher, _MultiProcessingLauncher):
        problem = "does not keep whole weights in processes of their own, from which they are saved"
        raise ValueError(f"strategy ({settings.strategy!r}) {problem}; say ddp")
    if (started := started_outside()) not in (1, trainer.world_size):
        wanted = f"devices ({settings.devices}) x nodes ({settings.nodes}) is {trainer.world_size}"
        raise ValueError(f"{wanted}, but {started} processes were started; make them equal")
    if trainer.world_size > settings.batch_size:
        problem = f"is less than the {trainer.world_size} processes that share each batch"
        raise ValueError(f"batch_size ({settings.batch_size}) {problem}; say at least {trainer.world_size}")


def _trainer(**options: Any) -> pl.Trainer:
    """A Trainer without checkpoints, loggers and trial steps."""
    bar = any(isinstance(callback, ProgressBar) for callback in options["callbacks"])
    return pl.Trainer(
        **options,
        enable_progress_bar=bar,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
        num_sanity_val_steps=0,
        inference_mode=False,  # tensors of inference mode could not be trained on later
    )
