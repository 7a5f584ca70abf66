"""Run twice by test_door: DDP where one process has no sentence. `empty_rank.py RANK MEETING_POINT`"""

import copy
import os
import sys
from datetime import timedelta

import torch
import torch._dynamo  # DDP imports it: ten seconds of a core, which must lie before the two processes meet
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from towers import RaggedLSTM, Tower, TwoTowers


class Last(nn.Module):
    """The last states of an LSTM, which DDP can read."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = RaggedLSTM(8, 3)

    def forward(self, x):
        return self.lstm(x)[1][0]


def main(rank: int, meeting: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=timedelta(minutes=10)
    )
    torch.manual_seed(0)
    tower = Tower(vector_width=8, hidden=3)
    for model, inputs in ((tower, 1), (TwoTowers(tower, Tower(5, vector_width=8, hidden=3)), 2), (Last(), 1)):
        alone, both = copy.deepcopy(model), DistributedDataParallel(model)
        for empty in (1, 0):
            given = [torch.randn(3, 5, 8) for _ in range(inputs)]
            model.zero_grad()
            alone.zero_grad()
            both(*[one[:0] if rank == empty else one for one in given]).square().sum().backward()
            alone(*given).square().sum().backward()
            for found, wanted in zip(model.parameters(), alone.parameters(), strict=True):
                torch.testing.assert_close(found.grad, wanted.grad / 2, rtol=1e-5, atol=1e-7)
        print(type(model).__name__)
    # Both end together, and take nothing down: a process whose partner had gone was seen to hang in doing so, and while
    # Python ends, threads of gloo may still want it (https://github.com/pytorch/pytorch/pull/179291).
    end = dist.FileStore(f"{meeting}-end", 2)
    end.set(str(rank), "done")
    end.wait([str(1 - rank)], timedelta(minutes=10))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main(int(sys.argv[1]), sys.argv[2])
