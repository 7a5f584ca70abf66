"""The towers on Lightning: batches, one step of training, one batch of prediction."""

from collections.abc import Iterator
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from towers.data import Batch, SentencePairs
from towers.optim import KerasAdam
from towers.ragged import Ragged


class Share(NamedTuple):
    """What one process has of a batch."""

    batch: Batch
    pairs: int
    """Pairs that count: 0 if there are fewer pairs than processes, where one pair is read but not counted."""
    whole: int
    """Pairs of the batch over all processes."""


class Batches:
    """The batches of sentence pairs for Lightning: an iterable with a length, read once per epoch.

    With a seed, each epoch has its own order, which depends only on the seed and the epoch's number. Every process
    takes a share of each batch; since a batch is sorted by length, the shares have similar lengths.

    Attributes:
        epoch: counted from 0.
        start: the number of batches of this epoch that are done already.
        rank: which process this is.
        processes: how many there are.
    """

    def __init__(self, pairs: SentencePairs, batch_size: int, seed: int | None = None) -> None:
        self.pairs, self.batch_size, self.seed = pairs, batch_size, seed
        self.epoch, self.start = 0, 0
        self.rank, self.processes = 0, 1

    def __len__(self) -> int:
        return -(-len(self.pairs) // self.batch_size) - self.start

    def __iter__(self) -> Iterator[Share]:
        seed = None if self.seed is None else self.seed * 1_000_003 + self.epoch
        order = self.pairs.order(self.batch_size, seed=seed)[self.start :]
        shares = [index[self.rank :: self.processes] for index in order]
        read = [share if len(share) else index[:1] for share, index in zip(shares, order, strict=True)]
        for batch, share, index in zip(self.pairs.walk(read), shares, order, strict=True):
            yield Share(batch, len(share), len(index))


class Collected:
    """Logits collected batch by batch, then returned in the order of the pairs."""

    def __init__(self) -> None:
        self.index: list[Tensor] = []
        self.logits: list[Tensor] = []

    def add(self, index: Tensor, logits: Tensor) -> None:
        """Keep the logits of these pairs on their device, without waiting for it."""
        self.index.append(index)
        self.logits.append(logits.detach())

    def in_order(self) -> Tensor:
        """All logits (pairs) as float32 on the CPU, in the order of the pairs."""
        return self.dense(sum(map(len, self.index)))[0]

    def dense(self, pairs: int) -> tuple[Tensor, Tensor]:
        """Logits (pairs) as float32 on the CPU, 0 where none was added, and 1 (pairs) where one was added."""
        logits, seen = torch.zeros(pairs), torch.zeros(pairs, dtype=torch.uint8)
        if self.index:
            index = torch.cat(self.index).cpu()
            logits.index_copy_(0, index, torch.cat(self.logits).float().cpu())
            seen[index] = 1
        return logits, seen

    def clear(self) -> None:
        """Remove all logits."""
        self.index.clear()
        self.logits.clear()


class TowersModule(pl.LightningModule):
    """A model of two towers as a Lightning module: binary cross-entropy, Keras's Adam."""

    def __init__(self, model: nn.Module, lr: float = 1e-3) -> None:
        super().__init__()
        self.model, self.lr = model, lr
        self.loss: Tensor | None = None
        self._tables: dict[
            int, tuple[Tensor, Tensor]
        ] = {}  # by the id of a table: the table, and its copy on this device
        self.train_logits = Collected()
        """The logits of the training pairs of this epoch."""
        self.logits = Collected()
        """The logits of the pairs that are measured or predicted."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of `configure_optimizers` itself, without Lightning's wrapper."""
        return self.trainer.optimizers[0]

    def configure_optimizers(self) -> KerasAdam:
        """Keras's Adam over all parameters; a tower that is both left and right counts once."""
        fused = (
            self.device.type == "cpu"
        )  # on the CPU it takes a third of the time; on CUDA it would wait at every step
        return KerasAdam([{"params": list(self.model.parameters()), "fused": fused}], lr=self.lr)

    def transfer_batch_to_device(self, batch: Share, device: torch.device, dataloader_idx: int) -> Share:
        """Move the sentences to the weights' device and their vectors to the weights' dtype; the index is not moved."""
        pairs, dtype = batch.batch, next(self.model.parameters()).dtype
        left, right = (self._beside(side, device, dtype) for side in (pairs.left, pairs.right))
        labels = None if pairs.labels is None else pairs.labels.to(device)
        return batch._replace(batch=Batch(left, right, labels, pairs.index))

    def _beside(self, side: Ragged, device: torch.device, dtype: torch.dtype) -> Ragged:
        """A side's ids and table on the weights' device: the whole table, or for training on CUDA the batch's rows."""
        assert side.table is not None
        if self.training and device.type != "cpu":
            return side.distinct().to(device).to(dtype)
        if id(side.table) not in self._tables:
            self._tables[id(side.table)] = (side.table, side.table.to(device, dtype))
        table = self._tables[id(side.table)][1]
        return Ragged.unchecked(side.values.to(device), side.offsets.to(device), side.uniform, table)

    def training_step(self, batch: Share, batch_idx: int) -> Tensor:
        """The mean binary cross-entropy of a batch.

        With several processes the loss is weighted by the process's pairs, so that the mean of the gradients over the
        processes is the mean over the pairs of the whole batch.
        """
        logits = self._logits(batch, self.train_logits)
        assert batch.batch.labels is not None
        loss = binary_cross_entropy_with_logits(logits.float(), batch.batch.labels.float())
        self.loss = loss.detach()
        processes = self.trainer.world_size
        return loss if processes == 1 else loss * (batch.pairs * processes / batch.whole)

    def validation_step(self, batch: Share, batch_idx: int) -> None:
        """Collect a batch's logits."""
        self._logits(batch, self.logits)

    def predict_step(self, batch: Share, batch_idx: int) -> Tensor:
        """Collect a batch's logits; Lightning requires them as the result."""
        return self._logits(batch, self.logits)

    def _logits(self, share: Share, collected: Collected) -> Tensor:
        logits = self.model(share.batch.left, share.batch.right)
        if share.pairs:
            collected.add(share.batch.index, logits)
        return logits
