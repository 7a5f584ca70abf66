"""The LSTM as ONNX's operator, one for each layer and direction, while `torch.onnx.export` records a module.

Both exporters take it: the one with `dynamo=True` and the older one. Runtimes differ in what they do with the lengths
of sentences (OpenVINO 2026.4, on a CPU, ignores them), and onnxruntime's operator takes no empty batch and no length 0.
So the operator gets one sentence and one step more than there are, a second direction reads turned sentences, and the
states at the end are looked up. A mark beside the inputs shuts the cell where a sentence has ended.
"""

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from towers.kernels.batch import Batch, Parameters, State, Weights, is_jit_tracing, plain

HARD_SIGMOIDS = {"hard_sigmoid": 1 / 6, "hard_sigmoid_keras2": 0.2}
CLOSED = 1e4
"""What is added to a gate to shut it, or taken off to open it: far beyond where a sigmoid of float32 is 0 or 1."""
_OUT_OF_BOUNDS = 1 << 20
_torch: Any = torch


def exporting_onnx() -> bool:
    """Whether `torch.onnx.export` records this call."""
    return not plain() and _torch.onnx.is_in_onnx_export()


def checked_lengths(lengths: Tensor, lowest: int, most: int) -> Tensor:
    """The lengths; one that does not fit reads past the end of a constant, ONNX's way to say "assert"."""
    fitting = (lengths >= lowest) & (lengths <= most)
    place = torch.where(fitting, 0, _OUT_OF_BOUNDS)
    return lengths + lengths.new_zeros(1).index_select(0, place)


def run(batch: Batch, state: State, weights: Weights, *, outputs: bool) -> tuple[Tensor | None, State]:
    """See `towers.kernels`.

    Raises:
        ValueError: ONNX has no such LSTM, the layer is in training with dropout, or the sentences are not padded.
    """
    if weights.projected:
        raise ValueError("ONNX's LSTM has no projection: proj_size must be 0 where torch.onnx.export is called")
    if weights.dropout:
        raise ValueError("the LSTM has dropout in training; call model.eval() before torch.onnx.export")
    if batch.values.dim() != 3 or batch.starts is not None:
        raise ValueError(
            "torch.onnx.export takes padded sentences and their lengths, not Ragged, packed or jagged ones"
        )
    count, steps = batch.values.shape[:2]
    lengths = F.pad(_lengths(batch, count, steps), (0, 1))  # a sentence more
    place = torch.arange(steps + 1, device=lengths.device).unsqueeze(1)  # a step more
    real = (place < lengths).unsqueeze(2)
    some = lengths.clamp(min=1)
    turned = torch.where(place < some, some - 1 - place, place).unsqueeze(2)
    x = torch.where(real, F.pad(batch.values, (0, 0, 0, 1, 0, 1)).transpose(0, 1), 0.0)  # padding may be NaN
    mark = real.logical_not().to(x.dtype)
    h_0, c_0 = (F.pad(part, (0, 0, 0, 1)) for part in state)
    ends: list[State] = []
    for layer in range(weights.num_layers):
        found: list[Tensor] = []
        for direction in range(1 + weights.bidirectional):
            row = len(ends)
            read = torch.cat([x.gather(0, turned.expand(-1, -1, x.shape[2])) if direction else x, mark], 2)
            before = h_0[row : row + 1], c_0[row : row + 1]
            y, c_n = _operator(read, some, before, weights.of(layer, direction), weights.gates)
            last = y.gather(0, (some - 1).reshape(1, -1, 1).expand(-1, -1, y.shape[2]))
            ends.append((torch.where(lengths.reshape(1, -1, 1) > 0, last, before[0]), c_n))
            y = torch.where(real, y, 0.0)
            found.append(y.gather(0, turned.expand(-1, -1, y.shape[2])) if direction else y)
        x = torch.cat(found, 2)
    h_n, c_n = (torch.cat(parts)[:, :count] for parts in zip(*ends, strict=True))
    return x[:steps, :count].transpose(0, 1) if outputs else None, (h_n, c_n)


def _lengths(batch: Batch, count: int, steps: int) -> Tensor:
    if batch.lengths is None:
        return torch.full((count,), steps, dtype=torch.int64, device=batch.values.device)
    return checked_lengths(batch.lengths, 0, steps)


def _operator(x: Tensor, lengths: Tensor, state: State, parameters: Parameters, gates: str) -> tuple[Tensor, Tensor]:
    """Y (steps, batch, hidden) and Y_c (1, batch, hidden) of x (steps, batch, inputs and mark)."""
    w_ih, w_hh, biases, _ = parameters
    hidden = _as_int(w_hh.shape[1])
    mark = torch.tensor([-CLOSED, CLOSED, 0.0, 0.0], dtype=w_ih.dtype).repeat_interleave(hidden).unsqueeze(1)
    inputs, recurrent = _in_order(torch.cat([w_ih, mark.to(w_ih.device)], 1)), _in_order(w_hh)
    both = [_in_order(bias) for bias in biases]
    both += [w_hh.new_zeros(4 * hidden)] * (2 - len(both))
    given = (x, inputs.unsqueeze(0), recurrent.unsqueeze(0), torch.cat(both).unsqueeze(0), lengths.to(torch.int32))
    attributes: dict[str, Any] = {"hidden_size": hidden}
    if (slope := HARD_SIGMOIDS.get(gates)) is not None:
        attributes |= {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [slope]}
        attributes |= {"activation_beta": [0.5]}
    if is_jit_tracing():
        y, _, c_n = _Recorded.apply(attributes, *given, *state)
    else:
        steps, count = x.shape[:2]
        shapes = [(steps, 1, count, hidden), (1, count, hidden), (1, count, hidden)]
        y, _, c_n = _torch.onnx.ops.symbolic_multi_out(
            "LSTM", [*given, *state], attributes, dtypes=[x.dtype] * 3, shapes=shapes
        )
    return y.squeeze(1), c_n


def _as_int(size: Any) -> int:
    """A size of a weight, which torch.jit.trace records as a tensor, and warns of taking it for a number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _torch.jit.TracerWarning)
        return int(size)


def _in_order(parameter: Tensor) -> Tensor:
    """i, f, g, o -> i, o, f, g."""
    i, f, g, o = parameter.chunk(4)
    return torch.cat([i, o, f, g])


_LOWEST_OPSET = 12


class _Recorded(torch.autograd.Function):
    """The operator for the older exporter, which asks `symbolic` what to write; the numbers are not used."""

    @staticmethod
    def forward(ctx: Any, attributes: dict[str, Any], x: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state = rest[-1]
        return x.new_zeros(x.shape[0], 1, x.shape[1], state.shape[2]), state.clone(), state.clone()

    @staticmethod
    def symbolic(g: Any, attributes: dict[str, Any], *inputs: Any) -> Any:
        if g.opset < _LOWEST_OPSET:
            raise ValueError(
                f"RaggedLSTM is exported to ONNX from opset {_LOWEST_OPSET} on (opset_version is {g.opset}): operators "
                "before take no int64"
            )
        kinds = {int: "i", list: "f"}
        named = {
            f"{name}_{'s' if name == 'activations' else kinds[type(value)]}": value
            for name, value in attributes.items()
        }
        return g.op("LSTM", *inputs, outputs=3, **named)
