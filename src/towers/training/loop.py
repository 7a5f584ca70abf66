# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
"""The towers on Lightning: one step of training, one batch of prediction, and the Trainer that repeats them."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from towers.data import Batch, SentencePairs
from towers.optim import KerasAdam
from towers.ragged import Ragged
from towers.training.history import Epoch, History
from towers.training.metrics import measure


class Batches:
    """The batches of sentence pairs, as Lightning wants them: with a length, and walked over once an epoch.

    With a seed, each epoch has an order of its own, which depends on the seed and on the epoch's number only.
    """

    def __init__(self, pairs: SentencePairs, batch_size: int, seed: int | None = None) -> None:
        self.pairs, self.batch_size, self.seed = pairs, batch_size, seed
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.pairs) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        seed = None if self.seed is None else self.seed * 1_000_003 + self.epoch
        return self.pairs.batches(self.batch_size, seed=seed)


class Collected:
    """Logits gathered batch by batch, and put back in the order of the pairs."""

    def __init__(self) -> None:
        self.index: list[Tensor] = []
        self.logits: list[Tensor] = []

    def add(self, batch: Batch, logits: Tensor) -> None:
        """Keep a batch's logits where they lie: nothing waits for a device here."""
        self.index.append(batch.index)
        self.logits.append(logits.detach())

    def in_order(self) -> Tensor:
        """All logits (pairs) as float32 on the CPU, in the order of the pairs."""
        logits = torch.cat(self.logits).float().cpu()
        return torch.empty_like(logits).index_copy_(0, torch.cat(self.index).cpu(), logits)

    def clear(self) -> None:
        """Forget them all."""
        self.index.clear()
        self.logits.clear()


class TowersModule(pl.LightningModule):
    """A model of two towers as Lightning sees it: binary cross-entropy, Keras's Adam."""

    def __init__(self, model: nn.Module, lr: float = 1e-3) -> None:
        super().__init__()
        self.model, self.lr = model, lr
        self.loss: Tensor | None = None
        self._tables: dict[int, tuple[Tensor, Tensor]] = {}  # by the id of a table: itself, and as it lies here
        self.train_logits = Collected()
        """Of the pairs learned from, in this epoch."""
        self.logits = Collected()
        """Of the pairs measured or predicted."""

    def configure_optimizers(self) -> KerasAdam:
        """Keras's Adam over all parameters; a tower that is both left and right counts once."""
        fused = self.device.type == "cpu"  # there it takes a third of the time; on CUDA it would wait at every step
        return KerasAdam([{"params": list(self.model.parameters()), "fused": fused}], lr=self.lr)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the sentences beside the weights, their vectors into their dtype; the index stays where it is."""
        dtype = next(self.model.parameters()).dtype
        left, right = (self._beside(side, device, dtype) for side in (batch.left, batch.right))
        labels = None if batch.labels is None else batch.labels.to(device)
        return Batch(left, right, labels, batch.index)

    def _beside(self, side: Ragged, device: torch.device, dtype: torch.dtype) -> Ragged:
        """A side's ids and table beside the weights: the table whole, once; to learn, what the batch has of it."""
        assert side.table is not None
        if self.training and device.type != "cpu":
            return side.distinct().to(device).to(dtype)
        if id(side.table) not in self._tables:
            self._tables[id(side.table)] = (side.table, side.table.to(device, dtype))
        table = self._tables[id(side.table)][1]
        return Ragged.unchecked(side.values.to(device), side.offsets.to(device), side.uniform, table)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean binary cross-entropy of a batch."""
        logits = self.model(batch.left, batch.right)
        assert batch.labels is not None
        self.train_logits.add(batch, logits)
        loss = binary_cross_entropy_with_logits(logits.float(), batch.labels.float())
        self.loss = loss.detach()
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect a batch's logits."""
        self.logits.add(batch, self.model(batch.left, batch.right))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Collect a batch's logits; Lightning wants to see them too."""
        self.validation_step(batch, batch_idx)
        return self.logits.logits[-1]


class Epochs(pl.Callback):
    """After each epoch: measure, add a row to the history, remember the best weights, tell whoever listens."""

    def __init__(
        self,
        history: History,
        train: Batches,
        dev: SentencePairs | None,
        *,
        soft: bool,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> None:
        self.history, self.train, self.dev, self.soft, self.on_epoch = history, train, dev, soft, on_epoch
        self.best_weights: dict[str, Tensor] = {}
        self.started = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the row. Lightning has been through the dev pairs by now."""
        assert isinstance(pl_module, TowersModule)
        row = Epoch(
            number=trainer.current_epoch + 1,
            train=_measure(pl_module.train_logits, self.train.pairs, self.soft),
            dev={} if self.dev is None else _measure(pl_module.logits, self.dev, self.soft),
            seconds=time.perf_counter() - self.started,
        )
        self.train.epoch = row.number
        if self.history.add(row) and self.dev is not None:
            self.best_weights = {name: value.detach().clone() for name, value in pl_module.model.state_dict().items()}
        if self.on_epoch is not None:
            self.on_epoch(row)


class ProgressBar(TQDMProgressBar):
    """One bar on standard error: this epoch's steps and the latest loss. It leaves nothing behind."""

    def __init__(self, epochs: int) -> None:
        super().__init__(refresh_rate=10)
        self.epochs = epochs
        self.bars: list[Tqdm] = []

    def init_train_tqdm(self) -> Tqdm:
        """The bar of the steps of an epoch."""
        self.bars.append(Tqdm(leave=False, dynamic_ncols=True, file=sys.stderr, smoothing=0))
        return self.bars[-1]

    def init_predict_tqdm(self) -> Tqdm:
        """The bar of the batches to measure or predict."""
        return self.init_train_tqdm()

    def init_validation_tqdm(self) -> Tqdm:
        """No bar for the dev pairs of an epoch: they take a moment."""
        return Tqdm(disable=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Begin again, with the epochs counted from 1."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}/{self.epochs}")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the bar away, so that what is said next stands on a line of its own."""
        for bar in self.bars:
            bar.close()

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The latest loss: asked for at every tenth step only, because it waits for the device."""
        loss = pl_module.loss if isinstance(pl_module, TowersModule) else None
        return {} if loss is None else {"loss": f"{float(loss):.4f}"}


def trainer(
    device: torch.device, precision: Any, *, bar: bool, epochs: int = 1, callback: pl.Callback | None = None
) -> pl.Trainer:
    """A Trainer that writes no files, logs nothing and checks nothing first."""
    return pl.Trainer(
        accelerator=device.type,
        devices=[device.index] if device.type == "cuda" else 1,
        precision=precision,
        max_epochs=epochs,
        callbacks=([callback] if callback else []) + ([ProgressBar(epochs)] if bar else []),
        enable_progress_bar=bar,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
        num_sanity_val_steps=0,
        inference_mode=False,  # tensors made in inference mode could not be trained on later
    )


def _measure(collected: Collected, pairs: SentencePairs, soft: bool) -> dict[str, float]:
    logits = collected.in_order()
    collected.clear()
    assert pairs.labels is not None
    return measure(logits, pairs.labels, soft=soft)
