"""The work of `towers search` without an engine, and what is written with one too."""

import argparse
import csv
import io
import json
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from towers.answers import Model
from towers.cli.arguments import check_no_run
from towers.cli.common import answering
from towers.cli.prediction_files import STANDARD, file_to_write, naming, write
from towers.cli.sentence_lines import CORPUS, Digest, Lines, blocks, encoded, paced, read_lines, states_of
from towers.data.readers import ENDINGS
from towers.scale import Shards
from towers.search import Index
from towers.search.sentences import check_vectors, scores_of
from towers.training.options import require

SEARCHED = 256
"""Queries that are searched at a time."""
FRAME = 1 << 16
"""Rows of results that become a frame of polars at a time."""


def search(arguments: argparse.Namespace) -> None:
    """Do what `towers search` does without --engine."""
    check_no_run(arguments)
    corpus: Path | None = arguments.corpus
    if corpus is None and arguments.index is None:
        raise ValueError("name --corpus FILE, or --index FILE")
    read = {name: getattr(arguments, name) for name in ("corpus", "queries", "index")}
    place = None if arguments.out == STANDARD else file_to_write(arguments.out, read)
    format = arguments.out_format or ENDINGS.get(arguments.out.suffix.lower()) or "tsv"
    lines = texts_of(arguments, format)
    queries = _queries(arguments.queries)
    with answering(arguments) as model:
        output = model.output_of(arguments.class_name)
        if arguments.index is not None:
            found = Shards.load(arguments.index, model.network, output=output)
            check_vectors(found.about, model, arguments.index)
            if lines is not None:
                check_corpus(found, lines, corpus)
        else:
            assert corpus is not None
            made = Index(model.network, output=output)
            for part, states in encoded(model, corpus, "right"):
                made.add(states, torch.tensor(part.numbers))
            found = Shards([made])
        check_k(arguments, len(found))
        searched = (
            (part.numbers, *found.search(states_of(model, name, part, "left"), arguments.k)) for name, part in queries
        )
        rows = rows_of(model, searched, lines)
        first = next(rows)
        with naming(arguments.out):
            write(place, lambda file: write_rows(file, format, chain([first], rows)))


def _queries(path: Path) -> Iterator[tuple[str, Lines]]:
    """The queries of a file or of standard input, some at a time, each with the name of the file.

    Raises:
        OSError, ValueError: as `read_lines`, or there is no query; before the first ones are asked for.
    """
    if path == STANDARD:
        texts, numbers = read_lines(None)
        pieces = (slice(at, at + SEARCHED) for at in range(0, len(numbers), SEARCHED))
        return (("standard input", Lines(texts[piece], numbers[piece])) for piece in pieces)
    next(blocks(path, 1))
    return ((str(path), part) for part in paced(path, blocks(path, SEARCHED)))


def check_k(arguments: argparse.Namespace, count: int) -> None:
    """Refuse a -k above the number of items.

    Raises:
        ValueError: it is.
    """
    if arguments.k > count:
        searched = arguments.corpus if arguments.index is None else arguments.index
        has = "no sentences" if not count else "1 sentence" if count == 1 else f"{count} sentences"
        most = f"; say -k {count}{' or less' if count > 1 else ''}" if count else ""
        raise ValueError(f"-k {arguments.k}: {searched} has {has}{most}")


def texts_of(arguments: argparse.Namespace, format: str) -> Lines | None:
    """The sentences that --texts adds to the results, from --corpus.

    Raises:
        ValueError: there is no --corpus, or one that `format` cannot hold.
        ImportError: `format` is Parquet, and polars is not installed.
    """
    if format == "parquet":
        require("polars")
    if not arguments.texts:
        return None
    if arguments.corpus is None:
        raise ValueError("--texts needs --corpus FILE")
    lines = read_lines(arguments.corpus)
    for number, text in zip(lines.numbers, lines.sentences, strict=True) if format == "tsv" else ():
        if "\t" in text:
            problem = "has a tab, which TSV cannot hold; write another format, with --out-format"
            raise ValueError(f"{arguments.corpus}, line {number}: {problem}")
    return lines


def check_corpus(index: Shards, lines: Lines, corpus: Path | None) -> None:
    """The texts of the results are those of the items only if the index was made from these lines.

    Raises:
        ValueError: it was made from others.
    """
    digest = Digest()
    digest.add(lines)
    if CORPUS not in index.about:
        warnings.warn(
            f"the index does not say what it was made from, so the texts may not be those that were scored: {corpus} "
            "must be its corpus, unchanged",
            stacklevel=2,
        )
    elif digest.text() != index.about[CORPUS]:
        raise ValueError(
            f"--corpus {corpus}: is not what the index was made from: a sentence, or the order of lines, is another; "
            "name that file, or run towers index again"
        )


def rows_of(
    model: Model, searched: Iterable[tuple[list[int], Tensor, Tensor]], lines: Lines | None
) -> Iterator[dict[str, Any]]:
    """The rows of the results, best first.

    Args:
        model: gives the scores.
        searched: the lines of some queries, and what an index of the model has found for them: scores and ids.
        lines: the sentences that are added.
    """
    texts = None if lines is None else dict(zip(lines.numbers, lines.sentences, strict=True))
    for numbers, scores, ids in searched:
        for query, own, found in zip(numbers, scores_of(model, scores).tolist(), ids.tolist(), strict=True):
            for rank, (score, id) in enumerate(zip(own, found, strict=True), 1):
                row: dict[str, Any] = {"query": query, "rank": rank, "id": id, "score": score}
                if texts is not None:
                    if id not in texts:
                        raise ValueError(
                            f"the index has line {id}, which --corpus has not; is it the file of the index?"
                        )
                    row["text"] = texts[id]
                yield row


def write_rows(file: BinaryIO, format: str, rows: Iterator[dict[str, Any]]) -> None:
    """Write results, of which there is at least one."""
    if format == "parquet":
        import polars

        frames: list[polars.DataFrame] = []
        while some := list(islice(rows, FRAME)):
            frames.append(polars.DataFrame(some))
        whole = io.BytesIO()  # polars's own error of a full disk is no OSError
        polars.concat(frames).write_parquet(whole)
        file.write(whole.getbuffer())
        return
    text = io.TextIOWrapper(file, encoding="utf8", newline="")
    if format in ("tsv", "csv"):
        dialect: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
        writer = csv.writer(text, lineterminator="\n", **(dialect if format == "tsv" else {}))
        first = next(rows)
        writer.writerow(first)
        writer.writerows([*map(_spelled, row.values())] for row in chain([first], rows))
    else:
        text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    text.flush()
    text.detach()


def _spelled(value: object) -> object:
    return f"{value:.7g}" if isinstance(value, float) else value
