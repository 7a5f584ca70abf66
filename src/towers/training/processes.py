"""The processes of a training: which of them is the main one, and what they exchange."""

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
"""The environment variables with which Lightning, torchrun and SLURM number the processes; unset means 0."""


def is_main(alone: bool) -> bool:
    """Whether this is the main process, the only one that writes files and reports progress.

    A single process is. With several, the environment says it before Lightning starts.
    """
    return alone or all(os.environ.get(name, "0") in ("0", "") for name in _RANKS)


def started_outside() -> int:
    """The number of processes that torchrun or SLURM started for this training; 1 without them."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ["SLURM_NTASKS"]) if SLURMEnvironment.detect() else 1


def environment() -> list[Any]:
    """Lightning's plugin for SLURM, without its own saving and requeueing, since towers saves its own state."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        return [SLURMEnvironment(auto_requeue=False)]
    return []


@contextmanager
def lost_ones_named() -> Generator[None]:
    """Turn the backend's errors about a lost process into one line.

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
    """Exchange between the processes of a trainer; with one process each result is its own input."""

    def __init__(self, trainer: "pl.Trainer") -> None:
        self.rank, self.count = trainer.global_rank, trainer.world_size
        self._device = trainer.strategy.root_device  # the device that the processes' backend requires

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
