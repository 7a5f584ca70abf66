"""Ragged: from and to every other form, and what it refuses."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from towers import Ragged, ShapeContractError, Tower
from towers.contracts import checks

from .helpers import reference

LENGTHS = st.lists(st.integers(0, 7), min_size=1, max_size=6)
REAL_LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=6)


def same(ragged: Ragged, rows: list[torch.Tensor]) -> bool:
    return len(ragged) == len(rows) and all(torch.equal(a, b) for a, b in zip(ragged.to_list(), rows, strict=True))


@given(LENGTHS)
def test_lists_and_padding_there_and_back(lengths):
    rows = reference.sentences(lengths, 3)
    ragged = Ragged.from_list(rows)
    assert same(ragged, rows)
    padded, found = ragged.to_padded(padding=float("nan"))
    expected, _ = reference.pad(rows)
    assert torch.equal(padded.nan_to_num(9.0), expected.nan_to_num(9.0))
    assert found.tolist() == ragged.lengths.tolist() == lengths
    assert same(Ragged.from_padded(padded, found), rows)


@given(LENGTHS, st.integers(0, 3))
def test_padding_to_a_given_number_of_words(lengths, more):
    rows = reference.sentences(lengths, 2)
    words = max(lengths) + more
    assert torch.equal(Ragged.from_list(rows).to_padded(words=words)[0], reference.pad(rows, words, 0.0)[0])


@given(REAL_LENGTHS, st.booleans())
def test_packed_there_and_back(lengths, is_sorted):
    lengths = sorted(lengths, reverse=True) if is_sorted else lengths
    rows = reference.sentences(lengths, 3)
    padded, found = reference.pad(rows)
    packed = pack_padded_sequence(padded, found, batch_first=True, enforce_sorted=is_sorted)
    ragged = Ragged.from_packed(packed)
    assert same(ragged, rows)
    ours = ragged.to_packed()
    assert torch.equal(ours.data, packed.data)
    assert torch.equal(ours.batch_sizes, packed.batch_sizes)
    back, again = pad_packed_sequence(ours, batch_first=True, padding_value=float("nan"))
    assert torch.equal(back.nan_to_num(9.0), padded.nan_to_num(9.0))
    assert torch.equal(again, found)


@given(LENGTHS)
def test_jagged_there_and_back(lengths):
    rows = reference.sentences(lengths, 3)
    jagged = torch.nested.nested_tensor(rows, layout=torch.jagged)
    assert same(Ragged.from_jagged(jagged), rows)
    assert all(torch.equal(a, b) for a, b in zip(Ragged.from_list(rows).to_jagged().unbind(), rows, strict=True))


def test_without_lengths_every_word_is_real():
    padded = torch.randn(3, 4, 2)
    ragged = Ragged.from_padded(padded)
    assert ragged.uniform == 4
    assert ragged.lengths.tolist() == [4, 4, 4]
    assert torch.equal(ragged.to_padded()[0], padded)


@given(LENGTHS, st.integers(1, 4))
def test_runs_are_the_neighbours_inside_sentences(lengths, size):
    ragged = Ragged(torch.arange(sum(lengths)), torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()]))
    starts, offsets = ragged.runs(size)
    expected = [row[i].item() for row in ragged.to_list() for i in range(len(row) - size + 1)]
    assert starts.tolist() == expected
    assert offsets.diff().tolist() == [max(length - size + 1, 0) for length in lengths]


@pytest.mark.parametrize("uniform", [True, False])
def test_runs_and_slices_of_equal_sentences_are_those_of_any(uniform):
    ragged = Ragged.from_padded(torch.arange(12).reshape(3, 4), None if uniform else torch.tensor([4, 4, 4]))
    assert (ragged.uniform is not None) == uniform
    assert [part.tolist() for part in ragged.runs(3)] == [[0, 1, 4, 5, 8, 9], [0, 2, 4, 6]]
    assert [row.tolist() for row in ragged.slice_words(1, 3).to_list()] == [[1, 2], [5, 6], [9, 10]]
    assert [row.tolist() for row in ragged.slice_words(3, 9).to_list()] == [[3], [7], [11]]


@given(LENGTHS, st.integers(1, 4))
def test_chunks_end_to_end_are_the_sentences(lengths, size):
    rows = reference.sentences(lengths, 2)
    parts = list(Ragged.from_list(rows).chunks(size))
    assert all(part.longest() <= size for part in parts)
    assert all(torch.equal(torch.cat([part.to_list()[index] for part in parts]), row) for index, row in enumerate(rows))


def test_the_gradient_of_padding_is_exactly_zero_even_for_nan():
    padded, lengths = reference.pad(reference.sentences([2, 0, 3], 2))
    padded.requires_grad_()
    Ragged.from_padded(padded, lengths).values.square().sum().backward()
    real = torch.arange(3) < lengths.unsqueeze(1)
    assert torch.equal(padded.grad[~real], torch.zeros_like(padded.grad[~real]))
    assert torch.equal(padded.grad[real], 2 * padded.detach()[real])


def test_it_moves_copies_pickles_and_shows_itself():
    ragged = Ragged.from_list(reference.sentences([2, 3], 2))
    assert ragged.to(torch.float32).dtype == torch.float32
    assert ragged.to(torch.float32).offsets.dtype == torch.int64
    for other in (copy.deepcopy(ragged), pickle.loads(pickle.dumps(ragged))):
        assert same(other, ragged.to_list())
    assert repr(ragged) == "Ragged(2 sentences, 5 tokens, each (2), float64)"
    assert ragged.to("meta").device.type == "meta"


def test_word_ids_are_values_too():
    ragged = Ragged(torch.tensor([5, 6, 7]), torch.tensor([0, 1, 3], dtype=torch.int32))
    assert [row.tolist() for row in ragged.to_list()] == [[5], [6, 7]]
    assert ragged.offsets.dtype == torch.int64
    assert ragged.to_padded()[0].tolist() == [[5, 0], [6, 7]]


def test_an_empty_batch_is_a_batch():
    ragged = Ragged(torch.zeros(0, 3), torch.tensor([0]))
    assert len(ragged) == 0
    assert ragged.to_padded()[0].shape == (0, 0, 3)
    assert ragged.to_list() == []
    assert Ragged.from_padded(torch.zeros(0, 4, 3), torch.zeros(0, dtype=torch.int64)).values.shape == (0, 3)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Ragged(torch.zeros(3, 2), torch.tensor([1, 3])), ValueError, r"offsets runs from 1 to 3; expected 0 to the 3 tokens"),
        (lambda: Ragged(torch.zeros(3, 2), torch.tensor([0, 2])), ValueError, r"offsets runs from 0 to 2"),
        (lambda: Ragged(torch.zeros(3), torch.tensor([0, 2, 1, 3])), ValueError, r"offsets\[2\] is 1; it must not be less than offsets\[1\], 2"),
        (lambda: Ragged(torch.zeros(3), torch.zeros(0, dtype=torch.int64)), ShapeContractError, r"offsets: batch\+1 is 0, which it is for no whole batch of at least 0"),
        (lambda: Ragged(torch.zeros(3), torch.tensor([0.0, 3.0])), ShapeContractError, r"offsets is float32; expected Int"),
        (lambda: Ragged(torch.tensor(1.0), torch.tensor([0])), ShapeContractError, r"values has 0 axes"),
        (lambda: Ragged.from_padded(torch.zeros(2, 3), torch.tensor([1, 4])), ValueError, r"lengths\[1\] is 4; Ragged.from_padded needs at most 3 words"),
        (lambda: Ragged.from_padded(torch.zeros(2, 3), torch.tensor([-1, 3])), ValueError, r"lengths\[0\] is -1; Ragged.from_padded needs at least 0 words"),
        (lambda: Ragged.from_padded(torch.zeros(2, 3), torch.tensor([1])), ShapeContractError, r"lengths: batch is 1; expected 2 \(as in padded\)"),
        (lambda: Ragged.from_list(iter([])), ValueError, r"sentences is empty"),
        (lambda: Ragged.from_list([]), ValueError, r"sentences is empty"),
        (lambda: Ragged.from_list([torch.zeros(2, 3), torch.zeros(2, 4)]), ShapeContractError, r"sentences\[1\] has words of \(4,\)"),
        (lambda: Ragged.from_list([torch.zeros(2), [1.0]]), ShapeContractError, r"sentences\[1\] is a list"),
        (lambda: Ragged.from_jagged(torch.zeros(2, 3)), ShapeContractError, r"no nested tensor of layout torch.jagged"),
        (lambda: Ragged.from_jagged(torch.nested.nested_tensor([torch.zeros(2, 3)], layout=torch.jagged).transpose(1, 2)), ShapeContractError, r"jagged's ragged axis is not the second"),
        (lambda: Ragged.from_list([torch.zeros(0), torch.zeros(1)]).to_packed(), ValueError, r"no empty batch and no empty sentence"),
        (lambda: Ragged.from_list([torch.zeros(3)]).to_padded(words=2), ValueError, r"words is 2; the longest sentence has 3"),
        (lambda: Ragged.from_list([torch.zeros(3)]).with_values(torch.zeros(2)), ShapeContractError, r"values has 2 tokens; expected 3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(("offsets", "kept"), [([9, 1, 0, 5, 99], [0, 1, 1, 3, 3]), ([-4, 2], [0, 3]), ([7], [0])])
def test_unchecked_offsets_are_made_to_rise_to_the_number_of_tokens(offsets, kept):
    with checks("off"):
        ragged = Ragged(torch.ones(3 if len(offsets) > 1 else 0, 2), torch.tensor(offsets))
    assert ragged.offsets.tolist() == kept


def test_unchecked_lengths_are_clamped_so_that_nothing_is_read_out_of_bounds():
    with checks("off"):
        ragged = Ragged.from_padded(torch.ones(2, 3), torch.tensor([-5, 99]))
    assert ragged.lengths.tolist() == [0, 3]


def test_offsets_of_one_sentence_that_were_changed_count():
    tower, words = Tower(vector_width=4).eval(), torch.randn(5, 4)
    for first, end in ((0, 3), (2, 5), (1, 4)):
        changed = Ragged(words, torch.tensor([0, 5]))
        changed.offsets.copy_(torch.tensor([first, end]))
        torch.testing.assert_close(tower(changed), tower(words[first:end].unsqueeze(0)))


@pytest.mark.parametrize("kind", ["one", "uniform", "none"])
def test_a_uniform_length_is_checked_as_offsets_are(kind):
    tower, words = Tower(words=3, vector_width=4), torch.randn(6, 4)
    given = {
        "one": lambda length: Ragged(words[:length], torch.tensor([0, length])),
        "uniform": lambda length: Ragged.from_padded(words[: 2 * length].view(2, length, 4)) if length <= 3 else None,
        "none": lambda length: Ragged.from_padded(torch.randn(0, length, 4)),
    }[kind]
    assert tower(given(3)).shape == ({"one": 1, "uniform": 2, "none": 0}[kind], 6)
    if kind == "none":
        assert tower(given(1)).shape == (0, 6)  # no sentence has a wrong length
        return
    for length in (1, 2):
        with pytest.raises(ValueError, match="this tower needs exactly 3 words"):
            tower(given(length))
