"""The processes of a training: which of them writes, and what they tell each other."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    import lightning.pytorch as pl

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Where Lightning, torchrun and SLURM say which process of all this one is; those that are not set count as 0."""


def is_main(alone: bool) -> bool:
    """Whether this process is the first of all, which alone makes and writes files and tells how it goes.

    One that trains alone is. Of several, the environment says it before Lightning has begun.
    """
    return alone or all(os.environ.get(name, "0") in ("0", "") for name in _RANKS)


def started_outside() -> int:
    """How many processes torchrun or SLURM started for this training; 1 without them."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ["SLURM_NTASKS"]) if SLURMEnvironment.detect() else 1


def environment() -> list[Any]:
    """Lightning's plugin for SLURM, without its own way of saving and requeueing: towers saves its own state."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        return [SLURMEnvironment(auto_requeue=False)]
    return []


@contextmanager
def lost_ones_named() -> Generator[None]:
    """Say in a line that another process has gone, where its silence is an error deep in the backend.

    Raises:
        ConnectionError: another process of this training has ended.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not (isinstance(error, dist.DistError) or "gloo" in text or "NCCL" in text):
            raise
        first = text.partition("\n")[0][:120]
        raise ConnectionError(f"another process of this training has ended, or cannot be reached ({first})") from None


class Together:
    """What the processes of one trainer tell each other; alone, a process tells it to itself."""

    def __init__(self, trainer: "pl.Trainer") -> None:
        self.rank, self.count = trainer.global_rank, trainer.world_size
        self._device = trainer.strategy.root_device  # where the processes' backend wants what it carries

    @property
    def main(self) -> bool:
        """Whether this process is the first."""
        return self.rank == 0

    def largest(self, number: int) -> int:
        """The largest of all processes' numbers."""
        return int(self._reduce(torch.tensor(number), dist.ReduceOp.MAX))

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors, on the CPU."""
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def stack(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, on the CPU, in the order of the processes."""
        parts = [tensor.to(self._device)]
        if self.count > 1:
            parts = [torch.empty_like(parts[0]) for _ in range(self.count)]
            dist.all_gather(parts, tensor.to(self._device))  # pyright: ignore[reportUnknownMemberType]
        return torch.stack(parts).cpu()

    def _reduce(self, tensor: Tensor, how: Any) -> Tensor:
        if self.count == 1:
            return tensor.cpu()
        reduced = tensor.to(self._device, copy=True)
        dist.all_reduce(reduced, how)  # pyright: ignore[reportUnknownMemberType]
        return reduced.cpu()
