"""The ONNX file: the graph with its inputs, its metadata, and onnxruntime to run it."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from towers.export.interface import Interface
from towers.export.onnx_graph import IR_VERSION, OPSET, Graph, towers_graph


def write_onnx(interface: Interface, path: Path) -> Callable[[dict[str, Tensor]], Tensor]:
    """Write the file; the function runs it in onnxruntime.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
    """
    try:
        import onnx
        import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        raise ImportError('ONNX files are written with onnx, and compared: pip install "towers[onnx]"') from None
    helper: Any = onnx.helper
    graph, types = Graph(), {torch.float32: onnx.TensorProto.FLOAT, torch.int64: onnx.TensorProto.INT64}
    names: dict[str, str | None] = {"left_lengths": None, "right_lengths": None}
    names |= {entry.name: entry.name for entry in interface.inputs()}
    if interface.source == "ids":
        table = names.get("table") or graph.constant(interface.table.numpy() if interface.table is not None else 0)
        names |= {side: graph.node("Gather", table, side, axis=0) for side in ("left", "right")}
    logit = towers_graph(graph, interface.model, names)
    graph.nodes.append(helper.make_node("Identity", [logit], ["logit"]))
    inputs = [
        helper.make_tensor_value_info(entry.name, types[entry.dtype], list(entry.axes)) for entry in interface.inputs()
    ]
    output = helper.make_tensor_value_info("logit", onnx.TensorProto.FLOAT, ["batch"])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "two_towers", inputs, [output], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="towers",
        producer_version=version("towers"),
    )
    helper.set_model_props(model, metadata(interface))
    checker: Any = onnx.checker
    checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    runtime: Any = onnxruntime
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(batch: dict[str, Tensor]) -> Tensor:
        (found,) = session.run(["logit"], {name: value.numpy() for name, value in batch.items()})
        return torch.as_tensor(found)

    return run


def metadata(interface: Interface) -> dict[str, str]:
    """What the file says of itself: each input with its axes, and what a tower demands."""
    demands = {
        side: f"words >= {tower.kernel_words}" if tower.words is None else f"words == {tower.words}"
        for side, tower in interface.sides()
    }
    return {
        "inputs": json.dumps({entry.name: list(entry.axes) for entry in interface.inputs()}),
        "demands": json.dumps(demands),
        "output": "logit (batch): its sigmoid is the probability",
    }
