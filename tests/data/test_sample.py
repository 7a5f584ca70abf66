"""The built-in sample: what it consists of, that it can be learned, and that its words alone do not tell."""

import itertools
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from towers.data import SentencePairs, sample_pairs
from towers.data.sample import ANIMALS, DEEDS, PEOPLE, sample_vectors


@pytest.fixture(scope="module")
def pairs() -> SentencePairs:
    return sample_pairs()


def labels_of(pairs: SentencePairs) -> Tensor:
    return cast(Tensor, pairs.labels)


def test_shape(pairs: SentencePairs) -> None:
    assert len(pairs) == 2500
    assert pairs.source == "sample"
    assert {len(sentence) for sentence in pairs.right} == {5}
    assert {len(sentence) for sentence in pairs.left} >= set(range(5, 19))
    assert max(len(sentence) for sentence in pairs.left) <= 20
    assert labels_of(pairs).mean() == 0.5
    assert pairs.vectors is not None
    assert pairs.vectors.width == 300


def test_it_is_the_same_everywhere(pairs: SentencePairs) -> None:
    told = [(" ".join(left), " ".join(right)) for left, right in zip(pairs.left[1:3], pairs.right[1:3], strict=True)]
    assert told == [
        ("after the long rain a tired pony observed the brown tutor near the river", "a horse watched a teacher"),
        ("yesterday the quiet lad observed the young bunny before it was dark", "a rabbit watched a lad"),
    ]
    assert labels_of(pairs)[1:3].tolist() == [1, 0]
    assert sample_vectors().look_up(["dog"])[0, :3].tolist() == pytest.approx([-0.8190, -0.2211, -0.3734], abs=1e-4)


def test_a_larger_count_only_adds(pairs: SentencePairs) -> None:
    few = sample_pairs(100)
    assert few.left == pairs.left[:100]
    assert few.right == pairs.right[:100]
    assert torch.equal(labels_of(few), labels_of(pairs)[:100])
    assert len(sample_pairs(0)) == 0


def test_the_seed_decides_the_sentences_and_not_the_vectors(pairs: SentencePairs) -> None:
    other = sample_pairs(100, seed=1)
    assert other.left != pairs.left[:100]
    assert other.left == sample_pairs(100, seed=1).left
    assert other.vectors is not None
    assert pairs.vectors is not None
    assert torch.equal(other.vectors.table, pairs.vectors.table)


def test_every_word_has_a_vector(pairs: SentencePairs) -> None:
    assert pairs.vectors is not None
    assert not pairs.vectors.missing_counts
    assert pairs.vocabulary <= set(pairs.vectors.words)


def test_no_sentence_comes_twice_so_train_and_held_out_share_none(pairs: SentencePairs) -> None:
    assert len(set(pairs.left)) == len(pairs)
    train, held_out = pairs.split(0.8, 0.2)
    assert not set(train.left) & set(held_out.left)
    assert (len(train), len(held_out)) == (2000, 500)


def is_passive(sentence: tuple[str, ...]) -> bool:
    return any((first, third) == ("was", "by") for first, third in zip(sentence, sentence[2:], strict=False))


def happened(sentence: tuple[str, ...]) -> list[str]:
    """Who did what to whom, as concepts: read from the words by rule."""
    concepts = {word: words[0] for words in (*PEOPLE, *ANIMALS, *DEEDS) for word in words}
    said = [concepts[word] for word in sentence if word in concepts]
    return said[::-1] if is_passive(sentence) else said


def test_labels_say_whether_the_statement_is_true(pairs: SentencePairs) -> None:
    for left, right, label in zip(pairs.left, pairs.right, labels_of(pairs).tolist(), strict=True):
        assert (happened(left) == happened(right)) == bool(label)


def test_false_statements_are_the_other_way_round_or_now_and_then_of_another_deed(pairs: SentencePairs) -> None:
    told = zip(pairs.left, pairs.right, labels_of(pairs).tolist(), strict=True)
    kinds = [happened(left) == happened(right)[::-1] for left, right, label in told if not label]
    assert sum(kinds) / len(kinds) == pytest.approx(15 / 16, abs=1e-3)


def test_sentences_are_in_the_active_and_the_passive(pairs: SentencePairs) -> None:
    assert sum(map(is_passive, pairs.left)) / len(pairs) == pytest.approx(0.12, abs=0.03)


def test_words_of_like_meaning_are_near() -> None:
    vectors = sample_vectors()

    def nearness(first: str, second: str) -> float:
        return float(cosine_similarity(*vectors.look_up([first, second]), dim=0))

    same = [nearness(*words[:2]) for words in (*PEOPLE, *ANIMALS, *DEEDS)]
    topic = [nearness(a[0], b[0]) for side in (PEOPLE, ANIMALS) for a, b in itertools.combinations(side, 2)]
    apart = [nearness(a[0], b[0]) for a, b in itertools.product(PEOPLE, ANIMALS)]
    assert min(same) > max(topic)
    assert min(topic) > max(apart)
    assert max(map(abs, apart)) < 0.25


def bag_of_words(pairs: SentencePairs) -> Tensor:
    """For each pair the mean vectors of its sides, their difference and their product."""
    vectors = sample_vectors()
    left, right = (
        torch.stack([vectors.look_up(words).mean(0) for words in side]) for side in (pairs.left, pairs.right)
    )
    return torch.cat([left, right, left - right, left * right], dim=1)


def accuracy_of_bag_of_words(train: SentencePairs, held_out: SentencePairs, hidden: int) -> float:
    """The best held-out accuracy in 20 epochs, so that stopping late is no excuse."""
    torch.manual_seed(0)
    features, unseen = bag_of_words(train), bag_of_words(held_out)
    mean, spread = features.mean(0), features.std(0)
    features, unseen = (features - mean) / spread, (unseen - mean) / spread
    inner = [torch.nn.Linear(1200, hidden), torch.nn.ReLU()] if hidden else []
    model = torch.nn.Sequential(*inner, torch.nn.Linear(hidden or 1200, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-3)
    best = 0.0
    for _ in range(20):
        for index in torch.randperm(len(train)).split(50):
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(model(features[index]).squeeze(1), labels_of(train)[index]).backward()
            optimizer.step()
        with torch.no_grad():
            best = max(best, float(((model(unseen).squeeze(1) > 0) == labels_of(held_out).bool()).float().mean()))
    return best


@pytest.mark.parametrize("hidden", [0, 64], ids=["logistic regression", "one hidden layer"])
def test_the_words_alone_do_not_tell(pairs: SentencePairs, hidden: int) -> None:
    assert accuracy_of_bag_of_words(*pairs.split(0.8, 0.2), hidden) < 0.65


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_towers_learn_it(pairs: SentencePairs, seed: int) -> None:
    from towers import TwoTowers, training

    train, held_out = pairs.split(0.8, 0.2)
    torch.manual_seed(seed)
    model = TwoTowers()
    training.fit(model, train, epochs=10, batch_size=5, lr=1e-3, seed=seed, progress=False)
    assert training.evaluate(model, held_out)["accuracy"] >= 0.9


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match=r"count \(-1\) must not be negative"):
        sample_pairs(-1)
