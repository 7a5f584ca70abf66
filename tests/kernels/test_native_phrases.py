"""Words multiplied, neighbours added and features pooled in C, and the LSTM after them, beside the layers in float64."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from towers import Ragged, Tower
from towers.contracts import checks
from towers.kernels import cpu

ROUNDINGS = 16
"""Beside four times the error of torch's own operations: where theirs happens to be small, or none."""

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=f"the C code cannot run: {cpu.why_not()}")


@contextmanager
def threads_set(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def by_layers(tower: Tower) -> Iterator[None]:
    """A layer that somebody listens to is called itself."""
    handle = tower.conv.register_forward_hook(lambda *_: None)
    try:
        yield
    finally:
        handle.remove()


def found(tower: Tower, rows: Tensor, ids: Tensor | None, offsets: Tensor, wants_rows: bool) -> list[Tensor]:
    """The states, and the gradients of weights and rows."""
    rows = rows.clone().requires_grad_(wants_rows)
    sentences = Ragged(rows, offsets) if ids is None else Ragged(ids, offsets, table=rows)
    states = tower(sentences)
    inputs = [*tower.parameters(), *([rows] if wants_rows else [])]
    upstream = torch.linspace(0.1, 1, states.numel(), dtype=states.dtype).view_as(states)
    return [states.detach(), *torch.autograd.grad(states, inputs, upstream)]


@settings(max_examples=25, deadline=None)
@given(
    counts=st.sampled_from([[1], [5], [2, 1, 7], [40, 3], [1] * 50, [700, 2]]),
    width=st.sampled_from([1, 3, 16, 50, 81, 300]),
    kernel_words=st.integers(1, 4),
    sizes=st.sampled_from([(1, 1), (32, 4), (24, 8), (12, 3), (6, 2), (5, 5), (7, 1), (40, 4)]),
    kind=st.sampled_from(["vectors", "ids"]),
    equal=st.booleans(),
    double=st.booleans(),
    threads=st.sampled_from([1, 2, 3]),
    wants_rows=st.booleans(),
)
def test_states_and_gradients_are_those_of_the_layers(
    counts, width, kernel_words, sizes, kind, equal, double, threads, wants_rows
):
    torch.manual_seed(len(counts))
    (filters, pool), lengths = sizes, torch.tensor(counts) + kernel_words - 1
    tower = Tower(vector_width=width, kernel_words=kernel_words, filters=filters, pool=pool, hidden=3).double()
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    tokens = int(offsets[-1])
    ids = torch.randint(0, 30, (tokens,)) if kind == "ids" else None
    rows = torch.randn(tokens if ids is None else 30, width)
    with torch.no_grad():
        for part in tower.conv.parameters():
            part.copy_(torch.randn_like(part).float())
        if equal:  # so that several of a group are the largest
            rows = rows.sign()
            for part in tower.conv.parameters():
                part.copy_(part.sign())
        for part in tower.conv.parameters():  # phrases are around 1; a power of two, so that sums of signs stay exact
            part.mul_(2.0 ** -round(math.log2(width * kernel_words) / 2))
    with by_layers(tower):
        wanted = found(tower, rows.double(), ids, offsets, wants_rows)
    tower, rows = tower.to(torch.float64 if double else torch.float32), rows.double() if double else rows
    with by_layers(tower):
        plain = found(tower, rows, ids, offsets, wants_rows)
    with threads_set(threads):
        ours = found(tower, rows, ids, offsets, wants_rows)
        if ids is None:  # without a backward pass; of ids the product is another one then, of the whole table
            with torch.no_grad():
                assert torch.equal(tower(Ragged(rows, offsets)), ours[0])
    for one, torchs, other in zip(ours, plain, wanted, strict=True):
        rounding = torch.finfo(one.dtype).eps * max(1.0, float(other.abs().max()))
        assert (one - other).abs().max() <= 4 * (torchs - other).abs().max() + ROUNDINGS * rounding


@pytest.mark.parametrize("kind", ["vectors", "ids"])
def test_threads_change_no_bit(kind, monkeypatch):
    tower, offsets = Tower(vector_width=50), torch.arange(0, 3001, 30)
    ids = torch.randint(0, 3000, (3000,)) if kind == "ids" else None
    rows = torch.randn(3000, *([50] if ids is None else [2, 32]), requires_grad=True)
    if ids is not None:  # the product of words and weights is torch's own
        monkeypatch.setattr(tower.conv, "shares", lambda _: (rows, ids))
    sentences = Ragged(rows, offsets) if ids is None else Ragged(ids, offsets, table=torch.zeros(3000, 50))
    inputs = [rows, *[part for part in tower.parameters() if ids is None or part is not tower.conv.weight]]
    results: list[tuple[Tensor, ...]] = []
    for count in (1, 2, 2):
        with threads_set(count):
            states = tower(sentences)
            results.append((states, *torch.autograd.grad(states.square().sum(), inputs)))
    first, *others = results
    for other in others:
        assert all(torch.equal(*pair) for pair in zip(first, other, strict=True))


def test_a_nan_in_a_word_is_in_its_own_sentences_alone():
    tower, vectors = Tower(vector_width=4), torch.zeros(3, 4, 4)
    vectors[1, 0, 0] = vectors[2, 3, 3] = torch.nan
    assert tower(vectors).isnan().any(1).tolist() == [False, True, True]


@pytest.mark.parametrize("wrong", [-1, 7])
def test_an_id_that_is_no_word_is_refused_where_nobody_looked_at_it(wrong):
    with checks("off"), torch.no_grad():
        sentences = Ragged(torch.tensor([0, 1, wrong, 2]), torch.tensor([0, 4]), table=torch.ones(7, 300))
        with pytest.raises(IndexError, match=r"an id of a word is not one of the 7 words"):
            Tower()(sentences)
