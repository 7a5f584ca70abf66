"""What can be done with each row of a table: a score for a pair, the state of a sentence, the best items of a query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from towers.answers import Model, Side
from towers.data.rows import Rows
from towers.data.writers import Values
from towers.scale.index_shards import SHARDS, Shards
from towers.scale.readable import Words
from towers.scale.stamps import Stamp, stamp
from towers.search.sentences import check_vectors

Columns = Mapping[str, type]
"""The new columns and their kinds: float, int, str, list[float] or list[int]."""


class Labels(Protocol):
    """What a model answers with: a loaded model, or the config.json of a folder."""

    @property
    def classes(self) -> Sequence[str] | None:
        """The names of its classes, if it has them."""
        ...

    @property
    def label_range(self) -> tuple[float, float]:
        """The least and the greatest score."""
        ...


@dataclass(frozen=True)
class Predict:
    """The score of the two sentences of each row: the columns that `towers predict` adds.

    Args:
        left_column: the column of the left sentence; None: the name in the model's training.
        right_column: the column of the right sentence.
        score_column: the new column; None: `probability`, or `score` if labels do not go from 0 to 1. Of classes the
            column of the most probable one; None: `class`.
        threshold: also add a label, 1 where the score is at least this.
        label_column: the column of these labels.

    >>> from towers.scale import Predict
    >>> Predict(threshold=0.5).label_column
    'label'
    """

    left_column: str | None = None
    right_column: str | None = None
    score_column: str | None = None
    threshold: float | None = None
    label_column: str = "label"
    name: ClassVar[Literal["predict"]] = "predict"

    def sides(self, model: Model) -> list[tuple[str, Side]]:
        """The columns that are read with `model`, and the side that each is."""
        left, right = model.columns
        return [(self.left_column or left, "left"), (self.right_column or right, "right")]

    def scores_name(self, of: Labels) -> str:
        """The column of the scores; of classes that of the most probable one."""
        if of.classes is not None:
            return self.score_column or "class"
        return self.score_column or ("probability" if tuple(of.label_range) == (0, 1) else "score")

    def columns(self, model: Labels) -> Columns:
        """The new columns with `model`.

        Raises:
            ValueError: the threshold is outside the range of the labels, or two columns have one name.
        """
        name = self.scores_name(model)
        if model.classes is not None:
            if self.threshold is not None:
                raise ValueError("--threshold (threshold=) is for models of degrees; this one has classes")
            if name in model.classes:
                problem = f"a class of the model is named {name!r}, as the column of the most probable one is"
                raise ValueError(f"{problem}; call that column otherwise with --score-column (score_column=)")
            return {**dict.fromkeys(model.classes, float), name: str}
        low, high = model.label_range
        if self.threshold is None:
            return {name: float}
        if not low <= self.threshold <= high:
            raise ValueError(f"--threshold (threshold=) is {self.threshold:g}: the scores go from {low:g} to {high:g}")
        if self.label_column == name:
            raise ValueError(f"--label-column (label_column=) is {name!r}, the column of the scores; take another name")
        return {name: float, self.label_column: int}

    def cells(self, of: Labels, scores: Tensor) -> list[Values]:
        """The cells of the new columns for these scores, which are in the range of the labels; of classes "pairs
        classes"."""
        if of.classes is not None:
            places: list[int] = scores.argmax(1).tolist() if len(scores) else []
            return [*map(list, scores.T.numpy()), [of.classes[place] for place in places]]
        if self.threshold is None:
            return [list(scores.numpy())]
        return [list(scores.numpy()), (scores >= self.threshold).int().tolist()]

    def values(self, model: Model, *sentences: Sequence[Words]) -> list[Values]:
        """The cells of the new columns: what `model` says about these `sentences`."""
        left, right = sentences
        scores = model.score(left, right, tensor=True, progress=False)
        return self.cells(model, scores)


@dataclass(frozen=True)
class Encode:
    """The state of the sentence of each row, a list of numbers in the new column `state`.

    Args:
        column: the column of the sentence.
        side: the tower that reads it.

    Raises:
        ValueError: `side` is neither "left" nor "right".

    >>> from towers.scale import Encode
    >>> Encode("text", side="right").column
    'text'
    """

    column: str = "text"
    side: Side = "left"
    name: ClassVar[Literal["encode"]] = "encode"

    def __post_init__(self) -> None:
        if self.side not in ("left", "right"):
            raise ValueError(f'side ({self.side!r}) must be "left" or "right"')

    def sides(self, model: Model) -> list[tuple[str, Side]]:
        """The column that is read with `model`, and its side."""
        return [(self.column, self.side)]

    def columns(self, model: Model) -> Columns:
        """The new column with `model`."""
        return {"state": list[float]}

    def values(self, model: Model, *sentences: Sequence[Words]) -> list[Values]:
        """The cells of the new column: what `model` says about these `sentences`."""
        states = model.encode(sentences[0], side=self.side, progress=False)
        return [list(states.numpy())]


@dataclass(frozen=True)
class Search:
    """The k best items of an index for the query of each row: the new columns `ids` and `scores`, lists, best first.

    Args:
        index: the file or the folder that `towers index` wrote; right items are found for left queries.
        column: the column of the query.
        k: how many items.
        class_name: of a model of classes, the class whose probability is the score.
        ranked: scores are those of `Shards.search`, by which `merge` joins the results of several shards exactly, in
            place of the model's.

    Raises:
        ValueError: k is below 1.

    >>> from towers.scale import Search
    >>> Search("corpus.index", k=3).column
    'text'
    """

    index: str
    column: str = "text"
    k: int = 10
    class_name: str | None = None
    ranked: bool = False
    name: ClassVar[Literal["search"]] = "search"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k ({self.k}) must be at least 1")

    def sides(self, model: Model) -> list[tuple[str, Side]]:
        """The column that is read with `model`; queries are read by the left tower."""
        return [(self.column, "left")]

    def columns(self, model: Model) -> Columns:
        """The new columns with `model`."""
        return {"ids": list[int], "scores": list[float]}

    def values(self, model: Model, *sentences: Sequence[Words]) -> list[Values]:
        """The cells of the new columns: what `model` says about these `sentences`.

        Raises:
            ValueError: k is above the number of items, or the index is damaged or of another model.
        """
        changed = stamp([self.index, Path(self.index, SHARDS)])
        shards = _opened(self.index, changed, model, model.output_of(self.class_name))
        states = model.encode(sentences[0], side="left", progress=False)
        scores, ids = shards.search(states, self.k)
        told = scores if self.ranked else model.scores_of(scores.double()).float()
        return [list(ids.numpy()), list(told.numpy())]


Task = Predict | Encode | Search


@lru_cache(maxsize=64)
def _opened(index: str, changed: Stamp, model: Model, output: int | None) -> Shards:
    shards = Shards.load(index, model.network, output=output)
    check_vectors(shards.about, model, index)
    return shards


def check_new(rows: Rows, columns: Columns) -> None:
    """Refuse rows that have one of these new columns already.

    Raises:
        ValueError: they do; the message names the column.
    """
    for name in columns:
        if name in rows.names:
            raise ValueError(f"{rows.path} has a column {name!r} already; {_other_name(name, columns)}")


def _other_name(name: str, columns: Columns) -> str:
    """How the names of an old and a new column can be made different."""
    kind = columns[name]
    if kind is int:
        return "call the new one otherwise with --label-column (label_column=)"
    if kind is str or (kind is float and str not in columns.values()):
        return "call the new one otherwise with --score-column (score_column=)"
    return f"{'a class of the model has this name: ' if kind is float else ''}rename the column"
