"""What the ways take."""

from typing import NamedTuple

from torch import Tensor

from towers.kernels.cells import Parameters

State = tuple[Tensor, Tensor]


class Batch(NamedTuple):
    """Sentences, each of which is some neighbouring rows of the values: Ragged, padded and jagged batches alike.

    starts and lengths are int64 and lie beside the values. Both None: the sentences stand end to end, all `longest`
    words long.
    """

    values: Tensor  # "rows input_size"; rows that belong to no sentence are never read
    starts: Tensor | None  # "batch": the row of each sentence's first word
    lengths: Tensor | None  # "batch"
    longest: int | None  # no sentence is longer, as far as is known without a look at the lengths
    dense: bool = False  # whether every row is known to belong to a sentence


class Weights(NamedTuple):
    """An LSTM's parameters, in nn.LSTM's order and layout, and how they are used."""

    flat: tuple[
        Tensor, ...
    ]  # of each layer and direction: weight_ih, weight_hh, `biases` biases, weight_hr if projected
    biases: int  # 0, 1 or 2
    projected: bool
    num_layers: int
    bidirectional: bool
    dropout: float  # 0 outside training

    @property
    def hidden(self) -> int:
        """LSTM units of a layer and direction."""
        return self.flat[0].shape[0] // 4

    def of(self, layer: int, direction: int) -> Parameters:
        """Those of a layer and direction."""
        size = 2 + self.biases + self.projected
        first = (layer * (1 + self.bidirectional) + direction) * size
        w_ih, w_hh, *rest = self.flat[first : first + size]
        w_hr = rest.pop() if self.projected else None
        bias = rest[0] + rest[1] if self.biases == 2 else rest[0] if self.biases else None
        return Parameters(w_ih, w_hh, bias, w_hr)
