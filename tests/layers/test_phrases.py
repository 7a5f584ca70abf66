"""PhraseConv against the reference, sentence by sentence, and against torch's own 2-D convolution."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from towers import PhraseConv, Ragged, ShapeContractError

from ..helpers import reference


def layer(kernel_words: int = 2, width: int = 5, filters: int = 6) -> PhraseConv:
    return reference.number_weights(PhraseConv(width, filters, kernel_words, dtype=torch.float64))


@given(st.integers(1, 4), st.lists(st.integers(4, 9), min_size=1, max_size=5))
def test_every_sentence_is_as_if_it_were_alone(kernel_words, lengths):
    conv = layer(kernel_words)
    rows = reference.sentences(lengths, 5)
    expected = [reference.conv(row, conv.weight, conv.bias) for row in rows]
    for found, wanted in zip(conv(Ragged.from_list(rows)).to_list(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    padded, found_lengths = reference.pad(rows)
    wanted, _ = reference.pad(expected, padded.shape[1] - kernel_words + 1, padding=0.0)
    torch.testing.assert_close(conv(padded, found_lengths), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel_words", [1, 2, 3])
def test_it_is_the_convolution_with_one_channel_that_keras_runs(kernel_words):
    conv = layer(kernel_words)
    sentences = torch.stack(reference.sentences([7] * 4, 5)).requires_grad_()
    found = conv(sentences)
    wanted = F.conv2d(sentences.unsqueeze(1), conv.weight.transpose(0, 1).unsqueeze(1), conv.bias)
    wanted = wanted.squeeze(3).transpose(1, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(found)
    inputs = (sentences, conv.weight, conv.bias)
    ours = torch.autograd.grad((found * weights).sum(), inputs)
    theirs = torch.autograd.grad((wanted * weights).sum(), inputs)
    for name, our, their in zip(("sentences", "weight", "bias"), ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-11, atol=1e-11, msg=name)


def test_the_kind_that_goes_in_comes_out():
    conv, rows = layer(), reference.sentences([3, 4], 5)
    jagged = torch.nested.nested_tensor(rows, layout=torch.jagged)
    assert isinstance(conv(Ragged.from_list(rows)), Ragged)
    assert conv(jagged).is_nested
    assert conv(torch.stack([rows[0], rows[0]])).shape == (2, 2, 6)
    for one, other in zip(conv(jagged).unbind(), conv(Ragged.from_list(rows)).to_list(), strict=True):
        assert torch.equal(one, other)


def test_gradcheck_by_ragged_and_by_padded():
    conv, rows = layer(3), reference.sentences([4, 3, 6], 5)
    ragged = Ragged.from_list(rows)
    values = ragged.values.clone().requires_grad_()
    padded, lengths = reference.pad(rows, padding=0.0)
    assert torch.autograd.gradcheck(lambda v: conv(ragged.with_values(v)).values, values)
    assert torch.autograd.gradcheck(lambda p: conv(p, lengths), padded.requires_grad_())


def test_an_empty_batch_and_the_shortest_sentences():
    conv = layer(3)
    assert conv(torch.zeros(0, 4, 5, dtype=torch.float64)).shape == (0, 2, 6)
    assert conv(Ragged(torch.zeros(0, 5, dtype=torch.float64), torch.tensor([0]))).values.shape == (0, 6)
    assert conv(torch.zeros(2, 3, 5, dtype=torch.float64)).shape == (2, 1, 6)


def test_initial_values_are_glorots_over_the_field_of_the_kernel():
    torch.manual_seed(0)
    conv = PhraseConv()
    bound = math.sqrt(6 / (600 + 600 * 32))
    assert bound * 0.999 < conv.weight.abs().max() <= bound
    assert conv.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not conv.bias.any()


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: PhraseConv(0), ValueError, r"PhraseConv: vector_width \(0\) must be an int of at least 1"),
        (lambda: PhraseConv(filters=2.0), ValueError, r"filters \(2.0\) must be an int"),
        (lambda: PhraseConv(kernel_words=True), ValueError, r"kernel_words \(True\) must be an int"),
        (lambda: layer()(torch.zeros(2, 1, 5).double()), ShapeContractError, r"sentences: words is 1; this PhraseConv needs at least 2 words"),
        (lambda: layer()(torch.zeros(2, 3, 5).double(), torch.tensor([2, 1])), ValueError, r"lengths\[1\] is 1; this PhraseConv needs at least 2 words"),
        (lambda: layer()(torch.zeros(2, 3, 4).double()), ShapeContractError, r"vector_width is 4; expected 5 \(self.vector_width\)"),
        (lambda: layer()(torch.zeros(2, 3, 5)), ShapeContractError, r"sentences is float32; expected float64 \(the dtype of weight\)"),
        (lambda: layer()(Ragged.from_list(reference.sentences([3, 1], 5))), ValueError, r"sentences.lengths\[1\] is 1; this PhraseConv needs at least 2 words"),
        (lambda: layer()(Ragged.from_list(reference.sentences([3], 5)), torch.tensor([3])), ShapeContractError, r"lengths is given beside sentences that carry their own"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize("kind", ["vectors", "ids", "ids, learning"])
def test_a_product_in_bfloat16_is_as_exact_as_its_docstring_says(kind):
    torch.manual_seed(0)
    conv, table = PhraseConv(), torch.randn(2000, 300)
    sentences = Ragged(torch.arange(2000), torch.arange(0, 2001, 10), table=table)
    sentences = sentences.vectors() if kind == "vectors" else sentences
    with torch.set_grad_enabled("learning" in kind):
        exact = conv(sentences).values
        conv.product_dtype = torch.bfloat16
        found = conv(sentences).values
    assert found.dtype == torch.float32
    error = (found - exact).detach()
    assert 0 < error.square().mean().sqrt() < 0.0035 * exact.std()
    assert error.abs().max() < 0.005 * exact.abs().max()
    if "learning" in kind:
        coarse = torch.autograd.grad(found.square().sum(), conv.weight)[0]
        conv.product_dtype = None
        wanted = torch.autograd.grad(conv(sentences).values.square().sum(), conv.weight)[0]
        assert (coarse - wanted).abs().max() < 0.01 * wanted.abs().max()
