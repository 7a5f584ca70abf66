"""Groups of sentences of like lengths through torch.lstm: as if each sentence were alone, on the CPU and on devices."""

from itertools import combinations, pairwise

import pytest
import torch

from towers import Ragged
from towers.kernels import Batch, torch_lstm
from towers.kernels.cpu import threads
from towers.kernels.order import offsets_of
from towers.kernels.torch_lstm import Cost
from towers.layers.lstm import RaggedLSTM

from ..helpers import reference

torch_alone = pytest.mark.parametrize("backend", ["torch"], indirect=True)


def batch_of(count: int, width: int, longest: int = 30) -> Ragged:
    lengths = torch.randint(0, longest, (count,), generator=torch.Generator().manual_seed(count))
    values = torch.randn(int(lengths.sum()), width, generator=torch.Generator().manual_seed(1))
    return Ragged(values, offsets_of(lengths))


@pytest.fixture
def many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups wherever one may end that saves a row."""
    monkeypatch.setattr(torch_lstm, "_cost", lambda *_, **__: Cost(0.0, 0.0, 1.0))


@torch_alone
@pytest.mark.usefixtures("backend", "many_groups")
@pytest.mark.parametrize("padded", [False, True], ids=["ragged", "padded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": "single", "proj_size": 2}, {"bias": False}]
)
def test_groups_are_as_if_every_sentence_were_alone_and_so_are_gradients(options, dtype, padded):
    lstm = reference.number_weights(RaggedLSTM(3, 5, **options, dtype=dtype))
    lengths = [4, 9, 0, 1, 4, 7, 7, 2, 9, 3, 0, 12]
    rows = [row.requires_grad_() for row in reference.sentences(lengths, 3, dtype)]
    state = [torch.randn(lstm.state_rows, 12, width, dtype=dtype) for width in (lstm.state_width, 5)]
    alone = [reference.lstm(row, lstm, *(part[:, at] for part in state)) for at, row in enumerate(rows)]
    wanted = [torch.cat([output for output, _, _ in alone])]
    wanted += [torch.stack(parts, 1) for parts in list(zip(*alone, strict=True))[1:]]
    if padded:
        x, known = reference.pad(rows, 14)
        output, ends = lstm(x, tuple(state), lengths=known)
        assert not output[torch.arange(14) >= known.unsqueeze(1)].any()
        output = output[torch.arange(14) < known.unsqueeze(1)]
    else:
        ragged, ends = lstm(Ragged.from_list(rows), tuple(state))
        output = ragged.values
    inputs, tolerance = [*rows, *lstm.parameters()], 1e-5 if dtype == torch.float32 else 1e-11
    gradients = []
    for results in (wanted, [output, *ends]):
        weighted = [
            (part * torch.linspace(-1, 1, part.numel(), dtype=dtype).view(part.shape)).sum() for part in results
        ]
        gradients.append(torch.autograd.grad(sum(weighted), inputs, materialize_grads=True))
    for one, other in zip([output, *ends, *gradients[1]], [*wanted, *gradients[0]], strict=True):
        largest = max(1.0, float(other.detach().abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * largest)


@torch_alone
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("count", [1, 2, 31, 129, 700])
@pytest.mark.parametrize(("hidden", "width"), [(6, 8), (8, 3), (1, 1), (20, 8)])
def test_last_is_what_forward_has_and_so_are_its_gradients(count, hidden, width):
    lstm, ragged = RaggedLSTM(width, hidden, bias="single"), batch_of(count, width)
    state = (torch.randn(1, count, hidden), torch.randn(1, count, hidden))
    found: list[list[torch.Tensor]] = []
    for run in (lstm.last, lambda *given: lstm(*given)[1][0]):
        values, starts = ragged.values.clone().requires_grad_(), [part.clone().requires_grad_() for part in state]
        with torch.no_grad():
            quick = run(ragged, state)
        h_n = run(Ragged(values, ragged.offsets), tuple(starts))
        torch.testing.assert_close(h_n, quick, rtol=0, atol=1e-6)
        lstm.zero_grad()
        (h_n * torch.linspace(-1, 1, h_n.numel()).view_as(h_n)).sum().backward()
        found.append([quick, values.grad, *[part.grad for part in starts], *[p.grad for p in lstm.parameters()]])
    for one, other in zip(*found, strict=True):
        largest = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * max(1.0, largest))


@torch_alone
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("groups", ["one", "many"])
@pytest.mark.parametrize("shortest", [0, 1])
@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_last_states_of_padded_sentences_and_their_gradients(groups, shortest, bad, request):
    if groups == "many":
        request.getfixturevalue("many_groups")
    lstm = reference.number_weights(RaggedLSTM(3, 5))
    lengths = torch.randint(shortest, 13, (40,), generator=torch.Generator().manual_seed(0))
    lengths[:2] = torch.tensor([shortest, 12])
    x = torch.randn(40, 14, 3).masked_fill((torch.arange(14) >= lengths.unsqueeze(1)).unsqueeze(2), bad)
    chosen = torch_lstm.choose(Batch(x, None, lengths, 14), 40, lstm._weights())
    assert (len(chosen.groups) > 1) == (groups == "many")
    state, found = [torch.randn(1, 40, 5) for _ in range(2)], []
    for run in (lambda x, hx: lstm.last(x, hx, lengths=lengths), lambda x, hx: lstm(x, hx, lengths=lengths)[1][0]):
        inputs = [part.clone().requires_grad_() for part in (x, *state)]
        h_n = run(inputs[0], tuple(inputs[1:]))
        weighted = (h_n * torch.linspace(-1, 1, h_n.numel()).view_as(h_n)).sum()
        found.append([h_n, *torch.autograd.grad(weighted, [*inputs, *lstm.parameters()])])
    assert torch.equal(found[0][0][0, lengths == 0], state[0][0, lengths == 0])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * max(1.0, float(other.detach().abs().max())))


@torch_alone
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_own_sentence(bad, gradients):
    lstm, ragged = RaggedLSTM(8, 6), batch_of(300, 8)
    values, offsets = ragged.values.clone(), ragged.offsets
    sentence = int(ragged.lengths.argmax())
    first = int(offsets[sentence])
    values[first] = bad
    others = torch.arange(300) != sentence
    with torch.set_grad_enabled(gradients):
        values.requires_grad_(gradients)
        broken, whole = lstm.last(Ragged(values, offsets))[0], lstm.last(ragged)[0]
        assert torch.equal(broken[others], whole[others])
        if gradients:
            (gradient,) = torch.autograd.grad(broken.sum(), values)
            assert gradient[:first].isfinite().all()
            assert gradient[int(offsets[sentence + 1]) :].isfinite().all()


@torch_alone
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("lengths", [[3, 5, 0], [5, 5, 5]], ids=["different", "equal"])
@pytest.mark.parametrize("last", [False, True], ids=["outputs", "last"])
def test_gradients_of_gradients_are_those_of_the_equations(lengths, last):
    lstm = reference.number_weights(RaggedLSTM(3, 5))
    exact = reference.number_weights(RaggedLSTM(3, 5, dtype=torch.float64))
    rows = reference.sentences(lengths, 3)
    found = []
    for module, dtype in ((lstm, torch.float32), (exact, torch.float64)):
        own = [row.to(dtype).requires_grad_() for row in rows]
        zero = torch.zeros(1, 5, dtype=dtype)
        if module is exact:
            ends = [reference.lstm(row, exact, zero, zero) for row in own]
            parts = [h for _, h, _ in ends] if last else [part for end in ends for part in end]
        elif last:
            parts = [lstm.last(Ragged.from_list(own))]
        else:
            output, state = lstm(Ragged.from_list(own))
            parts = [output.values, *state]
        inputs = [*own, *module.parameters()]
        first = torch.autograd.grad(
            sum(part.square().sum() for part in parts), inputs, create_graph=True, materialize_grads=True
        )
        second = torch.autograd.grad(sum(part.square().sum() for part in first), inputs, materialize_grads=True)
        found.append([*first, *second])
    for one, other in zip(*found, strict=True):
        largest = max(1.0, float(other.detach().abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-4 * largest)


@torch_alone
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("lengths", [[3, 5], [5, 5]], ids=["different", "equal"])
def test_dropout_between_layers_is_drawn_without_gradients_too(lengths):
    lstm, x = RaggedLSTM(3, 5, num_layers=2, dropout=0.5), torch.randn(2, 5, 3)
    with torch.no_grad():
        one, other = (lstm(x, lengths=torch.tensor(lengths))[0] for _ in range(2))
        assert not torch.equal(one, other)
        lstm.eval()
        assert torch.equal(*(lstm(x, lengths=torch.tensor(lengths))[0] for _ in range(2)))


@torch_alone
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("count", "changes"), [(2, [1, 2]), (900, [])], ids=["small", "large"])
def test_small_calls_take_one_thread_forward_and_backward(count, changes, monkeypatch):
    lstm, x, lengths = RaggedLSTM(8, 6), torch.randn(count, 9, 8), torch.arange(count) % 9 + 1
    before, set_own = torch.get_num_threads(), threads._omp_set_num_threads()
    found = list[int]()
    torch.set_num_threads(2)
    monkeypatch.setattr(threads, "_omp_set_num_threads", lambda: lambda one: (found.append(one), set_own(one))[1])
    try:
        h_n = lstm.last(x, lengths=lengths)
        assert found == changes
        h_n.sum().backward()
        assert found == 2 * changes
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_no_other_groups_cost_less():
    """Against every choice of ends, by brute force, where all places are candidates."""
    lengths, cost = [60, 9, 8, 8, 5, 2, 2, 0], Cost(20.0, 0.5, 1.0)
    groups, total = torch_lstm._cheapest(lengths, cost)

    def price(ends: tuple[int, ...]) -> float:
        bounds = [0, *ends, len(lengths)]
        return sum(cost.of(last - first, max(lengths[first], 1)) for first, last in pairwise(bounds))

    choices = [ends for count in range(len(lengths)) for ends in combinations(range(1, len(lengths)), count)]
    assert total == pytest.approx(min(map(price, choices)))
    assert total == pytest.approx(sum(cost.of(group.sentences, group.steps) for group in groups))
    assert sum(group.sentences for group in groups) == len(lengths)
    assert len(groups) > 1


# For devices: one group, and the lengths are not looked at; it is plain torch, and runs here too.


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": "single"}, {"bias": False}])
def test_one_group_for_devices(options):
    lstm = reference.number_weights(RaggedLSTM(3, 5, **options, dtype=torch.float64))
    x, lengths = reference.pad(reference.sentences([3, 0, 7, 7, 1], 3))
    hx = tuple(torch.randn(lstm.state_rows, 5, 5).double() for _ in range(2))
    wanted, wanted_state = lstm(x, hx, lengths=lengths)
    for batch in (Batch(x, None, lengths, 7), Batch(x, None, lengths, 7).flat(5)):
        groups = torch_lstm.Groups(batch, torch_lstm.Choice([torch_lstm.Group(5, 7)]))
        output, state = torch_lstm.run_groups(groups, hx, lstm._weights(), outputs=True)
        torch.testing.assert_close(output.view(wanted.shape), wanted)
        torch.testing.assert_close(state, wanted_state)
    nothing = Batch(x[:, :0], None, None, 0).flat(5)
    ends = torch_lstm.run(nothing, hx, lstm._weights())[1]
    assert all(torch.equal(end, given) and end is not given for end, given in zip(ends, hx, strict=True))
