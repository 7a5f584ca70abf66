"""The network of a Keras file in NumPy and float64, in Keras's own layout: what a conversion is compared with."""

import copy
from collections.abc import Callable
from os import PathLike

import numpy as np
import torch

from towers.keras.hdf5_reader import Array
from towers.keras.keras_file import open_keras
from towers.keras.layer_arrays import has_bias, read_lstm, weight_paths, weights_of
from towers.keras.network_plan import TowerPlan
from towers.keras.read_network import Converted

SENTENCES, SEED = 8, 0


def largest_difference(path: str | PathLike[str], converted: Converted) -> float:
    """The largest difference between Keras's equations and the model, on a batch drawn from a fixed seed."""
    rng = np.random.default_rng(SEED)
    plan, model = converted.plan, converted.model
    batches = [_sentences(rng, tower) for tower in (plan.left, plan.right)]
    states = [_state(path, tower, batch) for tower, batch in zip((plan.left, plan.right), batches, strict=True)]
    hidden = np.maximum(_dense(path, converted, "dense", states[0] - states[1]), 0)
    wanted = _dense(path, converted, "logit", hidden)[:, 0]
    model = copy.deepcopy(model).eval()
    if model.dense.weight.dtype == torch.float16:
        model = model.float()  # the numbers are compared, not how roughly float16 computes
    dtype = model.dense.weight.dtype
    with torch.no_grad():
        found = model(*(torch.as_tensor(batch).to(dtype) for batch in batches)).double().numpy()
    return float(np.abs(found - wanted).max())


def _sentences(rng: np.random.Generator, tower: TowerPlan) -> Array:
    words = tower.words or tower.kernel_words + 6
    return rng.standard_normal((SENTENCES, words, tower.vector_width)).astype(np.float32)


def _state(path: str | PathLike[str], tower: TowerPlan, sentences: Array) -> Array:
    """Conv2D, MaxPooling1D and LSTM as Keras defines them."""
    file = open_keras(path)
    places = weight_paths(file, tower.conv)
    kernel, *bias = (file.hdf5.array(place, file.hdf5.shape(place) or ()).astype(np.float64) for place in places)
    kernel = kernel.reshape(tower.kernel_words, tower.vector_width, tower.filters)
    steps = sentences.shape[1] - tower.kernel_words + 1
    windows = [sentences[:, place : place + steps] for place in range(tower.kernel_words)]
    phrases = sum(np.einsum("bsw,wf->bsf", part, kernel[place]) for place, part in enumerate(windows))
    phrases = phrases + (bias[0] if bias else 0)
    features = np.asarray(phrases).reshape(*windows[0].shape[:2], tower.features, tower.pool).max(3)
    arrays = read_lstm(
        weights_of(file), tower.lstm, tower.features, tower.hidden, parts=len(weight_paths(file, tower.lstm))
    )
    w_ih, w_hh, b = (arrays[name].astype(np.float64) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"))
    gate, h = _GATES[tower.recurrent_activation], np.zeros((SENTENCES, tower.hidden))
    c = h
    for step in range(features.shape[1]):
        i, f, g, o = np.split(features[:, step] @ w_ih.T + h @ w_hh.T + b, 4, axis=1)
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
    return h


_GATES: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_sigmoid_keras2": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
}


def _dense(path: str | PathLike[str], converted: Converted, which: str, inputs: Array) -> Array:
    file = open_keras(path)
    layer = getattr(converted.plan, which)
    kernel, *bias = (
        file.hdf5.array(place, file.hdf5.shape(place) or ()).astype(np.float64) for place in weight_paths(file, layer)
    )
    return inputs @ kernel + (bias[0] if has_bias(layer) else 0)
