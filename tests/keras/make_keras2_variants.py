"""Makes the files of variants.zip that begin with keras2: towers that are models themselves, saved by Keras 2.

Needs tf_keras, which is Keras 2, and TensorFlow: `python make_keras2_variants.py FOLDER`. NAME.weights.h5 is in the layout
of Keras 2, where all layers of a model are one entry. The files of variants.zip were made by tf_keras 2.21.0.
"""

import sys
from pathlib import Path

import numpy as np
import tf_keras as keras
from tf_keras import layers

WIDTH, FILTERS, HIDDEN = 8, 6, 5


def stages(words):
    steps = -1 if words is None else words - 1
    pool = layers.MaxPooling1D(3, data_format="channels_first")
    return [layers.Conv2D(FILTERS, (2, WIDTH)), layers.Reshape((steps, FILTERS)), pool, layers.LSTM(HIDDEN)]


def head(left, right):
    return layers.Dense(1, "sigmoid")(layers.Dense(3, "relu")(layers.Subtract()([left, right])))


def keras2_shared():
    left, right = keras.Input((None, WIDTH, 1)), keras.Input((None, WIDTH, 1))
    words = state = keras.Input((None, WIDTH, 1))
    for layer in stages(None):
        state = layer(state)
    encoder = keras.Model(words, state)
    second = encoder(right)
    return keras.Model([left, right], head(encoder(left), second))


def keras2_sequential():
    left, right = keras.Input((None, WIDTH, 1)), keras.Input((5, WIDTH, 1))
    first = keras.Sequential([keras.Input((None, WIDTH, 1)), *stages(None)])
    second = keras.Sequential(stages(5))  # of a shape that is not said
    return keras.Model([left, right], head(first(left), second(right)))


def keras2_pair():
    left, right = keras.Input((None, WIDTH, 1)), keras.Input((None, WIDTH, 1))
    states = []
    for state in (left, right):
        for layer in stages(None):
            state = layer(state)
        states.append(state)
    pair = keras.Model([left, right], head(*states))
    one, two = keras.Input((None, WIDTH, 1)), keras.Input((None, WIDTH, 1))
    return keras.Model([one, two], pair([one, two]))


def save(make, folder: Path) -> None:
    keras.backend.clear_session()
    model, rng = make(), np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) * 0.5 for weight in model.weights])
    given = [
        rng.normal(size=(6, *(size or 7 for size in tensor.shape[1:]))).astype("float32") for tensor in model.inputs
    ]
    left, right = (array.reshape(*array.shape[:2], -1) for array in given)
    name = make.__name__
    np.savez(folder / f"{name}.npz", left=left, right=right, output=np.asarray(model(given))[:, 0])
    for ending in (".keras", ".h5"):
        model.save(folder / f"{name}{ending}")
    model.save_weights(folder / "weights.h5", save_format="h5")
    (folder / "weights.h5").rename(folder / f"{name}.weights.h5")


if __name__ == "__main__":
    for network in (keras2_shared, keras2_sequential, keras2_pair):
        save(network, Path(sys.argv[1]))
