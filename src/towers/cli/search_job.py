"""The work of `towers search` and `towers index`."""

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from towers.answers import Model, Side
from towers.cli.common import answering
from towers.cli.prediction_files import STANDARD, check_ending, naming, write
from towers.data.encoding import RETURNS, decode_line, unpacked
from towers.data.readers import ENDINGS
from towers.search import Index
from towers.training.options import require

ENCODED, SEARCHED = 4096, 256
"""Sentences that are encoded, and queries that are searched, between two steps of the progress bar."""


class Lines(NamedTuple):
    """The sentences of a file, and the number of the line of each, from 1."""

    sentences: list[str]
    numbers: list[int]


def index(arguments: argparse.Namespace) -> None:
    """Do what `towers index` does."""
    place = _place(arguments, "corpus")
    lines = read_lines(arguments.corpus)
    with answering(arguments) as model:
        made = _indexed(model, lines, None)
        made.save(place)
    print(f"{len(made)} sentences are in {arguments.out}")


def search(arguments: argparse.Namespace) -> None:
    """Do what `towers search` does."""
    corpus: Path | None = arguments.corpus
    if corpus is None and (arguments.index is None or arguments.texts):
        needed = "--texts needs --corpus FILE" if arguments.index else "name --corpus FILE, or --index FILE"
        raise ValueError(needed)
    place = None if arguments.out == STANDARD else _place(arguments, "corpus", "queries", "index")
    format = arguments.out_format or ENDINGS.get(arguments.out.suffix.lower()) or "tsv"
    if format == "parquet":
        require("polars")
    lines = None if corpus is None or (arguments.index and not arguments.texts) else read_lines(corpus)
    queries = read_lines(arguments.queries)
    texts = dict(zip(lines.numbers, lines.sentences, strict=True)) if lines is not None and arguments.texts else None
    with answering(arguments) as model:
        output = model.output_of(arguments.class_name)
        if arguments.index is not None:
            found = Index.load(arguments.index, model.network, output=output)
        else:
            assert lines is not None
            found = _indexed(model, lines, output)
        rows = list(_rows(model, found, queries, arguments.k, texts))
    with naming(arguments.out):
        write(place, lambda file: _write(file, format, rows))


def _place(arguments: argparse.Namespace, *read: str) -> Path:
    """The file to write, links resolved.

    Raises:
        ValueError: it is a folder or one of the files that are read, or there is no such folder.
    """
    out: Path = arguments.out
    check_ending(out)
    place = Path(os.path.realpath(out))
    if not place.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {place.parent}")
    if place.is_dir():
        raise ValueError(f"--out {out}: is a folder; name a file")
    for option in read:
        file: Path | None = getattr(arguments, option)
        if file is not None and file.exists() and place.exists() and place.samefile(file):
            raise ValueError(f"--out {out}: is the file of --{option}, which stays as it is; name another file")
    return place


def read_lines(path: Path) -> Lines:
    """The lines of a file, compressed with gzip or not, but blank ones.

    Raises:
        ValueError: there is none, a line is not UTF-8, or lines end in carriage returns alone; the file is named.
    """
    lines = Lines([], [])
    with unpacked(str(path)) as file:
        for number, line in enumerate(file, 1):
            if text := decode_line(str(path), number, line).strip():
                if number == 1 and "\r" in text:
                    raise ValueError(f"{path}, line 1: {RETURNS}")
                lines.sentences.append(text)
                lines.numbers.append(number)
    if not lines.numbers:
        raise ValueError(f"{path}: there is no sentence in it")
    return lines


def _indexed(model: Model, lines: Lines, output: int | None) -> Index:
    index = Index(model.network, output=output)
    for part, states in _encoded(model, lines, "right"):
        index.add(states, torch.tensor(part.numbers))
    return index


def _encoded(model: Model, lines: Lines, side: Side, step: int = ENCODED) -> Iterator[tuple[Lines, Tensor]]:
    """Some lines after the others, with their states."""
    from tqdm import tqdm

    hidden = not sys.stderr.isatty()
    with tqdm(total=len(lines.numbers), disable=hidden, leave=False, unit=" sentences", unit_scale=True) as bar:
        for first in range(0, len(lines.numbers), step):
            part = Lines(lines.sentences[first : first + step], lines.numbers[first : first + step])
            yield part, model.encode(part.sentences, side=side)
            bar.update(len(part.numbers))


def _rows(model: Model, index: Index, queries: Lines, k: int, texts: dict[int, str] | None) -> Iterator[dict[str, Any]]:
    for part, states in _encoded(model, queries, "left", SEARCHED):
        scores, ids = index.search(states, k)
        scores = model.scores_of(scores)
        for query, own, found in zip(part.numbers, scores.tolist(), ids.tolist(), strict=True):
            for rank, (score, id) in enumerate(zip(own, found, strict=True), 1):
                row: dict[str, Any] = {"query": query, "rank": rank, "id": id, "score": score}
                if texts is not None:
                    if id not in texts:
                        raise ValueError(
                            f"the index has line {id}, which --corpus has not; is it the file of the index?"
                        )
                    row["text"] = texts[id]
                yield row


def _write(file: BinaryIO, format: str, rows: list[dict[str, Any]]) -> None:
    if format == "parquet":
        import polars

        polars.DataFrame(rows).write_parquet(file)
        return
    text = io.TextIOWrapper(file, encoding="utf8", newline="")
    if format in ("tsv", "csv"):
        writer = csv.writer(text, delimiter="\t" if format == "tsv" else ",", lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows([*map(_spelled, row.values())] for row in rows)
    else:
        text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    text.flush()
    text.detach()


def _spelled(value: object) -> object:
    return f"{value:.7g}" if isinstance(value, float) else value
