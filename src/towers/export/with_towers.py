"""The model itself for torch.export, with towers' own operations in the program: faster, where towers is installed."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from towers.layers.lstm import RaggedLSTM
from towers.model import TwoTowers


class WholeTowers(nn.Module):
    """`model.forward`, from vectors or from word ids: see `portable.Portable`."""

    def __init__(self, model: TwoTowers, *, ids: bool, table: Tensor | None) -> None:
        super().__init__()
        self.model, self.ids = model, ids
        self.register_buffer("table", table)

    def forward(
        self,
        left: Tensor,
        right: Tensor,
        left_lengths: Tensor | None = None,
        right_lengths: Tensor | None = None,
        table: Tensor | None = None,
    ) -> Tensor:
        """Logits (batch)."""
        if self.ids:
            vectors: Any = self.table if table is None else table
            left, right = F.embedding(left, vectors), F.embedding(right, vectors)
        return self.model(left, right, left_lengths, right_lengths)


class WholeLSTM(nn.Module):
    """`lstm.forward` with its three results in a row."""

    def __init__(self, lstm: RaggedLSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(
        self, input: Tensor, lengths: Tensor, h_0: Tensor | None = None, c_0: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """output, h_n and c_n."""
        hx = None if h_0 is None or c_0 is None else (h_0, c_0)
        output, (h_n, c_n) = self.lstm(input, hx, lengths=lengths)
        return output, h_n, c_n
