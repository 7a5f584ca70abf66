"""Real sentence pairs (SICK) and real word vectors (GloVe 840B), where they lie beside the repository."""

from pathlib import Path

import pytest
import torch

from towers.data import SentencePairs, WordVectors


@pytest.fixture(scope="module")
def test_split(shared: Path) -> SentencePairs:
    path = shared / "data/sick/sick.test.tsv"
    return SentencePairs.load(path, left_column="tokens1", right_column="tokens2", split="spaces")


@pytest.fixture(scope="module")
def glove(shared: Path) -> Path:
    return shared / "data/vectors/glove.840B.300d.sick.txt"


@pytest.mark.parametrize(("part", "rows"), [("train", 4500), ("dev", 500), ("test", 4927)])
def test_every_row_is_read(shared: Path, part: str, rows: int) -> None:
    path = shared / f"data/sick/sick.{part}.tsv"
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    pairs = SentencePairs.load(path, left_column="tokens1", right_column="tokens2", split="spaces")
    assert len(pairs) == rows == len(lines)
    assert [" ".join(words) for words in pairs.left] == [line[7] for line in lines]
    assert [" ".join(words) for words in pairs.right] == [line[8] for line in lines]
    assert pairs.labels is not None
    assert pairs.labels.tolist() == [float(line[2]) for line in lines]
    assert pairs.lines == list(range(2, rows + 2))


def test_majority_class_is_the_published_one(test_split: SentencePairs) -> None:
    assert test_split.labels is not None
    assert 1 - float(test_split.labels.mean()) == pytest.approx(0.7130, abs=1e-4)


def test_relatedness_is_mapped_to_0_to_1(shared: Path) -> None:
    path = shared / "data/sick/sick.dev.tsv"
    ratings = [float(line.split("\t")[4]) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    pairs = SentencePairs.load(path, label_column="relatedness", label_range=(1, 5))
    assert pairs.labels is not None
    assert pairs.labels.tolist() == pytest.approx([(rating - 1) / 4 for rating in ratings])


def test_nearly_every_token_has_a_vector(test_split: SentencePairs, glove: Path) -> None:
    vectors = WordVectors.load(glove, test_split.vocabulary)
    bound = test_split.with_vectors(vectors)
    coverage = vectors.coverage
    assert coverage.tokens == sum(map(len, [*bound.left, *bound.right]))
    assert coverage.tokens_found / coverage.tokens == pytest.approx(0.9999, abs=1e-4)
    (batch,) = bound.select([0]).batches(1)
    assert batch.left.vectors().values.shape == (len(bound.left[0]), 300)


def test_vectors_are_those_of_a_plain_reading(glove: Path) -> None:
    plain = {line.split(" ")[0]: line.split(" ")[1:] for line in glove.read_text(encoding="utf-8").split("\n") if line}
    vectors = WordVectors.load(glove)
    assert len(vectors.words) == 2403
    assert set(vectors.words) == set(plain)
    expected = torch.tensor([[float(number) for number in plain[word]] for word in vectors.words])
    assert torch.equal(vectors.table, expected)
