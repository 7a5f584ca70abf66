"""The work of `towers predict`: read, predict and write, some rows at a time."""

import argparse
import json
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from towers.answers import Config
from towers.cli.common import COLUMNS, chosen, covered, fitted, warn_of_missing
from towers.cli.prediction_files import STANDARD, format_of_output, naming, place_of, source_of, write
from towers.data import SentencePairs, VectorStore
from towers.data.columns import Columns
from towers.data.kept_vectors import ExtendedVectors, load_vectors
from towers.data.readers import TableFormat, read_rows
from towers.data.rows import Rows
from towers.data.sample import sample_vectors
from towers.data.writers import writing
from towers.model import TwoTowers
from towers.training.options import check_arguments, require
from towers.training.prediction import Predictor, Vectors, check_width

COLUMN = "probability"
OPTIONS: dict[str, Any] = {**COLUMNS, "fit_length": None}
"""Settings that config.json may have and options may replace, with their defaults."""
Windows = Iterator[tuple[Rows, SentencePairs]]


def predict(arguments: argparse.Namespace) -> None:
    """Do what `towers predict` does."""
    started = time.perf_counter()
    require("safetensors", "polars", "tqdm")
    machine = {name: getattr(arguments, name) for name in ("batch_size", "device", "precision")}
    check_arguments(**machine)
    place = place_of(arguments)
    source, format = source_of(arguments)
    out_format = format_of_output(arguments, format)
    config = Config(arguments.model)
    model = TwoTowers.load(arguments.model)
    rows = read_rows(source, arguments.format if isinstance(source, str) else format, separator=arguments.separator)
    windows = _windows(
        rows, model, chosen(arguments, OPTIONS | {name: config.data[name] for name in OPTIONS if name in config.data})
    )
    first = next(windows)  # most mistakes are found here, before the vectors are read
    with _vectors(arguments, config, model) as vectors:
        predictor = Predictor(model, vectors, **machine)
        job = Job(arguments, predictor)
        with naming(arguments.out), job.admitting():
            write(place, lambda file: job.work(chain([first], windows), file, out_format))
    job.say(time.perf_counter() - started)


def _windows(table: Iterator[Rows], model: TwoTowers, options: Mapping[str, Any]) -> Windows:
    """Rows, each window with its checked pairs."""
    count = 0
    for rows in table:
        if COLUMN in rows.names:
            raise ValueError(f"{rows.path} has a column {COLUMN!r} already; rename it first")
        columns = Columns(rows)
        left, right = (columns.sentences(options[name], options["split"]) for name in ("left_column", "right_column"))
        pairs = SentencePairs(left, right, source=rows.path, lines=rows.lines)
        yield rows, fitted(pairs, model, options["fit_length"], "predict", before=count)
        count += len(rows)


class Job:
    """The prediction of all rows, and the report about it."""

    def __init__(self, arguments: argparse.Namespace, predictor: Predictor) -> None:
        self.arguments, self.predictor = arguments, predictor
        self.warned, self.written = False, 0

    def work(self, windows: Windows, file: BinaryIO, format: TableFormat) -> None:
        """Predict and write."""
        with writing(file, format, COLUMN) as writer, self._bar() as bar:
            for rows, pairs in windows:
                probabilities = self.predictor(pairs)
                self._check(probabilities)
                self._warn()
                writer.write(rows, probabilities)
                self.written = self.predictor.pairs
                if rows.share:
                    bar.total = round(self.predictor.pairs / rows.share)
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
        if wrong := int((~probabilities.isfinite()).sum()):
            problem = f"gives no number for {wrong} of {self.predictor.pairs} pairs; are its weights finite?"
            raise ValueError(f"{self.arguments.model}: the model {problem} Train it again")

    def _warn(self) -> None:
        if not self.warned:
            self.warned = warn_of_missing("predict", self.predictor.coverage, self.predictor.vectors.source)

    def say(self, seconds: float) -> None:
        """Print what was done: on standard error if the rows went to standard output."""
        out, pairs, coverage = self.arguments.out, self.predictor.pairs, self.predictor.coverage
        if self.arguments.json:
            counts = coverage._asdict() | {"missing": dict(coverage.missing.most_common(5))}
            vectors = {"source": self.predictor.vectors.source, **counts}
            said = json.dumps({"pairs": pairs, "out": str(out), "seconds": round(seconds, 3), "vectors": vectors})
        else:
            place = "standard output" if out == STANDARD else out
            said = f"{pairs} pair{'' if pairs == 1 else 's'} with {COLUMN} in {place}; "
            said += covered(self.predictor.vectors, coverage)
        print(said, file=sys.stderr if out == STANDARD else sys.stdout, flush=True)


@contextmanager
def _vectors(arguments: argparse.Namespace, config: Config, model: TwoTowers) -> Generator[Vectors]:
    """The vectors that the model's folder carries, with those of --vectors for more words; of old folders, a file."""
    source = config.source if arguments.vectors is None else str(arguments.vectors)
    missing = arguments.missing or config.missing
    if config.carries:
        own = load_vectors(arguments.model, missing=missing)
        check_width(model, own)
        if arguments.vectors is None:
            yield own
            return
        with VectorStore(arguments.vectors, missing=missing) as more:
            yield ExtendedVectors(own, more)
        return
    if source is None:
        raise ValueError(f"{arguments.model} does not say which word vectors it was trained with; add --vectors FILE")
    if source == "sample" and arguments.vectors is None:
        opened = nullcontext(sample_vectors(missing))
    elif arguments.vectors is None and not Path(source).is_file():
        raise ValueError(f"{source}, the word vectors of the model's training, is gone; say where with --vectors FILE")
    else:
        opened = VectorStore(source, missing=missing)
    with opened as vectors:
        check_width(model, vectors)
        yield vectors
