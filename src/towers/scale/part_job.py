"""One part of a run: read, answered, written whole and then renamed. Workers of any engine call it."""

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from towers.checkpoint import replace, without_nan
from towers.data import Coverage
from towers.data.parts import BadLine, Part, TableFile, read_part
from towers.data.readers import TableFormat
from towers.data.rows import Rows
from towers.data.writers import writing
from towers.scale.run_folder import Done
from towers.scale.scorer import Scorer, loads

NAMED = 100
"""Words without a vector that a part names."""


@dataclass(frozen=True)
class PartJob:
    """Does a part, in any process that sees the model, the input and the folder under the same paths.

    A part that was done already is done again to the same file; whoever is killed leaves no half file.
    """

    scorer: Scorer
    files: list[TableFile]
    folder: str
    out_format: TableFormat
    tells: bool = True
    """Whether rows without an answer, and words without a vector, are reported; where several jobs read the same rows,
    one of them does it."""

    def __call__(self, part: Part) -> Done:
        """Write a part's bad rows, if there are any, and then its answers.

        Raises:
            OSError: a file cannot be read or written.
            ValueError: a column is missing, or the output's format cannot hold a row.
        """
        bad = list[dict[str, Any]]()
        counts = {"rows": 0, "unknown": 0}
        words = dict[str, Any]()
        place = Path(self.folder, f"part-{part.number:05}.{self.out_format}")
        side = Path(self.folder, f"bad-{part.number:05}.jsonl")

        def write(path: Path) -> None:
            with path.open("wb") as file:
                coverage = self.scorer.model.coverage
                before = coverage._replace(missing=coverage.missing.copy())
                self._write(part, cast(BinaryIO, file), bad, counts)
                words.update(_between(before, self.scorer.model.coverage) if self.tells else {})
            if not self.tells:
                bad.clear()
            elif bad:
                replace(side, lambda partial: partial.write_text(_lines(bad), encoding="utf8"))
            else:
                side.unlink(missing_ok=True)

        replace(place, write)
        size: int | None = place.stat().st_size
        if not size:  # there was no row, and no line of names
            place.unlink()
            size = None
        worker = f"{socket.gethostname()}:{os.getpid()}"
        first = _told(**bad[0]) if bad else None
        told = {"size": size, "worker": worker, "loads": loads(), "first_bad": first}
        return Done(part.number, bad=len(bad), **told, **counts, **words)

    def _write(self, part: Part, file: BinaryIO, bad: list[dict[str, Any]], counts: dict[str, int]) -> None:
        pieces = self.rows(part, bad)
        first = next(pieces, None)
        if first is None:
            return
        with writing(file, self.out_format, self.scorer.columns) as writer:
            for rows in chain([first], pieces):
                answer = self.scorer.answer(rows)
                records = _records(rows, answer.problems)
                bad += (bad_row(rows.path, line, problem, row=row) for line, problem, row in records)
                writer.write(rows.take(answer.places), answer.values)
                counts["rows"] += len(answer.places)
                counts["unknown"] += answer.unknown
        bad.sort(key=lambda entry: entry["line"])

    def try_out(self, part: Part) -> None:
        """Answer the first rows of a part, and write nothing: most mistakes show there.

        Raises:
            OSError, ValueError: as a call.
        """
        first = next(self.rows(part, []), None)
        if first is not None:
            self.scorer.answer(first)

    def rows(self, part: Part, bad: list[dict[str, Any]]) -> Iterator[Rows]:
        """The rows of a part, some at a time; lines that are none are added to `bad`."""
        file = self.files[part.file]
        for piece in read_part(file, part):
            if isinstance(piece, BadLine):
                bad.append(bad_row(file.path, piece.line, piece.problem, text=piece.text))
                continue
            if file.format == "jsonl":  # what no object among these has is null
                read = (name for name, _ in self.scorer.task.sides(self.scorer.model))
                piece.names += [name for name in read if name not in piece.names]
            yield piece


def _between(before: Coverage, after: Coverage) -> dict[str, Any]:
    """What was looked up from one moment to another."""
    tokens, found = after.tokens - before.tokens, after.tokens_found - before.tokens_found
    missing = after.missing - before.missing
    return {"tokens": tokens, "tokens_found": found, "missing": dict(missing.most_common(NAMED))}


def _records(rows: Rows, problems: list[str | None]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Line, problem and cells of the rows that have no answer."""
    places = [place for place, problem in enumerate(problems) if problem is not None]
    if places:
        some = rows.take(places).without_bytes()
        for place, line, row in zip(places, some.lines, some.records(), strict=True):
            yield line, problems[place] or "", row


def bad_row(file: str, line: int, problem: str, **what: Any) -> dict[str, Any]:
    """What the side file says about a row without an answer."""
    return {"file": file, "line": line, "problem": problem, **what}


def _told(file: str, line: int, problem: str, **_: Any) -> str:
    """A problem with its place, which that of a line that is no row says itself."""
    place = f"{file}, line {line}"
    return problem if problem.startswith(place) else f"{place}: {problem}"


def _lines(entries: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(without_nan(entry)) + "\n" for entry in entries)
