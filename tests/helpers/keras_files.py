"""Reads a `.keras` file (Keras 3: a zip with an HDF5 file inside) into a TwoTowers; for tests only."""

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from towers import TwoTowers

Arrays = dict[str, np.ndarray]

_TOWERS = {"left": ("conv2d", "lstm"), "right": ("conv2d_1", "lstm_1")}


def _phrase_kernel(kernel: np.ndarray) -> np.ndarray:
    return kernel.squeeze(2).transpose(
        0, 2, 1
    )  # (kernel_words, vector_width, 1, filters) -> (kernel_words, filters, width)


def read_layers(path: Path) -> Arrays:
    """Every array under `layers/` of the file, by its path, such as `lstm/cell/vars/0`."""
    arrays: Arrays = {}

    def keep(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset):
            arrays[name] = np.asarray(node)

    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file["layers"].visititems(keep)
    return arrays


def as_state_dict(layers: Arrays) -> dict[str, Tensor]:
    """The same numbers under the names and in the layout of TwoTowers."""
    state: Arrays = {}
    for tower, (conv, lstm) in _TOWERS.items():
        state[f"{tower}.conv.weight"] = _phrase_kernel(layers[f"{conv}/vars/0"])
        state[f"{tower}.conv.bias"] = layers[f"{conv}/vars/1"]
        state[f"{tower}.lstm.weight_ih_l0"] = layers[f"{lstm}/cell/vars/0"].T
        state[f"{tower}.lstm.weight_hh_l0"] = layers[f"{lstm}/cell/vars/1"].T
        state[f"{tower}.lstm.bias_ih_l0"] = layers[f"{lstm}/cell/vars/2"]
    for ours, theirs in {"dense": "dense", "logit": "dense_1"}.items():
        state[f"{ours}.weight"] = layers[f"{theirs}/vars/0"].T
        state[f"{ours}.bias"] = layers[f"{theirs}/vars/1"]
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in state.items()}


def load(path: Path) -> TwoTowers:
    """The network of the file; a name or a shape that does not fit raises."""
    model = TwoTowers()
    model.load_state_dict(as_state_dict(read_layers(path)))
    return model
