# pyright: reportUnknownMemberType=false
"""`towers predict`."""

import argparse
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from towers import training
from towers.checkpoint import read_config, replace
from towers.cli.lengths import fitted
from towers.cli.pairs import COLUMNS, chosen
from towers.data import SentencePairs, WordVectors, read_table
from towers.data.columns import Columns
from towers.data.sample import sample_vectors
from towers.data.tables import ENDINGS, TableFormat, format_of
from towers.model import TwoTowers
from towers.training.extras import PACKAGES, require
from towers.training.fitting import check_arguments

if TYPE_CHECKING:
    import polars

COLUMN = "probability"
OPTIONS: dict[str, Any] = {**COLUMNS, "fit_length": None}
"""What config.json may say and the options may replace."""


def run(arguments: argparse.Namespace) -> None:
    """Read, predict, write."""
    require(*PACKAGES)
    check_arguments(batch_size=arguments.batch_size, device=arguments.device, precision=arguments.precision)
    out = _output(arguments.pairs, arguments.out)
    format = _output_format(arguments.pairs, arguments.out)
    config = read_config(arguments.model)
    model = TwoTowers.load(arguments.model)
    trained = {name: value for name, value in config.get("data", {}).items() if name in OPTIONS}
    options = chosen(arguments, OPTIONS | trained)
    columns = Columns(str(arguments.pairs), read_table(str(arguments.pairs), format))
    frame = columns.table.frame
    if COLUMN in frame.columns:
        raise ValueError(f"{arguments.pairs} has a column {COLUMN!r} already; rename it first")
    pairs = fitted(_pairs(columns, options), model, options["fit_length"], "predict")
    vectors = _vectors(arguments, config, pairs, model)
    pairs = pairs.with_vectors(vectors)
    probabilities = training.predict(
        model, pairs, batch_size=arguments.batch_size, device=arguments.device, precision=arguments.precision
    )
    if wrong := int((~probabilities.isfinite()).sum()):
        problem = f"gives no number for {wrong} of {len(pairs)} pairs; are its weights finite? Train it again"
        raise ValueError(f"{arguments.model}: the model {problem}")
    _write(frame, probabilities, format, out)
    print(f"{len(pairs)} pairs with {COLUMN} in {arguments.out}; {vectors.coverage}", flush=True)


def _output(pairs: Path, out: Path) -> Path:
    """The file to write, links followed; one that could not be written, or had better not be, is refused at once."""
    if str(out) == "-":
        raise ValueError("--out -: rows are not written to standard output; name a file")
    place = Path(os.path.realpath(out))
    if not place.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent if place == out.absolute() else place.parent}")
    if place.is_dir():
        raise ValueError(f"--out {out}: is a folder; name a file")
    if out.exists() and (not place.is_file() or _is_standard_output(place)):
        raise ValueError(f"--out {out}: is no regular file; name a file")
    if out.exists() and pairs.exists() and out.samefile(pairs):
        raise ValueError(f"--out {out}: is the file of --pairs, which stays as it is; name another file")
    return place


def _is_standard_output(file: Path) -> bool:
    with suppress(OSError):  # there may be none
        return os.path.samestat(os.fstat(1), file.stat())
    return False


def _output_format(pairs: Path, out: Path) -> TableFormat:
    """The input's format; an output whose name says another is refused at once."""
    format = format_of(str(pairs))
    said = ENDINGS.get(out.suffix.lower(), format)
    if said != format:
        raise ValueError(f"--out {out}: its ending says {said}, but the rows of {pairs} stay {format}")
    return format


def _pairs(columns: Columns, options: Mapping[str, Any]) -> SentencePairs:
    left, right = (columns.sentences(options[name], options["split"]) for name in ("left_column", "right_column"))
    return SentencePairs(left, right, source=columns.path, lines=columns.table.lines)


def _vectors(
    arguments: argparse.Namespace, config: Mapping[str, Any], pairs: SentencePairs, model: TwoTowers
) -> WordVectors:
    """The vectors of the model's training, or those of --vectors."""
    trained = config.get("vectors", {})
    source = trained.get("source") if arguments.vectors is None else arguments.vectors
    if source is None:
        raise ValueError(f"{arguments.model} does not say which word vectors it was trained with; add --vectors FILE")
    vectors = sample_vectors() if source == "sample" else _load_vectors(arguments, trained, Path(source), pairs)
    if vectors.width != model.left.vector_width:
        wanted = f"the model takes {model.left.vector_width}"
        raise ValueError(
            f"{vectors.source} has {vectors.width} numbers a word; {wanted}: use the vectors of its training"
        )
    return vectors


def _load_vectors(
    arguments: argparse.Namespace, trained: Mapping[str, Any], path: Path, pairs: SentencePairs
) -> WordVectors:
    if arguments.vectors is None and not path.is_file():
        raise ValueError(f"{path}, the word vectors of the model's training, is gone; say where with --vectors FILE")
    missing = arguments.missing or trained.get("missing", "hash")
    return WordVectors.load(path, pairs.vocabulary, missing=missing)


def _write(frame: "polars.DataFrame", probabilities: Tensor, format: TableFormat, out: Path) -> None:
    """The rows with their probabilities, whole and then renamed. TSV knows no quoting, as in the reader."""
    import polars

    frame = frame.with_columns(polars.Series(COLUMN, probabilities.numpy()))
    writers: dict[TableFormat, Callable[[Path], object]] = {
        "tsv": lambda path: frame.write_csv(path, separator="\t", quote_style="never"),
        "csv": frame.write_csv,
        "jsonl": frame.write_ndjson,
        "parquet": frame.write_parquet,
    }
    replace(out, writers[format])
