"""StepPool, WordMap, WordFeatures, WordDropout: one sentence at a time, and nothing of the padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from towers import Ragged, ShapeContractError, StepPool, WordDropout, WordFeatures, WordMap

from ..helpers import reference

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def kinds(rows):
    """The same sentences as every kind of batch: Ragged, padded with NaN, jagged, and as word ids."""
    padded, lengths = reference.pad(rows)
    ragged = Ragged.from_list(rows)
    table, ids = ragged.values.unique(dim=0, return_inverse=True)
    yield ragged, None
    yield padded, lengths
    yield torch.nested.nested_tensor(rows, layout=torch.jagged), None
    yield Ragged(ids, ragged.offsets, table=table), None


@settings(max_examples=25)
@given(LENGTHS, st.sampled_from(["last", "max", "mean"]))
def test_steps_are_reduced_sentence_by_sentence(lengths, reduce):
    rows = reference.sentences(lengths, 4)
    slow = {"last": lambda row: row[-1], "max": lambda row: row.max(0).values, "mean": lambda row: row.mean(0)}
    wanted = torch.stack([slow[reduce](row) for row in rows])
    for sentences, given_lengths in kinds(rows):
        torch.testing.assert_close(StepPool(reduce)(sentences, given_lengths), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reduce", ["last", "max", "mean"])
def test_the_gradient_of_steps_and_of_nothing_else(reduce):
    rows = reference.sentences([3, 1, 5], 4)
    padded, lengths = reference.pad(rows, 7)
    padded.requires_grad_()
    StepPool(reduce)(padded, lengths).square().sum().backward()
    wanted = []
    for row in rows:
        row.requires_grad_()
        {"last": row[-1], "max": row.max(0).values, "mean": row.mean(0)}[reduce].square().sum().backward()
        wanted.append(row.grad)
    torch.testing.assert_close(padded.grad, reference.pad(wanted, 7, padding=0.0)[0], rtol=0, atol=1e-12)


def test_a_maximum_over_steps_is_none_over_features():
    steps = torch.zeros(1, 3, 4)
    steps[0, 1, 2] = 1
    assert StepPool("max")(steps).tolist() == [[0, 0, 1, 0]]


@settings(max_examples=15)
@given(LENGTHS, st.sampled_from(["max", "mean"]))
def test_word_features_are_those_of_single_words(lengths, reduce):
    layer = reference.number_weights(WordFeatures(5, 3, reduce, dtype=torch.float64))
    rows = reference.sentences(lengths, 5)
    linear = [torch.stack([reference.linear(word, layer.linear) for word in row]) for row in rows]
    slow = (lambda row: row.clamp(min=0).max(0).values) if reduce == "max" else (lambda row: row.mean(0))
    wanted = torch.stack([slow(row) for row in linear])
    for sentences, given_lengths in kinds(rows):
        for grad in (False, True):  # without gradients the product of a table is kept
            with torch.set_grad_enabled(grad):
                found = layer(sentences, given_lengths)
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    order = torch.cat([row.flip(0) for row in rows])
    flipped = Ragged(order, Ragged.from_list(rows).offsets)
    torch.testing.assert_close(layer(flipped), wanted, rtol=0, atol=1e-12)


def test_a_word_map_returns_the_kind_that_came():
    layer = reference.number_weights(WordMap(5, 3, dtype=torch.float64))
    rows = reference.sentences([2, 4], 5)
    wanted = [torch.stack([reference.linear(word, layer.linear) for word in row]) for row in rows]
    for sentences, given_lengths in kinds(rows):
        found = layer(sentences, given_lengths)
        assert type(found) is type(sentences)
        if isinstance(found, Ragged):
            assert (found.table is None) == (sentences.table is None)
            torch.testing.assert_close(torch.cat(wanted), found.vectors().values, rtol=0, atol=1e-12)
        elif not found.is_nested:
            torch.testing.assert_close(found, reference.pad(wanted, padding=0.0)[0], rtol=0, atol=1e-12)


def test_a_square_word_map_begins_as_the_identity():
    sentences = torch.randn(2, 3, 5)
    torch.testing.assert_close(WordMap(5, 5)(sentences), sentences)
    assert WordMap(5, 4)(sentences).std() > 0


@pytest.mark.parametrize("ids", [True, False])
def test_a_word_has_one_mask_in_a_pair_and_another_in_the_next(ids):
    table = torch.arange(1.0, 4.0)[:, None].expand(3, 400).clone()
    words = torch.tensor([0, 1, 0, 2]), torch.tensor([1, 0, 2, 0])  # pairs: (0 1 | 1 0) and (0 2 | 2 0)
    offsets = torch.tensor([0, 2, 4])
    left, right = (Ragged(side, offsets, table=table) for side in words)
    if not ids:
        left, right = left.vectors(), right.vectors()
    first, second = (side.values for side in WordDropout(0.5)(left, right))
    assert torch.equal(first[0], second[1])
    assert torch.equal(first[1], second[0])
    assert torch.equal(first[2], second[3])
    assert not torch.equal(first[0], first[2]), "the same word in another pair"
    kept = (torch.cat([first, second]) != 0).float().mean()
    assert 0.4 < kept < 0.6
    assert set(first[0].tolist()) == {0.0, 2.0}, "what stays is scaled"


def test_word_dropout_outside_of_training_changes_nothing():
    left, right = torch.randn(2, 3, 5), Ragged.from_list([torch.randn(2, 5), torch.randn(4, 5)])
    found = WordDropout(0.9).eval()(left, right)
    assert torch.equal(found[0].values, left.flatten(0, 1))
    assert found[1] is right
    assert torch.equal(WordDropout(0.0)(left, right)[0].values, left.flatten(0, 1))


def test_empty_batches():
    empty = Ragged(torch.zeros(0, 5), torch.tensor([0]))
    assert StepPool("max")(empty).shape == StepPool("last")(empty).shape == (0, 5)
    assert WordFeatures(5, 3)(empty).shape == (0, 3)
    assert WordDropout(0.5)(empty, empty)[0].values.shape == (0, 5)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: StepPool("sum"), ValueError, r"StepPool: reduce \('sum'\) must be one of 'last', 'max', 'mean'"),
        (lambda: WordFeatures(5, 3, "last"), ValueError, r"reduce \('last'\) must be 'max' or 'mean'"),
        (lambda: WordFeatures(5, 0), ValueError, r"features \(0\) must be an int of at least 1"),
        (lambda: WordMap(0, 3), ValueError, r"vector_width \(0\) must be an int of at least 1"),
        (lambda: WordDropout(1.0), ValueError, r"p \(1.0\) must be a probability, from 0 to 1, 1 excluded"),
        (lambda: WordDropout(True), ValueError, r"p \(True\) must be a probability"),
        (lambda: StepPool()(torch.zeros(2, 0, 5)), ShapeContractError, r"steps"),
        (lambda: StepPool()(torch.zeros(2, 3, 5), torch.tensor([3, 0])), ValueError, r"lengths\[1\] is 0"),
        (lambda: WordFeatures(5, 3)(torch.zeros(2, 3, 4)), ShapeContractError, r"vector_width is 4; expected 5"),
        (lambda: WordDropout()(torch.zeros(2, 3, 5), torch.zeros(3, 3, 5)), ShapeContractError, r"batch is 3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()
