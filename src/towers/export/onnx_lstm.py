"""RaggedLSTM as ONNX's LSTM operator, one for each layer; of a tower, or alone with every option that ONNX has.

ONNX's LSTM has the gates in the order i, o, f, c and two biases. onnxruntime's takes no empty batch, no empty sequence
and no length 0: there an empty sentence, or step, is added and cut off again, and a sentence of length 0 runs one step
whose results are replaced.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from towers.export.onnx_graph import INT32, Graph, checked_lengths, numbers
from towers.layers.lstm import RaggedLSTM

HARD_SIGMOIDS = {"hard_sigmoid": 1 / 6, "hard_sigmoid_keras2": 0.2}


def lstm_layer(
    graph: Graph, lstm: RaggedLSTM, layer: int, x: str, lengths: str, h_0: str = "", c_0: str = ""
) -> list[str]:
    """Y (steps, directions, batch, hidden), Y_h and Y_c (directions, batch, hidden) of x (steps, batch, inputs).

    Lengths are int32; they and the states are "" where there are none.
    """
    directions = 1 + lstm.bidirectional
    rows = lstm.names()[layer * directions : (layer + 1) * directions]
    weights = [graph.constant(np.stack([_gates(getattr(lstm, names[part])) for names in rows])) for part in (0, 1)]
    bias = graph.constant(np.stack([_both_biases(lstm, names) for names in rows])) if lstm.bias else ""
    more: dict[str, Any] = {"direction": "bidirectional"} if directions == 2 else {}
    if (slope := HARD_SIGMOIDS.get(lstm.recurrent_activation)) is not None:
        more |= {
            "activations": ["HardSigmoid", "Tanh", "Tanh"] * directions,
            "activation_alpha": [slope] * directions,
            "activation_beta": [0.5] * directions,
        }
    inputs = [x, *weights, bias, lengths, h_0, c_0]
    while inputs[-1] == "":
        inputs.pop()
    return graph.several(3, "LSTM", *inputs, hidden_size=lstm.hidden_size, **more)


def _both_biases(lstm: RaggedLSTM, names: list[str]) -> NDArray[Any]:
    first = _gates(getattr(lstm, names[2]))
    return np.concatenate([first, _gates(getattr(lstm, names[3])) if lstm.bias is True else np.zeros_like(first)])


def _gates(parameter: Tensor) -> NDArray[Any]:
    """i, f, g, o -> i, o, f, g."""
    i, f, g, o = np.split(numbers(parameter), 4)
    return np.concatenate([i, o, f, g])


def whole_lstm(graph: Graph, lstm: RaggedLSTM, *, states: bool) -> list[str]:
    """The values output, h_n and c_n of the inputs "input", "lengths" and, with states, "h_0" and "c_0"."""
    zero, one = graph.constant([0]), graph.constant([1])
    x = graph.node("Transpose", "input", perm=[1, 0, 2]) if lstm.batch_first else "input"
    sizes = graph.node("Shape", x)
    steps, batch = (graph.node("Slice", sizes, graph.constant([at]), graph.constant([at + 1])) for at in (0, 1))
    more = [graph.node("Where", graph.node("Equal", size, zero), one, zero) for size in (steps, batch)]
    lengths = checked_lengths(graph, steps, "lengths", lowest=0)
    lengths = graph.node("Concat", lengths, graph.node("Expand", zero, more[1]), axis=0)
    x = graph.node("Pad", x, graph.node("Concat", graph.constant([0, 0, 0]), *more, zero, axis=0))
    given = ["", ""]
    if states:
        pads = graph.node("Concat", graph.constant([0, 0, 0, 0]), more[1], zero, axis=0)
        given = [graph.node("Pad", name, pads) for name in ("h_0", "c_0")]
    filled = graph.node("Unsqueeze", graph.node("Greater", lengths, zero), one)  # (batch, 1)
    at_least_one = graph.node("Cast", graph.node("Max", lengths, one), to=INT32)
    directions, nothing = 1 + lstm.bidirectional, graph.constant(np.zeros((), np.float32))
    ends: list[list[str]] = [[], []]
    for layer in range(lstm.num_layers):
        span = graph.constant([layer * directions]), graph.constant([(layer + 1) * directions]), zero
        own = [graph.node("Slice", state, *span) if state else "" for state in given]
        y, *found = lstm_layer(graph, lstm, layer, x, at_least_one, *own)
        for end, state, before in zip(ends, found, own, strict=True):
            end.append(graph.node("Where", filled, state, before or nothing))
        x = graph.node("Transpose", y, perm=[0, 2, 1, 3])
        x = graph.node("Reshape", x, graph.constant([0, 0, -1]))
    x = graph.node("Where", filled, x, nothing)
    output = graph.node("Slice", x, graph.constant([0, 0]), graph.node("Concat", steps, batch, axis=0))
    output = graph.node("Transpose", output, perm=[1, 0, 2]) if lstm.batch_first else output
    last = [graph.node("Concat", *end, axis=0) for end in ends]
    return [output, *(graph.node("Slice", state, zero, batch, one) for state in last)]
