"""Eager calls that go straight to the kernels: each sentence as the slow reference has it, results and gradients."""

import copy

import pytest
import torch
from torch import Tensor

from towers import Ragged, RaggedLSTM, Tower
from towers.kernels.triton import lstm_narrow, support
from towers.layers import fused, lstm

from ...helpers import reference
from .cases import close
from .conftest import INTERPRETED

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="the kernels run in Triton's interpreter")
LENGTHS = [3, 0, 5, 1, 2]


@pytest.fixture(autouse=True)
def taken(monkeypatch) -> list[bool]:
    """Of each call, whether it went straight to the kernels."""
    found: list[bool] = []

    def seen(call):
        def run(*given, **options):
            result = call(*given, **options)
            found.append(result is not None)
            return result

        return run

    monkeypatch.setattr(support, "runs_on", lambda device: True)
    monkeypatch.setattr(lstm, "run_plain", seen(lstm.run_on_gpu))
    monkeypatch.setattr(fused, "_on_device", lambda conv: True)
    monkeypatch.setattr(fused, "tower_states", seen(fused.tower_states))
    return found


def states_of(exact: RaggedLSTM, rows: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    zero = torch.zeros(1, exact.hidden_size, dtype=torch.float64)
    found = [reference.lstm(row, exact, zero, zero) for row in rows]
    return [output for output, _, _ in found], torch.stack([h for _, h, _ in found], 1)


@pytest.mark.parametrize("kind", ["padded", "int32 lengths", "one length", "ragged"])
@pytest.mark.parametrize("bias", [True, "single", False])
def test_a_layer(bias, kind, taken):
    exact = reference.number_weights(RaggedLSTM(5, 6, bias=bias)).double()
    layer = copy.deepcopy(exact).float()
    rows = reference.sentences([4] * 3 if kind == "one length" else LENGTHS, 5, torch.float32)
    exact_rows = [row.double().requires_grad_() for row in rows]
    outputs, last = states_of(exact, exact_rows)
    (sum(output.square().sum() for output in outputs) + (3 * last).sum()).backward()

    words, lengths = reference.pad(rows, words=4 if kind == "one length" else 7)
    given = Ragged.from_list(rows) if kind == "ragged" else words
    leaf = (given.values if kind == "ragged" else given).requires_grad_()
    lengths = {"padded": lengths, "int32 lengths": lengths.int()}.get(kind)
    output, (h_n, _) = layer(given, lengths=lengths)
    close(h_n, last, 1e-6, "h_n")
    found = output.to_list() if kind == "ragged" else [output[at, : len(row)] for at, row in enumerate(rows)]
    for one, other in zip(found, outputs, strict=True):
        close(one, other, 1e-6, "output")
    values = output.values if kind == "ragged" else output
    assert values.isfinite().all(), "output past a sentence's end is 0"
    (values.square().sum() + (3 * h_n).sum()).backward()
    gradients = leaf.grad.split([len(row) for row in rows]) if kind == "ragged" else leaf.grad
    for at, row in enumerate(exact_rows):
        if len(row):
            close(gradients[at][: len(row)], row.grad, 1e-5, "gradient of a sentence")
        assert kind == "ragged" or not gradients[at][len(row) :].any()
    for name, parameter in exact.named_parameters():
        close(dict(layer.named_parameters())[name].grad, parameter.grad, 1e-5, f"gradient of {name}")
    with torch.no_grad():
        close(layer.last(given, lengths=lengths), last, 1e-6, "last")
    assert taken == [True, True]


def test_sums_of_several_launches(monkeypatch):
    """A program adds what it finds in the next launch to its own sums."""
    rows = reference.sentences([2, 1, 3, 1, 2, 0, 1, 2, 1, 3], 5, torch.float32)
    exact = reference.number_weights(RaggedLSTM(5, 6)).double()
    states_of(exact, [row.double() for row in rows])[1].sum().backward()
    layer = copy.deepcopy(exact).float()
    layer.zero_grad()
    monkeypatch.setattr(lstm_narrow, "PROGRAMS", 2)
    layer.last(Ragged.from_list(rows)).sum().backward()
    for name, parameter in exact.named_parameters():
        close(dict(layer.named_parameters())[name].grad, parameter.grad, 1e-5, f"gradient of {name}")


@pytest.mark.parametrize("bidirectional", [False, True], ids=["straight", "by the operator"])
def test_another_default_dtype_changes_nothing(bidirectional, taken):
    layer = RaggedLSTM(5, 6, bidirectional=bidirectional)
    words, lengths = torch.randn(3, 4, 5, requires_grad=True), torch.tensor([4, 1, 2])
    wanted = (words, *layer.parameters())

    def results() -> list[Tensor]:
        output, state = layer(words, lengths=lengths)
        total = output.square().sum() + sum(part.square().sum() for part in state)
        return [output, *state, *torch.autograd.grad(total, wanted)]

    expected = results()
    torch.set_default_dtype(torch.float64)
    try:
        found = results()
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
    assert taken == [not bidirectional] * 2


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5)])
def test_no_sentences_and_no_steps(shape, taken):
    layer, words = RaggedLSTM(5, 6), torch.zeros(shape, requires_grad=True)
    output, (h_n, _) = layer(words)
    assert (output.shape, h_n.shape) == ((*shape[:2], 6), (1, shape[0], 6))
    assert not h_n.any()
    h_n.sum().backward()
    assert not layer.weight_hh_l0.grad.any()
    assert taken == [True]


def test_what_takes_another_way(taken, monkeypatch):
    monkeypatch.setattr(lstm.RaggedLSTM, "run_batch", lambda *_, **__: (None, (torch.zeros(1), torch.zeros(1))))
    words = torch.zeros(2, 3, 5)
    state = (torch.zeros(1, 2, 6), torch.zeros(1, 2, 6))
    for layer, given in (
        (RaggedLSTM(5, 6), (words, state)), (RaggedLSTM(5, 9), (words,)), (RaggedLSTM(5, 6).double(), (words.double(),)),
        (RaggedLSTM(5, 6, bidirectional=True), (words,)), (RaggedLSTM(5, 6, num_layers=2), (words,)),
        (RaggedLSTM(5, 6, recurrent_activation="hard_sigmoid"), (words,)),
    ):  # fmt: skip
        layer._run(*given, *[None] * (3 - len(given)), outputs=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        RaggedLSTM(5, 6)._run(words, None, None, outputs=False)
    for count in (1, 3):  # contracts are off: a kernel would read beyond their end
        RaggedLSTM(5, 6)._run(words, None, torch.ones(count, dtype=torch.int64), outputs=False)
    assert taken == [False] * 9


def test_a_weight_that_changes_is_seen(taken):
    layer, words = reference.number_weights(RaggedLSTM(5, 6)), torch.ones(1, 2, 5)
    with torch.no_grad():
        before = layer.last(words)
        layer.weight_hh_l0.mul_(2)
        after = layer.last(words)
        layer.weight_hh_l0 = torch.nn.Parameter(layer.weight_hh_l0 / 2)
        assert torch.equal(layer.last(words), before)
    assert not torch.equal(after, before)
    assert taken == [True] * 3


@pytest.mark.parametrize("kind", ["padded", "one length", "ragged"])
def test_a_tower(kind, taken):
    exact = reference.number_weights(Tower(vector_width=20)).double()
    tower = copy.deepcopy(exact).float()
    rows = reference.sentences([4] * 3 if kind == "one length" else [3, 7, 2, 5], 20, torch.float32)
    exact_rows = [row.double().requires_grad_() for row in rows]
    wanted = torch.stack([reference.tower(row, exact) for row in exact_rows])
    wanted.square().sum().backward()
    words, lengths = reference.pad(rows)
    given = (Ragged.from_list(rows),) if kind == "ragged" else (words, *[lengths] * (kind == "padded"))
    leaf = (given[0].values if kind == "ragged" else words).requires_grad_()
    found = tower(*given)
    close(found, wanted, 1e-5, "states")
    found.square().sum().backward()
    gradients = leaf.grad.split([len(row) for row in rows]) if kind == "ragged" else leaf.grad
    for at, row in enumerate(exact_rows):
        close(gradients[at][: len(row)], row.grad, 1e-4, "gradient of vectors")
        assert not gradients[at][len(row) :].any()
    for name, parameter in exact.named_parameters():
        close(dict(tower.named_parameters())[name].grad, parameter.grad, 1e-4, f"gradient of {name}")
    with torch.no_grad():
        close(tower(*given), wanted, 1e-5, "states")
    assert taken == [True, True]


def test_a_second_derivative_is_refused():
    layer, words = RaggedLSTM(5, 6), torch.ones(1, 2, 5, requires_grad=True)
    (slope,) = torch.autograd.grad(layer.last(words).square().sum(), words, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
