"""The fused LSTM against the equations, one sentence and one step at a time: results, and each gradient by name."""

from collections.abc import Iterator

import pytest
import torch

from towers.kernels import Batch, triton
from towers.kernels.triton import lstm_wide

from .cases import Case, compare, expect, run, weights_of
from .conftest import INTERPRETED
from .rounding import bounds

MIXED = (3, 0, 1, 5, 5, 2)
EVERY = {"num_layers": 2, "bidirectional": True, "bias": "single"}
CASES = {
    **{
        f"hidden {hidden}, {'padded' if gaps else 'end to end'}": Case(
            hidden, MIXED, gaps=gaps, state=gaps, options={"bidirectional": gaps, "bias": "single" if gaps else True}
        )
        for hidden in (1, 3, 6, 8, 16, 17, 33)
        for gaps in (False, True)
    },
    "the towers' own": Case(6, MIXED, input_size=8, gaps=True, outputs=False, options={"bias": "single"}),
    "few units, many inputs": Case(6, MIXED, input_size=9, gaps=True, state=True),
    "weights too large for registers": Case(70, (2, 0, 3), options={"bidirectional": True}, state=True),
    "all at once, few units": Case(4, MIXED, gaps=True, state=True, options=EVERY),
    "all at once, many units": Case(20, MIXED, gaps=True, state=True, options=EVERY),
    "no bias, few units": Case(4, MIXED, options={"bias": False}),
    "no bias, many units": Case(18, MIXED, options={"bias": False}),
    "last states only, many units": Case(18, MIXED, outputs=False, gaps=True),
    "equal lengths": Case(6, (4, 4, 4, 4)),
    "one long": Case(6, (1, 1, 30, 2)),
    "one long, many units": Case(18, (1, 1, 20, 2)),
    "no words": Case(6, (0, 0), state=True),
    "no words, many units": Case(18, (0, 0), state=True),
    "one word": Case(6, (1,)),
    "more sentences than a tile": Case(6, (1, 2, 0, 3, 2, 1, 2, 3, 1)),
    "more sentences than a tile, many units": Case(18, (1, 2, 0, 3, 2, 1, 2, 3, 1, 1, 1, 2, 3, 1, 0, 2, 1, 2, 1)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_it_is_the_equations(case, device):
    wanted = expect(case)
    compare(run(case, device), wanted, *(bounds(case, wanted) if device.type == "cuda" else (1e-6, 1e-5)))


SORTED = {
    "padded": Case(18, (1, 2, 0, 3, 2, 1, 2, 3, 1, 1, 5, 2, 3, 1, 0, 2, 1, 2, 1), gaps=True, state=True,
                   options={"bidirectional": True}),
    "one long": Case(18, (*[1] * 17, 9, 1)),
    "bfloat16": Case(40, (2, 0, 1, 3, 1, 1, 2, 2, 4, 1), dtype=torch.bfloat16, precision=""),
}  # fmt: skip


@pytest.mark.parametrize("case", SORTED.values(), ids=SORTED.keys())
def test_tiles_of_like_lengths_give_the_callers_order(case, device, monkeypatch):
    """Where more sentences wait than a GPU can take at once; the bits of each are those of any other tile."""
    from towers.kernels.triton import lstm_shared

    before = run(case, device)
    orders = []
    monkeypatch.setattr(lstm_shared, "multiprocessors", lambda device: 0)
    monkeypatch.setattr(lstm_wide, "longest_first", noting(lstm_wide.longest_first, orders))
    found = run(case, device)
    if device.type == "cuda" or INTERPRETED:
        assert [[case.lengths[index] for index in order] for order in orders] == [sorted(case.lengths)[::-1]] * 2
    parts = ((one.h_n, one.c_n, *one.outputs, *one.gradients.values()) for one in (found, before))
    for one, other in zip(*parts, strict=True):
        assert torch.equal(one, other)


def noting(call, found):
    return lambda *arguments: (found.append(call(*arguments)), found[-1])[1]


def test_few_sentences_or_steps_are_not_sorted(monkeypatch):
    """A sort costs some 20 microseconds of the device, as much as 40 steps."""
    from towers.kernels.triton import lstm_shared

    monkeypatch.setattr(lstm_shared, "multiprocessors", lambda device: 132)
    lengths = torch.arange(4096) % 64 + 1
    for batch, rows, is_sorted in ((4096, 4096 * 64, True), (2112, 2112 * 512, False), (4096, 4096 * 40, False)):
        assert (lstm_shared.longest_first(lengths[:batch], rows, 16, 8) is not None) is is_sorted
    assert lstm_shared.longest_first(lengths, 4096 * 64, 16, 4) is None, "three programs at once"


HALF = {
    "few units": Case(6, MIXED, 8, dtype=torch.bfloat16),
    "many units": Case(20, MIXED, dtype=torch.bfloat16),
    "weights in shared memory": Case(40, MIXED, gaps=True, state=True, dtype=torch.bfloat16, precision=""),
    "as many as fit there": Case(100, (3, 0, 2), dtype=torch.bfloat16, precision="", contractive=True),
}


@pytest.mark.parametrize("case", HALF.values(), ids=HALF.keys())
def test_inputs_of_bfloat16(case, device):
    # What is left is the rounding of gates' inputs (many units) and of gradients to bfloat16, 2^-9 of each.
    wanted = expect(case)
    of_float32 = bounds(case, wanted)[0] if device.type == "cuda" else 1e-6
    compare(run(case, device), wanted, of_float32 if case.hidden == 6 else 2e-2, 2e-2)


@pytest.mark.parametrize("precision", ["tf32x3", "tf32", ""])
def test_other_precisions(precision, device):
    case = Case(33, MIXED, gaps=True, precision=precision)
    tolerance = 5e-3 if precision == "tf32" else 1e-5
    compare(run(case, device), expect(case), tolerance, 10 * tolerance)


@pytest.mark.parametrize("hidden", [6, 20])
def test_sentences_in_any_order_and_place(hidden, device):
    """Rows by start and length: the same sentences elsewhere, in another order, between rows that nobody reads."""
    case = Case(hidden, MIXED, input_size=8)
    layer, rows = case.layer(), case.rows()
    weights = weights_of(layer, {name: value.detach().float().to(device) for name, value in layer.named_parameters()})
    order = [4, 2, 5, 0, 3, 1]
    values, starts = torch.full((60, 8), float("nan")), torch.zeros(6, dtype=torch.int64)
    for rank, index in enumerate(order):
        starts[index] = 9 * rank + 2
        values[starts[index] : starts[index] + len(rows[index])] = rows[index].float()
    lengths = torch.tensor(MIXED)
    ended = [part.to(device) for part in (values, starts, lengths)]
    output, (h_n, _) = triton.run(Batch(*ended, None), None, weights)
    wanted = expect(case)
    torch.testing.assert_close(h_n.cpu().double(), wanted.h_n, rtol=0, atol=1e-5)
    for index, start in enumerate(starts.tolist()):
        found = output[start : start + MIXED[index]].cpu().double()
        torch.testing.assert_close(found, wanted.outputs[index], rtol=0, atol=1e-5)


@pytest.mark.parametrize("words", [4, 0])
@pytest.mark.parametrize("hidden", [6, 20])
def test_sentences_of_one_length(hidden, words, device):
    """Where no starts and lengths are given."""
    case = Case(hidden, (words,) * 3, state=True)
    layer = case.layer()
    weights = weights_of(layer, {name: value.detach().float().to(device) for name, value in layer.named_parameters()})
    hx = tuple(part.float().to(device) for part in case.hx(layer))
    values = torch.cat(case.rows()).float().to(device)
    output, state = triton.run(Batch(values, None, None, words), hx, weights)
    wanted = expect(case)
    assert output.shape == (3 * words, hidden)
    for found, part in zip((output, *state), (torch.cat(wanted.outputs), wanted.h_n, wanted.c_n), strict=True):
        torch.testing.assert_close(found.cpu().double(), part, rtol=0, atol=1e-5)


@pytest.mark.parametrize("hidden", [6, 20])
def test_numbers_far_out(hidden, device):
    """Gates at their ends: nothing overflows, and the usual form of tanh would give NaN."""
    layer = Case(hidden, (3,), input_size=8).layer()
    weights = weights_of(layer, {name: value.detach().float().to(device) for name, value in layer.named_parameters()})
    values = torch.tensor([300.0, -300.0, 1e4]).unsqueeze(1).expand(3, 8).contiguous().to(device).requires_grad_()
    starts, lengths = torch.zeros(1, dtype=torch.int64, device=device), torch.tensor([3], device=device)
    output, (h_n, c_n) = triton.run(Batch(values, starts, lengths, 3), None, weights)
    (output.sum() + h_n.sum() + c_n.sum()).backward()
    for part in (output, h_n, c_n, values.grad):
        assert part.isfinite().all()


@pytest.mark.parametrize("hidden", [6, 20])
def test_an_empty_batch(hidden, device):
    case = Case(hidden, ())
    layer = case.layer()
    parameters = {name: value.detach().float().to(device).requires_grad_() for name, value in layer.named_parameters()}
    values, none = torch.zeros(0, 5, device=device), torch.zeros(0, dtype=torch.int64, device=device)
    output, (h_n, c_n) = triton.run(Batch(values, none, none, None), None, weights_of(layer, parameters))
    assert output.shape == (0, hidden)
    assert h_n.shape == c_n.shape == (1, 0, hidden)
    (output.sum() + h_n.sum()).backward()
    assert all(not value.grad.any() for value in parameters.values())


@pytest.mark.parametrize("hidden", [6, 20])
def test_without_gradients_nothing_is_kept(hidden, device):
    from towers.kernels.triton.lstm_narrow import narrow_lstm

    case = Case(hidden, MIXED, input_size=8)
    layer = case.layer()
    weights = weights_of(layer, {name: value.detach().float().to(device) for name, value in layer.named_parameters()})
    rows = torch.cat(case.rows()).float().to(device)
    lengths = torch.tensor(MIXED, device=device)
    starts = lengths.cumsum(0) - lengths
    with torch.no_grad():
        wanted = triton.run(Batch(rows, starts, lengths, None), None, weights, precision="ieee")[1][0]
    weight_ih, weight_hh, first, second = (part.unsqueeze(0).requires_grad_() for part in weights.flat)
    given = (rows, weight_ih, weight_hh, first + second, starts, lengths, None, None)
    if hidden == 6:
        *steps, h_n, _ = narrow_lstm(*given, False, False, False)
    else:
        *steps, h_n, _ = lstm_wide.wide_lstm(*given, "ieee", False, False, False)
    assert not any(len(part) for part in steps)
    torch.testing.assert_close(h_n, wanted, rtol=0, atol=1e-6)
    with pytest.raises(RuntimeError, match="no gradients after keep=False"):
        h_n.sum().backward()


def test_a_second_derivative_is_refused(device):
    case = Case(6, (2, 3), input_size=8)
    layer = case.layer()
    parameters = {name: value.detach().float().to(device).requires_grad_() for name, value in layer.named_parameters()}
    lengths = torch.tensor([2, 3], device=device)
    rows = torch.cat(case.rows()).float().to(device).requires_grad_()
    batch = Batch(rows, lengths.cumsum(0) - lengths, lengths, None)
    _, (h_n, _) = triton.run(batch, None, weights_of(layer, parameters))
    (slope,) = torch.autograd.grad(h_n.square().sum(), rows, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        slope.sum().backward()


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that was not written yet is NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("hidden", [6, 20])
def test_no_memory_is_read_before_it_is_written(hidden, device, poisoned):
    if device.type == "cuda":
        pytest.skip("`test_cuda` poisons the GPU's own memory")
    case = Case(hidden, MIXED, gaps=True, options={"num_layers": 2, "bidirectional": True})
    compare(run(case, device), expect(case), 1e-6, 1e-5)


@pytest.mark.parametrize("hidden", [40, 100])
def test_states_are_multiplied_as_two_parts_of_bfloat16(hidden, device):
    """Weights of bfloat16 are exact, and two parts keep 16 bits of a state: one part would be 100 times further away."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([3, 0, 5, 1], device=device)
    inputs = torch.eye(9, dtype=torch.bfloat16).to(device)  # so that the gates' inputs are the weights themselves
    of_inputs = torch.randn(1, 4 * hidden, 9, generator=generator).bfloat16().to(device)
    weight = (torch.randn(1, 4 * hidden, hidden, generator=generator) * 2 / hidden**0.5).bfloat16().to(device)
    places = (lengths.cumsum(0) - lengths, lengths)
    found = []
    for precision in ("", "ieee"):
        results = lstm_wide.wide_lstm(
            inputs, of_inputs, weight, None, *places, None, None, precision, True, True, False
        )
        found.append((results[0], results[-2]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=5e-5)
