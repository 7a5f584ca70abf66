"""Run twice by test_where_it_works: a contracted module under DDP and FSDP2. `two_processes.py RANK MEETING_POINT`"""

import os
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from towers.contracts import ShapeContractError, contract


class Layer(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.width, self.linear = width, nn.Linear(width, width)

    @contract(where=("batch >= 2",), dtype_of="linear.weight")
    def forward(self, x: Float[Tensor, "batch {self.width}"]) -> Float[Tensor, "batch {self.width}"]:
        return self.linear(x)


def train(name: str, model: nn.Module) -> None:
    """One step, and one call with what does not fit."""
    model(torch.ones(2, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(ShapeContractError, match=r"x: width is 3; expected 4 \(self.width\)"):
        model(torch.ones(2, 3))
    print(name, "refused")


def main(rank: int, meeting: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    torch.manual_seed(0)
    train("DDP", DistributedDataParallel(nn.Sequential(Layer(), Layer())))
    sharded = nn.Sequential(Layer(), Layer())
    mesh = dist.init_device_mesh("cpu", (2,))
    for layer in sharded:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    train("FSDP", sharded)
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main(int(sys.argv[1]), sys.argv[2])
