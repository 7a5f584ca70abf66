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
from towers.scale.tasks import Columns, Predict, check_new
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
    task, skipped = _task(arguments), Skipped()
    answer = Answer(task, config, task.columns(config))
    reading: dict[str, Any] = {"separator": arguments.separator}
    if by_line := _by_line(arguments, format, out_format):
        reading["rows"] = 1
    rows = read_rows(source, arguments.format if isinstance(source, str) else format, **reading)
    options = chosen(arguments, OPTIONS | {name: config.data[name] for name in OPTIONS if name in config.data})
    windows = _windows(_checked(rows, answer.columns), model, options, skipped)
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

    usual = {"split": None, "fit_length": None, "missing": None, "line": False}
    usual |= {"batch_size": 256, "device": "auto", "precision": "32-true"}
    for name, value in usual.items():
        if getattr(arguments, name) != value:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} does not go with --engine, for which the model's own settings hold")
    run(arguments, _task(arguments), arguments.pairs, "pairs")


def _task(arguments: argparse.Namespace) -> Predict:
    names = ("left_column", "right_column", "score_column", "threshold", "label_column")
    return Predict(**{name: getattr(arguments, name) for name in names})


def _checked(table: Iterator[Rows], columns: Columns) -> Iterator[Rows]:
    """The rows, after a check that they have no column of an added name."""
    for rows in table:
        check_new(rows, columns)
        yield rows


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


class Answer(NamedTuple):
    """The columns that are added to the rows.

    task: says which these are, and their cells.
    config: of the model.
    columns: their names and kinds.
    """

    task: Predict
    config: Config
    columns: Columns

    @property
    def score(self) -> str:
        """The column of the scores."""
        return self.task.scores_name(self.config)

    def values(self, probabilities: Tensor, places: list[int], rows: int) -> list[Values]:
        """The cells of the added columns; those of rows at other places are empty."""
        (low, high), classes = self.config.label_range, self.config.classes
        scores = probabilities if classes is not None else low + (high - low) * probabilities
        spread = list[Values]()
        for cells in self.task.cells(self.config, scores):
            column: list[Any] = [None] * rows
            for place, cell in zip(places, cells, strict=True):
                column[place] = cell
            spread.append(column)
        return spread


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
