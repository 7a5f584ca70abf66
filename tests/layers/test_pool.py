"""FeaturePool: over features, never over time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from towers import FeaturePool, Ragged, ShapeContractError

from ..helpers import reference


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.sampled_from([1, 2, 3, 6, 12]))
def test_every_row_is_pooled_over_its_groups_of_features(lengths, size):
    pool = FeaturePool(size, filters=12)
    rows = reference.sentences(lengths, 12)
    expected = [reference.pool(row, size) for row in rows]
    for found, wanted in zip(pool(Ragged.from_list(rows)).to_list(), expected, strict=True):
        assert torch.equal(found, wanted)
    padded, found_lengths = reference.pad(rows)
    assert torch.equal(pool(padded, found_lengths), reference.pad(expected, padded.shape[1], padding=0.0)[0])


def test_steps_never_mix():
    phrases = torch.zeros(1, 4, 8)
    phrases[0, 2, 5] = 1
    assert FeaturePool(4, filters=8)(phrases)[0].tolist() == [[0, 0], [0, 0], [0, 1], [0, 0]]


def test_among_equal_features_the_gradient_goes_to_the_first():
    phrases = torch.zeros(1, 1, 4, requires_grad=True)
    FeaturePool(4, filters=4)(phrases).sum().backward()
    assert phrases.grad.tolist() == [[[1, 0, 0, 0]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_float(dtype):
    phrases = torch.randn(2, 3, 32, dtype=dtype)
    assert FeaturePool()(phrases).dtype == dtype
    assert torch.equal(FeaturePool()(phrases), phrases.reshape(2, 3, 8, 4).amax(-1))


@pytest.mark.parametrize("shape", [(0, 5, 32), (2, 0, 32)])
def test_nothing_in_nothing_out(shape):
    assert FeaturePool()(torch.zeros(shape)).shape == (*shape[:2], 8)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: FeaturePool(5), ValueError, r"FeaturePool: pool \(5\) must divide filters \(32\)"),
        (lambda: FeaturePool(0), ValueError, r"size \(0\) must be an int of at least 1"),
        (lambda: FeaturePool()(torch.zeros(2, 32, 7)), ShapeContractError, r"filters is 7; expected 32 \(self.filters\)[\s\S]*transpose\(1, 2\) would fit"),
        (lambda: FeaturePool()(torch.zeros(2, 3, 8)), ShapeContractError, r"phrases: filters is 8; expected 32"),
        (lambda: FeaturePool()(torch.zeros(2, 3, 32), torch.tensor([1, 4])), ValueError, r"lengths\[1\] is 4; this FeaturePool needs at most 3 steps"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()
