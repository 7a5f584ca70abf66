"""The vectors that a model's folder carries: rounded to float16, and compared word by word with those of a file."""

import random
from pathlib import Path

import pytest
import torch

from towers.data import VectorStore, WordVectors
from towers.data.kept_vectors import ExtendedVectors, load_vectors, save_vectors

WORDS = ["the", "Dog", "dog", "New York", "हिन्दी", "größe"]


def table(rows: int = len(WORDS), width: int = 5) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(3))


def write(path: Path, words: list[str], numbers: torch.Tensor) -> Path:
    rows = zip(words, numbers.tolist(), strict=True)
    path.write_text("".join(f"{word} {' '.join(map(repr, row))}\n" for word, row in rows), "utf8")
    return path


@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e30])
def test_round_trip(tmp_path: Path, factor: float) -> None:
    vectors = WordVectors(WORDS, factor * table(), missing="zero")
    vectors.look_up(["blorp"])  # a row of a missing word is not kept
    save_vectors(tmp_path, vectors)
    loaded = load_vectors(tmp_path, missing="zero")
    assert loaded.words == tuple(WORDS)
    expected = factor * table()
    expected = expected if factor == 1e30 else expected.half().float()  # float16 ends at 65504
    assert torch.equal(loaded.table, expected)
    assert (loaded.scale, loaded.missing) == (vectors.scale, "zero")


def test_what_is_written_into_the_file_later_is_not_read(tmp_path: Path) -> None:
    save_vectors(tmp_path, WordVectors(WORDS, table()))
    loaded, file = load_vectors(tmp_path), tmp_path / "vectors.safetensors"
    before = loaded.gather(WORDS).clone()
    with file.open("r+b") as opened:  # as cp does, which makes the file shorter before: that would end the process
        opened.write(bytes(file.stat().st_size))
    assert torch.equal(loaded.gather(WORDS), before)


def test_no_words(tmp_path: Path) -> None:
    save_vectors(tmp_path, WordVectors([], torch.empty(0, 4)))
    assert (load_vectors(tmp_path).words, load_vectors(tmp_path).width) == ((), 4)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    save_vectors(tmp_path, WordVectors(WORDS, table()))
    path = tmp_path / "vectors.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"vectors\.safetensors: is damaged"):
        load_vectors(tmp_path)


def own() -> WordVectors:
    return WordVectors(WORDS, table().half().float())


def test_more_words_of_the_same_vectors_in_any_order(tmp_path: Path) -> None:
    words = [*WORDS, *(f"more{number}" for number in range(30))]
    numbers = torch.cat([table(), table(30)])
    order = random.Random(0).sample(range(36), 36)
    path = write(tmp_path / "v.txt", [words[i] for i in order], numbers[order])
    with VectorStore(path) as store:
        extended = ExtendedVectors(own(), store)
        selected = extended.select(["the", "more7", "DOG", "nowhere"])
    assert torch.equal(selected.look_up(["the"])[0], table()[0].half().float())  # the model's own come first
    assert torch.equal(selected.look_up(["more7"])[0], table(30)[7])
    assert torch.equal(selected.look_up(["DOG"])[0], table()[2].half().float())
    assert not selected.has("nowhere")


def test_fewer_words_are_enough(tmp_path: Path) -> None:
    with VectorStore(write(tmp_path / "v.txt", ["dog", "other"], table()[[2, 0]])) as store:
        assert ExtendedVectors(own(), store).select(["the", "other"]).words == ("the", "other")


@pytest.mark.parametrize("word", range(len(WORDS)))
def test_a_different_number_of_any_word_is_refused(tmp_path: Path, word: int) -> None:
    changed = table()
    changed[word, word % 5] += 0.02
    with (
        VectorStore(write(tmp_path / "v.txt", WORDS, changed)) as store,
        pytest.raises(
            ValueError, match=rf"not the vectors that the model learned with: '{WORDS[word]}' has other numbers"
        ),
    ):
        ExtendedVectors(own(), store)


def test_no_shared_word_is_refused(tmp_path: Path) -> None:
    with (
        VectorStore(write(tmp_path / "v.txt", ["x", "y"], table(2))) as store,
        pytest.raises(ValueError, match="no word of the model is among them"),
    ):
        ExtendedVectors(own(), store)


def test_another_width_is_refused(tmp_path: Path) -> None:
    with (
        VectorStore(write(tmp_path / "v.txt", WORDS, table(width=4))) as store,
        pytest.raises(ValueError, match="they have 4 numbers a word, not 5"),
    ):
        ExtendedVectors(own(), store)


@pytest.mark.parametrize("first", [0, 1, 3, 99])
def test_the_first_words_of_a_file_are_kept_too(tmp_path: Path, first: int) -> None:
    path = write(tmp_path / "v.txt", WORDS, table())
    loaded = WordVectors.load(path, ["New York"], first=first)
    assert loaded.words == tuple(word for place, word in enumerate(WORDS) if place < first or word == "New York")


def test_vectors_stay_float16_in_memory_until_all_are_asked_for(tmp_path: Path) -> None:
    words, table = [f"w{number}" for number in range(50)], torch.randn(50, 6)
    save_vectors(tmp_path, WordVectors(words, table))
    kept = load_vectors(tmp_path)
    half = table.half().float()
    assert torch.equal(kept.select(["w3", "W7", "nowhere"]).table, half[[3, 7]])
    assert torch.equal(kept.gather(["w7", "w3", "w7"]), half[[7, 3, 7]])
    assert kept.gather([]).shape == (0, 6)
    assert kept._table.dtype == torch.float16  # 120 MB in place of 240 for 200,000 words of 300 numbers
    assert torch.equal(kept.table, half)
    assert torch.equal(kept.look_up(["w3", "blorp"])[0], half[3])
    assert len(kept.table) == 51


@pytest.mark.parametrize("place", [0, 8191, 8192, 20_000])
def test_a_number_that_is_not_finite_is_named_wherever_it_stands(place: int) -> None:
    table = torch.zeros(20_001, 2, dtype=torch.float16)
    table[place, 1] = torch.inf
    with pytest.raises(ValueError, match=f"table must have finite numbers only; that of 'w{place}' has others"):
        WordVectors([f"w{number}" for number in range(20_001)], table)
