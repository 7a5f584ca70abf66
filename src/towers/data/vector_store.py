"""Word vectors that stay in their file, for vocabularies that are unknown beforehand or too large for the memory."""

from array import array
from collections.abc import Iterable
from contextlib import ExitStack
from os import PathLike, fspath
from typing import Self

import torch

from towers.data.vector_files import Entry, Format, as_table
from towers.data.vector_readers import open_vectors
from towers.data.vectors import Missing, WordVectors
from towers.data.words import forms

KEPT = 1 << 15
"""Words whose vectors are kept from one selection to the next: 40 MB for vectors of 300 numbers."""


class VectorStore:
    """An open file of word vectors; only the position of each word (24 bytes) and recently used vectors are in memory.

    Opening it reads the whole file once, as `WordVectors.load` does; each selection then reads only the vectors that
    are not in memory. Close it, or use it in a `with` statement.

    Args:
        path: GloVe text, word2vec text or binary, or fastText `.vec`.
        missing: "hash" or "zero", as for `WordVectors`.
        format: None: detected from the content of the file.

    Raises:
        ValueError: as `WordVectors.load`; for bad numbers, when their word is selected.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from towers.data import VectorStore
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "vectors.txt")
    ...     _ = path.write_text("a 1 0\\ndog 0 1\\n")
    ...     with VectorStore(path) as vectors:
    ...         vectors.width
    2
    """

    def __init__(self, path: str | PathLike[str], *, missing: Missing = "hash", format: Format | None = None) -> None:
        self.source = fspath(path)
        self.missing: Missing = missing
        self._rows: dict[bytes, int] = {}
        self._table = array("f")
        with ExitStack() as opened:
            self._reader = opened.enter_context(open_vectors(self.source, format))
            self.width, self.scale = self._reader.width, self._reader.scale
            hashes, starts = array("q"), array("q")
            for entry in self._reader.entries():
                hashes.append(hash(entry.word))
                starts.append(entry.start)
            self._hashes, self._order = torch.frombuffer(hashes, dtype=torch.int64).sort(stable=True)
            self._starts = starts
            self._file = opened.pop_all()
        self.duplicates = int((self._hashes.diff() == 0).sum())

    def select(self, vocabulary: Iterable[str]) -> WordVectors:
        """The vectors of these words, equal to those of `WordVectors.load` with this vocabulary.

        Raises:
            ValueError: a field of a word is not a finite number; the message names file and line.
        """
        wanted = sorted({form.encode() for word in vocabulary for form in forms(word)})
        new = [form for form in wanted if form not in self._rows]
        if len(self._rows) + len(new) > KEPT:
            self._keep_only([form for form in wanted if form in self._rows])
        for form, entry in zip(new, self._find(new), strict=True):
            if entry is not None:
                self._rows[form] = len(self._rows)
                self._table.extend(self._reader.numbers(entry))
        words = [form for form in wanted if form in self._rows]
        table = as_table(self._table, self.width)[[self._rows[word] for word in words]]
        return WordVectors(
            [word.decode() for word in words],
            table,
            missing=self.missing,
            source=self.source,
            scale=self.scale,
            duplicates=self.duplicates,
        )

    def _keep_only(self, words: list[bytes]) -> None:
        """Forget the vectors of all other words."""
        table = as_table(self._table, self.width)[[self._rows[word] for word in words]]
        self._rows = {word: row for row, word in enumerate(words)}
        self._table = array("f", table.numpy().tobytes())

    def _find(self, words: list[bytes]) -> list[Entry | None]:
        """The first entry of each word in the file, or None."""
        if not words or not len(self._hashes):
            return [None] * len(words)
        wanted = torch.tensor([hash(word) for word in words])
        first: list[int] = torch.searchsorted(self._hashes, wanted).tolist()
        last: list[int] = torch.searchsorted(self._hashes, wanted, right=True).tolist()
        return list(map(self._among, words, first, last))

    def _among(self, word: bytes, first: int, last: int) -> Entry | None:
        """The entry of a word among the entries with its hash: rarely another word has the same hash."""
        numbers: list[int] = self._order[first:last].tolist()
        for number in numbers:
            entry = self._reader.entry(number + 1, self._starts[number])
            if word and entry.word == word:
                return entry
        return None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"VectorStore({len(self._hashes)} words of {self.width} numbers, source={self.source!r})"
