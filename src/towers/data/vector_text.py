"""The reader of word vectors in text: GloVe, word2vec text, fastText `.vec`."""

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor

from towers.data.encoding import decode_line
from towers.data.vector_files import HEAD, VectorFile, number_or_none, read_header, root_mean_square


def read_text(path: str, wanted: Collection[str] | None, *, header: bool) -> VectorFile:
    """Read text of one word a line: the last `width` fields are its numbers, what stands before them is the word.

    GloVe has words with spaces in them. Of a line that is not wanted, only the number of fields and the encoding are
    looked at, so that it costs next to nothing.
    """
    keep = None if wanted is None else {word.encode() for word in wanted}
    rows: dict[bytes, int] = {}
    table = array("f")
    duplicates, number = 0, int(header)
    with open(path, "rb", buffering=1 << 20) as file:
        count, width = read_header(path, file.readline()) if header else (0, 0)
        head = list(islice(file, HEAD))
        lines = _Lines(path, 1 + header, width or guess_width(path, head))
        scale = _scale(lines, head)
        for number, word, line in lines.split(chain(head, file)):
            if not word or (keep is not None and word not in keep):
                continue
            if word in rows:
                duplicates += 1
                continue
            rows[word] = len(rows)
            table.extend(lines.numbers(number, line))
    if number - header < count:
        raise ValueError(f"{path} ends after {number - header} words; its header says {count}")
    return VectorFile([word.decode() for word in rows], _as_table(table, lines.width), scale, duplicates)


def guess_width(path: str, lines: Sequence[bytes]) -> int:
    """How many numbers end a line: what most lines say, since single words may end in a number or have too few."""
    widths = Counter(width for line in lines if (width := _trailing_numbers(line)))
    if not widths:
        raise ValueError(f"{path}, line 1: expected a word and its numbers, not {b''.join(lines[:1])[:40]!r}")
    most = max(widths.values())
    return min(width for width, count in widths.items() if count == most)


def _trailing_numbers(line: bytes) -> int:
    """Length of the run of numbers that ends a line, less its first field, which is always the word's."""
    fields = line.rstrip(b" \r\n").split(b" ")[1:]
    words = (place for place, field in enumerate(reversed(fields)) if number_or_none(field) is None)
    return next(words, len(fields))


class _Lines(NamedTuple):
    """The lines of a file of vectors, from line `first` on."""

    path: str
    first: int
    width: int

    def split(self, lines: Iterable[bytes]) -> Iterator[tuple[int, bytes, bytes]]:
        """Number, word and text of each line; the blanks that word2vec and fastText put at a line's end are gone."""
        width = self.width
        for number, line in enumerate(lines, self.first):
            if not line.isascii():
                decode_line(self.path, number, line)
            line = line.rstrip(b" \r\n")
            spaces = line.count(b" ")
            if spaces < width:
                raise ValueError(f"{self.path}, line {number}: {spaces} numbers after the word; expected {width}")
            yield number, line[: line.index(b" ")] if spaces == width else line.rsplit(b" ", width)[0], line

    def numbers(self, number: int, line: bytes) -> "array[float]":
        """The numbers that end a line, each finite in float32."""
        fields = line.rsplit(b" ", self.width)[1:]
        try:
            numbers = array("f", map(float, fields))
        except ValueError:
            numbers = array("f", (float("nan") if number_or_none(f) is None else 0 for f in fields))
        if not isfinite(sum(numbers)):
            bad = next(place for place, value in enumerate(numbers) if not isfinite(value))
            problem = f"number {bad + 1} of {self.width} is {fields[bad].decode()!r}; expected a finite number"
            raise ValueError(f"{self.path}, line {number}: {problem}")
        return numbers


def _scale(lines: _Lines, head: Sequence[bytes]) -> float:
    numbers = array("f")
    for number, _, line in lines.split(head):
        numbers.extend(lines.numbers(number, line))
    return root_mean_square(_as_table(numbers, lines.width))


def _as_table(numbers: "array[float]", width: int) -> Tensor:
    """Rows of `width` numbers; the memory is the array's own."""
    return torch.frombuffer(numbers, dtype=torch.float32).view(-1, width) if numbers else torch.empty(0, width)
