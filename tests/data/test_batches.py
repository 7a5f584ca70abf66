"""Batches: every pair once, like lengths together, the same order from the same seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from towers.data import Batch, SentencePairs, WordVectors

VOCABULARY = [f"w{number}" for number in range(50)]
VECTORS = WordVectors(VOCABULARY, torch.randn(50, 7, generator=torch.Generator().manual_seed(1)))
LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=40)


def pairs_of(lengths: list[tuple[int, int]], *, labels: bool = True) -> SentencePairs:
    generator = torch.Generator().manual_seed(2)

    def sentence(length: int) -> list[str]:
        return [VOCABULARY[i] for i in torch.randint(50, (length,), generator=generator).tolist()]

    left, right = (
        [sentence(length) for length in side] for side in (zip(*lengths, strict=True) if lengths else ((), ()))
    )
    known = torch.rand(len(lengths), generator=generator) if labels else None
    return SentencePairs(left, right, known).with_vectors(VECTORS)


def random_pairs(count: int, longest: int = 30) -> SentencePairs:
    lengths = torch.randint(1, longest + 1, (count, 2), generator=torch.Generator().manual_seed(3))
    return pairs_of([(left, right) for left, right in lengths.tolist()])


def order(batches: list[Batch]) -> list[int]:
    return [i for batch in batches for i in batch.index.tolist()]


@given(LENGTHS, st.integers(1, 12), st.none() | st.integers(0, 3))
def test_every_pair_comes_once_with_its_own_vectors_and_label(
    lengths: list[tuple[int, int]], batch_size: int, seed: int | None
) -> None:
    pairs = pairs_of(lengths)
    batches = list(pairs.batches(batch_size, seed=seed))
    assert sorted(order(batches)) == list(range(len(pairs)))
    sizes = [len(batch.index) for batch in batches]
    assert sum(size != batch_size for size in sizes) <= 1
    row = dict(zip(VOCABULARY, VECTORS.table, strict=False))
    for batch in batches:
        assert pairs.labels is not None
        assert batch.labels is not None
        assert torch.equal(batch.labels, pairs.labels[batch.index])
        for side, sentences in ((batch.left, pairs.left), (batch.right, pairs.right)):
            assert len(side) == len(batch.index)
            for i, vectors in zip(batch.index.tolist(), side.vectors().to_list(), strict=True):
                assert torch.equal(vectors, torch.stack([row[word] for word in sentences[i]]))


def test_without_labels() -> None:
    assert [batch.labels for batch in pairs_of([(2, 3)], labels=False).batches(4)] == [None]


def test_without_a_seed_the_order_is_by_length() -> None:
    pairs = random_pairs(101)
    came = order(list(pairs.batches(7)))
    lengths = [(len(left), len(right)) for left, right in zip(pairs.left, pairs.right, strict=True)]
    assert came == sorted(range(101), key=lengths.__getitem__)
    assert came == order(list(pairs.batches(7)))


def test_a_seed_decides_the_order() -> None:
    pairs = random_pairs(300)
    assert order(list(pairs.batches(5, seed=1))) == order(list(pairs.batches(5, seed=1)))
    assert order(list(pairs.batches(5, seed=1))) != order(list(pairs.batches(5, seed=2)))
    together = [set(batch.index.tolist()) for batch in pairs.batches(5, seed=1)]
    assert not all(set(batch.index.tolist()) in together for batch in pairs.batches(5, seed=2))


def test_the_order_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(random_pairs(20).batches(5, seed=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("batch_size", [5, 32])
def test_batches_are_of_like_lengths(batch_size: int) -> None:
    """Padding to the longest of the batch would be most of a random batch; here it is little."""
    pairs = random_pairs(2000)
    lengths = torch.tensor([len(sentence) for sentence in pairs.left])

    def padded(indices: list[torch.Tensor]) -> float:
        return sum(int(lengths[i].max()) * len(i) for i in indices) / int(lengths.sum())

    ours = padded([batch.index for batch in pairs.batches(batch_size, seed=0)])
    shuffled = padded(list(torch.randperm(2000, generator=torch.Generator().manual_seed(0)).split(batch_size)))
    assert ours < 1.05
    assert shuffled > 1.4


def test_the_order_of_batches_is_not_that_of_lengths() -> None:
    first = [len(batch.left.to_list()[0]) for batch in random_pairs(1000).batches(5, seed=0)]
    places = torch.arange(len(first), dtype=torch.float32)
    assert abs(float(torch.corrcoef(torch.stack([places, torch.tensor(first, dtype=torch.float32)]))[0, 1])) < 0.2


def test_right_sentences_of_one_length_are_known_to_be_uniform() -> None:
    pairs = pairs_of([(3, 5), (4, 5), (2, 5)])
    assert [batch.right.uniform for batch in pairs.batches(2)] == [5, 5]
    assert [batch.left.uniform for batch in pairs.batches(2)] == [None, None]


def test_words_that_came_later_into_the_table_change_nothing() -> None:
    vectors = WordVectors(["a"], torch.ones(1, 2))
    pairs = SentencePairs([["a", "x"]], [["a"]]).with_vectors(vectors)
    (before,) = pairs.batches(1)
    vectors.ids(["y", "z"])
    (after,) = pairs.batches(1)
    assert torch.equal(before.left.vectors().values, after.left.vectors().values)


def test_no_vectors_is_refused_before_the_walk() -> None:
    with pytest.raises(ValueError, match=r"the pairs of memory have no word vectors yet; call with_vectors first"):
        SentencePairs([["a"]], [["b"]]).batches(1)


def test_bad_batch_size_is_refused_before_the_walk() -> None:
    with pytest.raises(ValueError, match=r"batch_size \(0\) must be at least 1"):
        random_pairs(3).batches(0)
