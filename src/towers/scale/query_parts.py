"""The parts of a search: some queries in one shard of an index. What all shards have found is merged afterwards."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch
from torch import Tensor

from towers.data.encoding import decode_line
from towers.data.parts import Part, TableFile, plan
from towers.data.rows import Rows, TextRows
from towers.scale.index_shards import merge
from towers.scale.part_job import PartJob, bad_row
from towers.scale.run_folder import Done
from towers.scale.scorer import Scorer

QUERY = "query"
"""The column of the queries, in what the parts write."""
AT_ONCE = 1024
"""Queries that are answered, or merged, at a time."""


def plan_queries(path: str, shards: int, *, rows: int) -> tuple[list[TableFile], list[Part]]:
    """A file with a query on each line in blocks of some lines; each block is a part for each shard.

    Part number `block * shards + shard` is a block in a shard.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is compressed.
    """
    files, blocks = plan([path], "jsonl", rows=rows)  # of JSON lines too each line stands for itself
    return files, [part._replace(number=part.number * shards + shard) for part in blocks for shard in range(shards)]


class LineJob(PartJob):
    """A part of a file with a sentence on each line, blank ones left out; rows have its number and the sentence."""

    def rows(self, part: Part, bad: list[dict[str, Any]]) -> Iterator[Rows]:
        """The rows of a part, some at a time; lines that are no text are added to `bad`."""
        path = self.files[part.file].path
        with open(path, "rb") as source:
            source.seek(part.start)
            body = source.read(part.end - part.start)
        if len(body) < part.end - part.start:
            raise ValueError(f"{path}: has become shorter since the run began")
        numbered = enumerate(BytesIO(body), part.line)
        while some := list(islice(numbered, AT_ONCE)):
            records = list[dict[str, Any]]()
            for number, line in some:
                try:
                    text = decode_line(path, number, line).strip()
                except ValueError as error:
                    told = line.decode("utf8", "backslashreplace").rstrip("\r\n")
                    bad.append(bad_row(path, number, str(error), text=told))
                    continue
                if text:
                    records.append({"line": number, QUERY: text})
            if records:
                yield TextRows(path, ["line", QUERY], records, [record["line"] for record in records])


@dataclass(frozen=True)
class QueryJob:
    """Does a part: writes what a shard has for some queries, a JSON object for each, with ids and the scores by which
    they are merged.

    scorers: for each shard one, whose task is its `Search`, with `ranked`.
    files: the file of the queries.
    """

    scorers: Sequence[Scorer]
    files: list[TableFile]
    folder: str

    def __call__(self, part: Part) -> Done:
        """Search.

        Raises:
            OSError, ValueError: as `PartJob`.
        """
        return self.of(part)(part)

    def of(self, part: Part) -> LineJob:
        """The job of the part's shard. Bad queries and unknown words are told by the first shard only."""
        shard = part.number % len(self.scorers)
        return LineJob(self.scorers[shard], self.files, self.folder, "jsonl", tells=shard == 0)


class FoundQueries(NamedTuple):
    """The lines of some queries, and their scores "queries k" and ids "queries k" in all shards."""

    lines: list[int]
    scores: Tensor
    ids: Tensor


def found(outputs: Sequence[Path], shards: int, k: int, dtype: torch.dtype) -> Iterator[FoundQueries]:
    """What the outputs of all parts, in the order of their numbers, say together, some queries at a time.

    Args:
        outputs: the files of the parts.
        shards: how many each block of queries has.
        k: how many items each query has in the end.
        dtype: of the model's weights.
    """
    for first in range(0, len(outputs), shards):
        own = outputs[first : first + shards]
        if not own[0].is_file():  # no query of the block can be read
            continue
        with ExitStack() as stack:
            files = [stack.enter_context(output.open(encoding="utf8")) for output in own]
            while lines := _lines_of(files[0]):
                each = [lines, *(_lines_of(file) for file in files[1:])]
                scores, ids = merge([_tensors(lines) for lines in each], k)
                scores = scores.to(torch.promote_types(dtype, torch.float32))  # those of the index, which JSON spells
                yield FoundQueries([line["line"] for line in lines], scores, ids)


def _lines_of(file: TextIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in islice(file, AT_ONCE)]


def _tensors(lines: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    scores = torch.tensor([line["scores"] for line in lines], dtype=torch.float64)
    return scores, torch.tensor([line["ids"] for line in lines], dtype=torch.int64)
