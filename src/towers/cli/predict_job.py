"""The work of `towers predict`: read, predict and write, some rows at a time."""

import argparse
import json
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from torch import Tensor

from towers.cli.arguments import check_no_run
from towers.cli.common import COLUMNS, Skipped, chosen, covered, fitted, warn_of_missing
from towers.cli.prediction_files import STANDARD, format_of_output, naming, place_of, source_of, write
from towers.data import SentencePairs, VectorStore
from towers.data.kept_vectors import ExtendedVectors, load_vectors
from towers.data.readers import TableFormat, read_rows
from towers.data.rows import Rows
from towers.data.sample import sample_vectors
from towers.data.writers import Values, writing
from towers.ensemble import load_network
from towers.model import TwoTowers
from towers.model_config import Config
from towers.training.options import check_arguments, require
from towers.training.prediction import Predictor, Vectors, check_width

OPTIONS: dict[str, Any] = {**COLUMNS, "fit_length": None}
"""Settings that config.json may have and options may replace, with their defaults."""


class Window(NamedTuple):
    """Some rows, and those pairs among them, at these places, that the towers can read."""

    rows: Rows
    places: list[int]
    pairs: SentencePairs


def predict(arguments: argparse.Namespace) -> None:
    """Do what `towers predict` does."""
    check_no_run(arguments)
    started = time.perf_counter()
    require("safetensors", "polars", "tqdm")
    machine = {name: getattr(arguments, name) for name in ("batch_size", "device", "precision")}
    check_arguments(**machine)
    place = place_of(arguments)
    source, format = source_of(arguments)
    out_format = format_of_output(arguments, format)
    config = Config(arguments.model)
    model = load_network(arguments.model)
    answer, skipped = Answer(arguments, config), Skipped()
    reading: dict[str, Any] = {"separator": arguments.separator}
    if by_line := _by_line(arguments, format, out_format):
        reading["rows"] = 1
    rows = read_rows(source, arguments.format if isinstance(source, str) else format, **reading)
    options = chosen(arguments, OPTIONS | {name: config.data[name] for name in OPTIONS if name in config.data})
    windows = _windows(answer.checked(rows), model, options, skipped)
    first = next(windows)  # most mistakes are found here, before the vectors are read
    with _vectors(arguments, config, model) as vectors:
        predictor = Predictor(model, vectors, **machine, classes=config.classes)
        job = Job(arguments, predictor, answer, skipped, by_line=by_line)
        with naming(arguments.out), job.admitting():
            write(place, lambda file: job.work(chain([first], windows), file, out_format))
    job.say(time.perf_counter() - started)


def predict_in_parts(arguments: argparse.Namespace) -> None:
    """Do what `towers predict --engine` does: the model's own settings hold."""
    from towers.cli.run_job import run
    from towers.scale import Predict

    usual = {"split": None, "fit_length": None, "missing": None, "line": False}
    usual |= {"batch_size": 256, "device": "auto", "precision": "32-true"}
    for name, value in usual.items():
        if getattr(arguments, name) != value:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} does not go with --engine, for which the model's own settings hold")
    columns = {name: getattr(arguments, name) for name in ("left_column", "right_column", "score_column", "threshold")}
    run(arguments, Predict(**columns, label_column=arguments.label_column), arguments.pairs, "pairs")


def _windows(table: Iterator[Rows], model: TwoTowers, options: Mapping[str, Any], skipped: Skipped) -> Iterator[Window]:
    """Rows, each window with its checked pairs."""
    count = 0
    for rows in table:
        places, pairs = skipped.usable(rows, options, model)
        yield Window(rows, places, fitted(pairs, model, options["fit_length"], "predict", before=count))
        count += len(rows)


def _by_line(arguments: argparse.Namespace, format: TableFormat, out_format: TableFormat) -> bool:
    """Whether each line is answered when it comes: with --line, or at a terminal."""
    if arguments.line and "parquet" in (format, out_format):
        raise ValueError("--line: a Parquet file has no lines; take another format")
    if arguments.line and arguments.out != STANDARD:
        raise ValueError("--line goes with --out -: a file appears whole, at the end")
    typed = arguments.pairs == STANDARD and getattr(sys.stdin, "isatty", bool)()
    return arguments.line or (typed and format != "parquet")


class Answer:
    """The columns that are added: the score in the range of the labels, and with --threshold the label.

    Raises:
        ValueError: the threshold is outside the range, or the two columns have one name.
    """

    def __init__(self, arguments: argparse.Namespace, config: Config) -> None:
        self.classes = config.classes
        self.low, self.high = config.label_range
        if self.classes is not None:
            if arguments.threshold is not None:
                problem = "is for models of degrees; this one has a column for each class, and `class`"
                raise ValueError(f"--threshold {problem}")
            self.score = arguments.score_column or "class"
            if self.score in self.classes:
                problem = f"a class of the model is named {self.score!r}, as the column of the most probable one is"
                raise ValueError(f"{problem}; say --score-column NAME to call that column otherwise")
            self.threshold = None
            self.columns = {**dict.fromkeys(self.classes, float), self.score: str}
            return
        self.threshold: float | None = arguments.threshold
        usual = "probability" if (self.low, self.high) == (0, 1) else "score"
        self.score = arguments.score_column or usual
        self.columns: dict[str, type] = {self.score: float}
        if self.threshold is None:
            return
        if not self.low <= self.threshold <= self.high:
            raise ValueError(f"--threshold {self.threshold:g}: the scores go from {self.low:g} to {self.high:g}")
        if arguments.label_column == self.score:
            raise ValueError(f"--label-column {self.score}: the column of the scores has this name; take another")
        self.columns[arguments.label_column] = int

    def checked(self, table: Iterator[Rows]) -> Iterator[Rows]:
        """The rows, after a check that they have no column of an added name."""
        for rows in table:
            for name, kind in self.columns.items():
                if name in rows.names:
                    option = "--label-column" if kind is int else "--score-column"
                    problem = f"has a column {name!r} already"
                    if self.classes is not None and kind is float:
                        raise ValueError(
                            f"{rows.path} {problem}; a class of the model has this name: rename the column"
                        )
                    raise ValueError(f"{rows.path} {problem}; say {option} NAME to call the new one otherwise")
            yield rows

    def values(self, probabilities: Tensor, places: list[int], rows: int) -> list[Values]:
        """The cells of the added columns; those of rows at other places are empty."""
        if self.classes is not None:
            return self._class_values(probabilities, places, rows)
        scores: list[Any] = [None] * rows
        for place, score in zip(places, (self.low + (self.high - self.low) * probabilities).numpy(), strict=True):
            scores[place] = score
        if self.threshold is None:
            return [scores]
        return [scores, [None if score is None else int(score >= self.threshold) for score in scores]]

    def _class_values(self, probabilities: Tensor, places: list[int], rows: int) -> list[Values]:
        """A column of probabilities for each class, and the name of the most probable one."""
        assert self.classes is not None
        columns: list[list[Any]] = [[None] * rows for _ in self.columns]
        best = probabilities.argmax(1).tolist() if places else []
        for place, row, most in zip(places, probabilities.numpy(), best, strict=True):
            for column, probability in zip(columns, row, strict=False):
                column[place] = probability
            columns[-1][place] = self.classes[most]
        return list[Values](columns)


class Job:
    """The prediction of all rows, and the report about it."""

    def __init__(
        self, arguments: argparse.Namespace, predictor: Predictor, answer: Answer, skipped: Skipped, *, by_line: bool
    ) -> None:
        self.arguments, self.predictor, self.answer, self.skipped = arguments, predictor, answer, skipped
        self.by_line = by_line
        self.warned, self.written = False, 0

    def work(self, windows: Iterator[Window], file: BinaryIO, format: TableFormat) -> None:
        """Predict and write."""
        with writing(file, format, self.answer.columns) as writer, self._bar() as bar:
            for rows, places, pairs in windows:
                probabilities = self.predictor(pairs)
                self._check(probabilities)
                self._warn()
                writer.write(rows, self.answer.values(probabilities, places, len(rows)))
                if self.by_line:
                    file.flush()
                self.written += len(rows)
                if rows.share:
                    bar.total = round(self.written / rows.share)
                bar.update(len(rows))

    @contextmanager
    def admitting(self) -> Generator[None]:
        """Add to the error of a bad row how many pairs standard output has already."""
        try:
            yield
        except ValueError as error:
            if self.arguments.out == STANDARD:
                raise ValueError(f"{error}; standard output has the first {self.written} pairs only") from None
            raise

    def _bar(self) -> Any:
        """A progress bar, if standard error is a terminal on which no rows are printed."""
        from tqdm import tqdm

        shown = sys.stderr.isatty() and not (self.arguments.out == STANDARD and sys.stdout.isatty())
        return tqdm(disable=not shown, leave=False, dynamic_ncols=True, unit=" pairs", unit_scale=True)

    def _check(self, probabilities: Tensor) -> None:
        finite = probabilities.isfinite()
        if wrong := int((~(finite.all(1) if finite.dim() == 2 else finite)).sum()):
            problem = f"gives no number for {wrong} of {self.predictor.pairs} pairs; are its weights finite?"
            raise ValueError(f"{self.arguments.model}: the model {problem} Train it again")

    def _warn(self) -> None:
        if not (self.warned or self.by_line):  # the first lines of a person say little about the vectors
            self.warned = warn_of_missing("predict", self.predictor.coverage, self.predictor.vectors.source)

    def say(self, seconds: float) -> None:
        """Print what was done: on standard error if the rows went to standard output."""
        out, pairs, coverage = self.arguments.out, self.written, self.predictor.coverage
        self._warn_of_rows()
        if self.arguments.json:
            counts = coverage._asdict() | {"missing": dict(coverage.missing.most_common(5))}
            vectors = {"source": self.predictor.vectors.source, **counts}
            counts = {"pairs": pairs, "without_score": self.skipped.rows, "without_known_word": self.predictor.unknown}
            said = json.dumps({**counts, "out": str(out), "seconds": round(seconds, 3), "vectors": vectors})
        else:
            place = "standard output" if out == STANDARD else out
            said = f"{pairs} pair{'' if pairs == 1 else 's'} with {self.answer.score} in {place}; "
            said += covered(self.predictor.vectors, coverage)
        print(said, file=sys.stderr if out == STANDARD else sys.stdout, flush=True)

    def _warn_of_rows(self) -> None:
        """Say which pairs have no score, and which scores mean nothing."""
        if self.skipped.rows:
            told = self.skipped.told("without a score")
            print(f"towers predict: warning: {told}", file=sys.stderr, flush=True)
        if unknown := self.predictor.unknown:
            pairs = "1 pair has" if unknown == 1 else f"{unknown} pairs have"
            first = f"the first: line {self.predictor.first_unknown}"
            problem = f"{pairs} a sentence of which no word has a vector ({first}); such scores mean nothing"
            print(f"towers predict: warning: {problem}", file=sys.stderr, flush=True)


@contextmanager
def _vectors(arguments: argparse.Namespace, config: Config, model: TwoTowers) -> Generator[Vectors]:
    """The vectors that the model's folder carries, with those of --vectors for more words; of old folders, a file."""
    source = config.source if arguments.vectors is None else str(arguments.vectors)
    missing = arguments.missing or config.missing
    if config.carries or config.source == "sample":
        own = load_vectors(arguments.model, missing=missing) if config.carries else sample_vectors(missing)
        check_width(model, own)
        if arguments.vectors is None:
            yield own
            return
        with VectorStore(arguments.vectors, missing=missing) as more:
            yield ExtendedVectors(own, more)
        return
    if source is None:
        raise ValueError(f"{arguments.model} does not say which word vectors it was trained with; add --vectors FILE")
    if arguments.vectors is None and not Path(source).is_file():
        raise ValueError(f"{source}, the word vectors of the model's training, is gone; say where with --vectors FILE")
    with VectorStore(source, missing=missing) as vectors:
        check_width(model, vectors)
        yield vectors
    print(f"towers predict: warning: {config.not_compared(source)}", file=sys.stderr, flush=True)
