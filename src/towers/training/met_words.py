"""MetWords: the words that came so far, with their vectors in a table that keeps products of them."""

from collections.abc import Sequence
from threading import Lock

import torch
from torch import Tensor

from towers.data import VectorStore, WordVectors
from towers.data.kept_vectors import ExtendedVectors
from towers.layers.word_table import WordTable

Vectors = WordVectors | VectorStore | ExtendedVectors
LIMIT = 2048
"""Words that are kept; with one more it begins anew. They take 13 MB in the preset `similarity`."""


class MetWords:
    """The words that came so far, at most `LIMIT`: each is looked up, and multiplied by the layers, once.

    What that gains: row "words that came before" of `python benchmarks/run.py quick-paths`.

    Args:
        vectors: where the words are looked up.
        like: a tensor of the dtype that the layers take.
    """

    def __init__(self, vectors: Vectors, like: Tensor) -> None:
        self._vectors, self._like, self._lock = vectors, like, Lock()
        self._begin(LIMIT)

    @property
    def dtype(self) -> torch.dtype:
        """That of the table: the layers may have another one by now."""
        return self._table.dtype

    def __reduce__(self) -> tuple[type["MetWords"], tuple[Vectors, Tensor]]:
        return MetWords, (self._vectors, self._like)  # copies and pickles have met no word

    def _begin(self, limit: int) -> None:
        self._words = WordTable(limit, self._like.new_empty(0, self._vectors.width))
        self._rows: dict[str, int] = {}
        self._table = self._words.add(self._like.new_empty(0, self._vectors.width))
        self._unknown: set[str] = set()

    def look_up(self, words: Sequence[str], *, private: bool = False) -> tuple[Tensor, Tensor, set[str]]:
        """The row of each word, the table of the rows, and those of the words that have no vector of their own.

        `private` is that of `WordTable`.
        """
        with self._lock:
            self._words.private = private
            new = [word for word in dict.fromkeys(words) if word not in self._rows]
            if len(self._rows) + len(new) > self._words.limit:
                new = list(dict.fromkeys(words))
                self._begin(max(LIMIT, len(new)))
            if new:
                vectors = self._vectors if isinstance(self._vectors, WordVectors) else self._vectors.select(new)
                table = self._words.add(vectors.gather(new).to(self._like.dtype))
                self._unknown.update(word for word in new if not vectors.has(word))
                self._rows.update(zip(new, range(len(self._rows), len(table)), strict=True))
                self._table = table
            rows = [self._rows[word] for word in words]
            return torch.tensor(rows), self._table, self._unknown.intersection(words)
