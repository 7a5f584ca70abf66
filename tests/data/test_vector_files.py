"""Files of word vectors: every format, told from the content, and every kind of bad line."""

import codecs
import gzip
import re
import struct
import tracemalloc
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from towers.data import VectorStore, WordVectors
from towers.data.vector_files import Format, detect

NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
# A word is anything that stands before the numbers: it may have spaces and control characters, but no line end. A byte
# order mark at a file's beginning is none.
ANY_WORD = st.text(st.characters(exclude_characters="\n\ufeff", exclude_categories=["Cs"]), min_size=1).filter(
    lambda word: word == word.strip(" \t\r") and not word[-1].isdecimal() and not word.startswith("\0")
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], torch.Tensor]:
    width = draw(st.integers(1, 5))
    words = draw(st.lists(ANY_WORD, min_size=1, max_size=6, unique=True))
    rows = draw(st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=len(words), max_size=len(words)))
    return words, torch.tensor(rows)


def as_text(words: list[str], table: torch.Tensor, *, header: bool = False, end: str = "\n") -> bytes:
    lines = [f"{len(words)} {table.shape[1]}{end}"] if header else []
    lines += [f"{word} {' '.join(map(repr, row))}{end}" for word, row in zip(words, table.tolist(), strict=True)]
    return "".join(lines).encode()


def as_binary(words: list[str], table: torch.Tensor, *, end: bytes = b"\n") -> bytes:
    rows = zip(words, table.tolist(), strict=True)
    body = b"".join(word.encode() + b" " + struct.pack(f"<{len(row)}f", *row) + end for word, row in rows)
    return f"{len(words)} {table.shape[1]}\n".encode() + body


def write(folder: Path, content: bytes, name: str = "vectors") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property: each overwrites the file of the one before."""
    return tmp_path_factory.mktemp("vectors")


@given(tables(), st.sampled_from(["\n", " \n", "\r\n", " \r\n"]))
def test_round_trip_of_text_with_a_header(folder: Path, data: tuple[list[str], torch.Tensor], end: str) -> None:
    words, table = data
    path = write(folder, as_text(words, table, header=True, end=end))
    vectors = WordVectors.load(path, format="word2vec")
    assert list(vectors.words) == words
    assert torch.equal(vectors.table, table)


@given(tables())
def test_round_trip_of_text_without_a_header(folder: Path, data: tuple[list[str], torch.Tensor]) -> None:
    words, table = data
    plain = [f"plain{i}" for i in range(len(words) + 1)]  # most lines have a word of one field: they tell the width
    rows = torch.cat([table, torch.ones(len(plain), table.shape[1])])
    path = write(folder, as_text([*words, *plain], rows))
    vectors = WordVectors.load(path, format="glove")
    assert list(vectors.words) == [*words, *plain]
    assert torch.equal(vectors.table, rows)


@given(tables())
def test_round_trip_of_binary(folder: Path, data: tuple[list[str], torch.Tensor]) -> None:
    words, table = data[0], data[1].clamp(-1e9, 1e9)
    table[table.abs() < 1e-6] = 0  # such numbers alone look like another byte order
    words = [
        re.sub(r"[\x00- \x7f]", "", f"w{number}{word}") for number, word in enumerate(words)
    ]  # a space ends a word here
    path = write(folder, as_binary(words, table))
    vectors = WordVectors.load(path, format="word2vec-binary")
    assert list(vectors.words) == words
    assert torch.equal(vectors.table, table)


def gensim_file(folder: Path, *, binary: bool) -> tuple[Path, Any]:
    from gensim.models import KeyedVectors

    keyed = KeyedVectors(20)
    words = ["the", "dog", "Größe", "東京", "a_b", *[f"word{i}" for i in range(40)]]
    keyed.add_vectors(words, torch.randn(45, 20, generator=torch.Generator().manual_seed(1)).numpy())
    path = folder / ("vectors.bin" if binary else "vectors.txt")
    keyed.save_word2vec_format(str(path), binary=binary)
    return path, keyed


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("vocabulary", [None, {"Dog", "word7", "größe", "nowhere"}], ids=["all", "some"])
def test_what_gensim_writes(tmp_path: Path, binary: bool, vocabulary: set[str] | None) -> None:
    path, keyed = gensim_file(tmp_path, binary=binary)
    vectors = WordVectors.load(path, vocabulary)
    assert set(vectors.words) == (set(keyed.key_to_index) if vocabulary is None else {"dog", "word7"})
    for word in vectors.words:
        torch.testing.assert_close(vectors.look_up([word])[0], torch.tensor(keyed[word]), rtol=1e-6, atol=1e-6)


def test_binary_without_line_ends(tmp_path: Path) -> None:
    """Some tools put no line end behind a vector; Google's file of 2013 has none."""
    path = write(tmp_path, as_binary(["a", "b"], torch.tensor([[1.0, 2.0], [3.0, 4.5]]), end=b""))
    vectors = WordVectors.load(path)
    assert vectors.words == ("a", "b")
    assert vectors.table.tolist() == [[1, 2], [3, 4.5]]


def test_binary_word_that_is_cut_in_the_middle_of_a_character(tmp_path: Path) -> None:
    body = b"2 1\n" + b"Gr\xc3 " + struct.pack("<f", 1) + b"\na " + struct.pack("<f", 2) + b"\n"
    assert WordVectors.load(write(tmp_path, body), {"a"}).table.tolist() == [[2]]


TABLE = torch.tensor([[0.5, -1.25, 3.0], [1.0, 2.0, 1e-7]])


@pytest.mark.parametrize(
    ("content", "format"),
    [
        pytest.param(as_text(["the", "dog"], TABLE), "glove", id="glove"),
        pytest.param(as_text([". . .", "dog"], TABLE), "glove", id="glove, first word with spaces"),
        pytest.param(as_text(["the", "dog"], TABLE, header=True), "word2vec", id="word2vec"),
        pytest.param(as_text(["the", "dog"], TABLE, header=True, end=" \n"), "word2vec", id="fastText"),
        pytest.param(b"2 3\r\nthe 1 2 3\r\ndog 1 2 3\r\n", "word2vec", id="header that ends in CR LF"),
        pytest.param(b"2 1\ncaf\xe9 0.5\ndog 1\n", "word2vec", id="text that is not UTF-8"),
        pytest.param("2 1\nGröße x\ndog 1\n".encode(), "word2vec", id="text with a bad number"),
        pytest.param(codecs.BOM_UTF8 + b"2 2\nthe 1 2\ndog 1 2\n", "word2vec", id="header after a byte order mark"),
        pytest.param(as_binary(["the", "dog"], TABLE), "word2vec-binary", id="binary"),
        pytest.param(as_binary(["the"], torch.full((1, 2), 1.1)), "word2vec-binary", id="binary, no control character"),
    ],
)
def test_format_is_told_from_the_content(tmp_path: Path, content: bytes, format: Format) -> None:
    path = write(tmp_path, content)
    with path.open("rb") as file:
        assert detect(str(path), file) == format


@pytest.mark.parametrize("format", get_args(Format))
def test_format_can_be_forced(tmp_path: Path, format: Format) -> None:
    binary = format == "word2vec-binary"
    content = as_binary(["a", "b"], TABLE) if binary else as_text(["a", "b"], TABLE, header=format != "glove")
    path = write(tmp_path, content, "vectors.of.no.known.ending")
    assert torch.equal(WordVectors.load(path, format=format).table, TABLE)


@pytest.mark.parametrize("header", [False, True])
def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path: Path, header: bool) -> None:
    path = write(tmp_path, codecs.BOM_UTF8 + as_text(["the", "dog"], TABLE, header=header))
    vectors = WordVectors.load(path)
    assert vectors.words == ("the", "dog")
    assert torch.equal(vectors.table, TABLE)
    with VectorStore(path) as store:
        assert store.select(["the"]).words == ("the",)


def test_one_number_a_word_needs_the_format_to_be_forced(tmp_path: Path) -> None:
    path = write(tmp_path, b"5 3\n7 4\n")  # a header, or the word "5" with one number
    assert WordVectors.load(path, format="glove").words == ("5", "7")


@pytest.mark.parametrize(
    ("words", "width"),
    [
        pytest.param([". . .", "dog", "cat"], 3, id="first word has spaces"),
        pytest.param([". . ."], 3, id="only that word"),
        pytest.param(["at 12", "the", "dog"], 3, id="first word ends in a number"),
        pytest.param(["a b", ". . .", "dog", "d e f g", "cat"], 3, id="many words have spaces"),
        pytest.param(["7", "8", "9"], 3, id="words that are numbers"),
    ],
)
def test_width_without_a_header(tmp_path: Path, words: list[str], width: int) -> None:
    path = write(tmp_path, as_text(words, torch.rand(len(words), width)))
    vectors = WordVectors.load(path)
    assert vectors.width == width
    assert list(vectors.words) == words


def test_only_the_vocabulary_is_kept_in_both_forms(tmp_path: Path) -> None:
    words = ["the", "The", "THE", "dog", "cat", ". . ."]
    path = write(tmp_path, as_text(words, torch.arange(6.0).view(6, 1).repeat(1, 2)))
    vectors = WordVectors.load(path, ["The", "DOG", ". . .", "nowhere"])
    assert vectors.words == ("the", "The", "dog", ". . .")
    assert vectors.table[:, 0].tolist() == [0, 1, 3, 5]
    assert vectors.source == str(path)


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_the_first_of_a_repeated_word_is_kept_and_the_rest_counted(tmp_path: Path, binary: bool) -> None:
    words, table = ["a", "b", "a", "c", "a", "c"], torch.arange(12.0).view(6, 2) + 0.1
    path = write(tmp_path, as_binary(words, table) if binary else as_text(words, table))
    vectors = WordVectors.load(path, {"a", "b"})
    assert vectors.words == ("a", "b")
    assert torch.equal(vectors.table, table[:2])
    assert vectors.duplicates == 2


def test_a_line_whose_word_is_empty_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, b"a 1 2\n 3 4\nb 5 6\n")
    assert WordVectors.load(path).words == ("a", "b")


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_a_missing_word_s_vector_does_not_depend_on_the_vocabulary(tmp_path: Path, binary: bool) -> None:
    words, table = [f"w{i}" for i in range(50)], torch.randn(50, 4) * torch.arange(1.0, 51).unsqueeze(1)
    path = write(tmp_path, as_binary(words, table) if binary else as_text(words, table))
    blorps = [WordVectors.load(path, vocabulary).look_up(["blorp"]) for vocabulary in (None, {"w1"}, {"w49"}, set())]
    assert all(torch.equal(blorps[0], blorp) for blorp in blorps)


LINE = b"the 0.5 1 -2\n"
NEW_YORK = as_binary(["in", "New York", *[f"w{number}" for number in range(20)]], torch.rand(22, 3), end=b"")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"the\t0.5\t1\t-2\nNew York\t3\t4\t5\n", id="tabs"),
        pytest.param(b"the\t0.5 1 -2\nNew York\t3 4 5\n", id="a tab after the word"),
        pytest.param(b"the  0.5  1  -2\nNew York  3  4  5\n", id="double spaces"),
        pytest.param(b"the 0.5 1 -2 \t \n\n  \nNew York 3 4 5\n\n", id="blank lines"),
        pytest.param(b"2\t3\nthe\t0.5\t1\t-2\nNew York\t3\t4\t5\n", id="header with a tab"),
        pytest.param(b"2  3\nthe 0.5 1 -2\nNew York 3 4 5\n", id="header with two spaces"),
        pytest.param(b"1 3\nthe 0.5 1 -2\nNew York 3 4 5\n", id="more rows than the header says"),
        pytest.param(gzip.compress(b"the 0.5 1 -2\nNew York 3 4 5\n", mtime=0), id="gzip"),
    ],
)
def test_text_of_other_tools_is_read_right(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, content)
    vectors = WordVectors.load(path)
    assert vectors.words == ("the", "New York")
    assert vectors.table.tolist() == [[0.5, 1, -2], [3, 4, 5]]
    with VectorStore(path) as store:
        assert store.select(["New York", "the"]).look_up(["the", "New York"]).tolist() == [[0.5, 1, -2], [3, 4, 5]]


@given(st.integers(0, 5), st.integers(1, 40), st.integers(0, 2**16))
def test_binary_words_with_a_space_are_never_garbage(folder: Path, place: int, width: int, seed: int) -> None:
    """As gensim writes them; wherever the word stands, wanted or not."""
    words = [f"w{number}" for number in range(6)]
    words[place] = "New York"
    table = torch.randn(6, width, generator=torch.Generator().manual_seed(seed))
    path = write(folder, as_binary(words, table, end=b""))
    for vocabulary in (None, {"w0"}):
        with pytest.raises(ValueError, match=r"damaged|ends before|control|more bytes"):
            WordVectors.load(path, vocabulary, format="word2vec-binary")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(LINE * 3 + b"dog 1 2\n", r"line 4: 2 numbers after the word; expected 3", id="short line"),
        pytest.param(LINE + b"\n\n" + LINE + b"dog 1 2\n", r"line 5: 2 numbers", id="short line after blank lines"),
        pytest.param(
            LINE + b"\n" + LINE + b"dog 1 2 x\n", r"line 4: number 3 of 3 is 'x'", id="no number after a blank line"
        ),
        pytest.param(b"dog 1 2\n" + LINE * 2, r"line 1: 2 numbers after the word; expected 3", id="short first line"),
        pytest.param(
            LINE * 3 + b"dog 1 x 2\n", r"line 4: number 2 of 3 is 'x'; expected a finite number", id="no number"
        ),
        pytest.param(LINE * 3 + b"dog 1  2\n", r"line 4: 2 numbers after the word; expected 3", id="two spaces, short"),
        pytest.param(b"0 300\n", r"has no words; expected a word and its numbers on each line", id="only a header"),
        pytest.param(
            b"2 2\n" + LINE * 2,
            r"line 2: 'the 0.5' has numbers beyond the 2 expected",
            id="header that says less",
        ),
        pytest.param(
            b"".join(b"w%d .5 .5\n" % n for n in range(2000)) + b"".join(b"v%d .5 .5 .5\n" % n for n in range(500)),
            r"500 of the first 2500 words end in a number",
            id="two widths in one file",
        ),
        pytest.param(
            NEW_YORK,
            r"words contain spaces, which this format cannot hold: save it as text",
            id="binary, a word with a space",
        ),
        pytest.param(
            as_binary(["a", "b"], TABLE) + b"more", r"has more bytes after its 2 words", id="binary, more bytes"
        ),
        pytest.param(
            as_binary(["a", "b"], TABLE * 1e30),
            r"the vector of 'a' has a number beyond 1e\+09",
            id="binary, absurd numbers",
        ),
        pytest.param(
            b"2 3\n" + b"".join(b"w%d " % n + struct.pack(">3f", 0.5, 1, -2) for n in range(2)),
            r"its numbers are next to nothing \(root mean square 3e-41\); the file is damaged, or has another byte order",
            id="binary, big endian",
        ),
        pytest.param(b"PK\x03\x04 rest", r"it is a zip archive \(such as \.zip, \.npz", id="npz"),
        pytest.param(b"\x93NUMPY", r"it is an array of NumPy, which has no words", id="npy"),
        pytest.param(b"\x80\x04\x95", r"it is a pickle, such as gensim's \.kv", id="gensim's kv"),
        pytest.param(b"\xba\x16\x4f\x2f\x0c", r"it is a model of fastText \(\.bin\)", id="fastText bin"),
        pytest.param(
            (LINE * 2).decode().encode("utf-16-le"),
            r"it looks like UTF-16: save the file as UTF-8",
            id="UTF-16 without a mark",
        ),
        pytest.param(b"BZh91AY&SY", r"the file is compressed: unpack it first", id="bzip2"),
        pytest.param(LINE * 3 + b"dog 1 2 nan\n", r"line 4: number 3 of 3 is 'nan'", id="NaN"),
        pytest.param(LINE * 3 + b"dog -inf 2 1\n", r"line 4: number 1 of 3 is '-inf'", id="infinite"),
        pytest.param(LINE * 3 + b"dog 1 1e39 1\n", r"line 4: number 2 of 3 is '1e39'", id="too large for float32"),
        pytest.param(LINE * 3 + b"d\xffg 1 2 3\n", r"line 4: byte 2 \(0xff\) is not UTF-8", id="not UTF-8"),
        pytest.param(b"2 3\n" + LINE + b"dog 1 2\n", r"line 3: 2 numbers after the word; expected 3", id="with header"),
        pytest.param(b"2 3\ndog 1 nan 2\n" + LINE, r"line 2: number 2 of 3 is 'nan'", id="NaN, with header"),
        pytest.param(b"5 3\n" + LINE * 2, r"ends after 2 words; its header says 5", id="cut off"),
        pytest.param(b"", r"vectors is empty", id="empty"),
        pytest.param(
            b"some words only\n",
            r"line 1: expected a word and its numbers, with spaces between, not 'some words",
            id="no vectors",
        ),
        pytest.param(gzip.compress(LINE * 99, mtime=0)[:-20], r"is no gzip file, or damaged: ", id="gzip, cut"),
        pytest.param(
            as_binary(["a", "b"], TABLE)[:-9], r"ends before the 2 words that its header says", id="cut binary"
        ),
        pytest.param(
            as_binary(["a", "b"], TABLE.log()), r"the vector of 'a' has a number that is not", id="binary NaN"
        ),
    ],
)
def test_bad_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        WordVectors.load(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("format", ["word2vec", "word2vec-binary"])
@pytest.mark.parametrize("content", [LINE, b"", b"3 0\n", b"3 x\n"], ids=["no header", "empty", "width 0", "no width"])
def test_bad_header_is_named(tmp_path: Path, format: Format, content: bytes) -> None:
    with pytest.raises(ValueError, match=r'line 1: expected the header "count width", not b'):
        WordVectors.load(write(tmp_path, content), format=format)


def test_empty_file_of_forced_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 1: expected a word and its numbers, with spaces between, not ''"):
        WordVectors.load(write(tmp_path, b""), format="glove")


@pytest.mark.parametrize("tail", [b"dog 1 2\n", b"d\xffg 1 2 3\n"], ids=["short line", "not UTF-8"])
def test_bad_line_is_noticed_although_its_word_is_not_wanted(tmp_path: Path, tail: bytes) -> None:
    path = write(tmp_path, LINE * 2000 + tail)
    with pytest.raises(ValueError, match="line 2001: "):
        WordVectors.load(path, {"the"})


def test_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"format \('glov'\) must be one of glove, word2vec, fasttext, word2vec-binary"
    ):
        WordVectors.load(write(tmp_path, LINE), format="glov")  # type: ignore[arg-type]


def test_missing_file_is_the_system_s_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        WordVectors.load(tmp_path / "nowhere.txt")


def test_what_is_not_wanted_takes_no_memory(tmp_path: Path) -> None:
    body = b" 0.125" * 300 + b"\n"
    path = write(tmp_path, b"".join(b"word%d" % number + body for number in range(10_000)))  # 18 MB
    tracemalloc.start()
    vectors = WordVectors.load(path, {f"word{number}" for number in range(0, 10_000, 100)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert vectors.table.shape == (100, 300)
    assert peak < 8e6  # 1 MB is the file's buffer, 2 MB are the first 1,000 lines
