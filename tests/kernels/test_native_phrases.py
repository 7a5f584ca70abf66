"""Words multiplied, neighbours added and features pooled, in C and in torch's operations, beside the same written
plainly."""

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from towers import Ragged, Tower
from towers.contracts import checks
from towers.kernels import cpu
from towers.layers import on_cpu, pooling

needs_compiler = pytest.mark.skipif(cpu.why_not() is not None, reason=f"the C code cannot run: {cpu.why_not()}")
WAYS = [pytest.param(cpu.phrases_call, id="C", marks=needs_compiler), pytest.param(pooling, id="torch")]


def plainly(shares: Tensor, bias: Tensor, ids: Tensor | None, pool: int) -> Tensor:
    tokens, places = shares if ids is None else shares[ids], shares.shape[1]
    count = max(len(tokens) - places + 1, 0)
    phrases = sum(tokens[place : place + count, place] for place in range(places)) + bias
    return F.max_pool1d(phrases.unsqueeze(1), pool).squeeze(1)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=60, deadline=None)
@given(
    words=st.sampled_from([1, 2, 5, 40, 1200]),
    places=st.integers(1, 4),
    sizes=st.sampled_from([(1, 1), (32, 4), (24, 8), (12, 3), (6, 2), (5, 5), (7, 1)]),
    ids=st.booleans(),
    equal=st.booleans(),
    double=st.booleans(),
    threads=st.sampled_from([1, 2, 3]),
)
def test_values_and_gradients_are_the_plain_ones(way, words, places, sizes, ids, equal, double, threads):
    torch.manual_seed(words)
    filters, pool = sizes
    shares, bias = torch.randn(words, places, filters).double(), torch.randn(filters).double()
    if equal:  # so that several of a group are the largest
        shares, bias = shares.round(), bias.round()
    index = torch.randint(0, words, (2 * words,)) if ids else None
    found: list[tuple[Tensor, ...]] = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(on_cpu, "_way", lambda _: way)
            for pooled, precise in ((plainly, True), (on_cpu.pooled_phrases, double)):
                given = [
                    part.to(torch.float64 if precise else torch.float32).requires_grad_() for part in (shares, bias)
                ]
                features = pooled(*given, index, pool)
                upstream = torch.linspace(0.1, 1, features.numel(), dtype=features.dtype).view_as(features)
                found.append((features.detach(), *torch.autograd.grad(features, given, upstream)))
                with torch.no_grad():
                    assert torch.equal(pooled(*given, index, pool), features)
    finally:
        torch.set_num_threads(before)
    for wanted, got in zip(*found, strict=True):
        largest = float(wanted.abs().max()) if wanted.numel() else 0.0
        assert (got - wanted).abs().max() <= (1e-12 if double else 1e-5) * max(1.0, largest) if wanted.numel() else True


@needs_compiler
@settings(max_examples=60, deadline=None)
@given(
    words=st.sampled_from([0, 1, 2, 5, 47, 97, 700]),
    width=st.sampled_from([1, 3, 16, 50, 81, 300]),
    places=st.integers(1, 4),
    sizes=st.sampled_from([(1, 1), (32, 4), (24, 8), (12, 3), (6, 2), (5, 5), (7, 1), (40, 4)]),
    equal=st.booleans(),
    double=st.booleans(),
    threads=st.sampled_from([1, 2, 3]),
    of_vectors=st.booleans(),
)
def test_products_are_never_written_and_yet_the_same(words, width, places, sizes, equal, double, threads, of_vectors):
    torch.manual_seed(words)
    filters, pool = sizes
    given = [torch.randn(words, width), torch.randn(places, filters, width) / width**0.5, torch.randn(filters)]
    given = [part.mul(2).round() if equal else part for part in given]  # so that several of a group are the largest

    def written(vectors: Tensor, weight: Tensor, bias: Tensor, pool: int) -> Tensor:
        return plainly((vectors @ weight.flatten(0, 1).t()).unflatten(1, (places, filters)), bias, None, pool)

    found: list[tuple[Tensor, ...]] = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for pooled, dtype in (
            (written, torch.float64),
            (on_cpu.pooled_products, [torch.float32, torch.float64][double]),
        ):
            own = [part.to(dtype).requires_grad_(of_vectors or at > 0) for at, part in enumerate(given)]
            features = pooled(*own, pool)
            upstream = torch.linspace(0.1, 1, features.numel(), dtype=dtype).view_as(features)
            found.append((features.detach(), *torch.autograd.grad(features, own[not of_vectors :], upstream)))
            with torch.no_grad():
                assert torch.equal(pooled(*own, pool), features)
    finally:
        torch.set_num_threads(before)
    for wanted, got in zip(*found, strict=True):
        assert wanted.shape == got.shape
        largest = float(wanted.abs().max()) if wanted.numel() else 0.0
        assert (got - wanted).abs().max() <= (1e-12 if double else 1e-5) * max(1.0, largest) if wanted.numel() else True


@needs_compiler
@pytest.mark.parametrize(
    ("vectors", "bias"), [((9, 5), (4,)), ((9, 6), (5,)), ((9, 6), (4, 1))], ids=["width", "bias", "rank of bias"]
)
def test_what_does_not_fit_is_refused_before_it_is_read(vectors, bias):
    with pytest.raises(RuntimeError, match=r"PhraseConv: a tensor \([\d, ]+\) of torch.float32 does not fit one \("):
        cpu.phrases_call.forward_vectors(torch.ones(vectors), torch.ones(2, 4, 6), torch.ones(bias), 2, keep=False)
    with pytest.raises(RuntimeError, match=r"torch.float64 does not fit one"):
        cpu.phrases_call.forward(torch.ones(9, 2, 4), torch.ones(4).double(), None, 2, keep=False)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@needs_compiler
def test_threads_change_no_bit(threads: Callable[[int], None]):
    results: list[list[Tensor]] = []
    for count in (1, 2, 2):
        threads(count)
        torch.manual_seed(0)
        shares, bias = torch.randn(3000, 2, 32, requires_grad=True), torch.randn(32, requires_grad=True)
        ids = torch.randint(0, 3000, (9000,))
        both = [on_cpu.pooled_phrases(shares, bias, index, 4) for index in (None, ids)]
        gradients = [torch.autograd.grad(one.square().sum(), (shares, bias), retain_graph=True) for one in both]
        vectors = torch.randn(3000, 50, requires_grad=True)
        weight = torch.randn(2, 32, 50, requires_grad=True)
        products = on_cpu.pooled_products(vectors, weight, bias, 4)
        of_products = torch.autograd.grad(products.square().sum(), (vectors, weight, bias))
        results.append([*both, *gradients[0], *gradients[1], products, *of_products])
    for others in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], others, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_of_numbers_and_nans_a_nan(way):
    shares = torch.zeros(3, 1, 4)
    shares[1, 0, 0] = shares[2, 0, 3] = torch.nan
    features, _ = way.forward(shares, torch.zeros(4), None, 4, keep=True)
    assert features.isnan().flatten().tolist() == [False, True, True]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrong", [-1, 7])
def test_an_id_that_is_no_word_is_refused_where_nobody_looked_at_it(monkeypatch, way, wrong):
    monkeypatch.setattr(on_cpu, "_way", lambda _: way)
    with checks("off"), torch.no_grad():
        sentences = Ragged(torch.tensor([0, 1, wrong, 2]), torch.tensor([0, 4]), table=torch.ones(7, 300))
        with pytest.raises(IndexError, match=r"an id of a word is not one of the 7 words|index out of range"):
            Tower()(sentences)
