"""The towers in Keras, in a process of its own, for the suite `tower`: a line with a JSON request in, a reply out.

    KERAS_BACKEND=jax python keras_tower.py

Requests:

- {"do": "load", "file": FILE.npz} builds the network, with weights and sentences from the file, and replies
  with its results.
- {"do": "time", "job": JOB, "calls": N} replies with the seconds of a call. JOB is "forward vectors", "forward ids",
  "training vectors" or "training ids".

Sentences are padded, and padding counts as words, because Keras's Conv2D passes no mask on.
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
replies, sys.stdout = sys.stdout, sys.stderr  # libraries print too, and that is no reply

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402

if keras.backend.backend() == "torch":
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


def tower(words: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """(batch, words, 300) -> (batch, 6), the tower of the original network."""
    phrases = layers.Conv2D(32, (2, 300), name=f"{name}_conv")(layers.Reshape((-1, 300, 1))(words))
    pooled = layers.MaxPooling1D(4, data_format="channels_first")(layers.Reshape((-1, 32))(phrases))
    return layers.LSTM(6, name=f"{name}_lstm")(pooled)


def network(sides: list[str], table: np.ndarray | None) -> keras.Model:
    """The network from vectors or, with a table of vectors, from word ids."""
    lengths = {"left": None, "right": 5}
    shape = () if table is not None else (300,)
    inputs = [keras.Input((lengths[side], *shape), dtype="float32" if shape else "int32") for side in sides]
    words = inputs
    if table is not None:
        embedding = layers.Embedding(*table.shape, trainable=False, name="embedding")
        words = [embedding(ids) for ids in inputs]
        embedding.set_weights([table])
    states = [tower(some, side) for some, side in zip(words, sides, strict=True)]
    if len(sides) == 1:
        model = keras.Model(inputs, states)
        model.compile(keras.optimizers.Adam(1e-6), "mean_squared_error")
        return model
    units = layers.Dense(16, "relu", name="dense")(layers.Subtract()(states))
    model = keras.Model(inputs, layers.Dense(1, "sigmoid", name="logit")(units))
    model.compile(keras.optimizers.Adam(1e-6), "binary_crossentropy")
    return model


class Served:
    """The networks and sentences of the latest file."""

    def load(self, file: str) -> dict:
        case = dict(np.load(file))
        sides = [side for side in ("left", "right") if side in case]
        wanted = case.get("labels", np.zeros((len(case["left"]), 6), np.float32))
        self.wanted = keras.ops.convert_to_tensor(wanted)
        self.models, self.given, results = {}, {}, {}
        for kind in ("vectors", "ids"):
            model = network(sides, case["table"] if kind == "ids" else None)
            for name in ("left_conv", "left_lstm", "right_conv", "right_lstm", "dense", "logit"):
                weights = [case[key] for key in sorted(case) if key.startswith(f"{name}.")]
                if weights:
                    model.get_layer(name).set_weights(weights)
            ids = [case[side].astype("int32") for side in sides]
            given = ids if kind == "ids" else [case["table"][some] for some in ids]
            self.models[kind] = model
            self.given[kind] = [keras.ops.convert_to_tensor(some) for some in given]
            results[kind] = np.asarray(model.predict_on_batch(self.given[kind])).ravel().tolist()
        return results

    def time(self, job: str, calls: int) -> float:
        phase, kind = job.split(" ")
        model, given = self.models[kind], self.given[kind]
        start = time.perf_counter()
        for _ in range(calls):
            if phase == "forward":
                model.predict_on_batch(given)
            else:
                model.train_on_batch(given, self.wanted)
        return (time.perf_counter() - start) / calls


def main() -> None:
    served = Served()
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        print(json.dumps(getattr(served, do)(**request)), file=replies, flush=True)


if __name__ == "__main__":
    main()
