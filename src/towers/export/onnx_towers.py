"""TwoTowers as an ONNX graph of standard operators: Conv, ReduceMax, LSTM, Gemm.

words (batch, words, width) -> Conv over neighbouring words -> (batch, filters, steps)
      -> maximum over groups of features -> (batch, steps, features) -> LSTM, each sentence to its own end
features of both states -> Gemm -> Relu -> Gemm -> logit (batch)
"""

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from towers.ensemble import Ensemble
from towers.export.onnx_graph import Graph, checked_lengths, doubt, numbers, same_batch
from towers.export.onnx_lstm import all_outputs, last_states
from towers.layers.pair_head import Feature, PairHead
from towers.layers.phrases import PhraseConv
from towers.layers.step_pool import Reduce
from towers.model import Tower, TwoTowers


def towers_graph(graph: Graph, model: TwoTowers, names: Mapping[str, str | None]) -> list[str]:
    """The logits of a pair, and those of a second head.

    `names` are the values "left", "right" and their lengths, None where there are none; lengths are inputs. The logit
    of a pair with a word that is not finite is NaN; what padding holds is not looked at.
    """
    inputs = ("left", "right", "left_lengths", "right_lengths")
    given = {name: value for name in inputs if (value := names[name]) is not None}
    same = same_batch(graph, [(name, value, 0) for name, value in given.items()])
    members = model.each() if isinstance(model, Ensemble) else [model]
    doubts: list[str] = []
    for side, tower in (("left", model.left), ("right", model.right)):
        name, words = f"{side}_lengths", graph.size(given[side], 1)
        if name in given:
            lengths = checked_lengths(graph, words, given[name], lowest=tower.kernel_words, unit="words")
        else:
            lengths = graph.node("Expand", words, graph.size(given[side], 0))
        given[name] = graph.node("Add", lengths, same)
        first = None if any(_reads_all(getattr(member, side)) for member in members) else tower.kernel_words
        doubts.append(_doubt_of(graph, tower, given[side], given[name], first))
    found = [_one(graph, member, given) for member in members]
    logits = found[0]
    if isinstance(model, Ensemble):
        outputs = [model.outputs, 0 if model.second is None else model.second.outputs]
        logits = [_mean(graph, each, outputs[place]) for place, each in enumerate(map(list, zip(*found, strict=True)))]
    both = graph.node("Add", *doubts)
    column = graph.node("Unsqueeze", both, graph.constant([1]))
    own = both if model.outputs == 1 else column, column
    return [graph.node("Add", each, more) for each, more in zip(logits, own, strict=False)]


def _reads_all(tower: Tower) -> bool:
    """Whether a number of any word counts: without an LSTM the last phrase alone may."""
    return bool(tower.hidden or tower.reduce != "last" or tower.word_maximum or tower.word_mean)


def _doubt_of(graph: Graph, tower: Tower, sentences: str, lengths: str, last: int | None) -> str:
    """0 for each sentence, (batch), and NaN where a word of it is not finite; of its `last` words, or of all."""
    one = graph.constant([1])
    found = doubt(graph, sentences)
    if tower.words is None or last is not None:
        words = graph.node("Squeeze", graph.size(sentences, 1))
        place = graph.node("Range", graph.constant(0), words, graph.constant(1))
        end = graph.node("Unsqueeze", lengths, one)
        read = graph.node("Less", place, end)
        if last is not None:
            begin = graph.node("Sub", end, graph.constant([last]))
            read = graph.node("And", read, graph.node("GreaterOrEqual", place, begin))
        found = graph.node("Where", read, found, graph.constant(np.zeros((), np.float32)))
    return graph.node("ReduceSum", found, one, keepdims=0)


def _one(graph: Graph, model: TwoTowers, names: Mapping[str, str]) -> list[str]:
    """Of one model."""
    sides = ("left", model.left), ("right", model.right)
    states = [tower_graph(graph, tower, names[side], names[f"{side}_lengths"]) for side, tower in sides]
    logits = _head(graph, model, states)
    first = graph.node("Squeeze", logits, graph.constant([1])) if model.outputs == 1 else logits
    return [first] if model.second is None else [first, _head(graph, model.second, states)]


FEATURES: Mapping[Feature, Callable[[Graph, str, str], str]] = {
    "difference": lambda graph, u, v: graph.node("Sub", u, v),
    "absolute difference": lambda graph, u, v: graph.node("Abs", graph.node("Sub", u, v)),
    "product": lambda graph, u, v: graph.node("Mul", u, v),
    "positive difference": lambda graph, u, v: graph.node("Relu", graph.node("Sub", u, v)),
    "negative difference": lambda graph, u, v: graph.node("Relu", graph.node("Sub", v, u)),
}


def _head(graph: Graph, head: TwoTowers | PairHead, states: list[str]) -> str:
    """Logits (batch, outputs)."""
    features = [FEATURES[name](graph, *states) for name in head.pair_features.features]
    hidden = graph.node("Concat", *features, axis=1)
    for layer in (head.dense, head.logit):
        hidden = graph.node("Relu", hidden) if layer is head.logit else hidden
        weight, bias = (graph.constant(numbers(part)) for part in (layer.weight, layer.bias))
        hidden = graph.node("Gemm", hidden, weight, bias, transB=1)
    return hidden


def _mean(graph: Graph, logits: list[str], outputs: int) -> str:
    """The logits of the mean of the probabilities, see `towers.ensemble.mean_logits`."""
    zero = graph.constant([0])
    every = graph.node("Concat", *(graph.node("Unsqueeze", one, zero) for one in logits), axis=0)
    if outputs > 1:
        every = graph.node("LogSoftmax", every, axis=-1)
        count = graph.constant(np.full((), np.log(len(logits)), np.float32))
        return graph.node("Sub", graph.node("ReduceLogSumExp", every, zero, keepdims=0), count)
    shares = [graph.node("Neg", graph.node("Softplus", side)) for side in (graph.node("Neg", every), every)]
    yes, no = (graph.node("ReduceLogSumExp", share, zero, keepdims=0) for share in shares)
    return graph.node("Sub", yes, no)


def tower_graph(graph: Graph, tower: Tower, sentences: str, lengths: str) -> str:
    """The states (batch, width) of sentences (batch, words, vector width); lengths are checked before."""
    batch = graph.size(sentences, 0)
    if tower.word_map is not None:
        sentences = _of_each_word(graph, sentences, tower.word_map.linear)
    states = [_walk(graph, tower, sentences, lengths, batch)] if tower.walks else []
    for part in (tower.word_maximum, tower.word_mean):
        if part is not None:
            reduced = _over_steps(graph, _of_each_word(graph, sentences, part.linear), lengths, part.reduce)
            states.append(graph.node("Relu", reduced) if part.reduce == "max" else reduced)
    return states[0] if len(states) == 1 else graph.node("Concat", *states, axis=1)


def _walk(graph: Graph, tower: Tower, sentences: str, lengths: str, batch: str) -> str:
    """What the LSTM says of the phrases, or what `reduce` does."""
    steps = graph.node("Sub", lengths, graph.constant([tower.kernel_words - 1]))
    features = sentences if tower.conv is None else _phrases(graph, tower, sentences)  # pyright: ignore
    if not tower.hidden:
        return _over_steps(graph, features, steps, tower.reduce)
    features = graph.node("Transpose", features, perm=[1, 0, 2])
    features, steps = _never_empty(graph, batch, features, steps)
    if tower.reduce == "last":
        states = last_states(graph, tower.lstm, features, steps)
    else:
        output = graph.node("Transpose", all_outputs(graph, tower.lstm, features, steps), perm=[1, 0, 2])
        states = _over_steps(graph, output, steps, tower.reduce)
    return graph.node("Slice", states, graph.constant([0]), batch, graph.constant([0]))


def _phrases(graph: Graph, tower: Tower, sentences: str) -> str:
    """The largest features of neighbouring words (batch, steps, features)."""
    kernel, bias = numbers(tower.conv.weight).transpose(1, 2, 0), numbers(tower.conv.bias)
    turned = graph.node("Transpose", sentences, perm=[0, 2, 1])
    given = turned, graph.constant(kernel), graph.constant(bias)
    phrases = graph.node("Conv", *given, kernel_shape=[tower.kernel_words])
    sizes = graph.node("Shape", phrases)
    batch, steps = (graph.node("Slice", sizes, graph.constant([at]), graph.constant([at + 1])) for at in (0, 2))
    inner = graph.constant([tower.pool.features, tower.pool.size])
    groups = graph.node("Reshape", phrases, graph.node("Concat", batch, inner, steps, axis=0), allowzero=1)
    return graph.node("Transpose", graph.node("ReduceMax", groups, graph.constant([2]), keepdims=0), perm=[0, 2, 1])


def _never_empty(graph: Graph, batch: str, features: str, steps: str) -> tuple[str, str]:
    """An empty batch gets a sentence that is cut off again: onnxruntime's LSTM ends the process for none."""
    zero, one = graph.constant([0]), graph.constant([1])
    more = graph.node("Where", graph.node("Equal", batch, zero), one, zero)
    pads = graph.node("Concat", graph.constant([0, 0, 0, 0]), more, zero, axis=0)
    return graph.node("Pad", features, pads), graph.node("Concat", steps, graph.node("Expand", one, more), axis=0)


def _over_steps(graph: Graph, values: str, lengths: str, reduce: Reduce) -> str:
    """The last, largest or mean value (batch, width) of the first `lengths` of values (batch, steps, width)."""
    one, two = graph.constant([1]), graph.constant([2])
    sizes = graph.node("Shape", values)
    if reduce == "last":
        last = graph.node("Unsqueeze", graph.node("Sub", lengths, one), graph.constant([1, 2]))
        ends = [graph.node("Slice", sizes, graph.constant([at]), graph.constant([at + 1])) for at in (0, 2)]
        places = graph.node("Expand", last, graph.node("Concat", ends[0], one, ends[1], axis=0))
        return graph.node("Squeeze", graph.node("GatherElements", values, places, axis=1), one)
    steps = graph.node("Squeeze", graph.node("Slice", sizes, one, two), graph.constant([0]))
    place = graph.node("Range", graph.constant(0), steps, graph.constant(1))
    real = graph.node("Unsqueeze", graph.node("Less", place, graph.node("Unsqueeze", lengths, one)), two)
    nothing = graph.constant(np.full((), -np.inf if reduce == "max" else 0, np.float32))
    kept = graph.node("Where", real, values, nothing)
    if reduce == "max":
        return graph.node("ReduceMax", kept, one, keepdims=0)
    count = graph.node("Unsqueeze", graph.node("Cast", lengths, to=1), one)
    return graph.node("Div", graph.node("ReduceSum", kept, one, keepdims=0), count)


def _of_each_word(graph: Graph, sentences: str, layer: PhraseConv) -> str:
    """A PhraseConv of one word."""
    weight: Tensor = layer.weight[0]
    product = graph.node("MatMul", sentences, graph.constant(numbers(weight).T))
    return graph.node("Add", product, graph.constant(numbers(layer.bias)))
