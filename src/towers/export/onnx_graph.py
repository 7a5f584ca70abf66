"""TwoTowers as an ONNX graph of standard operators: Conv, ReduceMax, LSTM with sequence_lens, Gemm.

    words (batch, words, width) -> Conv over neighbouring words -> (batch, filters, steps)
          -> maximum over groups of features -> (steps, batch, features) -> LSTM, each sentence to its own end
    left state - right state -> Gemm -> Relu -> Gemm -> logit (batch)

ONNX's LSTM has the gates in the order i, o, f, c, and one bias for each of its two products; ours is the first. A
length that no tower takes ends in an index that is out of bounds: the graph's way to say "assert".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from towers.layers.lstm import RaggedLSTM
from towers.model import Tower, TwoTowers

OPSET, IR_VERSION = 18, 8
"""The lowest that has all of it, so that older runtimes read it."""

_INT32 = 6  # of onnx.TensorProto
HARD_SIGMOIDS = {"hard_sigmoid": 1 / 6, "hard_sigmoid_keras2": 0.2}


class Graph:
    """Nodes and constants as they are added; a result is the name of its value."""

    def __init__(self) -> None:
        import onnx

        self._helper: Any = onnx.helper
        self._numpy: Any = onnx.numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add an operator; with several outputs, the name of the last, which is the one that is used."""
        names = [f"{kind.lower()}_{len(self.nodes)}_{place}" for place in range(outputs)]
        self.nodes.append(self._helper.make_node(kind, list(inputs), names, **attributes))
        return names[-1]

    def constant(self, value: NDArray[Any] | Sequence[int] | int) -> str:
        """Add a constant; ints are int64."""
        array = value if isinstance(value, np.ndarray) else np.asarray(value, np.int64)
        name = f"constant_{len(self.constants)}"
        self.constants.append(self._numpy.from_array(np.ascontiguousarray(array), name))
        return name


def towers_graph(graph: Graph, model: TwoTowers, names: dict[str, str | None]) -> str:
    """The logits of a pair: `names` are the values "left", "right" and their lengths, None where there are none."""
    states = [
        tower_graph(graph, tower, str(names[side]), names[f"{side}_lengths"])
        for side, tower in (("left", model.left), ("right", model.right))
    ]
    difference = graph.node("Sub", *states)
    hidden = graph.node("Relu", _linear(graph, difference, model.dense.weight, model.dense.bias))
    logits = _linear(graph, hidden, model.logit.weight, model.logit.bias)
    return graph.node("Squeeze", logits, graph.constant([1]))


def tower_graph(graph: Graph, tower: Tower, sentences: str, lengths: str | None) -> str:
    """The last states (batch, hidden) of sentences (batch, words, width)."""
    words = tower.kernel_words
    kernel = graph.constant(_numbers(tower.conv.weight).transpose(1, 2, 0))
    turned = graph.node("Transpose", sentences, perm=[0, 2, 1])
    phrases = graph.node("Conv", turned, kernel, graph.constant(_numbers(tower.conv.bias)), kernel_shape=[words])
    shape = graph.constant([0, tower.pool.features, tower.pool.size, -1])
    groups = graph.node("Reshape", phrases, _with_empty_batch(graph, phrases, shape))
    features = graph.node("ReduceMax", groups, graph.constant([2]), keepdims=0)
    features = graph.node("Transpose", features, perm=[2, 0, 1])
    steps = None if lengths is None else _steps(graph, sentences, lengths, words)
    sizes = graph.node("Shape", features)
    count = graph.node("Slice", sizes, graph.constant([1]), graph.constant([2]))
    features, steps = _never_empty(graph, sizes, count, features, steps)
    states = lstm_graph(graph, tower.lstm, features, steps)
    return graph.node("Slice", states, graph.constant([0]), count, graph.constant([0]))


def _never_empty(graph: Graph, sizes: str, count: str, features: str, steps: str | None) -> tuple[str, str | None]:
    """An empty batch gets a sentence that is cut off again: onnxruntime's LSTM ends the process for none."""
    zero, one = graph.constant([0]), graph.constant([1])
    more = graph.node("Where", graph.node("Equal", count, zero), one, zero)
    ends = [graph.node("Slice", sizes, graph.constant([place]), graph.constant([place + 1])) for place in (0, 2)]
    shape = graph.node("Concat", ends[0], more, ends[1], axis=0)
    features = graph.node("Concat", features, graph.node("ConstantOfShape", shape), axis=1)
    if steps is not None:
        ones = graph.node("Cast", graph.node("Expand", one, more), to=_INT32)
        steps = graph.node("Concat", steps, ones, axis=0)
    return features, steps


def _with_empty_batch(graph: Graph, phrases: str, shape: str) -> str:
    """The shape with its sizes worked out: -1 has no answer where the batch is empty."""
    sizes = graph.node("Shape", phrases)
    batch = graph.node("Slice", sizes, graph.constant([0]), graph.constant([1]))
    steps = graph.node("Slice", sizes, graph.constant([2]), graph.constant([3]))
    inner = graph.node("Slice", shape, graph.constant([1]), graph.constant([3]))
    return graph.node("Concat", batch, inner, steps, axis=0)


def _steps(graph: Graph, sentences: str, lengths: str, kernel_words: int) -> str:
    """Steps of each sentence as int32; a length below kernel_words or above words reads past a constant's end."""
    present = graph.node("Slice", graph.node("Shape", sentences), graph.constant([1]), graph.constant([2]))
    enough = graph.node("GreaterOrEqual", lengths, graph.constant([kernel_words]))
    fitting = graph.node("And", enough, graph.node("LessOrEqual", lengths, present))
    place = graph.node("Where", fitting, graph.constant([0]), graph.constant([1 << 20]))
    asserted = graph.node("Gather", graph.constant([1 - kernel_words]), place, axis=0)
    return graph.node("Cast", graph.node("Add", lengths, asserted), to=_INT32)


def lstm_graph(graph: Graph, lstm: RaggedLSTM, steps_first: str, lengths: str | None) -> str:
    """The last state (batch, hidden) of a one-layer LSTM over (steps, batch, features)."""
    weights = [graph.constant(_gates(part)[None]) for part in (lstm.weight_ih_l0, lstm.weight_hh_l0)]
    bias = _gates(lstm.bias_ih_l0)
    both = graph.constant(np.concatenate([bias, np.zeros_like(bias)])[None])
    inputs = [steps_first, *weights, both] + ([] if lengths is None else [lengths])
    more: dict[str, Any] = {}
    if (slope := HARD_SIGMOIDS.get(lstm.recurrent_activation)) is not None:
        more = {
            "activations": ["HardSigmoid", "Tanh", "Tanh"],
            "activation_alpha": [slope],
            "activation_beta": [0.5],
        }
    state = graph.node("LSTM", *inputs, outputs=2, hidden_size=lstm.hidden_size, **more)
    return graph.node("Squeeze", state, graph.constant([0]))


def _gates(parameter: Tensor) -> NDArray[Any]:
    """i, f, g, o -> i, o, f, g."""
    i, f, g, o = np.split(_numbers(parameter), 4)
    return np.concatenate([i, o, f, g])


def _linear(graph: Graph, inputs: str, weight: Tensor, bias: Tensor) -> str:
    return graph.node("Gemm", inputs, graph.constant(_numbers(weight)), graph.constant(_numbers(bias)), transB=1)


def _numbers(parameter: Tensor) -> NDArray[Any]:
    return parameter.detach().cpu().numpy()
