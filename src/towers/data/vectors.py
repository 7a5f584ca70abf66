"""Word vectors: the table, the look-up, and the vectors of missing words."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike, fspath
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from towers.data.distinct_words import EXACT
from towers.data.vector_files import Format, keep, root_mean_square
from towers.data.vector_readers import open_vectors
from towers.data.words import forms

Missing = Literal["hash", "zero"]
PART = 1 << 13
"""Rows of a table that are checked at a time."""
BLANK = ""
"""The blank word: all zeros, and never counted as missing."""


class Coverage(NamedTuple):
    """How many of the looked-up words have a vector.

    Attributes:
        tokens: the number of words, each occurrence counted.
        tokens_found: how many of them have a vector.
        types: the number of different words. Of predictions it is estimated from 131,073 on, with an error of .4 %.
        types_found: how many of them have a vector.
        missing: the words that have none, with the number of their occurrences.

    >>> import torch
    >>> from towers.data import Coverage, WordVectors
    >>> vectors = WordVectors(["a"], torch.tensor([[1.0, 0.0]]))
    >>> ids = vectors.ids(["a", "dog", "dog"])
    >>> coverage: Coverage = vectors.coverage
    >>> coverage.tokens_found, coverage.missing
    (1, Counter({'dog': 2}))
    """

    tokens: int
    tokens_found: int
    types: int
    types_found: int
    missing: Counter[str]

    def __str__(self) -> str:
        if not self.tokens:
            return "no word was looked up yet"
        share = 100 * self.tokens_found / self.tokens
        about, found = "" if self.types <= EXACT else "about ", f"{self.types_found} of {self.types}"
        text = f"{share:.2f} % of {self.tokens} tokens and {about}{found} words have a vector"
        most = ", ".join(f"{word!r} ({count})" for word, count in self.missing.most_common(5))
        return f"{text}; missing most often: {most}" if most else text


class WordVectors:
    """A table of word vectors, one row a word, looked up as it is, then in Unicode's NFC, then lower-cased.

    A word that is missing in all forms gets a row when it is first looked up: with `missing="hash"` a fixed vector
    hashed from the word, equal in every process and for every vocabulary; with `missing="zero"` zeros.

    Args:
        words: the words, each once; not "", which is the blank word and always zeros.
        table: their vectors, "vocabulary width". Those of float16 stay so until all are asked for (`table`).
        missing: "hash" or "zero".
        source: where the vectors came from, for reports.
        scale: the root mean square of a hashed vector's numbers; None: that of the table's first 1,000 rows.
        duplicates: the number of repeated words of the file that were left out.

    Raises:
        ValueError: `words` repeats a word, or has "".
        ValueError: `table` is no tensor, not "words width", or has a number that is not finite.
        ValueError: `missing` is neither "hash" nor "zero".

    >>> import torch
    >>> from towers.data import WordVectors
    >>> vectors = WordVectors(["a", "dog"], torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> vectors.table[vectors.ids(["Dog"])]
    tensor([[0., 1.]])
    """

    def __init__(
        self,
        words: Sequence[str],
        table: Tensor,
        *,
        missing: Missing = "hash",
        source: str = "memory",
        scale: float | None = None,
        duplicates: int = 0,
    ) -> None:
        if missing not in ("hash", "zero"):
            raise ValueError(f'missing ({missing!r}) must be "hash" or "zero"')
        if not isinstance(table, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"table is {type(table).__name__}; expected a tensor: torch.as_tensor(table)")
        if table.dim() != 2 or len(table) != len(words):
            raise ValueError(
                f"table {tuple(table.shape)} must be (words, width), with a row for each of {len(words)} words"
            )
        self._table = table if table.dtype == torch.float16 else table.to(torch.float32)
        self.missing: Missing = missing
        self.source = source
        self.duplicates = duplicates
        self.scale = root_mean_square(self._table) if scale is None else scale
        self._words = list(words)
        self._rows = dict(zip(self._words, range(len(self._words)), strict=True))
        self._known = len(self._words)
        self._looked_up: Counter[str] = Counter()
        if len(self._rows) != len(self._words):
            twice = next(word for word, count in Counter(words).items() if count > 1)
            raise ValueError(f"words must have each word once; {twice!r} is there twice")
        if BLANK in self._rows:
            raise ValueError(f"words[{self._rows[BLANK]}] is empty; the empty word always stands for zeros")
        for start in range(0, len(words), PART):  # a mask of the whole table would be as large as the table
            part = self._table[start : start + PART]
            if not _all_finite(part):
                word = words[start + int((~part.isfinite()).any(1).nonzero()[0])]
                raise ValueError(f"table must have finite numbers only; that of {word!r} has others")

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        vocabulary: Iterable[str] | None = None,
        *,
        missing: Missing = "hash",
        format: Format | None = None,
        first: int = 0,
    ) -> Self:
        """Read vectors from GloVe text, word2vec text or binary, or fastText `.vec`.

        The forms of `vocabulary` in which words are looked up are kept; without it, every word is. The format is
        detected from the content: a first line of two whole numbers is a header ("count width"); GloVe has none.

        `path` is the file. With `first`, the first words of the file are kept too, wanted or not.

        Raises:
            ValueError: a line is bad (too few numbers, not a number, NaN or infinite, not UTF-8).
            ValueError: `vocabulary` is one string, or has something that is no string.
            ValueError: the file is empty, compressed, or ends before as many words as its header says.
            ValueError: `format` or `missing` is none of its choices.
        """
        _refuse_string("vocabulary", vocabulary)
        wanted = None if vocabulary is None else {form for word in _words(vocabulary) for form in forms(word)}
        source = fspath(path)
        with open_vectors(source, format) as reader:
            words, table, scale, duplicates = keep(reader, wanted, first)
        return cls(words, table, missing=missing, source=source, scale=scale, duplicates=duplicates)

    @property
    def table(self) -> Tensor:
        """The vectors of all words, float32, "vocabulary width"; more rows come with words that are missing."""
        self._table = self._table.to(torch.float32)
        return self._table

    @property
    def words(self) -> tuple[str, ...]:
        """The word of each row of the table."""
        return tuple(self._words)

    @property
    def known(self) -> list[str]:
        """The words that have a vector of their own, in the order of the table's first rows."""
        return self._words[: self._known]

    @property
    def width(self) -> int:
        """How many numbers a word's vector has."""
        return self._table.shape[1]

    @property
    def missing_counts(self) -> Counter[str]:
        """How often each word without a vector of its own was looked up."""
        missing = {word: count for word, count in self._looked_up.items() if self._rows[word] >= self._known}
        return Counter(missing)

    @property
    def coverage(self) -> Coverage:
        """The words that were looked up so far, and how many of them were found."""
        missing, tokens, types = self.missing_counts, self._looked_up.total(), len(self._looked_up)
        return Coverage(tokens, tokens - missing.total(), types, types - len(missing), missing)

    def ids(self, words: Iterable[str]) -> list[int]:
        """The row in `table` of each word. A missing word gets a new row, so read `table` afterwards.

        Missing words are counted in `missing_counts`.

        Raises:
            ValueError: `words` is one string.
        """
        _refuse_string("words", words)
        words = list(words)
        counts = Counter(words)
        self._add([word for word in counts if word not in self._rows])
        del counts[BLANK]
        self._looked_up.update(counts)
        return [self._rows[word] for word in words]

    def look_up(self, words: Iterable[str]) -> Tensor:
        """The vectors of the words, "words width".

        Raises:
            ValueError: `words` is one string.
        """
        ids = self.ids(words)
        return self.table[ids]

    def gather(self, words: Sequence[str]) -> Tensor:
        """As `look_up`, for a few words, but nothing is counted or kept: the table stays as it is."""
        rows = [self._row(word) for word in words]
        missing = [place for place, row in enumerate(rows) if row == self._known]
        if not self._known:
            vectors = torch.zeros(len(rows), self.width)
        else:
            last = self._known - 1
            ids = torch.tensor([min(row, last) for row in rows] if missing else rows, dtype=torch.int64)
            vectors = self._table.index_select(0, ids).to(torch.float32)
        if missing:
            vectors.index_fill_(0, torch.tensor(missing), 0)
        if self.missing == "hash" and (named := [place for place in missing if words[place] != BLANK]):
            vectors[named] = self.scale * hashed_table([forms(words[place])[-2] for place in named], self.width)
        return vectors

    def select(self, vocabulary: Iterable[str]) -> "WordVectors":
        """The vectors of these words alone, with nothing looked up yet."""
        wanted = (form for word in vocabulary for form in forms(word))
        rows = sorted({row for form in wanted if (row := self._rows.get(form, self._known)) < self._known})
        return WordVectors(
            [self._words[row] for row in rows],
            self._table[rows].to(torch.float32),
            missing=self.missing,
            source=self.source,
            scale=self.scale,
            duplicates=self.duplicates,
        )

    def has(self, word: str) -> bool:
        """Whether there is a vector for the word in one of its forms."""
        return self._row(word) < self._known

    def _row(self, word: str) -> int:
        """The row of the first form of a word that has a vector; `_known` if none has."""
        if (row := self._rows.get(word, self._known)) < self._known:
            return row
        # A row beyond is that of another missing word: the result must not depend on earlier look-ups.
        rows = (self._rows.get(form, self._known) for form in forms(word))
        return next((row for row in rows if row < self._known), self._known)

    def _add(self, words: list[str]) -> None:
        """Assign a row to words that are seen for the first time: that of the lower-cased form, or a new one."""
        new: list[str] = []
        for word in words:
            if (row := self._row(word)) < self._known:
                self._rows[word] = row
                continue
            name = BLANK if self.missing == "zero" else forms(word)[-2]  # a word in NFD and in NFC is one word
            if name not in self._rows:
                self._rows[name] = len(self._words)
                self._words.append(name)
                new.append(name)
            self._rows[word] = self._rows[name]
        if new:
            rows = self.scale * hashed_table(new, self.width)
            if BLANK in new:
                rows[new.index(BLANK)] = 0
            self._table = torch.cat([self.table, rows])

    def __repr__(self) -> str:
        return f"WordVectors({self._known} words of {self.width} numbers, source={self.source!r})"


def _all_finite(part: Tensor) -> bool:
    """Whether all numbers are finite; of float16 by their bits.

    What that gains: row "finite numbers of float16" of `python benchmarks/run.py quick-paths`.
    """
    if part.dtype != torch.float16:
        return bool(part.isfinite().all())
    return part.numel() == 0 or int((part.view(torch.int16) & 0x7FFF).max()) < 0x7C00


def _refuse_string(name: str, words: Iterable[str] | None) -> None:
    """Refuse a string: as a collection it would be a collection of letters, which is never intended."""
    if isinstance(words, str):
        raise ValueError(f"{name} ({words[:40]!r}) is one string; give a collection of words, such as [{words[:40]!r}]")


def _words(words: Iterable[Any]) -> Iterator[str]:
    """The words, each a string."""
    for word in words:
        if not isinstance(word, str):
            kind = "a sentence, not a word: give the words of all sentences" if isinstance(word, list | tuple) else ""
            raise ValueError(f"vocabulary has {word!r:.60}, which is {kind or 'no string'}")
        yield word


def hashed(text: str, width: int) -> Tensor:
    """Numbers of mean 0 and variance 1 that depend on the text alone: equal in every process and on every machine."""
    return hashed_table([text], width)[0]


def hashed_table(texts: Sequence[str], width: int) -> Tensor:
    """A row of `hashed` for each text."""
    digests = b"".join(hashlib.shake_256(text.encode()).digest(2 * width) for text in texts)
    low, high = torch.frombuffer(bytearray(digests), dtype=torch.uint8).view(-1, width, 2).float().unbind(-1)
    return (low + 256 * high - 32767.5) * (math.sqrt(12) / 65536)
