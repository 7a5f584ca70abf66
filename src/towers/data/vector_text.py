"""The reader of word vectors in text: GloVe, word2vec text, fastText `.vec`."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from math import isfinite
from typing import BinaryIO

from towers.data.encoding import decode_line
from towers.data.vector_files import HEAD, Entry, VectorReader, number_or_none, pass_mark, read_header

LONGEST = 1 << 24
"""Bytes of a line, beyond which a file is no text of word vectors."""


class TextReader(VectorReader):
    """Text of one word a line: the last `width` fields are its numbers, what stands before them is the word.

    GloVe has words with spaces in them. Of a line that is not wanted, only the number of fields and the encoding are
    looked at, so that it costs next to nothing.
    """

    def __init__(self, path: str, file: BinaryIO, *, header: bool) -> None:
        self.path, self.file, self.header = path, file, header
        pass_mark(file)
        self.count, width = read_header(path, file.readline(1 << 20)) if header else (0, 0)
        self.start = file.tell()
        self.width = width or guess_width(path, list(islice(self._lines(), HEAD)))
        super().__init__()

    def entries(self) -> Iterator[Entry]:
        """Every word; the blanks that word2vec and fastText put at a line's end are gone."""
        width, number, start = self.width, 0, self.start
        self.file.seek(start)
        for number, line in enumerate(self._lines(), 1):
            size = len(line)
            if size == LONGEST:
                raise self._mistake(number, f"has {LONGEST >> 20} MB or more; are these word vectors?")
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
        """The numbers that end a line, each finite in float32."""
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
        return iter(partial(self.file.readline, LONGEST), b"")


def guess_width(path: str, lines: Sequence[bytes]) -> int:
    """How many numbers end a line: what most lines say, since single words may end in a number or have too few."""
    widths = Counter(width for line in lines if (width := _trailing_numbers(line)))
    if not widths:
        first = b"".join(lines[:1])[:40].decode(errors="replace")
        raise ValueError(f"{path}, line 1: expected a word and its numbers, with spaces between, not {first!r}")
    most = max(widths.values())
    return min(width for width, count in widths.items() if count == most)


def _trailing_numbers(line: bytes) -> int:
    """Length of the run of numbers that ends a line, less its first field, which is always the word's."""
    fields = line.rstrip(b" \r\n").split(b" ")[1:]
    words = (place for place, field in enumerate(reversed(fields)) if number_or_none(field) is None)
    return next(words, len(fields))
