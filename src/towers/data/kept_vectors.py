"""The word vectors that the folder of a model carries, and more words for them from a file."""

import hashlib
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import torch

from towers.checkpoint import VECTORS, read_tensors, write_tensors
from towers.data.vector_store import VectorStore
from towers.data.vectors import Missing, WordVectors

FILE = VECTORS
FIRST = 200_000
"""Words of a vectors file that are kept with a model: such files begin with the most frequent words."""
SAMPLED = 4096
"""Words whose vectors are in a digest."""
COMPARED = 1 << 13
"""Words that are compared at a time."""
ROUNDING, SMALLEST = 2.0**-10, 2.0**-23
"""By how much a number may differ after it was rounded to float16: of its size, and where it is next to zero."""


def save_vectors(folder: str | PathLike[str], vectors: WordVectors) -> None:
    """Write the words that have a vector, with their vectors as float16 (float32 where a number is too large for it).

    Raises:
        ImportError: safetensors is not installed.
        OSError: the file cannot be written.
    """
    known = vectors.known
    table = vectors.table[: len(known)]
    small = not len(known) or float(table.abs().max()) < torch.finfo(torch.float16).max
    letters = "\n".join(known).encode()
    tensors = {
        "words": torch.frombuffer(bytearray(letters), dtype=torch.uint8) if letters else torch.empty(0).byte(),
        "table": table.half() if small else table,
        "scale": torch.tensor([vectors.scale], dtype=torch.float64),
    }
    write_tensors(Path(folder) / FILE, tensors)


def load_vectors(folder: str | PathLike[str], *, missing: Missing = "hash") -> WordVectors:
    """The vectors that `save_vectors` wrote.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: the file is missing or damaged.
    """
    path = Path(folder) / FILE
    tensors = read_tensors(path)
    try:
        words = tensors["words"].numpy().tobytes().decode().split("\n") if len(tensors["words"]) else []
        scale = float(tensors["scale"])
        table = tensors["table"].clone()  # not the file itself in memory: what is written into it would be read here
        return WordVectors(words, table, missing=missing, source=str(path), scale=scale)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: is damaged: {error}") from None


def digest(vectors: "WordVectors | VectorStore | ExtendedVectors") -> str | None:
    """A digest of the words that have a vector and of up to 4,096 vectors among them; None of vectors in a file.

    Of `ExtendedVectors` it is that of the model's own.
    """
    own = vectors.own if isinstance(vectors, ExtendedVectors) else vectors
    if not isinstance(own, WordVectors):
        return None
    words = own.known
    hashed = hashlib.sha256("\n".join([own.missing, *words]).encode("utf8", "surrogatepass"))
    for word in words[:: len(words) // SAMPLED + 1]:
        hashed.update(own.gather([word]).numpy().tobytes())
    return hashed.hexdigest()[:32]


class ExtendedVectors:
    """The vectors that a model carries, and those of a file for the words that it lacks.

    Args:
        own: the vectors of the model.
        more: an open file of the same vectors, in any order and format, with more words or fewer.

    Raises:
        ValueError: a word has other numbers in the file (float16's rounding aside), no word is in both, or the widths
            differ.
    """

    def __init__(self, own: WordVectors, more: VectorStore) -> None:
        self.own, self.more = own, more
        self.source, self.width, self.duplicates = more.source, own.width, more.duplicates
        self._compare()

    def _compare(self) -> None:
        refused = f"{self.more.source}: these are not the vectors that the model learned with"
        if self.width != self.more.width:
            raise ValueError(f"{refused}: they have {self.more.width} numbers a word, not {self.width}")
        shared, words = 0, self.own.known
        own = set(words)
        for start in range(0, len(words), COMPARED):
            part = words[start : start + COMPARED]
            there = self.more.select(part)
            both = [place for place, word in enumerate(there.known) if word in own]
            mine = self.own.gather([there.known[place] for place in both])
            theirs = there.table[both]
            wrong = ((mine - theirs).abs() > ROUNDING * theirs.abs() + SMALLEST).any(1).nonzero()
            if len(wrong):
                word = there.known[both[int(wrong[0])]]
                raise ValueError(f"{refused}: {word!r} has other numbers; leave --vectors out, or name those vectors")
            shared += len(both)
        if words and not shared:
            raise ValueError(f"{refused}: no word of the model is among them")

    def select(self, vocabulary: Iterable[str]) -> WordVectors:
        """The vectors of these words, each the model's own if it has one."""
        vocabulary = list(vocabulary)
        own, more = self.own.select(vocabulary), self.more.select(vocabulary)
        mine = set(own.known)
        new = [place for place, word in enumerate(more.known) if word not in mine]
        return WordVectors(
            [*own.known, *(more.known[place] for place in new)],
            torch.cat([own.table, more.table[new]]),
            missing=own.missing,
            source=self.source,
            scale=own.scale,
            duplicates=self.duplicates,
        )
