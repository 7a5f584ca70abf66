"""Which layer of a Keras network makes the mask that another one is given: masks travel with tensors there, unseen."""

from collections.abc import Mapping
from typing import Any, cast

from towers.keras.graph import Graph, Layer, Source

_RECURRENT = ("LSTM", "CuDNNLSTM", "GRU", "CuDNNGRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM2D")


def mask_of(graph: Graph, layer: Layer) -> Layer | None:
    """The Masking or Embedding(mask_zero=True) whose mask a layer may be given, or a layer that is given one by name.

    A mask is followed through every layer except a recurrent one that gives its last state alone. A layer that drops
    masks is taken for one that passes them on: a refusal too many, and no mask that is overlooked.
    """
    feeds: dict[Layer, list[Layer]] = {}
    _collect(graph, {}, feeds)
    seen: set[Layer] = set()
    waiting = [layer]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if _makes_mask(current) or any("mask" in call.named for call in current.calls):
            return current
        if current is layer or not _ends_mask(current):
            waiting += feeds.get(current, [])
    return None


def _collect(graph: Graph, given: Mapping[str, list[Layer]], feeds: dict[Layer, list[Layer]]) -> None:
    """Fill in what feeds each layer, of models inside too; `given`: what feeds the inputs of this model."""
    for name, layer in graph.layers.items():
        if layer.graph is not None:
            inner: dict[str, list[Layer]] = {}
            for call in layer.calls:
                for entry, source in zip(layer.graph.inputs, call.inputs, strict=False):
                    inner.setdefault(entry.layer, []).extend(_giving(graph, source))
            _collect(layer.graph, inner, feeds)
            continue
        feeds[layer] = list(given.get(name, ()))
        for call in layer.calls:
            inputs = call.inputs[:1] if layer.kind in _RECURRENT else call.inputs  # the others are initial states
            for source in inputs:
                feeds[layer] += _giving(graph, source)


def _giving(graph: Graph, source: Source) -> list[Layer]:
    """The layers, no models, that give a tensor."""
    layer = graph.layers.get(source.layer)
    if layer is None or layer.graph is None:
        return [] if layer is None else [layer]
    return [found for end in layer.graph.outputs for found in _giving(layer.graph, end)]


def _inner(layer: Layer) -> Mapping[str, Any]:
    """The settings of a layer, or of the one that it wraps."""
    wrapped: Any = layer.config.get("layer")
    settings: Any = cast("dict[str, Any]", wrapped).get("config") if isinstance(wrapped, dict) else layer.config
    return cast("Mapping[str, Any]", settings) if isinstance(settings, dict) else {}


def _makes_mask(layer: Layer) -> bool:
    return layer.kind == "Masking" or bool(_inner(layer).get("mask_zero"))


def _ends_mask(layer: Layer) -> bool:
    return layer.kind in _RECURRENT and not _inner(layer).get("return_sequences")
