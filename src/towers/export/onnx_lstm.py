"""RaggedLSTM as ONNX's LSTM operator, one for each layer and direction; of a tower, or alone with every option.

ONNX's LSTM has the gates in the order i, o, f, c and two biases. Runtimes differ in what they do with the lengths of
sentences: OpenVINO (2026.4, on a CPU) ignores them. So no result relies on them: a second direction reads turned
sentences, the states at the end are looked up, and padding becomes 0 afterwards.

OpenVINO has no hard sigmoids in its LSTM. With these gates an LSTM is a Scan over plain operators, which both run.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from towers.export.onnx_graph import INT32, Graph, checked_lengths, doubt, numbers, same_batch
from towers.layers.lstm import RaggedLSTM

HARD_SIGMOIDS = {"hard_sigmoid": 1 / 6, "hard_sigmoid_keras2": 0.2}
CLOSED = 1e4
"""What is added to a gate to shut it, or taken off to open it: far beyond where a sigmoid of float32 is 0 or 1."""


def _doubts(graph: Graph, x: str, states: list[str]) -> str:
    """0 for each step of x (steps, batch, inputs), as (steps, batch, 1); NaN from one on that is not finite.

    States (1, batch, hidden), "" for zeros, are before the first step: one that is not finite makes all steps NaN.
    """
    found = graph.node("CumSum", doubt(graph, x), graph.constant(np.asarray(0)))
    for state in filter(None, states):
        found = graph.node("Add", found, doubt(graph, state))
    return graph.node("Unsqueeze", found, graph.constant([2]))


def one_direction(
    graph: Graph,
    lstm: RaggedLSTM,
    row: int,
    x: str,
    lengths: str,
    h_0: str = "",
    c_0: str = "",
    *,
    marked: bool = False,
) -> list[str]:
    """Y (steps, batch, hidden), Y_h and Y_c (1, batch, hidden) of x (steps, batch, inputs) from left to right.

    Args:
        row: the layer and direction, as the rows of h_0 count them.
        lengths: at least 1.
        h_0, c_0: (1, batch, hidden); "" for zeros.
        marked: the last input of a step is 1 where a sentence has ended. There the cell keeps its state: the input gate
            is shut, the forget gate open.
    """
    names = lstm.names()[row]
    inputs, recurrent = (_gates(numbers(getattr(lstm, name))) for name in names[:2])
    if marked:
        mark = np.zeros((4, lstm.hidden_size, 1), np.float32)
        mark[0], mark[2] = -CLOSED, CLOSED  # i and f of i, o, f, c
        inputs = np.concatenate([inputs, mark.reshape(-1, 1)], 1)
    if (slope := HARD_SIGMOIDS.get(lstm.recurrent_activation)) is not None:
        bias = _both_biases(lstm, names).reshape(2, -1).sum(0) if lstm.bias else None
        return _hard_gates(graph, slope, x, inputs, recurrent, bias, h_0, c_0)
    bias = graph.constant(_both_biases(lstm, names)[None]) if lstm.bias else ""
    weights = graph.constant(inputs[None]), graph.constant(recurrent[None])
    given = [x, *weights, bias, graph.node("Cast", lengths, to=INT32), h_0, c_0]
    while given[-1] == "":
        given.pop()
    y, *ends = graph.several(3, "LSTM", *given, hidden_size=lstm.hidden_size)
    return [graph.node("Squeeze", y, graph.constant([1])), *ends]


def _hard_gates(
    graph: Graph, slope: float, x: str, inputs: NDArray[Any], recurrent: NDArray[Any], bias: NDArray[Any] | None,
    h_0: str, c_0: str,
) -> list[str]:  # fmt: skip
    """As `one_direction`, step by step, with hard sigmoids max(0, min(1, slope * x + 0.5))."""
    hidden = recurrent.shape[1]
    gates = graph.node("MatMul", x, graph.constant(inputs.T))
    gates = gates if bias is None else graph.node("Add", gates, graph.constant(bias))

    def step(inner: Graph, h: str, c: str, given: str) -> list[str]:
        given = inner.node("Add", given, inner.node("MatMul", h, inner.constant(recurrent.T)))
        hard, g = inner.several(2, "Split", given, inner.constant([3 * hidden, hidden]), axis=1)
        hard = inner.node("HardSigmoid", hard, alpha=slope, beta=0.5)
        i, o, f = inner.several(3, "Split", hard, inner.constant([hidden] * 3), axis=1)
        kept, added = inner.node("Mul", f, c), inner.node("Mul", i, inner.node("Tanh", g))
        c = inner.node("Add", kept, added)
        h = inner.node("Mul", o, inner.node("Tanh", c))
        return [h, c, h]

    zero, one, two = (graph.constant([number]) for number in range(3))
    batch = graph.node("Slice", graph.node("Shape", x), one, two)
    nothing = graph.node("ConstantOfShape", graph.node("Concat", batch, graph.constant([hidden]), axis=0))
    first = [(graph.node("Squeeze", state, zero) if state else nothing, hidden) for state in (h_0, c_0)]
    *ends, y = graph.over_steps(step, first, gates, 4 * hidden)
    return [y, *(graph.node("Unsqueeze", end, zero) for end in ends)]


def _both_biases(lstm: RaggedLSTM, names: list[str]) -> NDArray[Any]:
    first = _gates(numbers(getattr(lstm, names[2])))
    second = _gates(numbers(getattr(lstm, names[3]))) if lstm.bias is True else np.zeros_like(first)
    return np.concatenate([first, second])


def _gates(parameter: NDArray[Any]) -> NDArray[Any]:
    """i, f, g, o -> i, o, f, g."""
    i, f, g, o = np.split(parameter, 4)
    return np.concatenate([i, o, f, g])


def turned(graph: Graph, x: str, lengths: str) -> str:
    """The real steps of each sentence of x (steps, batch, width) from the last to the first."""
    return graph.node("ReverseSequence", x, lengths, time_axis=0, batch_axis=1)


def at_last_step(graph: Graph, y: str, lengths: str) -> str:
    """The values (1, batch, width) of each sentence's last step of y (steps, batch, width)."""
    last = graph.node("Unsqueeze", graph.node("Sub", lengths, graph.constant([1])), graph.constant([0, 2]))
    sizes = graph.node("Slice", graph.node("Shape", y), graph.constant([1]), graph.constant([3]))
    places = graph.node("Expand", last, graph.node("Concat", graph.constant([1]), sizes, axis=0))
    return graph.node("GatherElements", y, places, axis=0)


def last_states(graph: Graph, lstm: RaggedLSTM, x: str, lengths: str) -> str:
    """The states at the end (batch, hidden of each direction) of one layer; of the second direction, at its end."""
    ends: list[str] = []
    for direction in range(1 + lstm.bidirectional):
        y, *_ = one_direction(graph, lstm, direction, turned(graph, x, lengths) if direction else x, lengths)
        ends.append(graph.node("Squeeze", at_last_step(graph, y, lengths), graph.constant([0])))
    return graph.node("Concat", *ends, axis=1)


def all_outputs(graph: Graph, lstm: RaggedLSTM, x: str, lengths: str) -> str:
    """The outputs (steps, batch, hidden of each direction) of one layer; any number where a sentence has ended."""
    found: list[str] = []
    for direction in range(1 + lstm.bidirectional):
        y, *_ = one_direction(graph, lstm, direction, turned(graph, x, lengths) if direction else x, lengths)
        found.append(turned(graph, y, lengths) if direction else y)
    return graph.node("Concat", *found, axis=2)


def whole_lstm(graph: Graph, lstm: RaggedLSTM, *, states: bool) -> list[str]:
    """The values output, h_n and c_n of the inputs "input", "lengths" and, with states, "h_0" and "c_0".

    onnxruntime's LSTM takes no empty batch, no empty sequence and no length 0: there an empty sentence, or step, is
    added and cut off again, and a sentence of length 0 runs one step whose results are replaced.
    """
    zero, one = graph.constant([0]), graph.constant([1])
    named = [("input", "input", 0 if lstm.batch_first else 1), ("lengths", "lengths", 0)]
    same = same_batch(graph, [*named, *((name, name, 1) for name in ("h_0", "c_0") if states)])
    x = graph.node("Transpose", "input", perm=[1, 0, 2]) if lstm.batch_first else "input"
    sizes = graph.node("Shape", x)
    steps, batch = (graph.node("Slice", sizes, graph.constant([at]), graph.constant([at + 1])) for at in (0, 1))
    more = [graph.node("Where", graph.node("Equal", size, zero), one, zero) for size in (steps, batch)]
    lengths = checked_lengths(graph, steps, "lengths", lowest=0, unit="steps")
    lengths = graph.node("Add", lengths, same)
    lengths = graph.node("Concat", lengths, graph.node("Expand", zero, more[1]), axis=0)
    x = graph.node("Pad", x, graph.node("Concat", graph.constant([0, 0, 0]), *more, zero, axis=0))
    given = ["", ""]
    if states:
        pads = graph.node("Concat", graph.constant([0, 0, 0, 0]), more[1], zero, axis=0)
        given = [graph.node("Pad", name, pads) for name in ("h_0", "c_0")]
    count = graph.node("Squeeze", graph.node("Add", steps, more[0]), zero)
    place = graph.node("Range", graph.constant(np.asarray(0)), count, graph.constant(np.asarray(1)))
    real = graph.node("Less", graph.node("Unsqueeze", place, one), lengths)  # (steps, batch)
    real = graph.node("Unsqueeze", real, graph.constant([2]))
    mark = graph.node("Cast", graph.node("Not", real), to=1)
    filled = graph.node("Unsqueeze", graph.node("Greater", lengths, zero), one)  # (batch, 1)
    at_least_one, nothing = graph.node("Max", lengths, one), graph.constant(np.zeros((), np.float32))
    ends: list[list[str]] = [[], []]
    x = graph.node("Where", real, x, nothing)  # padding may be NaN
    for _ in range(lstm.num_layers):
        found: list[str] = []
        for direction in range(1 + lstm.bidirectional):
            row = len(ends[0])
            span = graph.constant([row]), graph.constant([row + 1]), zero
            own = [graph.node("Slice", state, *span) if state else "" for state in given]
            steps_of = turned(graph, x, at_least_one) if direction else x
            read = graph.node("Concat", steps_of, mark, axis=2)
            y, _, c_n = one_direction(graph, lstm, row, read, at_least_one, *own, marked=True)
            doubts = _doubts(graph, steps_of, own)
            y = graph.node("Add", y, doubts)
            h_n = at_last_step(graph, y, at_least_one)
            c_n = graph.node("Add", c_n, at_last_step(graph, doubts, at_least_one))
            for end, state, before in zip(ends, (h_n, c_n), own, strict=True):
                end.append(graph.node("Where", filled, state, before or nothing))
            y = graph.node("Where", real, y, nothing)
            found.append(turned(graph, y, at_least_one) if direction else y)
        x = graph.node("Concat", *found, axis=2)
    output = graph.node("Slice", x, graph.constant([0, 0]), graph.node("Concat", steps, batch, axis=0))
    output = graph.node("Transpose", output, perm=[1, 0, 2]) if lstm.batch_first else output
    last = [graph.node("Concat", *end, axis=0) for end in ends]
    return [output, *(graph.node("Slice", state, zero, batch, one) for state in last)]
