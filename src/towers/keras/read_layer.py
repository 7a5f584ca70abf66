"""A single layer of any Keras file -> the module of ours that computes the same."""

import warnings
from os import PathLike
from typing import Any, cast

import torch
from torch import nn

from towers.keras.graph import Layer, read_graph
from towers.keras.hdf5_reader import Array
from towers.keras.keras_file import KerasFile, open_keras
from towers.keras.layer_arrays import Fetch, read_conv, read_dense, read_lstm, weight_paths, weights_of
from towers.keras.masks import mask_of
from towers.keras.read_network import as_tensors
from towers.keras.settings import check_settings, gates, has_bias, mixed_policy, setting, size
from towers.layers.lstm import RaggedLSTM
from towers.layers.phrases import PhraseConv

CONVERTED = ("Conv2D", "Conv1D", "LSTM", "CuDNNLSTM", "Bidirectional", "Dense", "Embedding")


def read_layer(path: str | PathLike[str], name: str) -> nn.Module:
    """See `towers.keras.convert_layer`."""
    file = open_keras(path)
    if file.config is None:
        raise ValueError(f"{file.name}: holds weights alone: what its layers are is not in it")
    graph = read_graph(file.config, file.name)
    layers = list(graph.all_layers())
    found = [layer for layer in layers if layer.name == name]
    if len(found) != 1:
        names = ", ".join(layer.name for layer in layers if layer.kind in CONVERTED)
        raise ValueError(f"{file.name}: has {len(found)} layers {name!r}; it has {names[:500] or 'none to convert'}")
    (layer,) = found
    try:
        if layer.kind in ("LSTM", "CuDNNLSTM", "Bidirectional"):
            _refuse_mask(layer, mask_of(graph, layer))
        if policy := mixed_policy(layer):
            warnings.warn(
                f"{layer}: computes in half precision in Keras ({policy}), and here in the dtype of its numbers",
                stacklevel=3,
            )
        return _convert(file, layer)
    except ValueError as error:
        if str(error).startswith(file.name):
            raise
        raise ValueError(f"{file.name}: {error}") from None


def _refuse_mask(layer: Layer, masking: Layer | None) -> None:
    if masking is not None:
        how = "is given mask=" if masking is layer else f"may be given the mask of {masking}"
        raise ValueError(
            f"{layer}: {how}, and masks are not carried over: RaggedLSTM would read the words that Keras skips. Save "
            "the network in Keras without the mask, and here leave those words out: lengths= says where sentences end"
        )


def _convert(file: KerasFile, layer: Layer) -> nn.Module:
    if layer.kind == "Bidirectional":
        return _bidirectional(file, layer)
    if layer.kind in ("Conv2D", "Conv1D", "Convolution2D", "Convolution1D"):
        return _conv(file, layer)
    if layer.kind in ("LSTM", "CuDNNLSTM"):
        check_settings(layer)
        hidden = size(layer, "units", "output_dim")
        paths = weight_paths(file, layer)
        features = _shape(file, paths, 2)[0]
        arrays = read_lstm(weights_of(file), layer, features, hidden, parts=len(paths))
        return _filled(_lstm(file, layer, features, hidden), arrays)
    if layer.kind == "Dense":
        check_settings(layer)
        units = size(layer, "units", "output_dim")
        inputs = _shape(file, weight_paths(file, layer), 2)[0]
        _warn_of_activation(layer, "nn.Linear")
        arrays = read_dense(weights_of(file), layer, inputs, units)
        return _filled(nn.Linear(inputs, units, bias=has_bias(layer), device="meta"), arrays)
    if layer.kind == "Embedding":
        check_settings(layer)
        words, width = size(layer, "input_dim"), size(layer, "output_dim")
        (table,) = weights_of(file)(layer, [(words, width)])
        return _filled(nn.Embedding(words, width, device="meta"), {"weight": table})
    raise ValueError(f"{layer}: is not converted; {', '.join(CONVERTED)} are")


def _conv(file: KerasFile, layer: Layer) -> nn.Module:
    """A convolution over neighbouring words whose kernel is as wide as a word vector."""
    settings = dict(layer.config)
    activation = settings.pop("activation", None)
    check_settings(Layer(layer.kind, layer.name, settings))
    shape = _shape(
        file, weight_paths(file, layer), 4 if layer.kind.endswith("2D") or layer.kind == "Convolution1D" else 3
    )
    *_, filters = shape
    width = 1
    for axis in shape[1:-1]:
        width *= axis
    if len(layer.input_shape) == len(shape) == 4 and layer.input_shape[2] != shape[1]:
        wide = str(layer.input_shape[2])[:60]
        raise ValueError(f"{layer}: its kernel is {shape[1]} wide, its input {wide}; a phrase takes whole vectors")
    if activation not in (None, "linear"):
        _warn_of_activation(layer, "PhraseConv")
    arrays = read_conv(weights_of(file), layer, shape[0], width, filters)
    return _filled(PhraseConv(width, filters, shape[0], device="meta"), arrays)


def _bidirectional(file: KerasFile, layer: Layer) -> nn.Module:
    """Both directions side by side, as nn.LSTM's."""
    if setting(layer, "merge_mode", default="concat") != "concat":
        raise ValueError(f"{layer}: merge_mode is {layer.config['merge_mode']!r}; a bidirectional LSTM concatenates")
    inner: Any = layer.config.get("layer")
    if not isinstance(inner, dict) or cast("dict[str, Any]", inner).get("class_name") != "LSTM":
        raise ValueError(f"{layer}: wraps another layer than LSTM")
    lstm = Layer("LSTM", layer.name, cast("dict[str, Any]", inner)["config"])
    check_settings(lstm)
    backwards: Any = layer.config.get("backward_layer")
    if backwards is not None:
        other = dict(cast("dict[str, Any]", backwards)["config"])
        for entry in ("units", "activation", "recurrent_activation", "use_bias"):
            if other.get(entry) != lstm.config.get(entry):
                raise ValueError(f"{layer}: its two directions have another {entry}")
    hidden = size(lstm, "units", "output_dim")
    if file.legacy:
        paths = weight_paths(file, layer)
        half = len(paths) // 2
        places = [paths[:half], paths[half:]]
    else:
        places = list[list[str]]()
        for part in ("forward_layer", "backward_layer"):
            inside = Layer("LSTM", "", {}, saved=f"{layer.saved}/{part}")
            numbers = file.hdf5.names(f"{inside.saved}/cell/vars")
            places.append([f"{inside.saved}/cell/vars/{number}" for number in range(len(numbers))])
    features = _shape(file, places[0], 2)[0]
    arrays: dict[str, Array] = {}
    for suffix, own in zip(("", "_reverse"), places, strict=True):
        fetch = _from(file, own)
        found = read_lstm(fetch, lstm, features, hidden)
        arrays |= {f"{name}{suffix}": array for name, array in found.items()}
    return _filled(_lstm(file, lstm, features, hidden, bidirectional=True), arrays)


def _from(file: KerasFile, paths: list[str]) -> Fetch:
    def fetch(layer: Layer, shapes: Any) -> list[Array]:
        if len(paths) != len(shapes):
            raise ValueError(f"{layer}: has {len(paths)} arrays a direction; {len(shapes)} belong there")
        return [file.hdf5.array(path, shape) for path, shape in zip(paths, shapes, strict=True)]

    return fetch


def _lstm(file: KerasFile, layer: Layer, features: int, hidden: int, **more: Any) -> RaggedLSTM:
    activation: Any = gates(layer, file.major)
    return RaggedLSTM(features, hidden, bias="single", device="meta", recurrent_activation=activation, **more)


def _shape(file: KerasFile, paths: list[str], rank: int) -> tuple[int, ...]:
    shape = file.hdf5.shape(paths[0]) if paths else None
    if shape is None or len(shape) != rank or 0 in shape:
        raise ValueError(
            f"{file.hdf5.name}: {paths[0] if paths else 'the layer'} has shape {shape}; rank {rank} belongs there"
        )
    return shape


def _warn_of_activation(layer: Layer, ours: str) -> None:
    activation = setting(layer, "activation", default="linear")
    if activation not in (None, "linear"):
        warnings.warn(f"{layer}: its activation {activation!r} is not part of {ours}: apply it yourself", stacklevel=5)


def _filled(module: nn.Module, arrays: dict[str, Array]) -> Any:
    tensors: dict[str, torch.Tensor] = as_tensors(arrays)
    wanted = module.state_dict().keys()
    module.load_state_dict({name: value for name, value in tensors.items() if name in wanted}, assign=True)
    return module
