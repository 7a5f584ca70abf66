"""TwoTowers as an ONNX graph of standard operators: Conv, ReduceMax, LSTM with sequence_lens, Gemm.

words (batch, words, width) -> Conv over neighbouring words -> (batch, filters, steps)
      -> maximum over groups of features -> (steps, batch, features) -> LSTM, each sentence to its own end
left state - right state -> Gemm -> Relu -> Gemm -> logit (batch)
"""

from torch import Tensor

from towers.export.onnx_graph import INT32, Graph, checked_lengths, numbers
from towers.export.onnx_lstm import lstm_layer
from towers.model import Tower, TwoTowers


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
    kernel = graph.constant(numbers(tower.conv.weight).transpose(1, 2, 0))
    turned = graph.node("Transpose", sentences, perm=[0, 2, 1])
    phrases = graph.node("Conv", turned, kernel, graph.constant(numbers(tower.conv.bias)), kernel_shape=[words])
    shape = graph.constant([0, tower.pool.features, tower.pool.size, -1])
    groups = graph.node("Reshape", phrases, _with_empty_batch(graph, phrases, shape))
    features = graph.node("ReduceMax", groups, graph.constant([2]), keepdims=0)
    features = graph.node("Transpose", features, perm=[2, 0, 1])
    steps = "" if lengths is None else _steps(graph, sentences, lengths, words)
    sizes = graph.node("Shape", features)
    count = graph.node("Slice", sizes, graph.constant([1]), graph.constant([2]))
    features, steps = _never_empty(graph, sizes, count, features, steps)
    given = graph.node("Cast", steps, to=INT32) if steps else ""
    y, end, _ = lstm_layer(graph, tower.lstm, 0, features, given)
    states = _at_last_step(graph, y, steps) if steps else graph.node("Squeeze", end, graph.constant([0]))
    return graph.node("Slice", states, graph.constant([0]), count, graph.constant([0]))


def _at_last_step(graph: Graph, y: str, steps: str) -> str:
    """The output of each sentence's last step (batch, hidden): OpenVINO's LSTM ignores lengths, and ends in padding."""
    y = graph.node("Squeeze", y, graph.constant([1]))
    last = graph.node("Unsqueeze", graph.node("Sub", steps, graph.constant([1])), graph.constant([0, 2]))
    sizes = graph.node("Slice", graph.node("Shape", y), graph.constant([1]), graph.constant([3]))
    places = graph.node("Expand", last, graph.node("Concat", graph.constant([1]), sizes, axis=0))
    return graph.node("Squeeze", graph.node("GatherElements", y, places, axis=0), graph.constant([0]))


def _never_empty(graph: Graph, sizes: str, count: str, features: str, steps: str) -> tuple[str, str]:
    """An empty batch gets a sentence that is cut off again: onnxruntime's LSTM ends the process for none."""
    zero, one = graph.constant([0]), graph.constant([1])
    more = graph.node("Where", graph.node("Equal", count, zero), one, zero)
    ends = [graph.node("Slice", sizes, graph.constant([place]), graph.constant([place + 1])) for place in (0, 2)]
    shape = graph.node("Concat", ends[0], more, ends[1], axis=0)
    features = graph.node("Concat", features, graph.node("ConstantOfShape", shape), axis=1)
    if steps:
        steps = graph.node("Concat", steps, graph.node("Expand", one, more), axis=0)
    return features, steps


def _with_empty_batch(graph: Graph, phrases: str, shape: str) -> str:
    """The shape with its sizes worked out: -1 has no answer where the batch is empty."""
    sizes = graph.node("Shape", phrases)
    batch = graph.node("Slice", sizes, graph.constant([0]), graph.constant([1]))
    steps = graph.node("Slice", sizes, graph.constant([2]), graph.constant([3]))
    inner = graph.node("Slice", shape, graph.constant([1]), graph.constant([3]))
    return graph.node("Concat", batch, inner, steps, axis=0)


def _steps(graph: Graph, sentences: str, lengths: str, kernel_words: int) -> str:
    """Steps of each sentence."""
    words = graph.node("Slice", graph.node("Shape", sentences), graph.constant([1]), graph.constant([2]))
    lengths = checked_lengths(graph, words, lengths, lowest=kernel_words)
    return graph.node("Sub", lengths, graph.constant([kernel_words - 1]))


def _linear(graph: Graph, inputs: str, weight: Tensor, bias: Tensor) -> str:
    return graph.node("Gemm", inputs, graph.constant(numbers(weight)), graph.constant(numbers(bias)), transB=1)
