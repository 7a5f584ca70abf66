"""Files of word vectors: which format a file has, and what every reader of them needs and gives."""

import re
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Format = Literal["glove", "word2vec", "fasttext", "word2vec-binary"]
HEAD = 1000
"""So many first vectors of a file tell the scale of its numbers, and where no header does, their number."""


class VectorFile(NamedTuple):
    """What was kept of a file: its words, each with a row of the table."""

    words: list[str]
    table: Tensor
    scale: float
    """The root mean square of the file's head, kept or not: no choice of vocabulary changes it."""
    duplicates: int
    """How many words were left out because they had stood in the file before."""


def detect(path: str) -> Format:
    """Tell the format from what is in the file.

    A first line of two whole numbers is a header. After one, control characters say binary (numbers in binary nearly
    always have them, text never has), and so does a line that neither is UTF-8 nor ends in a number.
    """
    with open(path, "rb") as file:
        first, sample = file.readline(1 << 20), file.read(1 << 16)
    if not first:
        raise ValueError(f"{path} is empty")
    if first.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        raise ValueError(f"{path} is compressed; unpack it first")
    if header_of(first) is None:
        return "glove"
    control = re.search(rb"[\x00-\x08\x0e-\x1f]", sample)
    return "word2vec-binary" if control or not looks_like_text(sample.partition(b"\n")[0]) else "word2vec"


def looks_like_text(line: bytes) -> bool:
    """Whether a line is UTF-8, or ends in a number all the same."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return number_or_none((line.split() or [b""])[-1]) is not None
    return True


def header_of(line: bytes) -> tuple[int, int] | None:
    """Count and width, where the line is a header: two whole numbers and nothing else."""
    found = re.fullmatch(rb"([0-9]+) ([0-9]+)\s*", line)
    return (int(found[1]), int(found[2])) if found else None


def read_header(path: str, line: bytes) -> tuple[int, int]:
    """Count and width from a file's first line."""
    header = header_of(line)
    if header is None or header[1] == 0:
        raise ValueError(f'{path}, line 1: expected the header "count width", not {line[:40]!r}')
    return header


def number_or_none(field: bytes) -> float | None:
    """The number that a field spells, if it spells one."""
    try:
        return float(field)
    except ValueError:
        return None


def root_mean_square(table: Tensor) -> float:
    """The scale of a table's numbers, told by its first rows alone."""
    head = table[:HEAD].to(torch.float64)
    return float(head.square().mean().sqrt()) if head.numel() else 1.0
