"""Calls replayed from CUDA graphs: on a GPU as the module's own, and without one what is captured and when."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from towers import RaggedLSTM, Tower
from towers.layers import cuda_graphs
from towers.layers.cuda_graphs import Replayed

from ..helpers import reference


class Recorded:
    """In place of a CUDA graph: a replay calls the module again on the same memory."""

    made = 0

    def __init__(self) -> None:
        Recorded.made += 1

    def replay(self) -> None:
        if isinstance(self.found, torch.Tensor):
            self.found.copy_(self.call())


class Stream:
    def wait_stream(self, other: "Stream") -> None:
        pass


@pytest.fixture
def captured(monkeypatch) -> None:
    """Captures and replays without a GPU."""
    Recorded.made = 0
    monkeypatch.setattr(cuda_graphs, "_can_be_replayed", lambda given: not torch.is_grad_enabled())
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)

    @contextmanager
    def graph(made):
        yield

    monkeypatch.setattr(torch.cuda, "graph", graph)
    real = Replayed._captured

    def capture(self, given, weights):
        kept = real(self, given, weights)
        kept.graph.found, kept.graph.call = kept.found, lambda: self.module(*kept.given)
        return kept

    monkeypatch.setattr(Replayed, "_captured", capture)


def test_one_graph_for_each_shape_and_results_of_their_own(captured):
    tower = reference.number_weights(Tower(vector_width=20))
    replayed, first, second = Replayed(tower), torch.randn(3, 4, 20), torch.randn(3, 4, 20)
    lengths = torch.tensor([2, 4, 3])
    with torch.no_grad():
        found = [replayed(words, lengths) for words in (first, second, first)]
        for one, words in zip(found, (first, second, first), strict=True):
            torch.testing.assert_close(one, tower(words, lengths))
        assert Recorded.made == 1
        replayed(first)
        replayed(first[:2], lengths[:2])
        assert Recorded.made == 3
        tower.lstm.weight_hh_l0.mul_(2)
        torch.testing.assert_close(replayed(first, lengths), tower(first, lengths))
        assert Recorded.made == 3, "weights in place are seen"
        tower.lstm.weight_hh_l0 = torch.nn.Parameter(tower.lstm.weight_hh_l0 / 2)
        torch.testing.assert_close(replayed(first, lengths), found[0])
        assert Recorded.made == 4, "weights elsewhere are captured"


def test_the_graph_used_longest_ago_makes_room(captured):
    layer = RaggedLSTM(5, 6)
    replayed = Replayed(layer.last, layer, most=2)
    with torch.no_grad():
        for batch in (1, 2, 1, 3, 1, 2):
            replayed(torch.zeros(batch, 3, 5))
    assert Recorded.made == 4, "2 made room for 3"
    assert len(replayed.graphs) == 2


class Noted(torch.nn.Linear):
    """Returns a list, and notes where it ran."""

    def forward(self, words):
        self.noted = (torch.is_inference_mode_enabled(), torch.is_autocast_cache_enabled())
        return [super().forward(words)]


def test_a_graph_outlives_the_modes_it_was_captured_in(captured):
    layer, words = Noted(5, 3), torch.randn(2, 5)
    replayed = Replayed(layer)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        (small,) = replayed(words)
        assert layer.noted == (False, False), "autocast's copies of weights end with it"
        assert torch.is_autocast_cache_enabled()
    assert small.dtype == torch.bfloat16
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        replayed(words + 1)
    assert Recorded.made == 1


def test_autocast_and_precision_have_graphs_of_their_own(captured, monkeypatch):
    layer, words = torch.nn.Linear(5, 3), torch.randn(2, 5)
    replayed = Replayed(layer)
    with torch.no_grad():
        assert replayed(words).dtype == torch.float32
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert replayed(words).dtype == torch.bfloat16
        monkeypatch.setattr(cuda_graphs, "torch_precision", lambda: "tf32")
        replayed(words)
    assert Recorded.made == 3


def test_results_of_any_kind_have_memory_of_their_own(captured):
    layer = Noted(5, 3)
    replayed = Replayed(layer)
    with torch.no_grad():
        (first,), (second,) = replayed(torch.zeros(2, 5)), replayed(torch.zeros(2, 5))
        assert first.data_ptr() != second.data_ptr()


def test_a_batch_of_no_sentences_has_no_graph(captured):
    layer = RaggedLSTM(5, 6)
    with torch.no_grad():
        assert Replayed(layer.last, layer)(torch.zeros(0, 3, 5)).shape == (1, 0, 6)
    assert Recorded.made == 0


def test_other_calls_are_the_modules_own():
    layer = RaggedLSTM(5, 6)
    replayed, words = Replayed(layer.last, layer), torch.randn(2, 3, 5)
    torch.testing.assert_close(replayed(words), layer.last(words))
    with torch.no_grad():
        torch.testing.assert_close(replayed(words), layer.last(words))
    assert not replayed.graphs


def test_what_is_refused():
    with pytest.raises(ValueError, match="owner="):
        Replayed(RaggedLSTM(5, 6).last)
    with pytest.raises(ValueError, match=r"most \(0\) must be at least 1"):
        Replayed(RaggedLSTM(5, 6), most=0)


@pytest.mark.cuda
@pytest.mark.parametrize("hidden", [6, 20, 64])
def test_a_layer_on_a_gpu(hidden):
    layer = RaggedLSTM(8, hidden, device="cuda")
    replayed = Replayed(lambda words, lengths: layer.last(words, lengths=lengths), layer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            words = torch.randn(32, 12, 8, generator=generator).cuda()
            lengths = torch.randint(0, 13, (32,), generator=generator).cuda()
            torch.testing.assert_close(replayed(words, lengths), layer.last(words, lengths=lengths), rtol=0, atol=0)
    assert len(replayed.graphs) == 1


@pytest.mark.cuda
def test_a_capture_of_ones_own_on_a_gpu():
    """CUDA starts no graph in a stream that is captured: there the module's own call is captured."""
    layer, words = RaggedLSTM(8, 6, device="cuda"), torch.randn(4, 3, 8, device="cuda")
    replayed, graph = Replayed(layer.last, layer), torch.cuda.CUDAGraph()
    with torch.no_grad():
        wanted = replayed(words)
        with torch.cuda.graph(graph):
            found = replayed(words)
        graph.replay()
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.cuda
def test_a_tower_on_a_gpu():
    tower, generator = Tower(device="cuda"), torch.Generator().manual_seed(0)
    replayed = Replayed(tower)
    with torch.no_grad():
        for _ in range(3):
            words = torch.randn(32, 12, 300, generator=generator).cuda()
            lengths = torch.randint(2, 13, (32,), generator=generator).cuda()
            torch.testing.assert_close(replayed(words, lengths), tower(words, lengths), rtol=0, atol=0)
    assert len(replayed.graphs) == 1
