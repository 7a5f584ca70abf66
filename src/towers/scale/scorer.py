"""Scorer: one callable from a batch of Arrow to a batch of Arrow, for every engine that runs such a callable."""

import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

from towers.answers import Model, load
from towers.data.columns import Columns
from towers.data.memory_rows import MemoryRows
from towers.data.rows import Rows
from towers.data.writers import Values
from towers.scale import arrow
from towers.scale.readable import Reader, Words
from towers.scale.run_folder import files_of_model
from towers.scale.stamps import Stamp, stamp
from towers.scale.tasks import Predict, Task, check_new

Batch = TypeVar("Batch")
_ONE_AT_A_TIME = threading.RLock()
_loaded = [0]


def loads() -> int:
    """How many models this process has loaded for its scorers.

    >>> from towers.scale import loads
    >>> loads() >= 0
    True
    """
    return _loaded[0]


class Answer(NamedTuple):
    """What is said about some rows: the places of those that can be read and the new cells of these, and for each row
    the reason why it cannot be read, or None."""

    places: list[int]
    values: list[Values]
    problems: list[str | None]
    unknown: int
    """How many of the rows that can be read have a sentence of which no word has a vector."""


class Scorer:
    """Adds the answers of a model to each batch of a table. It can be pickled, and sent to any process.

    The model is loaded when it is first needed, once in each process, whatever the number of scorers and of copies. A
    row that cannot be read (an empty sentence, one that is too short, something that is no text) gets no answer; its
    cell of the new column `problem` (or of another name) has the reason, which is null elsewhere.

    A batch is a RecordBatch or a Table of pyarrow, or a frame of polars; the result is of the same kind, with the same
    rows and columns and the new ones. So it goes into Ray Data (`dataset.map_batches(scorer, batch_format="pyarrow")`),
    Spark (`frame.mapInArrow(scorer.each, schema)`), DuckDB and polars.

    Args:
        model: the folder of a run, reachable from every worker.
        task: `Predict()`, `Encode(…)` or `Search(…)`.
        vectors: a file of the same word vectors, for words that the folder lacks.
        problem: the new column that says why a row has no answer; of several scorers over one table, each has its own.

    Raises:
        TypeError: `task` is none of them.

    >>> import tempfile, polars, towers
    >>> from towers.data import sample_pairs
    >>> from towers.scale import Predict, Scorer
    >>> from towers.training import fit
    >>> rows = {"sentence1": ["a dog runs", ""], "sentence2": ["an animal moves around outside", "a cat"]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     history = fit(towers.TwoTowers(), sample_pairs(20), epochs=1, out=folder, progress=False)
    ...     scored = Scorer(folder, Predict())(polars.DataFrame(rows))
    >>> scored.columns, scored["problem"].to_list()
    (['sentence1', 'sentence2', 'probability', 'problem'], [None, 'sentence1 is empty'])
    """

    def __init__(
        self,
        model: str | PathLike[str],
        task: Task | None = None,
        *,
        vectors: str | PathLike[str] | None = None,
        problem: str = "problem",
    ) -> None:
        self.task: Task = Predict() if task is None else task
        if not isinstance(self.task, Task):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"task ({task!r}) must be Predict(), Encode(…) or Search(…)")
        self.folder, self.problem = os.path.abspath(model), problem
        self.vectors = None if vectors is None else os.path.abspath(vectors)

    def __repr__(self) -> str:
        return f"Scorer({self.folder!r}, {self.task})"

    @property
    def model(self) -> Model:
        """The model, loaded if this process has not done it.

        Raises:
            OSError: the folder or a file is missing.
            ValueError: as `towers.load`.
        """
        with _ONE_AT_A_TIME:
            files = files_of_model(Path(self.folder)).values()
            return _load(self.folder, self.vectors, stamp([*files, *([] if self.vectors is None else [self.vectors])]))

    @property
    def columns(self) -> dict[str, type]:
        """The new columns beside that of problems, and their kinds: float, int, str, list[float] or list[int]."""
        return dict(self.task.columns(self.model))

    def check(self, rows: Rows) -> None:
        """Refuse rows that have one of the new columns already, or lack one that is read.

        Raises:
            ValueError: they do; the message names the column.
        """
        check_new(rows, self.columns)
        for name, _ in self.task.sides(self.model):
            Columns(rows).column(name, "the column's option or argument")

    def answer(self, rows: Rows) -> Answer:
        """What the model says about some rows.

        Args:
            rows: of a table, whose columns `check` has found good.

        Raises:
            ValueError: a column is missing or there already, or the model's weights are not finite.
        """
        with _ONE_AT_A_TIME:
            self.check(rows)
            model = self.model
            read = [Reader(model, side)(name, rows.column(name)) for name, side in self.task.sides(model)]
            problems = [next((cell for cell in row if isinstance(cell, str)), None) for row in zip(*read, strict=True)]
            places = [place for place, problem in enumerate(problems) if problem is None]
            sentences = cast("list[list[Words]]", [[column[place] for place in places] for column in read])
            before = model.unknown
            with warnings.catch_warnings():  # of unknown words, which are counted
                warnings.simplefilter("ignore")
                values = self.task.values(model, *sentences)
            return Answer(places, values, problems, model.unknown - before)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the new columns.

        Args:
            batch: a RecordBatch or a Table of pyarrow, or a DataFrame of polars.

        Raises:
            TypeError: it is none of these.
            ValueError: it lacks a column that is read, has one of the new columns already, or its lists are more than a
                column of Arrow holds; or two new columns have one name.
        """
        arrow.check(batch)
        rows = MemoryRows(batch)
        with _ONE_AT_A_TIME:
            if self.problem in (*rows.names, *self.columns):
                has = "has" if self.problem in rows.names else "gets"
                raise ValueError(f'{rows.path} {has} a column {self.problem!r} already; say Scorer(…, problem="…")')
            answer = self.answer(rows)
            return arrow.extended(batch, self.columns, answer.places, answer.values, {self.problem: answer.problems})

    def each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """An iterator of batches, as Spark's `mapInArrow` wants it.

        Args:
            batches: an iterable of batches.
        """
        return map(self, batches)


@lru_cache(maxsize=2)
def _load(folder: str, vectors: str | None, stamp: Stamp) -> Model:
    _loaded[0] += 1
    return load(folder, vectors=vectors)
