"""Words multiplied, neighbours added and features pooled, in C, beside the same written plainly."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from towers import Ragged, Tower
from towers.contracts import checks
from towers.kernels import cpu
from towers.kernels.cpu import phrases_call

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=f"the C code cannot run: {cpu.why_not()}")


def plainly(shares: Tensor, bias: Tensor, ids: Tensor | None, pool: int) -> Tensor:
    tokens, kernel_positions = shares if ids is None else shares[ids], shares.shape[1]
    count = max(len(tokens) - kernel_positions + 1, 0)
    phrases = sum(tokens[position : position + count, position] for position in range(kernel_positions)) + bias
    return F.max_pool1d(phrases.unsqueeze(1), pool).squeeze(1)


Found = tuple[Tensor, ...]
"""Pooled features, and the gradients of what they were made from."""


def upstream_of(features: Tensor) -> Tensor:
    return torch.linspace(0.1, 1, features.numel(), dtype=features.dtype).view_as(features)


def plain_gradients(given: list[Tensor], features: Tensor) -> Found:
    return features.detach(), *torch.autograd.grad(features, given, upstream_of(features))


def of_shares(shares: Tensor, bias: Tensor, ids: Tensor | None, pool: int) -> Found:
    """By the C code; without a backward pass it must give the same bits."""
    features, chosen = phrases_call.forward(shares, bias, ids, pool, keep=True)
    assert torch.equal(phrases_call.forward(shares, bias, ids, pool, keep=False)[0], features)
    assert chosen is not None
    return features, *phrases_call.backward(upstream_of(features), chosen, ids, tuple(shares.shape), pool)


def of_vectors(vectors: Tensor, weight: Tensor, bias: Tensor, pool: int, *, wants_vectors: bool = True) -> Found:
    features, chosen = phrases_call.forward_vectors(vectors, weight, bias, pool, keep=True)
    assert torch.equal(phrases_call.forward_vectors(vectors, weight, bias, pool, keep=False)[0], features)
    assert chosen is not None
    upstream = upstream_of(features)
    found = phrases_call.backward_vectors(upstream, chosen, vectors, weight, pool, wants_vectors=wants_vectors)
    assert (found[0] is not None) == wants_vectors
    return features, *[part for part in found if part is not None]


def alike(found: Found, wanted: Found, tolerance: float) -> None:
    for got, one in zip(found, wanted, strict=True):
        assert got.shape == one.shape
        if one.numel():
            assert (got - one).abs().max() <= tolerance * max(1.0, float(one.abs().max()))


@contextmanager
def threads_set(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@settings(max_examples=60, deadline=None)
@given(
    words=st.sampled_from([1, 2, 5, 40, 1200]),
    kernel_positions=st.integers(1, 4),
    sizes=st.sampled_from([(1, 1), (32, 4), (24, 8), (12, 3), (6, 2), (5, 5), (7, 1)]),
    ids=st.booleans(),
    equal=st.booleans(),
    double=st.booleans(),
    threads=st.sampled_from([1, 2, 3]),
)
def test_values_and_gradients_are_the_plain_ones(words, kernel_positions, sizes, ids, equal, double, threads):
    torch.manual_seed(words)
    filters, pool = sizes
    shares, bias = torch.randn(words, kernel_positions, filters).double(), torch.randn(filters).double()
    if equal:  # so that several of a group are the largest
        shares, bias = shares.round(), bias.round()
    index = torch.randint(0, words, (2 * words,)) if ids else None
    given = [shares.clone().requires_grad_(), bias.clone().requires_grad_()]
    wanted = plain_gradients(given, plainly(*given, index, pool))
    dtype = torch.float64 if double else torch.float32
    with threads_set(threads):
        found = of_shares(shares.to(dtype), bias.to(dtype), index, pool)
    alike(found, wanted, 1e-12 if double else 1e-5)


@settings(max_examples=60, deadline=None)
@given(
    words=st.sampled_from([0, 1, 2, 5, 47, 97, 700]),
    width=st.sampled_from([1, 3, 16, 50, 81, 300]),
    kernel_positions=st.integers(1, 4),
    sizes=st.sampled_from([(1, 1), (32, 4), (24, 8), (12, 3), (6, 2), (5, 5), (7, 1), (40, 4)]),
    equal=st.booleans(),
    double=st.booleans(),
    threads=st.sampled_from([1, 2, 3]),
    wants_vectors=st.booleans(),
)
def test_products_are_never_written_and_yet_the_same(
    words, width, kernel_positions, sizes, equal, double, threads, wants_vectors
):
    torch.manual_seed(words)
    filters, pool = sizes
    scale = width**0.5
    given = [torch.randn(words, width), torch.randn(kernel_positions, filters, width) / scale, torch.randn(filters)]
    given = [part.mul(2).round() if equal else part for part in given]  # so that several of a group are the largest
    own = [part.double().requires_grad_(wants_vectors or at > 0) for at, part in enumerate(given)]
    shares = (own[0] @ own[1].flatten(0, 1).t()).unflatten(1, (kernel_positions, filters))
    wanted = plain_gradients(own[not wants_vectors :], plainly(shares, own[2], None, pool))
    vectors, weight, bias = (part.to(torch.float64 if double else torch.float32) for part in given)
    with threads_set(threads):
        found = of_vectors(vectors, weight, bias, pool, wants_vectors=wants_vectors)
    alike(found, wanted, 1e-12 if double else 1e-5)


def test_threads_change_no_bit():
    results: list[Found] = []
    for count in (1, 2, 2):
        torch.manual_seed(0)
        shares, bias, ids = torch.randn(3000, 2, 32), torch.randn(32), torch.randint(0, 3000, (9000,))
        vectors, weight = torch.randn(3000, 50), torch.randn(2, 32, 50)
        with threads_set(count):
            both = (of_shares(shares, bias, index, 4) for index in (None, ids))
            results.append((*next(both), *next(both), *of_vectors(vectors, weight, bias, 4)))
    for others in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], others, strict=True))


def test_of_numbers_and_nans_a_nan():
    shares = torch.zeros(3, 1, 4)
    shares[1, 0, 0] = shares[2, 0, 3] = torch.nan
    features, _ = phrases_call.forward(shares, torch.zeros(4), None, 4, keep=True)
    assert features.isnan().flatten().tolist() == [False, True, True]


@pytest.mark.parametrize("wrong", [-1, 7])
def test_an_id_that_is_no_word_is_refused_where_nobody_looked_at_it(wrong):
    with checks("off"), torch.no_grad():
        sentences = Ragged(torch.tensor([0, 1, wrong, 2]), torch.tensor([0, 4]), table=torch.ones(7, 300))
        with pytest.raises(IndexError, match=r"an id of a word is not one of the 7 words"):
            Tower()(sentences)
