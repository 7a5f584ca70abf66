"""torch.compile's view of a GPU that is not there: fake tensors on the device "cuda" take the branches of a real one."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from towers import RaggedLSTM, Tower
from towers.kernels.triton import support

from .conftest import INTERPRETED

pytestmark = [
    pytest.mark.skipif(INTERPRETED, reason="no kernel runs here"),
    pytest.mark.skipif(torch.version.cuda is None, reason="torch for the CPU alone cannot slice a fake CUDA tensor"),
]


@pytest.fixture
def graphs(monkeypatch):
    """Of each graph that is compiled, the operators of ours."""
    monkeypatch.setattr(support, "runs_on", lambda device: device.type == "cuda")
    monkeypatch.setattr(torch.nn.init, "uniform_", lambda tensor, *_: tensor)
    torch._dynamo.reset()
    return []


def compiled(call, graphs):
    def backend(graph, inputs):
        graphs.append([str(node.target) for node in graph.graph.nodes if "towers" in str(node.target)])
        return graph

    return torch.compile(call, fullgraph=True, backend=backend)


@pytest.mark.parametrize("hidden", [6, 20])
@pytest.mark.parametrize("name", ["last", "forward"])
def test_a_layer_compiles_whole(name, hidden, graphs):
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer = RaggedLSTM(8, hidden, device="cuda")
        words, lengths = torch.empty(4, 3, 8, device="cuda"), torch.full((4,), 2, device="cuda")
        found = compiled(getattr(layer, name), graphs)(words, lengths=lengths)
    state = found if name == "last" else found[1][0]
    assert (state.shape, state.device.type) == ((1, 4, hidden), "cuda")
    assert graphs == [["towers.narrow_lstm.default" if hidden == 6 else "towers.wide_lstm.default"]]


def test_a_layer_without_a_kernel_compiles_whole(graphs, monkeypatch):
    """All but cuDNN itself, whose fake version asks for the driver."""

    def lstm(input, state, *_):
        return input.new_empty(*input.shape[:2], state[0].shape[2]), *state

    monkeypatch.setattr(torch, "lstm", lstm)
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer = RaggedLSTM(8, 200, device="cuda")
        words, lengths = torch.empty(4, 3, 8, device="cuda"), torch.full((4,), 2, device="cuda")
        state = compiled(layer.last, graphs)(words, lengths=lengths)
    assert (state.shape, state.device.type) == ((1, 4, 200), "cuda")
    assert graphs == [[]]


def test_a_tower_compiles_whole(graphs):
    with FakeTensorMode(allow_non_fake_inputs=True):
        tower = Tower(device="cuda")
        words, lengths = torch.empty(4, 3, 300, device="cuda"), torch.full((4,), 2, device="cuda")
        states = compiled(tower, graphs)(words, lengths)
    assert (states.shape, states.device.type) == ((4, 6), "cuda")
    assert graphs == [["towers.phrase_features.default", "towers.narrow_lstm.default"]]
