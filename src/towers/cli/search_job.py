"""The work of `towers search` and `towers index`."""

import argparse
import csv
import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from towers.answers import Model, Side
from towers.cli.common import answering
from towers.cli.prediction_files import STANDARD, check_ending, naming, write
from towers.data.encoding import RETURNS, decode_line, unpacked
from towers.data.readers import ENDINGS
from towers.scale import Shards
from towers.scale.pace import Pace
from towers.search import Index
from towers.sentence_words import Unfit
from towers.training.options import require

ENCODED, SEARCHED = 4096, 256
"""Sentences that are encoded, and queries that are searched, at a time."""
CORPUS = "corpus"
"""The name, in what an index says about itself, of the digest of its corpus."""
FRAME = 1 << 16
"""Rows of results that become a frame of polars at a time."""


class Lines(NamedTuple):
    """The sentences of a file, and the number of the line of each, from 1."""

    sentences: list[str]
    numbers: list[int]


class Digest:
    """A digest of the sentences of a corpus and of the numbers of their lines, some added after the others."""

    def __init__(self) -> None:
        self._hashed = hashlib.sha256()

    def add(self, lines: Lines) -> None:
        """Add some lines."""
        for number, sentence in zip(lines.numbers, lines.sentences, strict=True):
            self._hashed.update(f"{number}\t{sentence}\n".encode())

    def about(self) -> dict[str, str]:
        """What an index says about the corpus that it was made from."""
        return {CORPUS: self._hashed.hexdigest()[:32]}


def index(arguments: argparse.Namespace) -> None:
    """Do what `towers index` does."""
    if arguments.shard is not None:
        _index_in_shards(arguments)
        return
    place = _place(arguments, "corpus")
    with answering(arguments) as model:
        made = Index(model.network)
        digest = Digest()
        for part, states in _encoded(model, arguments.corpus, "right"):
            made.add(states, torch.tensor(part.numbers))
            digest.add(part)
        made.save(place, about=digest.about())
    print(f"{len(made)} sentences are in {arguments.out}")


def _index_in_shards(arguments: argparse.Namespace) -> None:
    """A folder with an index for every `--shard` sentences. The list of the shards, without which they are no index, is
    written last."""
    folder: Path = arguments.out
    if not folder.parent.is_dir():
        raise ValueError(f"--out {folder}: there is no folder {folder.parent}")
    left = list(folder.iterdir()) if folder.is_dir() else []  # of an interrupted command
    if folder.exists() and (not folder.is_dir() or any(path.suffix not in (".index", ".partial") for path in left)):
        raise ValueError(f"--out {folder}: is there already; name another folder, or remove it")
    counts, made = dict[str, int](), 0

    def save(index: Index) -> None:
        name = f"{len(counts):05}.index"
        index.save(folder / name)
        counts[name] = len(index)

    with answering(arguments) as model:
        shard, digest = Index(model.network), Digest()
        for part, states in _encoded(model, arguments.corpus, "right", step=min(ENCODED, arguments.shard)):
            if len(shard) + len(states) > arguments.shard:
                save(shard)
                shard = Index(model.network)
            folder.mkdir(exist_ok=True)
            shard.add(states, torch.tensor(part.numbers))
            digest.add(part)
            made += len(states)
        save(shard)
        for old in left:
            if old.name not in counts:
                old.unlink()
        Shards.write_list(folder, counts, digest.about())
    print(f"{made} sentences are in {len(counts)} shards in {folder}")


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
    lines = None if corpus is None or not arguments.texts else read_lines(corpus)
    texts = None if lines is None else dict(zip(lines.numbers, lines.sentences, strict=True))
    for number, text in texts.items() if texts is not None and format == "tsv" else ():
        if "\t" in text:
            problem = "has a tab, which TSV cannot hold; write another format, with --out-format"
            raise ValueError(f"{corpus}, line {number}: {problem}")
    next(blocks(arguments.queries, 1))  # a file without a query is reported before the work
    with answering(arguments) as model:
        output = model.output_of(arguments.class_name)
        if arguments.index is not None:
            found = Shards.load(arguments.index, model.network, output=output)
            if lines is not None:
                _check_corpus(found, lines, corpus)
        else:
            assert corpus is not None
            made = Index(model.network, output=output)
            for part, states in _encoded(model, corpus, "right"):
                made.add(states, torch.tensor(part.numbers))
            found = Shards([made])
        rows = _rows(model, found, arguments.queries, arguments.k, texts)
        first = next(rows)
        with naming(arguments.out):
            write(place, lambda file: _write(file, format, chain([first], rows)))


def _check_corpus(index: Shards, lines: Lines, corpus: Path | None) -> None:
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
    elif digest.about()[CORPUS] != index.about[CORPUS]:
        raise ValueError(
            f"--corpus {corpus}: is not what the index was made from: a sentence, or the order of lines, is another; "
            "name that file, or run towers index again"
        )


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
    for block in blocks(path, ENCODED):
        lines.sentences.extend(block.sentences)
        lines.numbers.extend(block.numbers)
    return lines


def blocks(path: Path, size: int) -> Iterator[Lines]:
    """The same, some at a time."""
    kinds = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if kinds and kinds[-1] in ENDINGS:
        problem = "is a table by its ending; a file with a sentence on each line is needed, without a header"
        raise ValueError(f"{path}: {problem}. Write the column of sentences into one")
    lines, some = Lines([], []), False
    with unpacked(str(path)) as file:
        for number, line in enumerate(file, 1):
            if text := decode_line(str(path), number, line).strip():
                if number == 1 and "\r" in text:
                    raise ValueError(f"{path}, line 1: {RETURNS}")
                lines.sentences.append(text)
                lines.numbers.append(number)
                if len(lines.numbers) == size:
                    yield lines
                    lines, some = Lines([], []), True
    if lines.numbers:
        yield lines
    elif not some:
        raise ValueError(f"{path}: there is no sentence in it")


def _encoded(model: Model, path: Path, side: Side, step: int = ENCODED) -> Iterator[tuple[Lines, Tensor]]:
    """Some lines of a file after the others, with their states."""
    with unpacked(str(path)) as file:
        total = sum(block.count(b"\n") for block in iter(partial(file.read, 1 << 20), b""))
    pace = Pace(total, 0, "lines")
    try:
        for lines in blocks(path, step):
            try:
                states = model.encode(lines.sentences, side=side, progress=False)
            except Unfit as error:
                raise ValueError(f"{path}, line {lines.numbers[error.place]}: {error}") from None
            yield lines, states
            pace.add(lines.numbers[-1] - pace.done)
    finally:
        pace.clear()


def _rows(model: Model, index: Shards, queries: Path, k: int, texts: dict[int, str] | None) -> Iterator[dict[str, Any]]:
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


def _write(file: BinaryIO, format: str, rows: Iterator[dict[str, Any]]) -> None:
    if format == "parquet":
        import polars

        frames: list[polars.DataFrame] = []
        while some := list(islice(rows, FRAME)):
            frames.append(polars.DataFrame(some))
        polars.concat(frames).write_parquet(file)
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
