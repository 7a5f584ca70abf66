"""TwoTowers -> a file that Keras 3 loads: `.keras`, `.h5` of a whole network, or `.weights.h5`."""

import io
import json
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from towers import checkpoint
from towers.keras.graph import saved_name
from towers.keras.hdf5_reader import Array
from towers.keras.keras_file import WEIGHTS_MEMBER
from towers.keras.layer_arrays import conv_kernel
from towers.keras.network_plan import other_parts
from towers.layers.lstm import RaggedLSTM
from towers.layers.phrases import PhraseConv
from towers.layers.pool import FeaturePool
from towers.model import Tower, TwoTowers

KERAS_VERSION = "3.15.1"
"""The release whose files these follow, and in which they were loaded."""

Json = dict[str, Any]


@dataclass(frozen=True)
class _Entry:
    """A layer of the file: its class, name, settings, what feeds each of its calls, and its numbers by name."""

    kind: str
    name: str
    config: Json
    feeds: list[list[tuple[str, int]]]
    given: dict[str, Array]

    @property
    def arrays(self) -> dict[str, Array]:
        """Its numbers by name: no bias where its settings say so."""
        return {name: array for name, array in self.given.items() if name != "bias" or self.config["use_bias"]}


def write_network(model: TwoTowers, path: str | PathLike[str]) -> None:
    """See `towers.keras.save`."""
    path = Path(path)
    refuse_other_parts(model, path)
    entries = list(_entries(model))
    if path.name.endswith(".weights.h5"):
        content = _saved(entries)
    elif path.suffix == ".h5":
        content = _legacy(entries)
    elif path.suffix == ".keras":
        content = _archive(entries)
    else:
        raise ValueError(f"{path}: the name must end in .keras, .weights.h5 or .h5")
    checkpoint.replace(path, lambda partial: partial.write_bytes(content))
    _warn_of_training(model, path)


def refuse_other_parts(model: TwoTowers, path: Path) -> None:
    """Refuse a model with parts that are not in the files that are written here.

    Raises:
        ValueError: names the file and the parts.
    """
    if parts := other_parts(model):
        raise ValueError(
            f"{path}: the model has parts that the network of Keras has not: {', '.join(parts)}; only a TwoTowers of "
            "convolution, feature pool, LSTM and a head on the difference is written"
        )


# The network as Keras has it.


def _entries(model: TwoTowers) -> Iterator[_Entry]:
    dtype = _dtype(model)
    sides = {"left": model.left, "right": model.right}
    shared = model.left is model.right
    for side, tower in sides.items():
        shape = [None, tower.words, tower.vector_width, 1]
        yield _Entry("InputLayer", side, {"batch_shape": shape, "dtype": dtype, "sparse": False}, [], {})
    if shared:
        yield from _tower("left", model.left, ["left", "right"], dtype)
    else:  # stage by stage: in the order of Keras's own, which its reader of .h5 relies on
        for stages in zip(*(_tower(side, tower, [side], dtype) for side, tower in sides.items()), strict=True):
            yield from stages
    calls = [("left_lstm", 0), ("left_lstm", 1) if shared else ("right_lstm", 0)]
    yield _Entry("Subtract", "subtract", {"dtype": dtype}, [calls], {})
    read = "subtract"
    if model.dropout is not None:
        read = "dropout"
        yield _Entry("Dropout", read, {"rate": model.dropout.p, "dtype": dtype}, [[("subtract", 0)]], {})
    for name, layer, activation, source in (
        ("dense", model.dense, "relu", read),
        ("logit", model.logit, "sigmoid", "dense"),
    ):
        config = {"units": layer.out_features, "activation": activation, "dtype": dtype, **_trained(layer)}
        arrays = {"kernel": _numbers(layer.weight).T, "bias": _numbers(layer.bias)}
        yield _Entry("Dense", name, config, [[(source, 0)]], arrays)


def _tower(side: str, tower: Tower, sources: list[str], dtype: str) -> Iterator[_Entry]:
    conv, pool, lstm = tower.conv, tower.pool, tower.lstm
    if (type(conv), type(pool), type(lstm)) != (PhraseConv, FeaturePool, RaggedLSTM):
        raise ValueError(f"{side}: one of its layers was replaced; Tower's own layers are written")
    gates = lstm.recurrent_activation
    if gates == "hard_sigmoid_keras2":
        raise ValueError(f"{side}: its gates are the hard sigmoid of Keras 2, which Keras 3 does not have")
    steps = -1 if tower.words is None else tower.words - tower.kernel_words + 1
    kernel = conv_kernel(_numbers(conv.weight))
    previous = [[(source, 0)] for source in sources]

    def entry(kind: str, part: str, config: Json, arrays: dict[str, Array] | None = None) -> _Entry:
        made = _Entry(kind, f"{side}_{part}", {**config, "dtype": dtype}, list(previous), arrays or {})
        previous[:] = [[(made.name, call)] for call in range(len(sources))]
        return made

    yield entry(
        "Conv2D",
        "conv",
        {
            "filters": conv.filters,
            "kernel_size": [tower.kernel_words, tower.vector_width],
            "strides": [1, 1],
            "padding": "valid",
            "data_format": "channels_last",
            "activation": "linear",
            **_trained(conv),
        },
        {"kernel": kernel, "bias": _numbers(conv.bias)},
    )
    yield entry("Reshape", "squeeze", {"target_shape": [steps, conv.filters]})
    yield entry(
        "MaxPooling1D",
        "pool",
        {"pool_size": [pool.size], "strides": [pool.size], "padding": "valid", "data_format": "channels_first"},
    )
    yield entry(
        "LSTM",
        "lstm",
        {"units": tower.hidden, "activation": "tanh", "recurrent_activation": gates, **_trained(lstm)},
        {
            "kernel": _numbers(lstm.weight_ih_l0).T,
            "recurrent_kernel": _numbers(lstm.weight_hh_l0).T,
            "bias": _numbers(lstm.bias_ih_l0),
        },
    )


def _trained(layer: nn.Module) -> Json:
    """Whether Keras trains a layer, and has its bias: not one that is zeros and is not trained."""
    parameters = dict(layer.named_parameters())
    trained = any(parameter.requires_grad for parameter in parameters.values())
    biases = [parameter for name, parameter in parameters.items() if "bias" in name]
    without = trained and not any(bias.requires_grad or bias.any() for bias in biases)
    return {"trainable": trained, "use_bias": not without}


def _warn_of_training(model: TwoTowers, path: Path) -> None:
    """Say what a training that goes on in Keras would do otherwise."""
    differs: list[str] = []
    if model.dense_dropout is not None:
        differs.append(f"dense_dropout={model.dense_dropout.p} is left out")
    if model.word_dropout is not None:
        differs.append(f"word_dropout={model.word_dropout.p}, which Keras does not have, is left out")
    for name, layer in cast("Any", model).named_modules():
        if isinstance(layer, nn.Linear | PhraseConv | RaggedLSTM):
            frozen = {part for part, parameter in layer.named_parameters() if not parameter.requires_grad}
            own = _trained(layer)
            kept = {part for part in frozen if not own["trainable"] or ("bias" in part and not own["use_bias"])}
            differs += [f"{name}.{part} is trained, for Keras freezes whole layers" for part in sorted(frozen - kept)]
    if differs:
        warnings.warn(f"{path}: computes the same, but is trained otherwise: {'; '.join(differs)}", stacklevel=4)


def _dtype(model: TwoTowers) -> str:
    found = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()})
    if len(found) > 1 or found[0] not in ("float16", "float32", "float64"):
        raise ValueError(f"model: its parameters are {' and '.join(found)}; Keras's files hold one of float16, 32, 64")
    return found[0]


def _numbers(parameter: torch.Tensor) -> Array:
    array = parameter.detach().cpu().numpy()
    if not np.isfinite(array).all():
        raise ValueError("model: a parameter is not finite (NaN or infinity)")
    return array


# As JSON.


def _config(entries: list[_Entry]) -> Json:
    shapes = {entry.name: entry for entry in entries}
    layers = [_layer(entry, shapes) for entry in entries]
    inputs = [[entry.name, 0, 0] for entry in entries if entry.kind == "InputLayer"]
    config = {"name": "two_towers", "trainable": True, "layers": layers, "input_layers": inputs}
    config["output_layers"] = [["logit", 0, 0]]
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": config,
        "registered_name": None,
    }


def _layer(entry: _Entry, entries: dict[str, _Entry]) -> Json:
    nodes: list[Json] = []
    for feed in entry.feeds:
        tensors = [
            {
                "class_name": "__keras_tensor__",
                "config": {
                    "shape": _shape(entries, name),
                    "dtype": entries[name].config["dtype"],
                    "keras_history": [name, call, 0],
                },
            }
            for name, call in feed
        ]
        nodes.append({"args": [tensors] if len(tensors) > 1 else tensors, "kwargs": {}})
    return {
        "module": "keras.layers",
        "class_name": entry.kind,
        "config": {"name": entry.name, "trainable": True, **entry.config},
        "registered_name": None,
        "name": entry.name,
        "inbound_nodes": nodes,
    }


def _shape(entries: dict[str, _Entry], name: str) -> list[int | None]:
    """What a layer gives."""
    entry = entries[name]
    config = entry.config
    if entry.kind == "InputLayer":
        return config["batch_shape"]
    before = _shape(entries, entry.feeds[0][0][0])
    if entry.kind == "Conv2D":
        steps = None if before[1] is None else before[1] - config["kernel_size"][0] + 1
        return [None, steps, 1, config["filters"]]
    if entry.kind == "Reshape":
        return [None, before[1], before[3]]
    if entry.kind == "MaxPooling1D":
        return [None, before[1], before[2] // config["pool_size"][0] if before[2] else None]
    return [None, config["units"]] if "units" in config else before


# As bytes.


def _h5py() -> Any:
    try:
        import h5py  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        raise ImportError('files of Keras are written with h5py: pip install "towers[keras]"') from None
    return h5py


def _archive(entries: list[_Entry]) -> bytes:
    metadata = {"keras_version": KERAS_VERSION, "date_saved": datetime.now().strftime("%Y-%m-%d@%H:%M:%S")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("metadata.json", json.dumps(metadata))
        archive.writestr("config.json", json.dumps(_config(entries)))
        archive.writestr(WEIGHTS_MEMBER, _saved(entries))
    return buffer.getvalue()


def _saved(entries: list[_Entry]) -> bytes:
    """`layers/conv2d/vars/0`, …: by classes, counted."""
    buffer, counts = io.BytesIO(), dict[str, int]()
    with _h5py().File(buffer, "w") as file:
        for entry in entries:
            place = f"layers/{saved_name(entry.kind, counts)}"
            own = file.create_group(f"{place}/vars")
            own.attrs["name"] = entry.name
            target = own
            if entry.kind == "LSTM":
                target = file.create_group(f"{place}/cell/vars")
                target.attrs["name"] = "lstm_cell"
            for number, array in enumerate(entry.arrays.values()):
                target[str(number)] = np.ascontiguousarray(array)
        file.create_group("vars").attrs["name"] = "two_towers"
    return buffer.getvalue()


def _legacy(entries: list[_Entry]) -> bytes:
    """Under each layer's own name, with the config as an attribute."""
    buffer = io.BytesIO()
    with _h5py().File(buffer, "w") as file:
        file.attrs["backend"] = "tensorflow"
        file.attrs["keras_version"] = KERAS_VERSION
        file.attrs["model_config"] = json.dumps(_config(entries)).encode("utf8")
        root = file.create_group("model_weights")
        root.attrs["backend"] = "tensorflow"
        root.attrs["keras_version"] = KERAS_VERSION
        root.attrs["layer_names"] = [entry.name for entry in entries]
        for entry in entries:
            group = root.create_group(entry.name)
            cell = "lstm_cell/" if entry.kind == "LSTM" else ""
            names = {f"{entry.name}/{cell}{name}": array for name, array in entry.arrays.items()}
            group.attrs["weight_names"] = list(names)
            for name, array in names.items():
                group[name] = np.ascontiguousarray(array)
        root.create_group("top_level_model_weights").attrs["weight_names"] = []
    return buffer.getvalue()
