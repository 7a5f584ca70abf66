"""The last states alone, in blocks of sentences: as `forward` has them, whatever else the batch holds."""

import pytest
import torch

from towers import Ragged
from towers.kernels import blocks
from towers.kernels.order import offsets_of
from towers.layers.lstm import RaggedLSTM


def batch_of(count: int, width: int, longest: int = 30) -> Ragged:
    lengths = torch.randint(0, longest, (count,), generator=torch.Generator().manual_seed(count))
    values = torch.randn(int(lengths.sum()), width, generator=torch.Generator().manual_seed(1))
    return Ragged(values, offsets_of(lengths))


@pytest.mark.parametrize("count", [1, 2, 31, 129, 700])
@pytest.mark.parametrize(("hidden", "width"), [(6, 8), (8, 3), (1, 1), (20, 8)])
def test_last_is_what_forward_has_and_so_are_its_gradients(count, hidden, width):
    torch.manual_seed(0)
    lstm, ragged = RaggedLSTM(width, hidden, bias="single", method="buckets"), batch_of(count, width)
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


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_own_sentence(bad):
    lstm, ragged = RaggedLSTM(8, 6, method="buckets"), batch_of(300, 8)
    values, offsets = ragged.values.clone(), ragged.offsets
    sentence = int(ragged.lengths.argmax())
    values[int(offsets[sentence])] = bad
    others = torch.arange(300) != sentence
    with torch.no_grad():
        broken, whole = lstm.last(Ragged(values, offsets))[0], lstm.last(ragged)[0]
    assert torch.equal(broken[others], whole[others])


def test_pairs_are_the_same_bits(monkeypatch):
    lstm, ragged = RaggedLSTM(8, 6, method="buckets"), batch_of(300, 8)
    with torch.no_grad():
        paired = lstm.last(ragged)
        monkeypatch.setattr(blocks, "NARROW", 0)
        assert torch.equal(lstm.last(ragged), paired)


def test_a_plan_covers_every_sentence_once_and_to_its_end():
    lstm, ragged = RaggedLSTM(8, 6, method="buckets"), batch_of(1000, 8)
    plan = lstm.plan(ragged.lengths, outputs=False)
    falling = ragged.lengths.sort(descending=True).values
    assert [cut.first for cut in plan.cuts[1:]] == [cut.first + cut.sizes[0] for cut in plan.cuts[:-1]]
    assert sum(cut.sizes[0] for cut in plan.cuts) == plan.running == int((ragged.lengths > 0).sum())
    assert all(cut.stop == falling[cut.first] for cut in plan.cuts)
    assert len(plan.cuts) > 1
    assert plan.tokens == len(ragged.values)
