"""Pairs of sentences: read from a file, selected, split, bound to word vectors, and iterated in batches."""

from collections.abc import Iterator, Sequence
from copy import copy
from itertools import accumulate, pairwise
from os import PathLike
from typing import Any, Literal, Self

import torch
from torch import Tensor

from towers.data.batches import Batch, batch_order, cut, fingerprint, reorder
from towers.data.columns import Columns, Split
from towers.data.memory_rows import MemoryRows, is_table
from towers.data.pair_labels import read_labels, read_second
from towers.data.readers import WINDOW, TableFormat, read_rows
from towers.data.rows import Rows
from towers.data.sources import Source
from towers.data.vectors import BLANK, WordVectors
from towers.kernels.order import offsets_of
from towers.ragged import Ragged

Sentence = tuple[str, ...]


class SentencePairs:
    """Pairs of sentences, each with a label from 0 to 1, or a class, if labels are known.

    Args:
        left: the left sentences, each a sequence of words.
        right: the right sentences, as many.
        labels: for each pair a number from 0 to 1, or with `classes` the number of its class; absent: unknown.
        source: where the pairs came from, for reports and errors.
        lines: the 1-based line there of each pair; absent: 1, 2, 3, ….
        classes: the names of the classes, where labels are classes.
        second: for each pair a second label: a number from 0 to 1, or with `second_classes` the number of its class;
            absent: there is none.
        second_classes: the names of these classes.

    Raises:
        ValueError: left, right, labels and lines are not equally many, or a sentence is one string.
        ValueError: a sentence is empty, or a label is not from 0 to 1, or not the number of a class; source and line
            are named.

    >>> from towers.data import SentencePairs
    >>> pairs = SentencePairs([["a", "dog", "runs"]], [["an", "animal", "moves"]], [1.0])
    >>> len(pairs), pairs.labels
    (1, tensor([1.]))
    """

    def __init__(
        self,
        left: Sequence[Sequence[str]],
        right: Sequence[Sequence[str]],
        labels: Tensor | Sequence[float] | None = None,
        *,
        source: str = "memory",
        lines: Sequence[int] | None = None,
        classes: Sequence[str] | None = None,
        second: Tensor | Sequence[float] | None = None,
        second_classes: Sequence[str] | None = None,
    ) -> None:
        self.left = _sentences("left", left)
        self.right = _sentences("right", right)
        self.classes = None if classes is None else tuple(classes)
        self.second_classes = None if second_classes is None else tuple(second_classes)
        kind = torch.float32 if classes is None else torch.int64
        self.labels = None if labels is None else torch.as_tensor(labels, dtype=kind)
        kind = torch.float32 if second_classes is None else torch.int64
        self.second = None if second is None else torch.as_tensor(second, dtype=kind)
        self.source = source
        self.lines = list(range(1, len(left) + 1)) if lines is None else list(lines)
        self.how: dict[str, Any] = {}
        """How they were read from a file or a table: the names of the columns, `split` and `label_range`."""
        self.vectors: WordVectors | None = None
        self._ids: tuple[Ragged, Ragged] | None = None
        self._check_counts()
        self._check_values()

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        left_column: str = "sentence1",
        right_column: str = "sentence2",
        label_column: str | None = "label",
        label_range: tuple[float, float] = (0, 1),
        split: Split = "rule",
        format: TableFormat | None = None,
        separator: str | None = None,
        classes: bool | Literal["found"] | Sequence[str] = False,
        yes: str | None = None,
        second_label_column: str | None = None,
        second_classes: Sequence[str] | None = None,
        second_label_range: tuple[float, float] | None = None,
    ) -> Self:
        """Read pairs from TSV, CSV, JSON lines or Parquet; the ending of `path` says which, if `format` does not.

        `left_column` and `right_column` are the names of the columns of sentences, `label_column` that of labels;
        None: there are none.

        A sentence that is a list of strings is taken as it is. One that is a string is split into words by
        `towers.data.split_words` ("rule") or at its spaces ("spaces"). Labels are mapped from `label_range` to 0 to 1.

        `separator` is the character between the fields of a CSV file. None: the comma; or what an Excel line `sep=;`
        says; or `;`, a tab or `|`, if the header has one of these and no comma. A name that ends in .gz is gzip.

        `classes`: labels are names of classes, of any number; True: those that the file has, sorted, as numbers if all
        are numbers; or their names in an order; "found": as True if no label is a number, else False. `yes`: the label
        is 1 where the column has this name, and 0 elsewhere. `second_label_column` is a column beside the label: of
        classes, or with `second_label_range` of degrees.

        Raises:
            ValueError: a column is missing; those that exist are listed, with the nearest name.
            ValueError: a line is bad (fields missing, not UTF-8, no JSON), a sentence is empty, a label is not a
                number or outside `label_range`; the message names file and line.
            ValueError: `format`, `split` or `label_range` is none of its choices; no label is `yes`, or one is none of
                `classes`.
            ImportError: the file is Parquet and polars is not installed.
        """
        (rows,) = read_rows(path, format, separator=separator, rows=None)
        sides, second = (left_column, right_column), (second_label_column, second_classes, second_label_range)
        return cls._of_rows(rows, sides, split, (label_column, label_range, classes, yes), second)

    @classmethod
    def stream(
        cls,
        source: Source,
        *,
        left_column: str = "sentence1",
        right_column: str = "sentence2",
        label_column: str | None = None,
        label_range: tuple[float, float] = (0, 1),
        split: Split = "rule",
        format: TableFormat | None = None,
        separator: str | None = None,
        rows: int | None = WINDOW,
    ) -> Iterator[Self]:
        """Read a file of any size, `rows` pairs at a time, as `load` does; None: all at once.

        `source` may be a `towers.data.Stream` too: an open binary file with a name for errors, such as standard input.
        `left_column`, `right_column`, `label_column`, `label_range`, `split`, `format` and `separator` are as for
        `load`.
        Raises what `load` does, when the line is read.
        """
        for part in read_rows(source, format, separator=separator, rows=rows):
            yield cls._of_rows(part, (left_column, right_column), split, (label_column, label_range, False, None))

    @classmethod
    def from_table(
        cls,
        table: Any,
        *,
        left_column: str = "sentence1",
        right_column: str = "sentence2",
        label_column: str | None = "label",
        label_range: tuple[float, float] = (0, 1),
        split: Split = "rule",
        classes: bool | Literal["found"] | Sequence[str] = False,
        yes: str | None = None,
        second_label_column: str | None = None,
        second_classes: Sequence[str] | None = None,
        second_label_range: tuple[float, float] | None = None,
    ) -> Self:
        """Pairs of a table in memory: a frame of pandas or polars, a table of Arrow, a Hugging Face dataset, or a dict.

        `left_column`, `right_column`, `label_column`, `label_range`, `split`, `yes`, `second_label_column` and
        `second_label_range` are as for `load`; errors count rows from 1.

        Raises:
            ValueError: as `load`.

        >>> from towers.data import SentencePairs
        >>> table = {"sentence1": ["a dog runs"], "sentence2": ["an animal moves"], "label": [1]}
        >>> SentencePairs.from_table(table).left
        [('a', 'dog', 'runs')]
        """
        if not is_table(table):
            raise ValueError(f"table ({type(table).__name__}) has no named columns; give a frame, or a dict of columns")
        sides, second = (left_column, right_column), (second_label_column, second_classes, second_label_range)
        return cls._of_rows(MemoryRows(table), sides, split, (label_column, label_range, classes, yes), second)

    @classmethod
    def _of_rows(
        cls,
        rows: Rows,
        sides: tuple[str, str],
        split: Split,
        label: tuple[str | None, tuple[float, float], bool | Literal["found"] | Sequence[str], str | None],
        second: tuple[str | None, Sequence[str] | None, tuple[float, float] | None] = (None, None, None),
    ) -> Self:
        """`label` and `second`: the arguments of `read_labels` and `read_second`."""
        columns = Columns(rows)
        left, right = (columns.sentences(side, split) for side in sides)
        labels = read_labels(columns, *label) | read_second(columns, *second)
        pairs = cls(left, right, source=rows.path, lines=rows.lines, **labels)
        names = {"left_column": sides[0], "right_column": sides[1], "label_column": label[0]}
        names |= {"yes": label[3], "second_label_column": second[0]}
        names |= {"second_label_range": None if second[2] is None else list(second[2])}
        pairs.how = {name: value for name, value in names.items() if value is not None}
        pairs.how |= {"split": split, "label_range": list(label[1])}
        return pairs

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.left)

    def __repr__(self) -> str:
        known = "labelled" if self.labels is not None else "without labels"
        return f"SentencePairs({len(self)} pairs, {known}, source={self.source!r}, vectors={self.vectors!r})"

    @property
    def vocabulary(self) -> set[str]:
        """Every word of both sides."""
        return {word for side in (self.left, self.right) for sentence in side for word in sentence} - {BLANK}

    def select(self, indices: Tensor | Sequence[int]) -> Self:
        """The pairs at these positions, in this order.

        Raises:
            ValueError: `indices` is a mask; `mask.nonzero().squeeze(1)` gives its positions.
        """
        index = torch.as_tensor(indices)
        if index.dtype == torch.bool:
            raise ValueError("indices is a mask; positions are wanted: mask.nonzero().squeeze(1)")
        index = index.to(torch.int64)
        positions: list[int] = index.tolist()
        chosen = copy(self)
        chosen.left = [self.left[i] for i in positions]
        chosen.right = [self.right[i] for i in positions]
        chosen.lines = [self.lines[i] for i in positions]
        chosen.labels = None if self.labels is None else self.labels[index]
        chosen.second = None if self.second is None else self.second[index]
        chosen._ids = None if self._ids is None else (reorder(self._ids[0], index), reorder(self._ids[1], index))
        return chosen

    def split(self, *shares: float, seed: int = 0) -> tuple[Self, ...]:
        """Parts of the pairs, drawn at random by `seed`, none in two parts, each in the order that the pairs have here.

        Raises:
            ValueError: a share is not above 0, or the shares make more than 1.
        """
        if any(share <= 0 for share in shares) or sum(shares) > 1 + 1e-9:
            raise ValueError(f"shares {shares} must each be above 0 and make at most 1")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        ends = [round(len(self) * min(total, 1.0)) for total in accumulate(shares, initial=0.0)]
        return tuple(self.select(order[start:end].sort().values) for start, end in pairwise(ends))

    def fit_right(self, words: int) -> Self:
        """Right sentences of exactly `words` words: longer ones cut, shorter ones filled up with blank words.

        A blank word's vector is zeros.

        Raises:
            ValueError: `words` is less than 1.
        """
        fitted = copy(self)
        fitted.right = _fitted(self.right, words)
        return fitted if self.vectors is None else fitted.with_vectors(self.vectors)

    def fit_left(self, words: int) -> Self:
        """Left sentences of exactly `words` words, as `fit_right` does it."""
        fitted = copy(self)
        fitted.left = _fitted(self.left, words)
        return fitted if self.vectors is None else fitted.with_vectors(self.vectors)

    def with_vectors(self, vectors: WordVectors) -> Self:
        """The same pairs bound to word vectors: every word is looked up here, once."""
        bound = copy(self)
        bound.vectors = vectors
        bound._ids = (look_up(self.left, vectors), look_up(self.right, vectors))
        return bound

    def batches(self, batch_size: int, *, seed: int | None = None) -> Iterator[Batch]:
        """Iterate over all pairs once, in batches of similar length; the last batch may be smaller.

        Without a seed the order is fixed: by length. With one it is shuffled, and the seed decides how; a training
        takes another seed for every epoch.

        Raises:
            ValueError: `batch_size` is less than 1, or no vectors are bound.
        """
        return self.walk(self.order(batch_size, seed=seed))

    def order(self, batch_size: int, *, seed: int | None = None, by_length: bool = True) -> list[Tensor]:
        """The positions of the pairs of each batch of `batches`, sorted by length within a batch.

        `batch_size` and `seed` are as for `batches`. Without `by_length` a batch of a seed has sentences of any
        lengths, in any order.

        Raises:
            ValueError: as for `batches`.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size ({batch_size}) must be at least 1")
        left, right = self._bound()[0]
        return batch_order(left.lengths, right.lengths, batch_size, seed, by_length=by_length)

    def walk(self, indices: Sequence[Tensor]) -> Iterator[Batch]:
        """Batches of the pairs at these positions: for each of `indices` a batch.

        Raises:
            ValueError: no vectors are bound.
        """
        return self._walk(*self._bound(), indices)

    def fingerprint(self) -> str:
        """A hash of the pairs: lengths, labels, order, and the vectors of all words.

        Raises:
            ValueError: no vectors are bound.
        """
        (left, right), table = self._bound()
        labels = self.labels
        if self.second is not None and labels is not None:
            labels = torch.stack([labels.double(), self.second.double()])
        return fingerprint(left, right, table, labels)

    def _bound(self) -> tuple[tuple[Ragged, Ragged], Tensor]:
        if self.vectors is None or self._ids is None:
            raise ValueError(f"the pairs of {self.source} have no word vectors yet; call with_vectors first")
        return self._ids, self.vectors.table

    def _walk(self, ids: tuple[Ragged, Ragged], table: Tensor, indices: Sequence[Tensor]) -> Iterator[Batch]:
        if not indices:
            return
        order, sizes = torch.cat(list(indices)), [len(index) for index in indices]
        sides = (cut(reorder(side, order), table, sizes) for side in ids)
        for index, left, right in zip(indices, *sides, strict=True):
            yield Batch(left, right, None if self.labels is None else self.labels[index], index)

    def _check_counts(self) -> None:
        counts = {"left": len(self.left), "right": len(self.right), "lines": len(self.lines)}
        for name, labels in (("labels", self.labels), ("second", self.second)):
            if labels is not None:
                counts[name] = labels.numel()
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise ValueError(f"one of each is needed for every pair: {listed}")

    def _check_values(self) -> None:
        for name, side in (("left", self.left), ("right", self.right)):
            for line, sentence in zip(self.lines, side, strict=True):
                if not sentence:
                    raise ValueError(f"{self.source}, line {line}: the {name} sentence is empty")
        for name, labels, classes in (
            ("label", self.labels, self.classes),
            ("second label", self.second, self.second_classes),
        ):
            if labels is not None and classes is not None:
                outside = ((labels < 0) | (labels >= len(classes))).nonzero()
                if len(outside):
                    at = int(outside[0, 0])
                    problem = f"the {name} is {int(labels[at])}; there are {len(classes)} classes, counted from 0"
                    raise ValueError(f"{self.source}, line {self.lines[at]}: {problem}")
            if labels is not None and classes is None:
                outside = (~((labels >= 0) & (labels <= 1))).nonzero()
                if len(outside):
                    at = int(outside[0, 0])
                    problem = f"the {name} is {float(labels[at]):g}; it must be from 0 to 1"
                    raise ValueError(f"{self.source}, line {self.lines[at]}: {problem}")


def _sentences(name: str, sentences: Sequence[Sequence[str]]) -> list[Sentence]:
    for place, sentence in enumerate(sentences):
        if isinstance(sentence, str):
            problem = "is one string; expected its words, as from towers.data.split_words"
            raise ValueError(f"{name}[{place}] ({sentence[:40]!r}) {problem}")
    return [tuple(sentence) for sentence in sentences]


def _fitted(sentences: Sequence[Sentence], words: int) -> list[Sentence]:
    if words < 1:
        raise ValueError(f"words ({words}) must be at least 1")
    return [(*sentence[:words], *[BLANK] * (words - len(sentence))) for sentence in sentences]


def look_up(sentences: Sequence[Sentence], vectors: WordVectors) -> Ragged:
    """Row of every word's vector, sentences end to end."""
    ids = vectors.ids([word for sentence in sentences for word in sentence])
    offsets = offsets_of(torch.tensor([len(sentence) for sentence in sentences], dtype=torch.int64))
    return Ragged.unchecked(torch.tensor(ids, dtype=torch.int64), offsets)
