"""Makes variants.zip: two towers as people write them, saved by Keras in each of its formats.

Needs keras and jax, which the tests do not: `KERAS_BACKEND=jax python make_variants.py FOLDER`. Beside each network its
inputs and its output lie in NAME.npz. The files of variants.zip were made by Keras 3.15.1 with jax 0.10.2, and those
that begin with keras2 by make_keras2_variants.py. No file of Keras 1, and none with CuDNNLSTM, could be made:
test_keras.py writes them after the published layouts.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

WIDTH, FILTERS, HIDDEN = 8, 6, 5


def tower(
    sentences,
    *,
    kernel=(2, WIDTH),
    filters=FILTERS,
    pool=2,
    hidden=HIDDEN,
    squeeze="operation",
    names=(None, None),
    use_bias=True,
    **lstm,
):
    phrases = layers.Conv2D(filters, kernel, name=names[0], use_bias=use_bias)(sentences)
    if squeeze == "operation":
        phrases = ops.squeeze(phrases, 2)
    elif squeeze == "lambda":
        phrases = layers.Lambda(lambda tensor: tensor[:, :, 0, :], name="sqNone")(phrases)
    else:
        phrases = layers.Reshape((squeeze, filters))(phrases)
    pooled = layers.MaxPooling1D(pool, data_format="channels_first")(phrases)
    return layers.LSTM(hidden, name=names[1], use_bias=use_bias, **lstm)(pooled)


def tower_of_conv1d(sentences):
    pooled = layers.MaxPooling1D(2, data_format="channels_first")(layers.Conv1D(FILTERS, 2)(sentences))
    return layers.LSTM(HIDDEN)(pooled)


def head(left, right, units=3, last="sigmoid", use_bias=True):
    hidden = layers.Dense(units, "relu", use_bias=use_bias)(layers.Subtract()([left, right]))
    return layers.Dense(1, last, use_bias=use_bias)(hidden)


def inputs(*right, width=(WIDTH, 1)):
    return keras.Input((None, *width)), keras.Input((right[0] if right else 5, *width))


def sizes():
    left, right = inputs(6, width=(12, 1))
    own = {"kernel": (3, 12), "filters": 10, "pool": 5, "hidden": 4}
    return keras.Model([left, right], head(tower(left, **own), tower(right, squeeze=4, **own), 7))


def right_first():
    right, left = keras.Input((5, WIDTH, 1), name="zwei"), keras.Input((None, WIDTH, 1), name="eins")
    second = tower(right, squeeze=4, pool=3, names=("rc", "rl"))
    return keras.Model([right, left], head(tower(left, pool=3, names=("lc", "ll")), second))


def shared_layers():
    left, right = inputs(None)
    conv, reshape = layers.Conv2D(FILTERS, (2, WIDTH)), layers.Reshape((-1, FILTERS))
    pool, lstm = layers.MaxPooling1D(3, data_format="channels_first"), layers.LSTM(HIDDEN)
    return keras.Model([left, right], head(*(lstm(pool(reshape(conv(side)))) for side in (left, right))))


def shared_model():
    sentences = keras.Input((None, WIDTH, 1))
    encoder = keras.Model(sentences, tower(sentences, pool=3))
    left, right = inputs(None)
    return keras.Model([left, right], head(encoder(left), encoder(right)))


def nested_sequential():
    def encoder(words):
        steps = -1 if words is None else words - 1
        pool = layers.MaxPooling1D(3, data_format="channels_first")
        parts = [layers.Conv2D(FILTERS, (2, WIDTH)), layers.Reshape((steps, FILTERS)), pool, layers.LSTM(HIDDEN)]
        return keras.Sequential([keras.Input((words, WIDTH, 1)), *parts])

    left, right = inputs()
    first, second = encoder(None), encoder(5)
    return keras.Model([left, right], head(first(left), second(right)))


def conv1d():
    left, right = inputs(4, width=(WIDTH,))
    return keras.Model([left, right], head(tower_of_conv1d(left), tower_of_conv1d(right)))


def embedding():
    left, right = keras.Input((None,), dtype="int32"), keras.Input((5,), dtype="int32")
    table = layers.Embedding(20, WIDTH)
    return keras.Model([left, right], head(tower_of_conv1d(table(left)), tower_of_conv1d(table(right))))


def hard_sigmoid():
    left, right = inputs()
    own = {"recurrent_activation": "hard_sigmoid"}
    return keras.Model([left, right], head(tower(left, **own), tower(right, squeeze=4, **own)))


def lambdas():
    left, right = inputs()
    return keras.Model([left, right], head(tower(left, squeeze="lambda"), tower(right, squeeze=4)))


def no_bias():
    left, right = inputs()
    return keras.Model([left, right], head(tower(left, use_bias=False), tower(right, use_bias=False), use_bias=False))


def operators():
    left, right = inputs(width=(WIDTH,))
    difference = tower(ops.expand_dims(left, -1)) - tower(ops.expand_dims(right, 3))
    hidden = layers.Dropout(0.2)(layers.ReLU()(layers.Dense(3)(difference)))
    return keras.Model([left, right], layers.Activation("sigmoid")(layers.Dense(1)(hidden)))


def logits():
    left, right = inputs()
    return keras.Model([left, right], head(tower(left, dropout=0.3), tower(right, dropout=0.3), last=None))


def channels():
    left, right = inputs(width=(4, 2))
    return keras.Model([left, right], head(tower(left, kernel=(2, 4)), tower(right, kernel=(2, 4))))


def no_pool():
    left, right = inputs()
    lstm = [layers.LSTM(HIDDEN)(ops.squeeze(layers.Conv2D(FILTERS, (1, WIDTH))(side), 2)) for side in (left, right)]
    return keras.Model([left, right], head(*lstm))


def head_model():
    states = keras.Input((HIDDEN,))
    scores = keras.Model(states, layers.Dense(1, "sigmoid")(layers.Dense(3, "relu")(states)))
    left, right = inputs()
    return keras.Model([left, right], scores(layers.Subtract()([tower(left), tower(right, squeeze=4)])))


def dict_inputs():
    eins, zwei = keras.Input((None, WIDTH, 1), name="eins"), keras.Input((None, WIDTH, 1), name="zwei")
    difference = keras.Model({"a": eins, "b": zwei}, layers.Subtract()([tower(eins), tower(zwei)]))
    left, right = keras.Input((None, WIDTH, 1), name="left"), keras.Input((None, WIDTH, 1), name="also_right")
    scores = layers.Dense(1, "sigmoid")(layers.Dense(3, "relu")(difference({"b": right, "a": left})))
    return keras.Model({"left": left, "also_right": right}, {"score": scores})


NETWORKS = (sizes, right_first, shared_layers, shared_model, nested_sequential, conv1d, embedding, hard_sigmoid, lambdas, no_bias, operators, logits, channels, no_pool, head_model, dict_inputs)  # fmt: skip


def save(make, folder: Path) -> None:
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    model, rng = make(), np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    shapes = [(6, *(size or 7 for size in tensor.shape[1:])) for tensor in model.inputs]
    given = [
        rng.integers(0, 20, shape) if len(shape) == 2 else rng.normal(size=shape).astype("float32") for shape in shapes
    ]
    if make is dict_inputs:
        given = list(reversed(given))  # model.inputs has the order of names
        output = np.asarray(model(dict(zip(("left", "also_right"), given, strict=True)))["score"])[:, 0]
    else:
        output = np.asarray(model(given))[:, 0]
    left, right = (array.reshape(*array.shape[:2], -1) for array in (reversed(given) if make is right_first else given))
    name = make.__name__
    np.savez(folder / f"{name}.npz", left=left, right=right, output=output)
    for ending in (".keras", ".h5"):
        model.save(folder / f"{name}{ending}")
    model.save_weights(folder / f"{name}.weights.h5")


if __name__ == "__main__":
    for network in NETWORKS:
        save(network, Path(sys.argv[1]))
