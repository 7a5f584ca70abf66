"""The work of `towers search --engine`: queries and shards of an index by many workers, and one result."""

import argparse
import os
from pathlib import Path

from towers.cli.common import newest
from towers.cli.prediction_files import STANDARD, naming, write
from towers.cli.run_job import check_engine, checked_out, model_files, work
from towers.cli.search_job import check_corpus, check_k, rows_of, texts_of, write_rows
from towers.cli.sentence_lines import Lines, blocks
from towers.scale import Scorer, Search, Shards
from towers.scale.index_shards import listed
from towers.scale.query_parts import QUERY, QueryJob, found, plan_queries
from towers.scale.run_folder import RunFolder, opened
from towers.training.options import require


def search_in_parts(arguments: argparse.Namespace) -> None:
    """Do what `towers search --engine` does.

    The parts write what each shard has for some queries. When all are done, this process merges them into the file
    `found` in the folder of --out, which says what the command writes without an engine.
    """
    require("safetensors", "polars")
    if arguments.index is None:
        raise ValueError("--engine searches an index: make one with towers index, and name it with --index")
    if arguments.out == STANDARD:
        raise ValueError("--out -: with --engine it is a folder, from which an interrupted run goes on; name one")
    if arguments.queries == STANDARD:
        raise ValueError("--queries -: with --engine a run reads them again when it goes on; write them to a file")
    check_engine(arguments)
    out, format = checked_out(arguments), arguments.out_format or "tsv"
    lines = texts_of(arguments, format)
    next(blocks(arguments.queries, 1))  # a file without a query is reported before the work
    arguments.model = newest(arguments)
    scorers = _scorers(arguments, lines)
    folder = _folder(arguments, scorers, out, format)
    files = [file._replace(path=os.path.abspath(arguments.queries)) for file in folder.files]
    job = QueryJob(scorers, files, os.path.abspath(out))

    def finish() -> None:
        place = out / f"found.{format}"
        if place.is_file():
            return
        outputs = [folder.output(part.number) for part in folder.parts]
        model = scorers[0].model
        rows = rows_of(model, found(outputs, len(scorers), arguments.k, model.network.dense.weight.dtype), lines)
        with naming(place):
            write(place, lambda file: write_rows(file, format, rows))

    work(arguments, folder, job, "queries", finish=finish, times=len(scorers))


def _scorers(arguments: argparse.Namespace, lines: Lines | None) -> list[Scorer]:
    """A scorer for each shard of the index, which is one of the model, and of the texts.

    Raises:
        OSError, ValueError: as `Shards.load`; or k is above the number of items, or the texts are others.
    """
    path = Path(os.path.abspath(arguments.index))
    counts = {path: None} if not path.is_dir() else listed(path)[0]

    def scorer(file: Path, k: int) -> Scorer:
        search = Search(str(file), QUERY, k, class_name=arguments.class_name, ranked=True)
        return Scorer(arguments.model, search, vectors=arguments.vectors)

    model = scorer(path, 1).model
    shards = Shards.load(path, model.network, output=model.output_of(arguments.class_name))
    check_k(arguments, len(shards))
    if lines is not None:
        check_corpus(shards, lines, arguments.corpus)
    return [scorer(file, min(arguments.k, len(shards) if count is None else count)) for file, count in counts.items()]


def _folder(arguments: argparse.Namespace, scorers: list[Scorer], out: Path, format: str) -> RunFolder:
    """The folder of the run; the first queries are answered before a new one is made."""
    queries, rows = os.path.abspath(arguments.queries), arguments.part_rows
    options = {"k": arguments.k, "class": arguments.class_name, "texts": arguments.texts, "found_format": format}

    def first_plan() -> object:
        files, parts = plan_queries(queries, len(scorers), rows=rows)
        QueryJob(scorers, files, "").of(parts[0]).try_out(parts[0])
        return files, parts

    index = [Path(scorer.task.index) for scorer in scorers if isinstance(scorer.task, Search)]
    given = {"--queries": Path(queries), **{f"--index {file.name}": file for file in index}}
    options |= {"out_format": "jsonl", "part_rows": rows}
    return opened(out, options, {"model": model_files(scorers[0]), "input": given}, first_plan, what="search")
