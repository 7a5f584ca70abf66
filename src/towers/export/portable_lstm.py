"""RaggedLSTM in torch's own operations alone, for torch.export.

The LSTM is a loop over steps that the compiler keeps as a loop, so that one program serves every number of steps. One
more row follows the steps, so that no size is ever 1, which torch.export would take for a constant.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from towers.kernels.recurrence import GATES
from towers.layers.lstm import RaggedLSTM

_torch: Any = torch


def assert_in_file(condition: Tensor, message: str) -> None:
    """An assert of the exported program, which ends with the message where the condition, a bool tensor, is false."""
    _torch._assert_async(condition, message)


def assert_int64_in_file(lengths: Tensor) -> None:
    """An assert of the exported program that lengths are whole numbers: of 2.9 words it would give a number."""
    _torch._assert_tensor_metadata(lengths, None, None, torch.int64)


class Padded(nn.Module):
    """An LSTM of padded sentences (steps, batch, width) that run from right to left, too; its weights are the layer's.

    Each step writes its output into a copy of all outputs, as a loop that a compiler keeps has no other way.
    """

    def __init__(self, lstm: RaggedLSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(
        self, x: Tensor, lengths: Tensor, h_0: Tensor | None = None, c_0: Tensor | None = None, *, outputs: bool = True
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Output (steps, batch, width), which is 0 where a sentence has ended, h_n and c_n.

        `x` has one step more than the longest sentence can have. Without `outputs` there are none, and of one layer.
        """
        lstm, (steps, batch) = self.lstm, x.shape[:2]
        place = torch.arange(steps, device=x.device).unsqueeze(1)
        active = place < lengths
        backwards = torch.where(active, lengths - 1 - place, place).unsqueeze(2)
        h, c = (x.new_zeros(lstm.state_rows, batch, width) for width in (lstm.state_width, lstm.hidden_size))
        h, c = h if h_0 is None else h_0, c if c_0 is None else c_0
        ends: list[tuple[Tensor, Tensor]] = []
        output: Tensor | None = None
        for _ in range(lstm.num_layers):
            found: list[Tensor] = []
            for direction in range(1 + lstm.bidirectional):
                row = len(ends)
                given = x.gather(0, backwards.expand(-1, -1, x.shape[2])) if direction else x
                own, end = self._walk(lstm.names()[row], given, active, h[row].clone(), c[row].clone(), outputs)
                ends.append(end)
                found += [] if own is None else [own]
                if direction and found:
                    found[1] = found[1].gather(0, backwards.expand(-1, -1, found[1].shape[2]))
            x = output = torch.cat(found, 2) if found else x
        h_n, c_n = (torch.stack(parts) for parts in zip(*ends, strict=True))
        return output if outputs else None, h_n, c_n

    def _walk(
        self, names: list[str], x: Tensor, active: Tensor, h: Tensor, c: Tensor, outputs: bool
    ) -> tuple[Tensor | None, tuple[Tensor, Tensor]]:
        """One layer in one direction."""
        gate, weights = GATES[self.lstm.recurrent_activation], {name[:9]: getattr(self.lstm, name) for name in names}
        bias = sum(getattr(self.lstm, name) for name in names if "bias" in name)
        last = torch.full((), x.shape[0] - 1, dtype=torch.int64, device=x.device)
        read = [last, active, x @ weights["weight_ih"].t() + bias, weights["weight_hh"].t()]
        read += [weights["weight_hr"].t()] if self.lstm.proj_size else []

        def going(step: Tensor, h: Tensor, c: Tensor, *rest: Tensor) -> Tensor:
            return step < rest[outputs]

        def walk(step: Tensor, h: Tensor, c: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            output, (_, active, gates, recurrent, *projection) = rest[:outputs], rest[outputs:]
            at = step.unsqueeze(0)
            i, f, g, o = (gates.index_select(0, at).squeeze(0) + h @ recurrent).chunk(4, 1)
            cell = gate(f) * c + gate(i) * g.tanh()
            hidden = gate(o) * cell.tanh()
            hidden = hidden @ projection[0] if projection else hidden
            here = active.index_select(0, at).squeeze(0).unsqueeze(1)
            written = [rows.index_copy(0, at, torch.where(here, hidden, 0.0).unsqueeze(0)) for rows in output]
            return step + 1, torch.where(here, hidden, h), torch.where(here, cell, c), *written

        start = torch.zeros((), dtype=torch.int64, device=x.device)
        rows = [x.new_zeros(x.shape[0], x.shape[1], h.shape[1])] if outputs else []
        # torch's while_loop finds what the loop reads, at a fifth of the time of a warm export; here it is given.
        loop: Any = torch.ops.higher_order.while_loop
        _, h, c, *output = loop(going, walk, (start, h, c, *rows), tuple(read))
        return output[0] if output else None, (h, c)


class PortableLSTM(nn.Module):
    """(output, h_n, c_n) of `lstm.forward` with lengths."""

    def __init__(self, lstm: RaggedLSTM) -> None:
        super().__init__()
        self.padded, self.batch_first = Padded(lstm), lstm.batch_first

    def forward(
        self, input: Tensor, lengths: Tensor, h_0: Tensor | None = None, c_0: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Padded input, in the order of `batch_first`."""
        x = input.transpose(0, 1) if self.batch_first else input
        assert_int64_in_file(lengths)
        fitting = ((lengths >= 0) & (lengths <= x.shape[0])).all()
        assert_in_file(fitting, "lengths: a length is below 0, or above the number of steps")
        output, h_n, c_n = self.padded(F.pad(x, (0, 0, 0, 0, 0, 1)), lengths, h_0, c_0)
        output = output[: x.shape[0]]
        return output.transpose(0, 1).contiguous() if self.batch_first else output.clone(), h_n, c_n


class WholeLSTM(nn.Module):
    """`lstm.forward` itself, with its three results in a row."""

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
