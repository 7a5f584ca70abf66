"""The ONNX file: the graph with its inputs, its metadata, and onnxruntime to run it."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from towers.export.interface import Batch, Interface
from towers.export.onnx_graph import IR_VERSION, OPSET, Graph


def write_onnx(interface: Interface, path: Path) -> Callable[[Batch], tuple[Tensor, ...]]:
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
    outputs = interface.outputs()
    for entry, value in zip(outputs, interface.graph(graph), strict=True):
        graph.nodes.append(helper.make_node("Identity", [value], [entry.name]))
    declared = [
        [helper.make_tensor_value_info(entry.name, types[entry.dtype], list(entry.axes)) for entry in entries]
        for entries in (interface.inputs(), outputs)
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "towers", *declared, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="towers",
        producer_version=version("towers"),
    )
    helper.set_model_props(model, interface.metadata())
    checker: Any = onnx.checker
    checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    runtime: Any = onnxruntime
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(batch: Batch) -> tuple[Tensor, ...]:
        found = session.run([entry.name for entry in outputs], {name: value.numpy() for name, value in batch.items()})
        return tuple(torch.as_tensor(one) for one in found)

    return run
