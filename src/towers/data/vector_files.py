"""Files of word vectors: how the format is detected, and what every reader provides."""

import re
from abc import ABC, abstractmethod
from array import array
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import BinaryIO, Literal, NamedTuple

import torch
from torch import Tensor

from towers.data.encoding import RETURNS, other_kind

Format = Literal["glove", "word2vec", "fasttext", "word2vec-binary"]
HEAD = 1000
"""The first vectors of a file from which the scale of the numbers and, without a header, the width are taken."""


class Entry(NamedTuple):
    """A word of a file and its position."""

    number: int
    """Its position among the words of the file, from 1."""
    start: int
    """The byte at which it begins."""
    word: bytes
    """In UTF-8."""
    body: bytes
    """The bytes of its numbers."""


class VectorReader(ABC):
    """An open file of word vectors, read word by word; the numbers of a word are parsed only on request."""

    path: str
    file: BinaryIO
    width: int
    """How many numbers a word has."""

    def __init__(self) -> None:
        head = array("f")
        for entry in islice(self.entries(), HEAD):
            head.extend(self.numbers(entry))
        self.scale = root_mean_square(as_table(head, self.width))
        """The root mean square of the file's first vectors; it does not depend on the vocabulary that is kept."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Every word from the first on.

        Raises:
            ValueError: the file is damaged; the message names it and the place.
        """

    @abstractmethod
    def entry(self, number: int, start: int) -> Entry:
        """The word that begins at byte `start`."""

    @abstractmethod
    def numbers(self, entry: Entry) -> "array[float]":
        """The numbers of a word.

        Raises:
            ValueError: a field is not a finite number; the message names file and word.
        """


class VectorFile(NamedTuple):
    """The words of a file that were kept, each with a row of the table."""

    words: list[str]
    table: Tensor
    scale: float
    """As `VectorReader.scale`."""
    duplicates: int
    """The number of repeated words that were left out; the first occurrence counts."""


def keep(reader: VectorReader, wanted: Iterable[str] | None, first: int = 0) -> VectorFile:
    """The `wanted` words of a file (None: all), the first occurrence of each, and the `first` words of the file.

    Other words take no memory.
    """
    forms = None if wanted is None else {word.encode() for word in wanted}
    rows: dict[bytes, int] = {}
    table = array("f")
    duplicates = 0
    for entry in reader.entries():
        word = entry.word
        if not word or (forms is not None and word not in forms and entry.number > first):
            continue
        if word in rows:
            duplicates += 1
            continue
        rows[word] = len(rows)
        table.extend(reader.numbers(entry))
    return VectorFile([word.decode() for word in rows], as_table(table, reader.width), reader.scale, duplicates)


def as_table(numbers: "array[float]", width: int) -> Tensor:
    """Rows of `width` numbers that share the memory of the array."""
    return torch.frombuffer(numbers, dtype=torch.float32).view(-1, width) if numbers else torch.empty(0, width)


def detect(path: str, file: BinaryIO) -> Format:
    """Detect the format from the content of the file. Raises ValueError for an empty file and for other kinds of file.

    A first line of two whole numbers is a header. After one, control characters say binary (numbers in binary nearly
    always have them, text never has), and so does a line that neither is UTF-8 nor ends in a number.
    """
    pass_mark(file)
    first, sample = file.readline(1 << 20), file.read(1 << 16)
    file.seek(0)
    if not first:
        raise ValueError(f"{path} is empty")
    if advice := other_kind(first):
        raise ValueError(f"{path}: is no file of word vectors; {advice}")
    if header_of(first) is None:
        parts = [part for part in first.split(b"\r") if part.strip()] if b"\r" in first.rstrip() else []
        if len(parts) > 1 and all(map(_ends_in_a_number, parts[:2])):
            raise ValueError(f"{path}, line 1: {RETURNS}")
        return "glove"
    control = re.search(rb"[\x00-\x08\x0e-\x1f]", sample)
    return "word2vec-binary" if control or not looks_like_text(sample.partition(b"\n")[0]) else "word2vec"


def _ends_in_a_number(line: bytes) -> bool:
    return number_or_none((line.split() or [b""])[-1]) is not None


def pass_mark(file: BinaryIO) -> None:
    """Go to the first word of a text file, behind a byte order mark if there is one."""
    file.seek(len(BOM_UTF8) if file.read(len(BOM_UTF8)) == BOM_UTF8 else 0)


def looks_like_text(line: bytes) -> bool:
    """Whether a line is UTF-8, or at least ends in a number."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return _ends_in_a_number(line)
    return True


def header_of(line: bytes) -> tuple[int, int] | None:
    """Count and width if the line is a header, that is, two whole numbers and nothing else; otherwise None."""
    found = re.fullmatch(rb"([0-9]{1,18})[ \t]+([0-9]{1,18})\s*", line)
    return (int(found[1]), int(found[2])) if found else None


def read_header(path: str, line: bytes) -> tuple[int, int]:
    """Count and width from a file's first line."""
    header = header_of(line)
    if header is None or header[1] == 0:
        raise ValueError(f'{path}, line 1: expected the header "count width", not {line[:40]!r}')
    return header


def number_or_none(field: bytes) -> float | None:
    """The number that a field spells, or None."""
    try:
        return None if b"_" in field else float(field)  # Python's own spelling, 1_000, is none of a file
    except ValueError:
        return None


def root_mean_square(table: Tensor) -> float:
    """The root mean square of a table's first rows."""
    head = table[:HEAD].to(torch.float64)
    return float(head.square().mean().sqrt()) if head.numel() else 1.0
