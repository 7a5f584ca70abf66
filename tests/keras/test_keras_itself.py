"""Files that are written here, loaded by Keras itself: one test, in a process of its own, skipped where Keras is not."""

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

import towers.keras
from towers import Tower, TwoTowers

SIZES = {"vector_width": 8, "filters": 6, "pool": 3, "hidden": 5}
SCRIPT = """
import sys
import keras
import numpy as np
folder = sys.argv[1]
for name in sys.argv[2:]:
    pairs = np.load(f"{folder}/{name}.npz")
    given = [pairs["left"][..., None], pairs["right"][..., None]]
    whole = keras.models.load_model(f"{folder}/{name}.keras", compile=False)
    found = {"keras": whole.predict(given, verbose=0)}
    found["h5"] = keras.models.load_model(f"{folder}/{name}.h5", compile=False).predict(given, verbose=0)
    for weight in whole.weights:
        weight.assign(weight * 0)
    whole.load_weights(f"{folder}/{name}.weights.h5")
    found["weights"] = whole.predict(given, verbose=0)
    trained = [layer.name for layer in whole.layers if layer.trainable and layer.weights]
    np.savez(f"{folder}/{name}.found.npz", trained=trained, **found)
"""


def frozen() -> TwoTowers:
    model = TwoTowers(Tower(**SIZES), Tower(5, **SIZES), dense=3, dropout=0.5)
    for parameter in (*model.left.conv.parameters(), model.logit.bias):
        parameter.requires_grad_(False)
    return model


def shared() -> TwoTowers:
    tower = Tower(recurrent_activation="hard_sigmoid", **SIZES)
    return TwoTowers(tower, tower)


MODELS = {"usual": TwoTowers, "shared": shared, "frozen": frozen}


@pytest.mark.skipif(not (find_spec("keras") and find_spec("jax")), reason="needs keras and jax, of the extra peers")
def test_keras_computes_what_the_model_does(tmp_path):
    wanted = {}
    for name, make in MODELS.items():
        model = make().eval()
        right = model.right.words or 6
        pairs = torch.randn(20, 7, model.left.vector_width), torch.randn(20, right, model.right.vector_width)
        wanted[name] = model.probability(*pairs).detach().numpy()
        np.savez(tmp_path / f"{name}.npz", left=pairs[0].numpy(), right=pairs[1].numpy())
        for ending in ("keras", "h5", "weights.h5"):
            towers.keras.save(model, tmp_path / f"{name}.{ending}")
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), *MODELS],
        env={**os.environ, "KERAS_BACKEND": "jax"}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    for name, probability in wanted.items():
        found = np.load(tmp_path / f"{name}.found.npz")
        for how in ("keras", "h5", "weights"):
            np.testing.assert_allclose(found[how][:, 0], probability, rtol=0, atol=1e-6)
    trained = np.load(tmp_path / "frozen.found.npz")["trained"].tolist()
    assert trained == ["right_conv", "left_lstm", "right_lstm", "dense", "logit"]
