"""A run over many rows, for `towers encode` and commands with `--engine`: parts, workers, progress, a report."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from towers.cli.common import LINES
from towers.data.parts import Part, plan
from towers.data.readers import ENDINGS, TableFormat, ending_of
from towers.scale import Scorer
from towers.scale.cores import cores
from towers.scale.local_engine import run_local
from towers.scale.pace import Pace
from towers.scale.part_job import PartJob
from towers.scale.run_folder import Done, Job, RunFolder, files_of_model, opened
from towers.scale.tasks import Task
from towers.training.options import require


def run(arguments: argparse.Namespace, task: Task, source: Path, unit: str) -> None:
    """Answer all rows of `source`, a file or a folder of files, in the folder of --out."""
    require("safetensors", "polars")
    paths, format = _input(source, arguments.format)
    out_format: TableFormat = arguments.out_format or format
    scorer = Scorer(arguments.model, task, vectors=arguments.vectors)
    check_engine(arguments)
    folder = _folder(arguments, scorer, paths, format, out_format)
    files = [file._replace(path=path) for file, path in zip(folder.files, paths, strict=True)]
    work(arguments, folder, PartJob(scorer, files, os.path.abspath(folder.path), out_format), unit)


def work(
    arguments: argparse.Namespace,
    folder: RunFolder,
    job: Job,
    unit: str,
    *,
    finish: Callable[[], None] | None = None,
    times: int = 1,
) -> None:
    """Do the parts of a run that are not done, then finish it, and say what was done.

    Args:
        arguments: the command's.
        folder: of the run.
        job: does a part.
        unit: what the rows are, in the plural.
        finish: is called when all parts are done, before another process may write in the folder.
        times: how many parts answer each row.
    """
    started = time.perf_counter()
    with folder.writing():
        _check_bad(folder, arguments.max_bad)
        begun = folder.total("rows") + folder.total("bad")
        if folder.done:
            print(f"towers {arguments.command}: going on: {_parts(folder)} are done", file=sys.stderr, flush=True)
        pace = Pace(folder.rows, begun, unit if times == 1 else f"{unit} in one of {times} shards")
        try:
            with _going_on(arguments, folder):
                for done in _done(arguments, job, folder.remaining):
                    folder.record(done)
                    pace.add(done.rows + done.bad)
                    _check_bad(folder, arguments.max_bad)
        finally:
            pace.clear()
        if finish is not None:
            finish()
    _report(arguments, folder, unit, times, begun, time.perf_counter() - started)


def _input(source: Path, format: TableFormat | None) -> tuple[list[str], TableFormat]:
    """The files of a folder, or the one file, and their format."""
    if source == Path("-"):
        raise ValueError("standard input cannot be read in parts, nor again when a run goes on; name a file")
    source.stat()  # a missing file is reported first
    files = sorted(path for path in source.iterdir() if not path.name.startswith(".")) if source.is_dir() else [source]
    if not files:
        raise ValueError(f"{source}: there is no file in this folder")
    told: set[TableFormat | None] = {format or ENDINGS.get(ending_of(str(file))) for file in files}
    one = told.pop()
    if one is None or told:
        raise ValueError(f"{source}: the endings do not tell one format; say --format tsv, or another")
    return [os.path.abspath(file) for file in files], one  # workers may stand in another folder


def _folder(
    arguments: argparse.Namespace, scorer: Scorer, paths: list[str], format: TableFormat, out_format: TableFormat
) -> RunFolder:
    """The folder of the run; the first rows are answered before a new one is made, since most mistakes show there."""
    separator, rows = arguments.separator, arguments.part_rows
    if separator is not None and format != "csv":
        raise ValueError(f"--separator is for CSV files; these are {format}")
    options = {"task": arguments.command, **asdict(scorer.task), "format": format, "separator": separator}
    options |= {"out_format": out_format, "part_rows": rows}
    out = checked_out(arguments)

    def first_plan() -> object:
        files, parts = plan(paths, format, separator=separator, rows=rows)
        if not parts:
            raise ValueError(f"{paths[0]}: there is no row in it")
        PartJob(scorer, files, "", out_format).try_out(parts[0])
        return files, parts

    files = {f"{number} {Path(path).name}": Path(path) for number, path in enumerate(paths)}
    return opened(out, options, {"model": model_files(scorer), "input": files}, first_plan, what=arguments.command)


def checked_out(arguments: argparse.Namespace) -> Path:
    """The folder of --out, which can be made.

    Raises:
        ValueError: the folder in which it lies is missing.
    """
    out: Path = arguments.out
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
    return out


def model_files(scorer: Scorer) -> dict[str, Path]:
    """The files that decide what the model of a scorer says."""
    model = files_of_model(Path(scorer.folder))
    if scorer.vectors is not None:
        model["--vectors"] = Path(scorer.vectors)
    return model


def check_engine(arguments: argparse.Namespace) -> None:
    """Say what an engine lacks, before there is a folder.

    Raises:
        ValueError: --address is for another engine, or there are too few cores.
        ImportError: Ray is not installed.
    """
    if arguments.address is not None and arguments.engine != "ray":
        raise ValueError("--address goes with --engine ray")
    if arguments.engine == "ray":
        from towers.scale.ray_engine import check_installed

        check_installed()
    elif (arguments.workers or 1) > cores():
        problem = f"this process may use {cores()} cores; say --workers {cores()} or fewer"
        raise ValueError(f"--workers {arguments.workers}: {problem}")


def _done(arguments: argparse.Namespace, job: Job, parts: list[Part]) -> Iterator[Done]:
    if not parts:
        return
    if arguments.engine == "ray":
        from towers.scale.ray_engine import RayEngine

        with closing(RayEngine(arguments.address, arguments.workers)) as engine:
            yield from engine(job, parts)
        return
    yield from run_local(job, parts, min(arguments.workers or 1, len(parts)))


@contextmanager
def _going_on(arguments: argparse.Namespace, folder: RunFolder) -> Generator[None]:
    """Add to an error or an interruption how far the run is, and that it can go on."""
    try:
        yield
    except (ValueError, OSError, KeyboardInterrupt) as error:
        error.add_note(f"{_parts(folder)} are done in {arguments.out}; the same command goes on from there")
        raise


def _check_bad(folder: RunFolder, most: int) -> None:
    bad = folder.total("bad")
    if bad <= most:
        return
    part = min(done.part for done in folder.done.values() if done.bad)
    first = folder.done[part].first_bad
    rows = "1 row is bad" if bad == 1 else f"{bad} rows are bad"
    raise ValueError(
        f"{rows}, and --max-bad is {most}: {first} (see {folder.bad(part)}); --max-bad {bad} or more leaves them out"
    )


def _parts(folder: RunFolder) -> str:
    return f"{len(folder.done)} of {len(folder.parts)} parts"


def _report(
    arguments: argparse.Namespace, folder: RunFolder, unit: str, times: int, begun: int, seconds: float
) -> None:
    rows, bad, unknown = (folder.total(name) for name in ("rows", "bad", "unknown"))
    new, rows, unknown = (rows + bad - begun) / times, rows // times, unknown // times
    workers = {done.worker for done in folder.done.values()}
    if arguments.json:
        said = {"rows": rows, "bad": bad, "without_known_word": unknown, "parts": len(folder.parts)}
        words = {name: folder.total(name) for name in ("tokens", "tokens_found")}
        vectors = {"vectors": {**words, "missing": dict(folder.missing.most_common(LINES))}}
        said |= {"out": str(arguments.out), "seconds": round(seconds, 3), "workers": len(workers)}
        print(json.dumps(said | vectors), flush=True)
        return
    rate = f"{new / seconds:,.0f} a second" if new else "nothing was left to do"
    parts = _number(len(folder.parts), "parts")
    unread = f"{_number(unknown, unit)}{' with a sentence' if unit == 'pairs' else ''}"
    print(f"{_number(rows, unit)} in {parts} in {arguments.out}; {rate}{_words(folder)}", flush=True)
    for count, told in (
        (bad, f"{_number(bad, 'bad rows')} left out; bad-*.jsonl there says why"),
        (unknown, f"{unread} of which no word has a vector; such answers mean nothing"),
    ):
        if count:
            print(f"towers {arguments.command}: warning: {told}", file=sys.stderr, flush=True)


def _words(folder: RunFolder) -> str:
    """How many words have a vector, and which have none."""
    tokens, missing = folder.total("tokens"), folder.missing
    if not tokens:  # of parts of an older towers it is not known
        return ""
    text = f"; {100 * folder.total('tokens_found') / tokens:.2f} % of {tokens:,} tokens have a vector"
    most = ", ".join(f"{word!r} ({count:,})" for word, count in missing.most_common(LINES))
    return f"{text}; missing most often: {most}" if most else text


def _number(count: int, units: str) -> str:
    one = f"{units.removesuffix('ies')}y" if units.endswith("ies") else units.removesuffix("s")
    return f"{count:,} {one if count == 1 else units}"
