"""The peers of the suite `tower` outside torch: Keras, in processes of its own, and ONNX Runtime."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from towers import Tower

KERAS_BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


class Elsewhere:
    """A job in another process, which measures its own time, without that of the messages between the two."""

    def __init__(self, keras: "Keras", job: str) -> None:
        self.keras, self.job = keras, job

    def __call__(self) -> None:
        self.seconds(1)

    def seconds(self, calls: int) -> float:
        return self.keras.ask(do="time", job=self.job, calls=calls)


class Keras:
    """A process with Keras on one backend. It runs `benchmarks/keras_tower.py`."""

    def __init__(self, backend: str, python: str, threads: int) -> None:
        script = Path(__file__).with_name("keras_tower.py")
        own = {"KERAS_BACKEND": backend, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
        without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [python, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=without | own,
        )

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline()
        if not reply:
            raise RuntimeError(f"Keras ended with code {self.process.wait()} at {request}")
        return json.loads(reply)

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # the process may have ended already
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def keras_python() -> str:
    return os.environ.get("KERAS_PYTHON", sys.executable)


def keras_backends() -> dict[str, str]:
    """The Keras backends that `keras_python()` can import: the name in tables -> the name in Keras."""
    script = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n)])"
    command = [keras_python(), "-c", script, "keras", *KERAS_BACKENDS]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return {f"Keras, {KERAS_BACKENDS[name]}": name for name in found if name != "keras" and "keras" in found}


@contextmanager
def keras_case(started: Mapping[str, Keras], arrays: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Load the case in every process; yields the results of each."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "case.npz"
        np.savez(file, **arrays)
        yield {name: keras.ask(do="load", file=str(file)) for name, keras in started.items()}


def keras_weights(tower: Tower, name: str) -> dict[str, np.ndarray]:
    """A tower's weights in the layout and order of Keras's layers."""
    conv, lstm = tower.conv, tower.lstm
    weights = {
        f"{name}_conv.0": conv.weight.transpose(1, 2).unsqueeze(2),
        f"{name}_conv.1": conv.bias,
        f"{name}_lstm.0": lstm.weight_ih_l0.t(),
        f"{name}_lstm.1": lstm.weight_hh_l0.t(),
        f"{name}_lstm.2": lstm.bias_ih_l0,
    }
    return {key: value.detach().numpy() for key, value in weights.items()}


def onnx_tower(tower: Tower, table: torch.Tensor | None) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """The tower in ONNX Runtime, from padded vectors or ids and their lengths; None if that is not installed."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
    conv, lstm = tower.conv, tower.lstm

    def gates(weight: torch.Tensor) -> torch.Tensor:  # torch's order is i, f, g, o; that of ONNX is i, o, f, g
        i, f, g, o = weight.chunk(4)
        return torch.cat([i, o, f, g]).unsqueeze(0)

    bias = gates(lstm.bias_ih_l0)
    values = {
        "kernel": conv.weight.transpose(0, 1).unsqueeze(1),
        "kernel_bias": conv.bias,
        "W": gates(lstm.weight_ih_l0),
        "R": gates(lstm.weight_hh_l0),
        "B": torch.cat([bias, torch.zeros_like(bias)], 1),
        "second": torch.tensor([1]),
        "last": torch.tensor([3]),
        "first": torch.tensor([0]),
    } | ({} if table is None else {"table": table})
    nodes = [
        helper.make_node("Unsqueeze", ["vectors", "second"], ["image"]),
        helper.make_node("Conv", ["image", "kernel", "kernel_bias"], ["phrases"]),  # batch, 32, steps, 1
        helper.make_node("Squeeze", ["phrases", "last"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["turned"], perm=[2, 0, 1]),  # steps, batch, 32
        helper.make_node("MaxPool", ["turned"], ["pooled"], kernel_shape=[4], strides=[4]),
        helper.make_node("LSTM", ["pooled", "W", "R", "B", "steps"], ["", "h_n"], hidden_size=tower.hidden),
        helper.make_node("Squeeze", ["h_n", "first"], ["states"]),
    ]
    if table is not None:
        nodes.insert(0, helper.make_node("Gather", ["table", "ids"], ["vectors"]))
    words = ("ids", TensorProto.INT64, ["batch", "words"])
    if table is None:
        words = ("vectors", TensorProto.FLOAT, ["batch", "words", tower.vector_width])
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info(*words), helper.make_tensor_value_info("steps", TensorProto.INT32, ["batch"])],
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", tower.hidden])],
        [numpy_helper.from_array(value.detach().contiguous().numpy(), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # waiting threads slow down others
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda given, steps: session.run(None, {words[0]: given, "steps": steps})[0]
