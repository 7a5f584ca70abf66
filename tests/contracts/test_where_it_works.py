"""A contracted module goes wherever an unchecked one goes, with the same graphs, and refuses there what does not fit."""

import copy
import io
import pickle
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from towers.contracts import ShapeContractError, attach, contract

from ..helpers.forked import Forks
from . import moved

SHAPES = [(batch, time) for batch in (2, 3, 5, 7, 11) for time in (8, 9, 13, 21)]


def encoder(version: str = "contract") -> nn.Module:
    torch.manual_seed(0)
    return moved.module(version).Encoder(layers=1).eval()


def power(batch: int = 2, time: int = 8, mel: int = 6) -> Tensor:
    return torch.rand(batch, mel, time, generator=torch.Generator().manual_seed(1))


WRONG = r"mel is 5; expected 6"


def equal(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def test_eager():
    equal(encoder()(power()), encoder("unchecked")(power()))
    with pytest.raises(ShapeContractError, match=WRONG):
        encoder()(power(mel=5))


# torch.compile and both exports.


def operations(graph: torch.fx.GraphModule) -> list[str]:
    calls = [node.target for node in graph.graph.nodes if node.op.startswith("call")]
    return sorted(getattr(target, "__name__", str(target)) for target in calls)


def graphs_of(version: str, **options: Any) -> list[list[str]]:
    """The operations of every graph that a backend is given, over twenty shapes, without those that no result needs."""
    torch._dynamo.reset()
    module, graphs = encoder(version), []

    def keep(graph: torch.fx.GraphModule, inputs: Any) -> torch.fx.GraphModule:
        graph.graph.eliminate_dead_code()  # as every compiler does: comparisons of sizes are guards by now
        graph.recompile()
        graphs.append(operations(graph))
        return graph

    compiled = torch.compile(module, backend=keep, fullgraph=True, **options)
    with torch.no_grad():
        for batch, time in SHAPES:
            lengths = torch.arange(batch) % time + 1
            equal(compiled(power(batch, time), lengths), module(power(batch, time), lengths))
    return graphs


@pytest.mark.parametrize("dynamic", [None, True])
def test_compiled_whole_with_the_graphs_and_recompilations_of_the_unchecked_module(dynamic: bool | None):
    graphs = graphs_of("contract", dynamic=dynamic)
    assert graphs == graphs_of("unchecked", dynamic=dynamic)
    assert 0 < len(graphs) < 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of inductor's own imports
def test_compiled_with_inductor():
    torch._dynamo.reset()
    module = encoder().blocks[0].feed
    equal(torch.compile(module, fullgraph=True)(torch.ones(2, 3, 8)), module(torch.ones(2, 3, 8)))


def test_compiling_refuses_what_does_not_fit():
    torch._dynamo.reset()
    with pytest.raises(ShapeContractError, match=WRONG):
        torch.compile(encoder(), backend="eager")(power(mel=5))
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=WRONG):
        torch.compile(encoder(), backend="eager", fullgraph=True)(power(mel=5))


DYNAMIC = {"power": {0: torch.export.Dim("batch"), 2: torch.export.Dim("time", min=4)}, "lengths": {0: torch.export.Dim("batch")}}  # fmt: skip


@pytest.mark.parametrize("strict", [True, False])
def test_exported_with_named_dynamic_axes(strict: bool):
    example = (power(3, 9), torch.tensor([9, 3, 4]))
    checked, unchecked = (
        torch.export.export(encoder(version), example, dynamic_shapes=DYNAMIC, strict=strict)
        for version in ("contract", "unchecked")
    )
    assert operations(checked.graph_module) == operations(unchecked.graph_module)
    [input] = [node for node in checked.graph.nodes if node.name == "power"]
    assert [isinstance(size, torch.SymInt) for size in input.meta["val"].shape] == [True, False, True]
    equal(checked.module()(power(5, 12), torch.arange(1, 6)), encoder()(power(5, 12), torch.arange(1, 6)))


@pytest.mark.parametrize("strict", [True, False])
def test_export_refuses_what_does_not_fit(strict: bool):
    with pytest.raises(Exception, match=WRONG):
        torch.export.export(encoder(), (power(mel=5),), strict=strict)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)  # of the exporter
def test_onnx(tmp_path: Path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    axes = {"power": {0: "batch", 2: "time"}}
    program = torch.onnx.export(encoder(), (power(3, 9),), dynamo=True, dynamic_shapes=axes, verbose=False)
    assert program is not None
    program.save(str(tmp_path / "encoder.onnx"))
    session = runtime.InferenceSession(str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 6, "time"]
    [result] = session.run(None, {"power": power(5, 12).numpy()})
    torch.testing.assert_close(torch.from_numpy(result), encoder()(power(5, 12)).detach(), rtol=1e-3, atol=1e-4)


# torch.func, checkpoints, autocast.


def test_vmap_grad_and_functional_call():
    module, rows = encoder(), torch.stack([power(), power() * 2])
    equal(torch.func.vmap(module)(rows)[1], module(rows[1]))
    halved = {name: weight / 2 for name, weight in module.named_parameters()}
    result = torch.func.functional_call(module, halved, (power(),))
    assert not torch.equal(result, module(power()))
    slopes = torch.func.grad(lambda weights: torch.func.functional_call(module, weights, (power(),)).sum())(halved)
    assert slopes.keys() == halved.keys()
    per_row = torch.func.vmap(torch.func.grad(lambda x: module(x).sum()))(rows)
    assert per_row.shape == rows.shape
    with pytest.raises(ShapeContractError, match=WRONG):
        torch.func.vmap(module)(torch.stack([power(mel=5)] * 2))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant: bool):
    block = encoder().blocks[0]
    x, same = (torch.ones(2, 3, 8, requires_grad=True) for _ in range(2))
    checkpoint(block, x, use_reentrant=reentrant).sum().backward()
    block(same).sum().backward()
    equal(x.grad, same.grad)
    with pytest.raises(ShapeContractError, match=r"x: width is 7; expected 8"):
        checkpoint(block, torch.ones(2, 3, 7, requires_grad=True), use_reentrant=reentrant)


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    @contract(dtype_of="linear.weight")
    def forward(self, x: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 2"]:
        return self.linear(x)


def test_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encoder()(power()).dtype is torch.bfloat16
        assert Weighted()(torch.ones(1, 3).bfloat16()).dtype is torch.bfloat16
    with pytest.raises(ShapeContractError, match=r"x is bfloat16; expected float32 \(the dtype of linear.weight\)"):
        Weighted()(torch.ones(1, 3).bfloat16())


# Other processes and threads.


def test_ddp_and_fsdp_in_two_processes(tmp_path: Path, forks: Forks):
    script = Path(__file__).parent / "two_processes.py"
    workers = [
        subprocess.Popen([forks.python, script, str(rank), str(tmp_path / "meeting")], stdout=-1, stderr=-1, text=True)
        for rank in range(2)
    ]
    for worker in workers:
        out, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err
        assert out.split() == ["DDP", "refused", "FSDP", "refused"]


class Rows(Dataset[Tensor]):
    def __len__(self) -> int:
        return 4

    @contract
    def cut(self, row: Float[Tensor, "time 3"]) -> Float[Tensor, "time 3"]:
        return row

    def __getitem__(self, index: int) -> Tensor:
        return self.cut(torch.zeros(2, 3 if index < 3 else 4))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_leaves_a_loaders_worker_with_its_class_and_message(workers: int):
    with pytest.raises(ShapeContractError, match=r"Rows.cut: row: axis 1 is 4; expected 3 \(as annotated\)"):
        list(DataLoader(Rows(), num_workers=workers))


def test_threads_do_not_share_sizes():
    module = encoder()

    def call(number: int) -> tuple[int, ...]:
        return tuple(module(power(number % 5 + 1, number % 7 + 3)).shape)

    with ThreadPoolExecutor(8) as pool:
        shapes = list(pool.map(call, range(60)))
    assert shapes == [(number % 5 + 1, (number % 7 + 4) // 2, 8) for number in range(60)]


# Copies, and tensors without numbers.


def test_deepcopy_and_pickle():
    module, file = encoder(), io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(file, weights_only=False)):
        equal(copied(power()), module(power()))
        copied.stem.mel = copied.mel = 5
        with pytest.raises(ShapeContractError, match=r"power: mel is 6; expected 5 \(self.mel\)"):
            copied(power())
    error = pickle.loads(pickle.dumps(refused(lambda: module(power(mel=5)))))
    assert (error.argument, error.axis, error.expected, error.actual) == ("power", "{self.mel}", 6, 5)


def refused(call: Callable[[], object]) -> ShapeContractError:
    with pytest.raises(ShapeContractError) as caught:
        call()
    return caught.value


def test_meta_and_fake_tensors():
    module = encoder()
    assert module.to("meta")(power().to("meta")).shape == (2, 4, 8)
    with pytest.raises(ShapeContractError, match=WRONG):
        module(power(mel=5).to("meta"))
    with FakeTensorMode() as mode:
        fake = moved.module("contract").Encoder()
        assert fake(torch.empty(3, 6, 9)).shape == (3, 5, 8)
        assert mode is not None
        with pytest.raises(ShapeContractError, match=WRONG):
            fake(torch.empty(3, 5, 9))


# Other tracers, and arrays of NumPy.


def test_symbolic_trace_passes_through():
    graph = torch.fx.symbolic_trace(Weighted())
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "output"]
    equal(graph(torch.ones(2, 3)), graph.linear(torch.ones(2, 3)))
    attached = nn.Sequential(nn.Linear(3, 2))
    attach(attached, "batch 3 -> batch 2")
    assert torch.fx.symbolic_trace(attached)(torch.ones(2, 3)).shape == (2, 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_jit_trace_checks_the_example():
    traced = torch.jit.trace(Weighted(), (torch.ones(2, 3),))
    assert traced(torch.ones(5, 3)).shape == (5, 2)
    with pytest.raises(ShapeContractError, match="axis 1 is 4; expected 3"):
        torch.jit.trace(Weighted(), (torch.ones(2, 4),))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_functions_are_left_alone():
    @torch.jit.script
    def scripted(x: Tensor) -> Tensor:
        return x + 1

    assert contract(scripted) is scripted


def test_arrays_of_numpy_in_compiled_programs():
    @contract
    def function(x: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        return x + 1

    torch._dynamo.reset()
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    assert (compiled(np.zeros((2, 3), np.float32)) == 1).all()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="axis 1 is 4; expected 3"):
        compiled(np.zeros((2, 4), np.float32))
    torch._dynamo.reset()
    with pytest.raises(ShapeContractError, match="x is int64; expected Float"):
        torch.compile(function, backend="eager")(np.zeros((2, 3), np.int64))
