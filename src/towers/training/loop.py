"""The towers on Lightning: batches, one step of training, one batch of prediction."""

from collections.abc import Iterator
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from towers.data import Batch, SentencePairs
from towers.model import TwoTowers
from towers.optim import KerasAdam
from towers.ragged import Ragged
from towers.training.objectives import Objective, batch_loss
from towers.training.options import Settings


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
    takes a share of each batch; where a batch is sorted by length, the shares have similar lengths.

    Attributes:
        epoch: counted from 0.
        start: the number of batches of this epoch that are done already.
        rank: which process this is.
        processes: how many there are.
    """

    def __init__(
        self, pairs: SentencePairs, batch_size: int, seed: int | None = None, *, by_length: bool = True
    ) -> None:
        self.pairs, self.batch_size, self.seed, self.by_length = pairs, batch_size, seed, by_length
        self.epoch, self.start = 0, 0
        self.rank, self.processes = 0, 1

    def __len__(self) -> int:
        return -(-len(self.pairs) // self.batch_size) - self.start

    def __iter__(self) -> Iterator[Share]:
        seed = None if self.seed is None else self.seed * 1_000_003 + self.epoch
        order = self.pairs.order(self.batch_size, seed=seed, by_length=self.by_length)[self.start :]
        shares = [index[self.rank :: self.processes] for index in order]
        read = [share if len(share) else index[:1] for share, index in zip(shares, order, strict=True)]
        for batch, share, index in zip(self.pairs.walk(read), shares, order, strict=True):
            yield Share(batch, len(share), len(index))


class Collected:
    """Logits collected batch by batch, then returned in the order of the pairs.

    Args:
        outputs: the number of logits of a pair.
    """

    def __init__(self, outputs: int = 1) -> None:
        self.shape = () if outputs == 1 else (outputs,)
        self.index: list[Tensor] = []
        self.logits: list[Tensor] = []

    def add(self, index: Tensor, logits: Tensor) -> None:
        """Keep the logits of these pairs on their device, without waiting for it."""
        self.index.append(index)
        self.logits.append(logits.detach())

    def in_order(self) -> Tensor:
        """All logits (pairs), or (pairs, outputs), as float32 on the CPU, in the order of the pairs."""
        return self.dense(sum(map(len, self.index)))[0]

    def dense(self, pairs: int) -> tuple[Tensor, Tensor]:
        """Logits as float32 on the CPU, 0 where none was added, and 1 (pairs) where one was added."""
        logits, seen = torch.zeros(pairs, *self.shape), torch.zeros(pairs, dtype=torch.uint8)
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
    """A model of two towers as a Lightning module.

    Args:
        model: the towers.
        settings: the optimizer and its learning rate.
        objective: the loss of the first head, on the labels of the pairs.
        second: that of the second head, if there is one, on their second labels.
        seconds: the second labels of the training pairs.
    """

    def __init__(
        self,
        model: TwoTowers,
        settings: Settings | None = None,
        objective: Objective | None = None,
        second: Objective | None = None,
        seconds: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model, self.settings = model, settings or Settings()
        self.objective, self.second, self.seconds = objective or Objective("binary"), second, seconds
        self.lr = self.settings.lr
        self.loss: Tensor | None = None
        self._tables: dict[
            int, tuple[Tensor, Tensor]
        ] = {}  # by the id of a table: the table, and its copy on this device
        self.train_logits = Collected(model.outputs)
        """The logits of the training pairs of this epoch."""
        self.logits = Collected(model.outputs)
        """The logits of the pairs that are measured or predicted."""
        self.second_logits = Collected(1 if model.second is None else model.second.outputs)
        """The same of the second head."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of `configure_optimizers` itself, without Lightning's wrapper."""
        return self.trainer.optimizers[0]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Keras's Adam, or AdamW, over all parameters; a tower that is both left and right counts once."""
        fused = (
            self.device.type == "cpu"
        )  # on the CPU it takes a third of the time; on CUDA it would wait at every step
        groups = [{"params": list(self.model.parameters()), "fused": fused}]
        if self.settings.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.settings.weight_decay)
        return KerasAdam(groups, lr=self.lr)

    def set_lr(self, step: int, steps: int) -> None:
        """The learning rate of a step, counted from 0: falling linearly from `lr` to `final_lr`, where there is one."""
        if self.settings.final_lr is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr + (self.settings.final_lr - self.lr) * step / steps

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
        """The mean loss of a batch, with that of a second label times `second_weight`.

        With `dropout_samples` the heads answer each pair as often; the logits of the first answer are collected.

        With several processes the loss is weighted by the process's pairs, so that the mean of the gradients over the
        processes is the mean over the pairs of the whole batch.
        """
        labels, samples = batch.batch.labels, self.settings.dropout_samples
        assert labels is not None
        how = self.settings.correlation, self.settings.smoothing
        if samples == 1 and self.model.second is None:
            loss = batch_loss(self.objective, self._logits(batch, self.train_logits).float(), labels, *how)
        else:
            states = self._states(batch)
            left, right = states if samples == 1 else (state.repeat(samples, 1) for state in states)
            logits = self.model.compare(left, right)
            self._collect(batch, logits[: len(labels)], self.train_logits)
            loss = batch_loss(self.objective, logits.float(), labels.repeat(samples), *how)
            if self.second is not None and self.model.second is not None and self.seconds is not None:
                seconds = self.seconds[batch.batch.index].to(logits.device).repeat(samples)
                other = batch_loss(self.second, self.model.second(left, right).float(), seconds, *how)
                loss = loss + self.settings.second_weight * other
        self.loss = loss.detach()
        processes = self.trainer.world_size
        return loss if processes == 1 else loss * (batch.pairs * processes / batch.whole)

    def validation_step(self, batch: Share, batch_idx: int) -> None:
        """Collect a batch's logits."""
        self._measure(batch)

    def predict_step(self, batch: Share, batch_idx: int) -> Tensor:
        """Collect a batch's logits; Lightning requires them as the result."""
        return self._measure(batch)

    def _measure(self, share: Share) -> Tensor:
        if self.model.second is None:
            return self._logits(share, self.logits)
        left, right = self._states(share)
        logits = self.model.compare(left, right)
        self._collect(share, logits, self.logits)
        self._collect(share, self.model.second(left, right), self.second_logits)
        return logits

    @torch.no_grad()
    def answers(self, share: Share) -> Tensor:
        """The logits of a batch in evaluation, which are not collected."""
        training = self.model.training
        self.model.eval()
        try:
            return self._of_batch(share)
        finally:
            self.model.train(training)

    def _logits(self, share: Share, collected: Collected) -> Tensor:
        logits = self._of_batch(share)
        self._collect(share, logits, collected)
        return logits

    def _of_batch(self, share: Share) -> Tensor:
        return self.model.compare(*self._states(share)) if self._together else self._whole(share)

    def _whole(self, share: Share) -> Tensor:
        return self.model(share.batch.left, share.batch.right)

    @property
    def _together(self) -> bool:
        """Whether one call of the tower takes both sides: the tower is shared, and no kernel runs the whole network."""
        model, kind = self.model, type(self.model)
        usual = kind.forward is TwoTowers.forward and kind.states is TwoTowers.states
        return usual and model.left is model.right and model.has_other_parts

    def _states(self, share: Share) -> tuple[Tensor, Tensor]:
        """The states of both sides, of a shared tower in one call.

        What that gains: row "both sides in one call" of `python benchmarks/run.py quick-paths`.
        """
        model, left, right = self.model, share.batch.left, share.batch.right
        if not self._together:
            return model.states(left, right)
        if model.word_dropout is not None:
            left, right = model.word_dropout(left, right)
        if left.table is not right.table:
            left, right = left.vectors(), right.vectors()
        ends = torch.cat([left.offsets, right.offsets[1:] + left.values.shape[0]])
        both = Ragged.unchecked(torch.cat([left.values, right.values]), ends, None, left.table)
        lefts, rights = model.left(both).split([left.batch, right.batch])
        return lefts, rights

    def _collect(self, share: Share, logits: Tensor, collected: Collected) -> None:
        if share.pairs:
            collected.add(share.batch.index, logits)
