"""Readers of word vectors: text (GloVe, word2vec, fastText `.vec`) and word2vec's binary format.

gensim reads the binary format too, but only as a whole: it gives no word's position and cannot skip words.
"""

import os
import sys
from array import array
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from math import isfinite
from typing import BinaryIO, get_args

from towers.data.encoding import decode_line
from towers.data.vector_files import HEAD, Entry, Format, VectorReader, detect, number_or_none, pass_mark, read_header

LONGEST_LINE = 1 << 24
"""Bytes of a line of text; a longer line is refused."""
BLOCK = 1 << 20
"""Bytes of a binary file that are read at a time."""
LONGEST_WORD = 1 << 16
"""Bytes of a word in a binary file; a longer word is refused, since the numbers are not where they should be."""


@contextmanager
def open_vectors(path: str, format: Format | None) -> Generator[VectorReader]:
    """The reader of a file, in the given or the detected format."""
    if format is not None and format not in get_args(Format):
        raise ValueError(f"format ({format!r}) must be one of {', '.join(get_args(Format))}")
    format = detect(path) if format is None else format
    with open(path, "rb", buffering=1 << 14) as file:
        yield (
            BinaryReader(path, file)
            if format == "word2vec-binary"
            else TextReader(path, file, header=format != "glove")
        )


class TextReader(VectorReader):
    """Text with one word a line: the last `width` fields are its numbers, everything before them is the word.

    GloVe has words with spaces in them. Of the line of an unwanted word only the number of fields and the encoding are
    checked, which is cheap.
    """

    def __init__(self, path: str, file: BinaryIO, *, header: bool) -> None:
        self.path, self.file, self.header = path, file, header
        pass_mark(file)
        self.count, width = read_header(path, file.readline(1 << 20)) if header else (0, 0)
        self.start = file.tell()
        self.width = width or guess_width(path, list(islice(self._lines(), HEAD)))
        super().__init__()

    def entries(self) -> Iterator[Entry]:
        """Every word. The spaces that word2vec and fastText write at the end of a line are ignored."""
        width, number, start = self.width, 0, self.start
        self.file.seek(start)
        for number, line in enumerate(self._lines(), 1):
            size = len(line)
            if size == LONGEST_LINE:
                raise self._mistake(number, f"has {LONGEST_LINE >> 20} MB or more; are these word vectors?")
            if not line.isascii():
                decode_line(self.path, number + self.header, line)
            line = line.rstrip(b" \r\n")
            spaces = line.count(b" ")
            if spaces < width:
                raise self._mistake(number, f"{spaces} numbers after the word; expected {width}")
            word = line[: line.index(b" ")] if spaces == width else line.rsplit(b" ", width)[0]
            yield Entry(number, start, word, line)
            start += size
        if number < self.count:
            raise ValueError(f"{self.path} ends after {number} words; its header says {self.count}")

    def entry(self, number: int, start: int) -> Entry:
        """The word whose line begins at byte `start`."""
        self.file.seek(start)
        line = self.file.readline().rstrip(b" \r\n")
        return Entry(number, start, line.rsplit(b" ", self.width)[0], line)

    def numbers(self, entry: Entry) -> "array[float]":
        """The numbers at the end of a line; each must be finite in float32."""
        fields = entry.body.rsplit(b" ", self.width)[1:]
        try:
            numbers = array("f", map(float, fields))
        except ValueError:
            numbers = array("f", (float("nan") if number_or_none(f) is None else 0 for f in fields))
        if not isfinite(sum(numbers)):
            bad = next(place for place, value in enumerate(numbers) if not isfinite(value))
            found = fields[bad].decode()
            problem = f"number {bad + 1} of {self.width} is {found[:40]!r}; expected a finite number"
            raise self._mistake(entry.number, problem)
        return numbers

    def _mistake(self, number: int, problem: str) -> ValueError:
        return ValueError(f"{self.path}, line {number + self.header}: {problem}")

    def _lines(self) -> Iterator[bytes]:
        return iter(partial(self.file.readline, LONGEST_LINE), b"")


def guess_width(path: str, lines: Sequence[bytes]) -> int:
    """The number of numbers at the end of most lines: single words may end in a number or have too few of them."""
    widths = Counter(width for line in lines if (width := _trailing_numbers(line)))
    if not widths:
        first = b"".join(lines[:1])[:40].decode(errors="replace")
        raise ValueError(f"{path}, line 1: expected a word and its numbers, with spaces between, not {first!r}")
    most = max(widths.values())
    return min(width for width, count in widths.items() if count == most)


def _trailing_numbers(line: bytes) -> int:
    """The number of numbers at the end of a line; its first field always belongs to the word."""
    fields = line.rstrip(b" \r\n").split(b" ")[1:]
    words = (place for place, field in enumerate(reversed(fields)) if number_or_none(field) is None)
    return next(words, len(fields))


class BinaryReader(VectorReader):
    """word2vec's binary format: a header, then each word, a space and its numbers as float32.

    A line end before a word is not part of it: some tools write one, some do not.
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.count, self.width = read_header(path, file.readline(1 << 20))
        self.start = file.tell()
        self.size = 4 * self.width
        room = os.fstat(file.fileno()).st_size - self.start
        if self.count * (self.size + 1) > room:  # refused before anything is read or allocated
            raise self._cut()
        super().__init__()

    def entries(self) -> Iterator[Entry]:
        """Every word. A word that word2vec cut in the middle of a character ends in U+FFFD."""
        file, size, base = self.file, self.size, self.start
        file.seek(base)
        buffer, place = b"", 0  # buffer[place:] is read but not yet parsed; it begins at byte base + place of the file
        for number in range(1, self.count + 1):
            end = buffer.find(b" ", place)
            while end < 0 or end + 1 + size > len(buffer):
                if end < 0 and len(buffer) - place > LONGEST_WORD:
                    raise ValueError(f"{self.path}: word {number} has no end; the file is damaged")
                more = file.read(max(BLOCK, size))
                if not more:
                    raise self._cut()
                buffer, base, place = buffer[place:] + more, base + place, 0
                end = buffer.find(b" ")
            yield Entry(number, base + place, _word(buffer[place:end]), buffer[end + 1 : end + 1 + size])
            place = end + 1 + size

    def entry(self, number: int, start: int) -> Entry:
        """The word that begins at byte `start`."""
        self.file.seek(start)
        data = self.file.read(LONGEST_WORD + self.size)
        end = data.index(b" ")
        return Entry(number, start, _word(data[:end]), data[end + 1 : end + 1 + self.size])

    def numbers(self, entry: Entry) -> "array[float]":
        """The numbers of a word; each must be finite."""
        numbers = array("f", entry.body)
        if sys.byteorder == "big":
            numbers.byteswap()
        if not isfinite(sum(numbers)):
            word = entry.word[:40].decode(errors="replace")
            raise ValueError(f"{self.path}: the vector of {word!r} has a number that is not finite")
        return numbers

    def _cut(self) -> ValueError:
        return ValueError(f"{self.path} ends before the {self.count} words that its header says")


def _word(word: bytes) -> bytes:
    word = word.lstrip(b"\n")
    return word if word.isascii() else word.decode(errors="replace").encode()
