"""Files with a sentence on each line, for `towers index`, `search` and `similar`."""

import hashlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from torch import Tensor

from towers.answers import Model, Side
from towers.data.encoding import RETURNS, decode_line, unpacked
from towers.data.readers import ENDINGS
from towers.scale.pace import Pace
from towers.sentence_words import Unfit

ENCODED = 4096
"""Sentences that are encoded at a time."""
CORPUS = "corpus"
"""The name, in what an index says about itself, of the digest of its corpus."""


class Lines(NamedTuple):
    """The sentences of a file, and the number of the line of each, from 1."""

    sentences: list[str]
    numbers: list[int]


class Digest:
    """A digest of the sentences of a corpus and of the numbers of their lines, some added after the others."""

    def __init__(self) -> None:
        self._hashed = hashlib.sha256()

    def add(self, lines: Lines) -> None:
        """Add some lines."""
        for number, sentence in zip(lines.numbers, lines.sentences, strict=True):
            self._hashed.update(f"{number}\t{sentence}\n".encode())

    def text(self) -> str:
        """The digest of what was added so far."""
        return self._hashed.hexdigest()[:32]


def read_lines(path: Path | None) -> Lines:
    """The lines of a file, compressed with gzip or not, but blank ones; None: of standard input.

    Raises:
        ValueError: there is none, a line is not UTF-8, or lines end in carriage returns alone; the file is named. Or
            standard input is closed.
    """
    lines = Lines([], [])
    if path is None and sys.stdin is None:  # `<&-`
        raise ValueError("standard input is closed")
    parts = _blocks("standard input", sys.stdin.buffer, ENCODED) if path is None else blocks(path, ENCODED)
    for block in parts:
        lines.sentences.extend(block.sentences)
        lines.numbers.extend(block.numbers)
    return lines


def blocks(path: Path, size: int) -> Iterator[Lines]:
    """The same, some at a time. Standard input is refused: callers read a file twice."""
    if path == Path("-"):
        raise ValueError("-: standard input cannot be read twice, as this file is; write it to a file, and name that")
    kinds = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if kinds and kinds[-1] in ENDINGS:
        problem = "is a table by its ending; a file with a sentence on each line is needed, without a header"
        raise ValueError(f"{path}: {problem}. Write the column of sentences into one")
    return _unpacked_blocks(path, size)


def _unpacked_blocks(path: Path, size: int) -> Iterator[Lines]:
    with unpacked(str(path)) as file:
        yield from _blocks(str(path), file, size)


def _blocks(name: str, file: BinaryIO, size: int) -> Iterator[Lines]:
    lines, some = Lines([], []), False
    for number, line in enumerate(file, 1):
        if text := decode_line(name, number, line).strip():
            if number == 1 and "\r" in text:
                raise ValueError(f"{name}, line 1: {RETURNS}")
            lines.sentences.append(text)
            lines.numbers.append(number)
            if len(lines.numbers) == size:
                yield lines
                lines, some = Lines([], []), True
    if lines.numbers:
        yield lines
    elif not some:
        raise ValueError(f"{name}: there is no sentence in it")


def encoded(model: Model, path: Path, side: Side, step: int = ENCODED) -> Iterator[tuple[Lines, Tensor]]:
    """Some lines of a file after the others, with their states."""
    for lines in paced(path, blocks(path, step)):
        yield lines, states_of(model, path, lines, side)


def states_of(model: Model, path: Path | str, lines: Lines, side: Side) -> Tensor:
    """The states of some lines.

    Raises:
        ValueError: a sentence has a length that the tower does not take; its line is named.
    """
    try:
        return model.encode(lines.sentences, side=side, progress=False)
    except Unfit as error:
        raise ValueError(f"{path}, line {lines.numbers[error.place]}: {error}") from None


def paced(path: Path, parts: Iterator[Lines]) -> Iterator[Lines]:
    """The same lines of a file; how far they are is said on standard error."""
    with unpacked(str(path)) as file:
        total = sum(block.count(b"\n") for block in iter(partial(file.read, 1 << 20), b""))
    pace = Pace(total, 0, "lines")
    try:
        for lines in parts:
            yield lines
            pace.add(lines.numbers[-1] - pace.done)
    finally:
        pace.clear()
