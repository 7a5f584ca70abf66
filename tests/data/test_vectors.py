"""The table of word vectors: look-up, missing words, coverage."""

import hashlib
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from towers.data import VectorStore, WordVectors
from towers.data.vectors import hashed

WORDS = ["the", "dog", "The", "Paris", "the end"]
TABLE = torch.arange(15, dtype=torch.float32).view(5, 3) - 7


def vectors(missing: Literal["hash", "zero"] = "hash") -> WordVectors:
    return WordVectors(WORDS, TABLE, missing=missing)


@pytest.mark.parametrize(
    ("word", "row"),
    [("the", 0), ("The", 2), ("THE", 0), ("DOG", 1), ("Paris", 3), ("the end", 4), ("The End", 4)],
)
def test_look_up_is_exact_then_lower_cased(word: str, row: int) -> None:
    assert vectors().ids([word]) == [row]


@pytest.mark.parametrize(
    ("known", "found"),
    [
        (["\u00e9t\u00e9", "\u00c9t\u00e9", "E\u0301te\u0301"], 2),  # as it is: NFD
        (["\u00e9t\u00e9", "\u00c9t\u00e9"], 1),  # in NFC
        (["\u00e9t\u00e9"], 0),  # lower-cased, in NFC
    ],
)
def test_look_up_is_exact_then_composed_then_lower_cased(known: list[str], found: int, tmp_path: Path) -> None:
    word = "E\u0301te\u0301"
    lines = "".join(f"{name} {row}.5 0.25\n" for row, name in enumerate(known))
    (tmp_path / "vectors.txt").write_text(lines, "utf8")
    loaded = WordVectors.load(tmp_path / "vectors.txt", [word])
    with VectorStore(tmp_path / "vectors.txt") as store:
        assert store.select([word]).look_up([word]).tolist() == [[found + 0.5, 0.25]]
    assert loaded.look_up([word]).tolist() == [[found + 0.5, 0.25]]
    assert loaded.coverage.types_found == 1


def test_a_missing_word_has_one_vector_in_every_normal_form() -> None:
    looked_up = vectors().look_up(["\u00e9t\u00e9", "e\u0301te\u0301"])
    assert torch.equal(looked_up[0], looked_up[1])


@pytest.mark.parametrize("missing", ["hash", "zero"])
def test_a_word_is_not_looked_up_in_upper_case(missing: Literal["hash", "zero"]) -> None:
    table = vectors(missing)
    assert table.ids(["paris"])[0] >= len(WORDS)
    assert table.missing_counts == {"paris": 1}


def test_missing_zero_is_zeros_in_one_row() -> None:
    table = vectors("zero")
    ids = table.ids(["blorp", "dog", "zing", "blorp", ""])
    assert ids == [5, 1, 5, 5, 5]
    assert table.table.shape == (6, 3)
    assert torch.equal(table.table[5], torch.zeros(3))


def test_missing_hash_is_one_vector_a_word_of_the_table_s_scale() -> None:
    words = [f"missing{i}" for i in range(200)]
    table = WordVectors(["a", "b"], torch.tensor([[3.0, -3.0] * 150, [3.0] * 300]))
    ids = table.ids(words)
    assert ids == list(range(2, 202))
    assert table.words == ("a", "b", *words)
    missing = table.table[2:]
    assert float(missing.square().mean().sqrt()) == pytest.approx(3, rel=0.01)
    assert float(missing.mean()) == pytest.approx(0, abs=0.05)
    cosines = torch.corrcoef(missing) - torch.eye(200)
    assert float(cosines.abs().max()) < 0.35  # unrelated: five standard deviations of 1 / sqrt(300) are 0.29


def test_hashed_numbers_are_those_of_the_formula() -> None:
    digest = hashlib.shake_256("Grüße".encode()).digest(14)
    whole = struct.unpack("<7H", digest)
    expected = [(number - 32767.5) / 65536 * math.sqrt(12) for number in whole]
    assert hashed("Grüße", 7).tolist() == pytest.approx(expected, abs=1e-6)


def test_hashed_numbers_are_the_same_in_every_process() -> None:
    code = "from towers.data.vectors import hashed; print(hashed('blorp', 300).tolist())"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == f"{hashed('blorp', 300).tolist()}\n"


@given(st.permutations(["foo", "Foo", "FOO", "dog", "Dog", "x"]))
def test_a_missing_word_s_vector_does_not_depend_on_what_was_asked_before(order: list[str]) -> None:
    together, alone = vectors(), vectors()
    for word in order:
        together.ids([word])
    assert torch.equal(together.look_up(["Foo"]), alone.look_up(["Foo"]))


def test_ids_are_stable_and_the_first_rows_stay() -> None:
    table = vectors()
    first = table.ids(["zing", "dog"])
    table.ids(["blorp", "Zing"])
    assert table.ids(["zing", "dog"]) == first
    assert torch.equal(table.table[:5], TABLE)
    assert len(table.words) == len(table.table) == 8


@pytest.mark.parametrize("missing", ["hash", "zero"])
def test_the_empty_word_is_zeros_and_never_missing(missing: Literal["hash", "zero"]) -> None:
    table = vectors(missing)
    assert torch.equal(table.look_up([""]), torch.zeros(1, 3))
    assert table.coverage.tokens == 0
    assert not table.missing_counts


def test_coverage_counts_tokens_and_words_over_all_look_ups() -> None:
    table = vectors()
    assert str(table.coverage) == "no word was looked up yet"
    table.ids(["the", "THE", "blorp", "zing"])
    table.ids(["zing", "dog", "dog", ""])
    assert table.coverage == (7, 4, 5, 3, {"zing": 2, "blorp": 1})
    assert table.missing_counts == {"zing": 2, "blorp": 1}
    assert str(table.coverage) == (
        "57.14 % of 7 tokens and 3 of 5 words have a vector; missing most often: 'zing' (2), 'blorp' (1)"
    )


def test_coverage_names_nothing_when_nothing_is_missing() -> None:
    table = vectors()
    table.ids(["the"])
    assert str(table.coverage) == "100.00 % of 1 tokens and 1 of 1 words have a vector"


def test_no_words_at_all() -> None:
    table = WordVectors([], torch.empty(0, 4))
    assert table.look_up(["a", "b"]).shape == (2, 4)
    assert table.width == 4


def test_table_is_float32() -> None:
    assert WordVectors(["a"], torch.ones(1, 2, dtype=torch.float64)).table.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param((["a", "a"], torch.ones(2, 3)), r"each word once; 'a' is there twice", id="word twice"),
        pytest.param((["a", ""], torch.ones(2, 3)), r"words\[1\] is empty", id="blank word"),
        pytest.param((["a"], torch.ones(2, 3)), r"table \(2, 3\) must be .* each of 1 words", id="counts"),
        pytest.param((["a"], torch.ones(1)), r"table \(1,\) must be \(words, width\)", id="one axis"),
        pytest.param((["a", "b"], torch.tensor([[1.0], [math.nan]])), r"finite numbers only; that of 'b'", id="nan"),
    ],
)
def test_bad_table_is_refused(arguments: tuple[list[str], torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WordVectors(*arguments)


def test_bad_choice_of_missing_is_refused() -> None:
    with pytest.raises(ValueError, match=r'missing \(\'random\'\) must be "hash" or "zero"'):
        WordVectors(["a"], torch.ones(1, 2), missing="random")  # type: ignore[arg-type]


def test_one_string_is_no_collection_of_words(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("dog 1 2\n", encoding="utf8")
    with pytest.raises(
        ValueError, match=r"vocabulary \('dog'\) is one string; give a collection of words, such as \['dog'\]"
    ):
        WordVectors.load(path, "dog")
    vectors = WordVectors.load(path, ["dog"])
    for look_up in (vectors.look_up, vectors.ids):
        with pytest.raises(ValueError, match=r"words \('dog'\) is one string"):
            look_up("dog")


def test_what_are_no_words_and_no_table(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("a 1 2\nb 3 4\n")
    for wrong, told in ((None, "no string"), (["a", "b"], "a sentence, not a word: give the words of all sentences")):
        with pytest.raises(ValueError, match=f"vocabulary has .* which is {told}"):
            WordVectors.load(tmp_path / "v.txt", ["a", wrong])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="table is list; expected a tensor"):
        WordVectors(["a"], [[1.0]])  # type: ignore[arg-type]
    (tmp_path / "r.txt").write_bytes(b"a 1 2 3\r\rb 1 2 3\r\rc 1 2 3")
    with pytest.raises(ValueError, match=r"r.txt, line 1: "):
        WordVectors.load(tmp_path / "r.txt")
