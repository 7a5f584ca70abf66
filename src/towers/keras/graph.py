"""The layers of a network in a Keras config, of any version, and who feeds whom: as plain data, by names in JSON alone.

Keras 1 and 2 write a call as `[[name, call, output, {}], …]`, Keras 3 as `{"args": […], "kwargs": {…}}` with tensors
inside. A model inside a model is a graph inside a graph. Keras 1 and 2 count its calls from 1, for its call 0 is the
one that made it; Keras 3 does so only in the list of a network's outputs.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, cast

Json = dict[str, Any]
MODELS = {"Functional", "Model", "Sequential"}
_DEEPEST = 8


@dataclass(frozen=True)
class Source:
    """Where an input of a call comes from: a layer's call, and which of its outputs."""

    layer: str
    call: int
    output: int = 0


@dataclass(frozen=True)
class Call:
    """A call of a layer: its tensors in order, what else was given by name, and which tensors were given by name."""

    inputs: tuple[Source, ...]
    options: Json
    named: tuple[str, ...] = ()


@dataclass(eq=False)
class Layer:
    """A layer of the config.

    Attributes:
        kind: its class in Keras, without module: "Conv2D", "LSTM", "Squeeze", …
        name: the user's.
        config: its settings.
        calls: where it is used.
        graph: its own layers, if it is a model.
        saved: where `.weights.h5` of Keras 3 has its numbers, such as "layers/conv2d_1".
        paths: where its arrays lie, of a layer in a file of weights alone.
        input_shape: of its first call with the batch, if the file says it.
        model: the outermost model that it is inside of, None for a layer of the network itself.
        trainable: False where it is frozen, or a model that it is inside of.
    """

    kind: str
    name: str
    config: Json
    calls: list[Call] = field(default_factory=list[Call])
    graph: "Graph | None" = None
    saved: str = ""
    paths: tuple[str, ...] = ()
    input_shape: tuple[object, ...] = ()
    model: "Layer | None" = None
    trainable: bool = True

    def __str__(self) -> str:
        return f"layer {self.name!r} ({self.kind})"


@dataclass(eq=False)
class Graph:
    """A model: its layers by name in the order of the file, where it begins and ends.

    `by_name` says that the sentences are given in a dict: then no input is the first.
    """

    layers: dict[str, Layer]
    inputs: list[Source]
    outputs: list[Source]
    by_name: bool = False

    def all_layers(self) -> Iterator[Layer]:
        """Every layer that is no model, those of models inside too, in the order of the file."""
        for layer in self.layers.values():
            if layer.graph is None:
                yield layer
            else:
                yield from layer.graph.all_layers()


def read_graph(config: Json, name: str) -> Graph:
    """The graph of a config.

    Args:
        config: {"class_name": …, "config": …}.
        name: the file's, for messages.

    Raises:
        ValueError: it is no network that Keras writes.
    """
    try:
        graph = _graph(config, "", 0, trainable=True)
        for model in graph.layers.values():
            for layer in model.graph.all_layers() if model.graph else ():
                layer.model = model
        return graph
    except _Refused as error:
        raise ValueError(f"{name}: {error}") from None
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: the network's config is damaged ({type(error).__name__}: {error})") from None


class _Refused(Exception):
    """The message of a refusal on its way to where the file's name is known."""


def _graph(model: Json, saved: str, depth: int, *, trainable: bool) -> Graph:
    if depth > _DEEPEST:
        raise _Refused(f"models are nested more than {_DEEPEST} deep")
    kind = _kind(model)
    if kind not in MODELS:
        raise _Refused(f"the file holds a {kind}; a Functional or Sequential network is read")
    settings: Any = model["config"]
    entries = cast("list[Json]", settings["layers"] if isinstance(settings, dict) else settings)
    trainable = trainable and _is_trainable(settings)
    layers: dict[str, Layer] = {}
    counts: dict[str, int] = {}
    for entry in entries:
        layer = _layer(entry, saved, counts, depth, trainable)
        if layer.name in layers:
            raise _Refused(f"two layers have the name {layer.name!r}")
        layers[layer.name] = layer
    if kind == "Sequential":
        return _sequence(layers)
    nodes = [entry.get("inbound_nodes", ()) for entry in entries]
    for layer, own in zip(layers.values(), nodes, strict=True):
        layer.calls = [_call(node) for node in own]
    _note_shapes(layers)
    ends = cast("Json", settings)
    outputs = _ends(ends["output_layers"])
    outputs = _counted_from_0(layers, outputs, calls_too=not any(_is_of_keras_3(node) for own in nodes for node in own))
    return Graph(layers, _ends(ends["input_layers"]), outputs, isinstance(ends["input_layers"], dict))


def _counted_from_0(layers: dict[str, Layer], outputs: list[Source], *, calls_too: bool) -> list[Source]:
    """The outputs of a model with the calls of models inside counted from 0; `calls_too`: and, in place, all inputs.

    Every call in a file is used by another, so a model's are counted from 1 if one has their number.
    """
    calls = [call for layer in layers.values() for call in layer.calls] if calls_too else []
    models = {name: len(layer.calls) for name, layer in layers.items() if layer.graph is not None}
    used = {*outputs, *(source for call in calls for source in call.inputs)}
    later = {source.layer for source in used if models.get(source.layer) == source.call}

    def counted(sources: Iterable[Source]) -> list[Source]:
        return [replace(source, call=source.call - (source.layer in later)) for source in sources]

    if calls_too and later:
        for layer in layers.values():
            layer.calls = [replace(call, inputs=tuple(counted(call.inputs))) for call in layer.calls]
    return counted(outputs)


def _note_shapes(layers: dict[str, Layer]) -> None:
    """What an InputLayer gives to a layer: Keras 2 does not say it a second time."""
    for layer in layers.values():
        before = layers.get(layer.calls[0].inputs[0].layer) if layer.calls and layer.calls[0].inputs else None
        if not layer.input_shape and before is not None and before.kind == "InputLayer":
            given = before.config.get("batch_shape", before.config.get("batch_input_shape"))
            layer.input_shape = tuple(cast("list[object]", given)) if isinstance(given, list) else ()


def _kind(entry: Json) -> str:
    """The class of an entry, which must be Keras's own."""
    kind, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
    if type(kind) is not str:
        raise _Refused(f"the class of a layer is {str(kind)[:100]!r}; a name belongs there")
    ours = module is None or (type(module) is str and re.match(r"(tf_keras|keras|tensorflow\.keras)(\.|$)", module))
    if not ours or ">" in kind or registered not in (None, kind):
        raise _Refused(
            f"{str(module)[:80]}.{kind[:80]} is no layer of Keras itself; code that a file names is never imported"
        )
    return kind


def _is_trainable(settings: Any) -> bool:
    return not isinstance(settings, dict) or bool(cast("Json", settings).get("trainable", True))


def _layer(entry: Json, saved: str, counts: dict[str, int], depth: int, trainable: bool) -> Layer:
    kind = _kind(entry)
    settings: Any = entry["config"]
    name: object = entry.get("name") or (cast("Json", settings).get("name") if isinstance(settings, dict) else None)
    if type(name) is not str:
        raise _Refused(f"a layer of class {kind} has no name")
    place = f"{saved}layers/{saved_name(kind, counts)}"
    graph = _graph(entry, f"{place}/", depth + 1, trainable=trainable) if kind in MODELS else None
    if graph is None and not isinstance(settings, dict):
        raise _Refused(
            f"layer {name[:80]!r} ({kind}): its config is {type(settings).__name__}; an object belongs there"
        )
    own = cast("Json", settings) if graph is None else {}
    built: Any = entry.get("build_config")
    given: Any = cast("Json", built).get("input_shape") if isinstance(built, dict) else None
    shape = tuple(cast("list[object]", given)) if isinstance(given, list) else ()
    trainable = trainable and _is_trainable(settings)
    return Layer(kind, name, own, graph=graph, saved=place, input_shape=shape, trainable=trainable)


def saved_name(kind: str, counts: dict[str, int]) -> str:
    """The name under which Keras 3 saves a layer: its class and its number among those of its class, counted here."""
    snake = _snake_case(kind)
    number = counts.get(snake, 0)
    counts[snake] = number + 1
    return f"{snake}_{number}" if number else snake


def _snake_case(name: str) -> str:
    """As Keras names what it saves: "MaxPooling1D" -> "max_pooling1d", "Conv2D" -> "conv2d", "LSTM" -> "lstm"."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _sequence(layers: dict[str, Layer]) -> Graph:
    """Each layer fed by the one before. Without an InputLayer the first says its input's shape itself."""
    names = list(layers)
    if not names:
        raise _Refused("a Sequential has no layers")
    first = layers[names[0]]
    if first.kind != "InputLayer":
        shape = _own_input_shape(first)
        name = f"{first.name}_input"
        layers = {name: Layer("InputLayer", name, {"batch_input_shape": shape}, calls=[Call((), {})]), **layers}
        names = list(layers)
    else:
        first.calls = [Call((), {})]
    for before, name in pairwise(names):
        layers[name].calls = [Call((Source(before, 0),), {})]
    _note_shapes(layers)
    return Graph(layers, [Source(names[0], 0)], [Source(names[-1], 0)])


def _own_input_shape(layer: Layer) -> object:
    while layer.graph is not None:
        layer = next(iter(layer.graph.layers.values()))
    return layer.config.get("batch_input_shape", layer.config.get("batch_shape"))


def _ends(entries: Any) -> list[Source]:
    """`[["lstm", 0, 0], …]`, one of them alone, or a dict of them, whose order is that of its names."""
    if isinstance(entries, dict):
        return [_source(entry) for entry in _by_name(cast("Json", entries))]
    if entries and isinstance(entries[0], str):
        entries = [entries]
    return [_source(entry) for entry in entries]


def _by_name(entries: Json) -> list[Any]:
    """What is given in a dict goes to the input of its name, in whatever order it was written."""
    return [entries[name] for name in sorted(entries)]


def _source(entry: Any) -> Source:
    name, call, output = entry[:3]
    if type(name) is not str or type(call) is not int or type(output) is not int:
        raise _Refused(f"a tensor is {str(entry)[:100]}; [name, call, 0] belongs there")
    return Source(name, call, output)


def _is_of_keras_3(node: Any) -> bool:
    return isinstance(node, dict) and not {"args", "kwargs"}.isdisjoint(cast("Json", node))


def _call(node: Any) -> Call:
    if isinstance(node, dict) and not _is_of_keras_3(cast("Json", node)):
        node = _by_name(cast("Json", node))
    if isinstance(node, dict):
        entry = cast("Json", node)
        given = cast("Json", entry.get("kwargs", {}))
        tensors = tuple(name for name, value in given.items() if list(_tensors(value)))
        options = {name: value for name, value in given.items() if name not in tensors}
        named_ones = (source for value in given.values() for source in _tensors(value))
        return Call((*_tensors(entry.get("args", [])), *named_ones), options, tensors)
    if node and isinstance(node[0], str):
        node = [node]
    inputs: list[Source] = []
    options: Json = {}
    named: list[str] = []
    for entry in node:
        inputs.append(_source(entry))
        given = cast("Json", entry[3] if len(entry) > 3 else {})
        for name, value in given.items():
            if _is_source(value):
                inputs.append(_source(value))
                named.append(name)
            else:
                options[name] = value
    return Call(tuple(inputs), options, tuple(named))


def _is_source(value: Any) -> bool:
    return isinstance(value, list) and len(cast("list[Any]", value)) >= 3 and isinstance(value[0], str)


def _tensors(value: Any) -> Iterator[Source]:
    """The tensors in the arguments of a call in a file of Keras 3, in order."""
    if isinstance(value, dict):
        entry = cast("Json", value)
        if entry.get("class_name") == "__keras_tensor__":
            yield _source(entry["config"]["keras_history"])
        else:
            for inner in _by_name(entry):
                yield from _tensors(inner)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from _tensors(inner)
