"""RaggedLSTM in torch's own operations alone, for torch.export: see `towers.export.portable`."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop  # pyright: ignore[reportUnknownVariableType]
from torch.nn import functional as F

from towers.kernels.recurrence import GATES
from towers.layers.lstm import RaggedLSTM


class PortableLSTM(nn.Module):
    """(output, h_n, c_n) of `lstm.forward` with lengths.

    Each step writes its output into a copy of all outputs, as a loop that a compiler keeps has no other way.
    """

    def __init__(self, lstm: RaggedLSTM) -> None:
        super().__init__()
        self.batch_first, self.layers, self.directions = lstm.batch_first, lstm.num_layers, 1 + lstm.bidirectional
        self.widths, self.rows = (lstm.state_width, lstm.hidden_size), lstm.state_rows
        self.gate, self.projected = GATES[lstm.recurrent_activation], lstm.proj_size > 0
        for row, names in enumerate(lstm.names()):
            weights = {name[:9]: getattr(lstm, name).detach().clone() for name in names if "weight" in name}
            zero = torch.zeros(4 * lstm.hidden_size)
            weights["bias"] = sum((getattr(lstm, name).detach() for name in names if "bias" in name), zero)
            for name, weight in weights.items():
                self.register_buffer(f"{name}_{row}", weight)

    def forward(
        self, input: Tensor, lengths: Tensor, h_0: Tensor | None = None, c_0: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Padded input, in the order of `batch_first`."""
        x = input.transpose(0, 1) if self.batch_first else input
        steps, batch = x.shape[:2]
        torch._assert_async(  # pyright: ignore[reportPrivateUsage]
            ((lengths >= 0) & (lengths <= steps)).all(), "a length is below 0, or above the number of steps"
        )
        x = F.pad(x, (0, 0, 0, 0, 0, 1))  # a row behind the end, as in `portable`
        place = torch.arange(steps + 1, device=x.device).unsqueeze(1)
        active = place < lengths
        backwards = torch.where(active, lengths - 1 - place, place).unsqueeze(2)
        h, c = (x.new_zeros(self.rows, batch, width) for width in self.widths)
        h, c = h if h_0 is None else h_0, c if c_0 is None else c_0
        ends: list[tuple[Tensor, Tensor]] = []
        for layer in range(self.layers):
            outputs: list[Tensor] = []
            for direction in range(self.directions):
                row = layer * self.directions + direction
                given = x.gather(0, backwards.expand(-1, -1, x.shape[2])) if direction else x
                output, end = self._walk(row, given, active, h[row].clone(), c[row].clone())
                ends.append(end)
                outputs.append(output.gather(0, backwards.expand(-1, -1, output.shape[2])) if direction else output)
            x = torch.cat(outputs, 2)
        output = x[:steps]
        h_n, c_n = (torch.stack(parts) for parts in zip(*ends, strict=True))
        return output.transpose(0, 1).contiguous() if self.batch_first else output.clone(), h_n, c_n

    def _walk(self, row: int, x: Tensor, active: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One layer in one direction; output is 0 where a sentence has ended."""
        weight: Any = {name: getattr(self, f"{name}_{row}") for name in ("weight_ih", "weight_hh", "bias")}
        gates, recurrent = x @ weight["weight_ih"].t() + weight["bias"], weight["weight_hh"].t()
        projection = cast(Tensor, getattr(self, f"weight_hr_{row}")).t() if self.projected else None
        last = x.shape[0] - 1

        def going(step: Tensor, h: Tensor, c: Tensor, output: Tensor) -> Tensor:
            return step < last

        def walk(step: Tensor, h: Tensor, c: Tensor, output: Tensor) -> tuple[Tensor, ...]:
            at = step.unsqueeze(0)
            i, f, g, o = (gates.index_select(0, at).squeeze(0) + h @ recurrent).chunk(4, 1)
            cell = self.gate(f) * c + self.gate(i) * g.tanh()
            hidden = self.gate(o) * cell.tanh()
            hidden = hidden if projection is None else hidden @ projection
            here = active.index_select(0, at).squeeze(0).unsqueeze(1)
            output = output.index_copy(0, at, torch.where(here, hidden, 0.0).unsqueeze(0))
            return step + 1, torch.where(here, hidden, h), torch.where(here, cell, c), output

        start = torch.zeros((), dtype=torch.int64, device=x.device)
        output = x.new_zeros(x.shape[0], x.shape[1], h.shape[1])
        loop = cast("Any", while_loop)
        _, h, c, output = loop(going, walk, (start, h, c, output))
        return output, (h, c)
