"""The reader of word2vec's binary format: a header, then each word, a space and its numbers as float32.

gensim reads it too, but only whole: it neither tells where a word stands nor leaves out what is not wanted.
"""

import os
import sys
from array import array
from collections.abc import Iterator
from math import isfinite
from typing import BinaryIO

from towers.data.vector_files import Entry, VectorReader, read_header

BLOCK = 1 << 20
LONGEST = 1 << 16
"""Bytes of a word, beyond which it is none: the numbers do not stand where they should."""


class BinaryReader(VectorReader):
    """word2vec's binary format. A line end before a word is no part of it; some tools write one, some do not."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.count, self.width = read_header(path, file.readline(1 << 20))
        self.start = file.tell()
        self.size = 4 * self.width
        room = os.fstat(file.fileno()).st_size - self.start
        if self.count * (self.size + 1) > room:  # told before anything is read, or made room for
            raise self._cut()
        super().__init__()

    def entries(self) -> Iterator[Entry]:
        """Every word; one that word2vec has cut in the middle of a character ends in U+FFFD."""
        file, size, base = self.file, self.size, self.start
        file.seek(base)
        buffer, place = b"", 0  # buffer[place:] is what was read and not yet walked over; it begins at base + place
        for number in range(1, self.count + 1):
            end = buffer.find(b" ", place)
            while end < 0 or end + 1 + size > len(buffer):
                if end < 0 and len(buffer) - place > LONGEST:
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
        data = self.file.read(LONGEST + self.size)
        end = data.index(b" ")
        return Entry(number, start, _word(data[:end]), data[end + 1 : end + 1 + self.size])

    def numbers(self, entry: Entry) -> "array[float]":
        """The numbers of a word, each finite."""
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
