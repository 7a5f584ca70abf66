"""Readers of word vectors: text (GloVe, word2vec, fastText `.vec`) and word2vec's binary format.

gensim reads the binary format too, but only as a whole: it gives no word's position and cannot skip words.
"""

import os
import re
import sys
from array import array
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from math import isfinite
from typing import BinaryIO, get_args

from towers.data.encoding import decode_line, unpacked
from towers.data.packaged_vectors import is_packaged, open_packaged
from towers.data.vector_files import HEAD, Entry, Format, VectorReader, detect, number_or_none, pass_mark, read_header

LONGEST_LINE = 1 << 24
"""Bytes of a line of text; a longer line is refused."""
BLOCK = 1 << 20
"""Bytes of a binary file that are read at a time."""
LARGEST = 1e9
"""A number of a binary file beyond this is no number of a word vector: the numbers are not where they should be."""
SMALLEST = 1e-12
"""A binary file whose numbers have a smaller root mean square is read in the wrong byte order, or damaged."""
LONGEST_WORD = 1 << 16
"""Bytes of a word in a binary file; a longer word is refused, since the numbers are not where they should be."""

LONGEST_REST = 16
"""Numbers at whose places the rest of a word with spaces is looked for: its last space makes one of about 1e-19."""


@contextmanager
def open_vectors(path: str, format: Format | None) -> Generator[VectorReader]:
    """The reader of a file, in the given or the detected format, or of packaged vectors."""
    if format is not None and format not in get_args(Format):
        raise ValueError(f"format ({format!r}) must be one of {', '.join(get_args(Format))}")
    if is_packaged(path):
        with open_packaged(path) as packaged:
            yield packaged
        return
    with unpacked(path) as file:
        format = detect(path, file) if format is None else format
        if format == "word2vec-binary":
            yield BinaryReader(path, file)
        else:
            yield TextReader(path, file, header=format != "glove")


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
        """Every word. Blank lines are ignored, and the spaces that word2vec and fastText write at the end of a line."""
        words, doubtful, start = 0, 0, self.start
        self.file.seek(start)
        for line in self._lines():
            entry = self._parse(words + 1, start, line)
            start += len(line)
            if entry is None:
                continue
            words += 1
            if b" " in entry.word:
                doubtful += self._ends_in_a_number(entry)
            if words == HEAD:
                self._check_width(words, doubtful)
            yield entry
        self._check_width(words, doubtful)
        if not words:
            raise ValueError(f"{self.path} has no words; expected a word and its numbers on each line")
        if words < self.count:
            raise ValueError(f"{self.path} ends after {words} words; its header says {self.count}")

    def entry(self, number: int, start: int) -> Entry:
        """The word whose line begins at byte `start`."""
        self.file.seek(start)
        entry = self._parse(number, start, self.file.readline())
        assert entry is not None
        return entry

    def _parse(self, number: int, start: int, line: bytes) -> Entry | None:
        """The word of a line; None for a blank line."""
        width = self.width
        if len(line) == LONGEST_LINE:
            raise self._mistake(start, f"has {LONGEST_LINE >> 20} MB or more; are these word vectors?")
        if not line.isascii():
            self._check_encoding(start, line)
            line = line.removeprefix(BOM_UTF8)  # files that were joined have it inside
        line = line.rstrip(b" \t\r\n")
        if not line:
            return None
        if b"\t" in line or b"  " in line:
            line = _with_single_spaces(line, width)
        spaces = line.count(b" ")
        if spaces < width:
            raise self._mistake(start, f"{spaces} numbers after the word; expected {width}")
        word = line[: line.index(b" ")] if spaces == width else line.rsplit(b" ", width)[0]
        return Entry(number, start, word.lstrip(b" \t"), line)

    def _check_encoding(self, start: int, line: bytes) -> None:
        try:
            line.decode()
        except UnicodeDecodeError:
            decode_line(self.path, self._line_at(start), line)

    def numbers(self, entry: Entry) -> "array[float]":
        """The numbers at the end of a line; each must be finite in float32."""
        fields = entry.body.rsplit(b" ", self.width)[1:]
        try:
            if b"_" in entry.body and b"_" in b" ".join(fields):  # Python's own spelling of numbers, 1_000
                raise ValueError
            numbers = array("f", map(float, fields))
        except ValueError:
            numbers = array("f", (float("nan") if number_or_none(f) is None else 0 for f in fields))
        if not isfinite(sum(numbers)):
            bad = next(place for place, value in enumerate(numbers) if not isfinite(value))
            found = fields[bad].decode()
            problem = f"number {bad + 1} of {self.width} is {found[:40]!r}; expected a finite number"
            raise self._mistake(entry.start, problem)
        return numbers

    def _ends_in_a_number(self, entry: Entry) -> bool:
        """Whether a word with spaces ends in a number, as in GloVe a few may.

        Raises:
            ValueError: a part of it is one of the row's numbers: there is a header, or it is written as they are.
        """
        ends = number_or_none(entry.word.rpartition(b" ")[2]) is not None
        if (ends and self.header) or any(map(_LONG.fullmatch, entry.word.split(b" ")[1:])):
            more = f"numbers beyond the {self.width} expected after a word"
            raise self._mistake(entry.start, f"{entry.word[:40].decode(errors='replace')!r} has {more}")
        return ends

    def _check_width(self, words: int, doubtful: int) -> None:
        """Refuse a file in which many words end in a number: their rows have more numbers than the width."""
        if doubtful * (3 if words < 100 else 10) > words:
            problem = f"{doubtful} of the first {words} words end in a number"
            raise ValueError(f"{self.path}: {problem}; rows have more numbers than the {self.width} expected")

    def _line_at(self, start: int) -> int:
        """The number of the line that begins at byte `start`."""
        here = self.file.tell()
        self.file.seek(0)
        number = self.file.read(start).count(b"\n") + 1
        self.file.seek(here)
        return number

    def _mistake(self, start: int, problem: str) -> ValueError:
        return ValueError(f"{self.path}, line {self._line_at(start)}: {problem}")

    def _lines(self) -> Iterator[bytes]:
        return iter(partial(self.file.readline, LONGEST_LINE), b"")


_LONG = re.compile(rb"[-+]?[0-9]*\.[0-9]{3,}(?:[eE][-+]?[0-9]+)?")
"""A number as the rows of vectors have them; words are seldom so exact."""


def guess_width(path: str, lines: Sequence[bytes]) -> int:
    """The number of numbers at the end of most lines: single words may end in a number or have too few of them."""
    widths = Counter(width for line in lines if (width := _trailing_numbers(line)))
    if not widths:
        first = b"".join(lines[:1])[:40].decode(errors="replace")
        raise ValueError(f"{path}, line 1: expected a word and its numbers, with spaces between, not {first!r}")
    most = max(widths.values())
    return min(width for width, count in widths.items() if count == most)


def _with_single_spaces(line: bytes, width: int) -> bytes:
    """A line with single spaces between its numbers, in place of tabs and of several spaces."""
    word, *numbers = line.rsplit(b" ", width)
    if len(numbers) == width and all(field and b"\t" not in field for field in numbers):
        return b" ".join([word.rstrip(b" \t"), *numbers])  # tabs and spaces inside the word stay
    return re.sub(rb"[ \t]+", b" ", line)


def _trailing_numbers(line: bytes) -> int:
    """The number of numbers at the end of a line; its first field always belongs to the word."""
    fields = re.split(rb"[ \t]+", line.rstrip(b" \t\r\n"))[1:]
    words = (place for place, field in enumerate(reversed(fields)) if number_or_none(field) is None)
    return next(words, len(fields))


_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_SPACES = "the file is damaged, or its words contain spaces, which this format cannot hold: save it as text"


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
        if 0 < self.scale < SMALLEST:
            problem = f"its numbers are next to nothing (root mean square {self.scale:.1g})"
            raise ValueError(f"{path}: {problem}; the file is damaged, or has another byte order")

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
            word = _word(buffer[place:end])
            if _CONTROL.search(word):
                raise ValueError(f"{self.path}: word {number} has control characters; {_SPACES}")
            body = buffer[end + 1 : end + 1 + size]
            if (space := body[3 : 4 * LONGEST_REST : 4].find(b" ")) >= 0 and not _CONTROL.search(body[: 4 * space]):
                raise ValueError(f"{self.path}: the numbers of word {number} begin with text; {_SPACES}")
            yield Entry(number, base + place, word, body)
            place = end + 1 + size
        if (buffer[place:] + file.read(1)).strip(b"\r\n\0 "):
            raise ValueError(f"{self.path}: has more bytes after its {self.count} words; {_SPACES}")

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
            raise ValueError(f"{self.path}: the vector of {word!r} has a number that is not finite; {_SPACES}")
        if max(map(abs, numbers)) > LARGEST:
            word = entry.word[:40].decode(errors="replace")
            raise ValueError(f"{self.path}: the vector of {word!r} has a number beyond {LARGEST:g}; {_SPACES}")
        return numbers

    def _cut(self) -> ValueError:
        return ValueError(f"{self.path} ends before the {self.count} words that its header says")


def _word(word: bytes) -> bytes:
    word = word.lstrip(b"\n")
    return word if word.isascii() else word.decode(errors="replace").encode()
