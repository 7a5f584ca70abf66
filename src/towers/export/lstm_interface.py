"""RaggedLSTM alone as an exported file."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from towers.export.interface import Batch, Input, Interface
from towers.export.onnx_graph import Graph
from towers.export.portable import has_no_operation
from towers.export.portable_lstm import PortableLSTM, WholeLSTM
from towers.layers.lstm import RaggedLSTM


@dataclass(frozen=True)
class LSTMInterface(Interface):
    """Of a RaggedLSTM: padded input in the order of its `batch_first`, and a length for each sentence.

    Attributes:
        lstm: the layer.
        states: whether h_0 and c_0 are inputs; else they are zero.
    """

    lstm: RaggedLSTM
    states: bool = False

    def inputs(self) -> list[Input]:
        """input, lengths, h_0 and c_0."""
        found = [Input("input", torch.float32, self._padded(self.lstm.input_size))]
        found.append(Input("lengths", torch.int64, ("batch",)))
        return found + (self._states("h_0", "c_0") if self.states else [])

    def outputs(self) -> list[Input]:
        """output, h_n and c_n."""
        return [Input("output", torch.float32, self._padded(self.lstm.output_width)), *self._states("h_n", "c_n")]

    def _padded(self, width: int) -> tuple[str | int, ...]:
        return ("batch", "steps", width) if self.lstm.batch_first else ("steps", "batch", width)

    def _states(self, *names: str) -> list[Input]:
        widths = (self.lstm.state_width, self.lstm.hidden_size)
        return [
            Input(name, torch.float32, (self.lstm.state_rows, "batch", width))
            for name, width in zip(names, widths, strict=True)
        ]

    def lowest(self) -> dict[str, int]:
        """Any sizes."""
        return {"batch": 0, "steps": 0}

    def demands(self) -> dict[str, str]:
        """Of the lengths."""
        return {"lengths": "0 <= lengths <= steps"}

    def draw(self, sentences: int, words: int, seed: int) -> Batch:
        """Lengths from 0 on; padding holds other numbers."""
        generator = torch.Generator().manual_seed(seed)
        sizes: dict[str | int, int] = {"batch": sentences, "steps": words}
        batch: Batch = {}
        for entry in self.inputs():
            shape = [size if isinstance(size, int) else sizes[size] for size in entry.axes]
            batch[entry.name] = torch.randn(shape, generator=generator, dtype=torch.float32)
        return batch | {"lengths": torch.randint(words + 1, (sentences,), generator=generator)}

    def expected(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the layer itself gives."""
        hx = (batch["h_0"], batch["c_0"]) if self.states else None
        with torch.no_grad():
            output, state = self.lstm(batch["input"], hx, lengths=batch["lengths"])
        return (output, *state)

    def portable(self) -> nn.Module:
        """In torch's own operations."""
        return PortableLSTM(self.lstm)

    def whole(self) -> nn.Module:
        """With towers' own operations, where there are some."""
        return self.portable() if has_no_operation(self.lstm) else WholeLSTM(self.lstm)

    def graph(self, graph: Graph) -> list[str]:
        """As operators of ONNX."""
        from towers.export.onnx_lstm import whole_lstm  # with numpy, which comes with onnx

        return whole_lstm(graph, self.lstm, states=self.states)
