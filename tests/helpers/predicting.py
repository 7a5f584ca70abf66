"""What the tests of `towers predict` share: a saved model, its word vectors, and tables read and written by others."""

import csv
import io
import json
from pathlib import Path

import polars
import torch

from towers import Tower, TwoTowers
from towers.data import WordVectors
from towers.data.kept_vectors import FILE, save_vectors

WORDS = ("the", "dog", "cat", "runs", "sleeps", "fast", "well", "Größe")
NAMES = ("id", "sentence1", "sentence2")


def make_model(folder="run", *, right=None, shared=False, width=10, carries=True, **extra):
    """A model with weights of a seed, and vectors.txt for all of WORDS, which its folder carries too."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(len(WORDS), width, generator=generator).half().float()
    lines = [" ".join([word, *map(repr, row)]) for word, row in zip(WORDS, table.tolist(), strict=True)]
    Path("vectors.txt").write_text("\n".join(lines) + "\n", encoding="utf8")
    torch.manual_seed(1)
    left = Tower(vector_width=width)
    model = TwoTowers(left, left if shared else Tower(right, vector_width=width))
    vectors = {"source": str(Path("vectors.txt").resolve()), "missing": "hash"} | ({"file": FILE} if carries else {})
    model.save(folder, extra={"vectors": vectors, "data": {}, **extra})
    if carries:
        save_vectors(folder, WordVectors(WORDS, table))
    return model


def rows_of(count):
    """As many rows, each with sentences of its own length; every fifth comes again later."""
    rows = []
    for number in range(count):
        kind = number % 5 if number % 10 >= 5 else number
        left = [WORDS[(kind + i) % len(WORDS)] for i in range(2 + kind % 7)]
        right = [WORDS[(3 * kind + i) % len(WORDS)] for i in range(2 + kind % 4)]
        rows.append((str(number), " ".join(left), " ".join(right)))
    return rows


def encode(rows, format, names=NAMES):
    """The rows as a file's bytes, by other writers than ours."""
    if format == "tsv":
        return "".join("\t".join(row) + "\n" for row in (names, *rows)).encode()
    if format == "csv":
        text = io.StringIO(newline="")
        csv.writer(text).writerows((names, *rows))
        return text.getvalue().encode()
    if format == "jsonl":
        return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows).encode()
    binary = io.BytesIO()
    polars.DataFrame(rows, schema=list(names), orient="row").write_parquet(binary)
    return binary.getvalue()


def decode(data, format):
    """Rows of a file's bytes, the names first, by other readers than ours; numbers as float32 spells them."""
    if format == "tsv":
        return [tuple(line.split("\t")) for line in data.decode().split("\n")[:-1]]
    if format == "csv":
        return [tuple(row) for row in csv.reader(io.StringIO(data.decode(), newline=""))]
    if format == "jsonl":
        records = [json.loads(line) for line in data.decode().split("\n")[:-1]]
    else:
        frame = polars.read_parquet(io.BytesIO(data))
        records = frame.with_columns(polars.col("probability").cast(polars.String)).to_dicts()
    return [tuple(records[0]), *(tuple(str(value) for value in record.values()) for record in records)]
