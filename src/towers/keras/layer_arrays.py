"""The numbers of one Keras layer <-> those of one layer of ours: which array is which, and how it is turned.

| Keras | ours | turned |
|---|---|---|
| Conv2D kernel (k, width, 1, filters) | PhraseConv.weight (k, filters, width) | last two axes |
| LSTM kernel (features, 4 hidden) | weight_ih_l0 (4 hidden, features) | transposed; gates in the same order |
| LSTM recurrent kernel (hidden, 4 hidden) | weight_hh_l0 (4 hidden, hidden) | transposed |
| LSTM bias (4 hidden), one | bias_ih_l0 with `bias="single"` | as it is |
| Dense kernel (in, out) | Linear.weight (out, in) | transposed |
| Embedding (words, width) | Embedding.weight | as it is |

An LSTM of Keras 1 has twelve arrays, gate by gate; CuDNNLSTM has cuDNN's own order of numbers and two biases, which are
added. Neither could be made here with the Keras of its time: both follow the published layouts.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from towers.keras.graph import Layer
from towers.keras.hdf5_reader import Array
from towers.keras.keras_file import KerasFile
from towers.keras.settings import has_bias, is_ints, setting

Shape = tuple[int, ...]


class Turned(NamedTuple):
    """An array of Keras's, and where it goes: `towards` is ours from theirs, `back` theirs from ours."""

    theirs: str
    ours: str
    how: str


_PRODUCT = "transposed: Keras multiplies inputs by it from the right (in, out), torch keeps (out, in)"
_GATES = f"{_PRODUCT}; gates in Keras's order, which is torch's: i, f, c, o"
CONV = (
    Turned("kernel", "weight", "(k, width, 1, filters) -> (k, filters, width): for each word an (out, in) matrix"),
    Turned("bias", "bias", "as it is"),
)
LSTM = (
    Turned("kernel", "weight_ih_l0", _GATES),
    Turned("recurrent_kernel", "weight_hh_l0", _GATES),
    Turned("bias", "bias_ih_l0", "as it is: Keras adds one bias, where nn.LSTM has two"),
)
DENSE = (Turned("kernel", "weight", _PRODUCT), Turned("bias", "bias", "as it is"))


def conv_weight(kernel: Array) -> Array:
    """(k, width, 1, filters), or without the 1 -> (k, filters, width)."""
    return kernel.reshape(kernel.shape[0], -1, kernel.shape[-1]).transpose(0, 2, 1)


def conv_kernel(weight: Array) -> Array:
    """(k, filters, width) -> (k, width, 1, filters)."""
    return weight.transpose(0, 2, 1)[:, :, None, :]


Fetch = Callable[[Layer, Sequence[Shape]], list[Array]]
"""The arrays of a layer, which must have these shapes, in the order in which Keras made them: weights, or moments."""


def weights_of(file: KerasFile) -> Fetch:
    """The weights of layers.

    Raises:
        ValueError: (the function) an array is missing, there are more, or a shape or dtype is another.
    """

    def fetch(layer: Layer, shapes: Sequence[Shape]) -> list[Array]:
        paths = weight_paths(file, layer)
        if len(paths) != len(shapes):
            raise ValueError(f"{file.hdf5.name}: {layer} has {len(paths)} arrays; {len(shapes)} belong there")
        return [file.hdf5.array(path, shape) for path, shape in zip(paths, shapes, strict=True)]

    return fetch


def weight_paths(file: KerasFile, layer: Layer) -> list[str]:
    """Where the arrays of a layer lie in the file."""
    if layer.paths:
        return list(layer.paths)
    if not file.legacy:
        return saved_paths(file, layer.saved, layer.name)
    if layer.model is None:
        return legacy_paths(file, layer.name)
    return _paths_inside(file, layer, layer.model)


def saved_paths(file: KerasFile, place: str, name: str | None) -> list[str]:
    """Where Keras 3 keeps the arrays of a layer: `vars/0`, `vars/1`, …, an LSTM's under its cell."""
    said = file.hdf5.text(f"{place}/vars", "name")
    if name is not None and said is not None and said != name:
        raise ValueError(
            f"{file.hdf5.name}: {place} belongs to layer {said!r}, by the config to {name!r}: config and weights are "
            "of two networks"
        )
    cell = f"{place}/cell" if file.hdf5.names(f"{place}/cell") else place
    names = file.hdf5.names(f"{cell}/vars")
    numbers = sorted(int(entry) for entry in names if entry.isascii() and entry.isdigit() and len(entry) < 6)
    if numbers != list(range(len(names))):
        raise ValueError(f"{file.hdf5.name}: {cell}/vars has members {names[:9]}; 0, 1, 2, … belong there")
    return [f"{cell}/vars/{number}" for number in numbers]


def legacy_paths(file: KerasFile, name: str) -> list[str]:
    """Where Keras 1 and 2 keep them: under the layer's own name, in the order of `weight_names`."""
    place = f"{file.legacy_root}/{name}".replace("//", "/")
    return [f"{place}/{entry}" for entry in file.hdf5.texts(place, "weight_names") or ()]


def _paths_inside(file: KerasFile, layer: Layer, model: Layer) -> list[str]:
    """Where Keras 1 and 2 keep the arrays of a layer of a model inside: all of its model's are in one list."""
    paths, start = legacy_paths(file, model.name), 0
    inner = list(model.graph.all_layers()) if model.graph else []
    counts = [_count(each) for each in inner]
    frozen = {each.config.get("trainable", True) for each, count in zip(inner, counts, strict=True) if count}
    if sum(counts) != len(paths) or len(frozen) > 1:  # those that are frozen are the last ones
        named = [path for path in paths if layer.name in path.split("/")[:-1]]
        if not named and _count(layer):
            raise ValueError(
                f"{file.hdf5.name}: {model} has {len(paths)} arrays, none of them named after {layer}; without names "
                f"{sum(counts)} in the order of its layers, none of which is frozen, belong there"
            )
        return named
    for each, count in zip(inner, counts, strict=True):
        if each is layer:
            return paths[start : start + count]
        start += count
    return []


def _count(layer: Layer) -> int:
    """How many arrays a layer has."""
    if layer.kind in ("LSTM", "CuDNNLSTM"):
        return 2 + has_bias(layer)
    if layer.kind == "Embedding":
        return 1
    return 1 + has_bias(layer) if layer.kind == "Dense" or layer.kind.startswith("Conv") else 0


def read_conv(fetch: Fetch, layer: Layer, kernel_words: int, width: int, filters: int) -> dict[str, Array]:
    """PhraseConv's weight and bias (zeros where Keras has none)."""
    axes = [width] if layer.kind == "Conv1D" else _inner_axes(layer, width)
    if layer.kind == "Convolution1D":
        axes = [1, width]  # as Keras 1 stores it
    kernel_shape = (kernel_words, *axes, filters)
    found = fetch(layer, [kernel_shape, (filters,)][: 1 + has_bias(layer)])
    return {"weight": conv_weight(found[0]), "bias": _bias(found, 1, filters)}


def _inner_axes(layer: Layer, width: int) -> list[int]:
    kernel: object = setting(layer, "kernel_size", default=[0, layer.config.get("nb_col")])
    if not is_ints(kernel) or len(kernel) != 2 or kernel[1] < 1:
        raise ValueError(f"{layer}: kernel_size is {str(kernel)[:60]}; (words, vector width) belongs there")
    return [kernel[1], width // kernel[1]]


def read_lstm(fetch: Fetch, layer: Layer, features: int, hidden: int, *, parts: int | None = None) -> dict[str, Array]:
    """An LSTM's weights and its one bias, from any of the three layouts; `parts`: how many arrays it has."""
    if layer.kind == "CuDNNLSTM":
        kernel, recurrent, bias = fetch(layer, [(features, 4 * hidden), (hidden, 4 * hidden), (8 * hidden,)])
        kernel = np.hstack([_from_cudnn(part) for part in np.hsplit(kernel, 4)])
        recurrent = np.hstack([part.T for part in np.hsplit(recurrent, 4)])
        bias = bias[: 4 * hidden] + bias[4 * hidden :]
    elif parts == 12:
        arrays = fetch(layer, [(features, hidden), (hidden, hidden), (hidden,)] * 4)  # W, U, b of i, c, f, o
        order = (0, 6, 3, 9)  # i, f, c, o
        kernel = np.hstack([arrays[place] for place in order])
        recurrent = np.hstack([arrays[place + 1] for place in order])
        bias = np.concatenate([arrays[place + 2] for place in order])
    else:
        shapes = [(features, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)]
        found = fetch(layer, shapes[: 2 + has_bias(layer)])
        kernel, recurrent, bias = found[0], found[1], _bias(found, 2, 4 * hidden)
    return {"weight_ih_l0": kernel.T, "weight_hh_l0": recurrent.T, "bias_ih_l0": bias}


def _from_cudnn(kernel: Array) -> Array:
    """One gate's kernel: cuDNN keeps (hidden, features), row after row, in an array that says (features, hidden)."""
    return kernel.reshape(kernel.shape[::-1]).T


def read_dense(fetch: Fetch, layer: Layer, inputs: int, outputs: int) -> dict[str, Array]:
    """A Linear's weight and bias (zeros where Keras has none)."""
    found = fetch(layer, [(inputs, outputs), (outputs,)][: 1 + has_bias(layer)])
    return {"weight": found[0].T, "bias": _bias(found, 1, outputs)}


def _bias(found: Sequence[Array], place: int, count: int) -> Array:
    return found[place] if len(found) > place else np.zeros(count, found[0].dtype)
