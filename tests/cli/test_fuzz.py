"""A thousand files that something has happened to: an error of ours that names the file, or a right result."""

import csv
import io
import json
import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy
import polars
import pytest
import safetensors.torch
import torch

from towers import Tower, TwoTowers
from towers.data import VectorStore, WordVectors
from towers.data.readers import read_rows
from towers.model_config import Config

SECONDS, MEMORY = 10, 100 << 20  # far more than any of these small files needs
ROWS = [
    ("sentence1", "sentence2", "label", "note"),
    ("the dog runs", "a cat sleeps", "1", 'it said "miau", twice'),
    ("le garçon dort", "東京 is big", "0.5", ""),
    ("a b c d e", "f g h", "0", "x\\y"),
    ("don't", "well-known", "1", "null"),
    ("one two", "three", "0", "🙂 end"),
]
WORDS = ["the", "dog", "Größe", "東京", "a_b", ". . .", "cat", "the"]


def as_csv() -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([*ROWS, ("quoted\nline", "b", "1", "")])
    return text.getvalue().encode()


def as_parquet() -> bytes:
    binary = io.BytesIO()
    polars.DataFrame(ROWS[1:], schema=list(ROWS[0]), orient="row").write_parquet(binary)
    return binary.getvalue()


def numbers_of(place: int) -> list[float]:
    return [place + 0.5, -place, 0.25, 1e-3]


def vectors_as_text(*, header: bool) -> bytes:
    lines = [f"{len(WORDS)} 4"] if header else []
    lines += [f"{word} {' '.join(map(str, numbers_of(place)))}" for place, word in enumerate(WORDS)]
    return "".join(line + "\n" for line in lines).encode()


def vectors_as_binary() -> bytes:
    rows = ((word.replace(" ", "_").encode(), numbers_of(place)) for place, word in enumerate(WORDS))
    return b"8 4\n" + b"".join(word + b" " + struct.pack("<4f", *row) + b"\n" for word, row in rows)


WHOLE = {
    "tsv": "".join("\t".join(row) + "\n" for row in ROWS).encode(),
    "csv": as_csv(),
    "jsonl": "".join(json.dumps(dict(zip(ROWS[0], row, strict=True))) + "\n" for row in ROWS[1:]).encode(),
    "parquet": as_parquet(),
    "glove": vectors_as_text(header=False),
    "word2vec": vectors_as_text(header=True),
    "fasttext": vectors_as_text(header=True).replace(b"\n", b" \n"),
    "word2vec-binary": vectors_as_binary(),
}


# What happens to files.


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def lose(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.randrange(1, 20) :]


def flip_bits(data: bytes, chance: random.Random) -> bytes:
    flipped = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8])):
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def swap_columns(data: bytes, chance: random.Random) -> bytes:
    """Fields of a line, or of every line, in another order."""
    mark = chance.choice([b"\t", b",", b" ", b": "])
    lines = data.split(b"\n")
    for number in range(len(lines)) if chance.random() < 0.5 else [chance.randrange(len(lines))]:
        fields = lines[number].split(mark)
        chance.shuffle(fields)
        lines[number] = mark.join(fields)
    return b"\n".join(lines)


def swap_lines(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    chance.shuffle(lines)
    return b"\n".join(lines)


def swell(data: bytes, chance: random.Random) -> bytes:
    """A huge field."""
    start = chance.randrange(len(data))
    filling = chance.choice([b"x", b"9", b" ", b"\t", b'"', b"[", b"\n", b"\x00", b"\xe9"])
    return data[:start] + filling * chance.choice([300, 20_000, 200_000]) + data[start:]


def promise(data: bytes, chance: random.Random) -> bytes:
    """Sizes beyond all bounds, where the file says any."""
    sizes = b"%d %d" % (10 ** chance.randrange(1, 25), 10 ** chance.randrange(1, 25))
    return data.replace(b"8 4", sizes, 1) if data.startswith(b"8 4") else sizes + b"\n" + data


def repeat(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    part = data[start : start + chance.randrange(1, 100)]
    return data[:start] + part * chance.choice([2, 50]) + data[start:]


def mix(data: bytes, chance: random.Random) -> bytes:
    other = chance.choice(list(WHOLE.values()))
    start = chance.randrange(len(data))
    return data[:start] + other[chance.randrange(len(other)) :]


MISHAPS: list[Callable[[bytes, random.Random], bytes]] = [
    cut,
    lose,
    flip_bits,
    swap_columns,
    swap_lines,
    swell,
    promise,
    repeat,
    mix,
]


def mutants(kind: str, count: int) -> Iterator[tuple[int, bytes]]:
    """As many damaged files of a kind, the same in every run."""
    for seed in range(count):
        chance = random.Random(f"{kind} {seed}")
        yield seed, MISHAPS[seed % len(MISHAPS)](WHOLE[kind], chance)


def survives(path, work):
    """What the work gives, or None after an error of ours; all else fails: other errors, hanging, hoarding."""
    began = time.monotonic()
    tracemalloc.reset_peak()
    try:
        result = work()
    except ValueError as error:
        is_ours(error, path)
        result = None
    assert time.monotonic() - began < SECONDS
    assert tracemalloc.get_traced_memory()[1] < MEMORY
    return result


def is_ours(error, path):
    assert type(error) is ValueError, f"{type(error).__name__} is none of ours: {error}"
    assert str(error).startswith(str(path)), error
    assert len(str(error)) < 5000


@pytest.fixture(autouse=True)
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


csv.field_size_limit(1 << 30)


# Simple readers, which know nothing of ours: they give None where they do not know either.


def simple_table(data: bytes, format: str):
    try:
        if format == "parquet":
            return [tuple(row) for row in polars.read_parquet(io.BytesIO(data)).rows()]
        text = data.decode("utf-8-sig")
        if format == "jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        if format == "csv":
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
        else:
            rows = [line.rstrip("\r").split("\t") for line in text.split("\n") if line.rstrip("\r\n")]
        while len(rows) > 1 and len(rows[-1]) > 1 and not any(rows[-1]):
            rows.pop()
        width = len(rows[0])
        return [tuple((row + [""] * width)[:width]) for row in rows[1:]]
    except (ValueError, csv.Error, polars.exceptions.PolarsError):
        return None


@pytest.mark.parametrize("format", ["tsv", "csv", "jsonl", "parquet"])
def test_tables(tmp_path, format):
    path, read_well = tmp_path / f"table.{format}", 0
    for seed, data in mutants(format, 125):
        path.write_bytes(data)
        rows = survives(path, lambda: list(read_rows(str(path), rows=2)))
        if rows is None:
            continue
        read_well += 1
        expected = simple_table(data, format)
        assert expected is not None, (seed, data[:200])
        if format == "jsonl":
            assert [record for part in rows for record in part.records()] == expected, seed
        elif format == "parquet":
            assert [tuple(row) for part in rows for row in part.frame().rows()] == expected, seed
        else:
            assert [tuple(record.values()) for part in rows for record in part.records()] == expected, seed
    assert 10 <= read_well <= 115  # some stay right and some do not: both halves of the test are run


def simple_vectors(data: bytes, format: str, width: int):
    """Words and their numbers, the first of each; the width is taken from ours."""
    if format == "word2vec-binary":
        head, _, rest = data.partition(b"\n")
        rows = []
        for _ in range(int(head.split()[0])):
            word, _, rest = rest.partition(b" ")
            rows.append((word.lstrip(b"\n").decode(errors="replace"), struct.unpack(f"<{width}f", rest[: 4 * width])))
            rest = rest[4 * width :]
    else:
        lines = [line.rstrip(" \r") for line in data.decode("utf-8-sig").split("\n")]
        lines = lines[format != "glove" :]
        parts = [line.rsplit(" ", width) for line in (lines[:-1] if lines[-1] == "" else lines)]
        rows = [(part[0], tuple(map(numpy.float32, part[1:]))) for part in parts]
    vectors = {}
    for word, numbers in rows:
        if word:
            vectors.setdefault(word, numbers)
    return vectors


@pytest.mark.parametrize("format", ["glove", "word2vec", "fasttext", "word2vec-binary"])
@pytest.mark.parametrize("told", [True, False], ids=["format given", "format found"])
def test_vectors(tmp_path, format, told):
    path, read_well = tmp_path / "vectors", 0
    for seed, data in mutants(format, 55):
        path.write_bytes(data)
        vectors = survives(path, lambda: WordVectors.load(path, format=format if told else None))
        store = survives(path, lambda: read_store(path, format if told else None, WORDS))
        if vectors is None:
            continue
        read_well += 1
        assert store is not None
        assert set(store.words) == set(vectors.select(WORDS).words)
        assert torch.equal(store.look_up(WORDS), vectors.look_up(WORDS))
        if told:
            expected = simple_vectors(data, format, vectors.width)
            assert list(vectors.words[: len(expected)]) == list(expected), seed
            table = torch.tensor([list(map(float, row)) for row in expected.values()]).view(-1, vectors.width)
            assert vectors.table[: len(expected)].allclose(table, rtol=1e-6, atol=0), seed
    assert 2 <= read_well <= 53


def read_store(path, format, words):
    with VectorStore(path, format=format) as store:
        return store.select(words)


def mutant_models(folder, count):
    """A model's folder with one file damaged, or with a value of its config replaced by one of another kind."""
    TwoTowers(Tower(vector_width=4), Tower(5, vector_width=4)).save(
        folder, extra={"vectors": {"source": "v", "missing": "hash"}, "data": {"split": "rule"}}
    )
    whole = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    odd = [None, True, -1, 0, 10**30, 1.5, float("nan"), "x", "left", [], {}, [[]], {"a": 1}]
    for seed in range(count):
        chance = random.Random(f"model {seed}")
        for name, data in whole.items():
            (folder / name).write_bytes(data)
        name = chance.choice(list(whole))
        if seed % 2:
            config = json.loads(whole["config.json"])
            inside = chance.choice(
                [config, config["model"], config["model"]["left"], config["data"], config["vectors"]]
            )
            inside[chance.choice(list(inside))] = chance.choice(odd)
            (folder / "config.json").write_text(json.dumps(config))
        else:
            (folder / name).write_bytes(MISHAPS[seed // 2 % len(MISHAPS)](whole[name], chance))
        yield seed


def test_model_folders(tmp_path):
    folder, read_well = tmp_path / "model", 0
    for seed in mutant_models(folder, 100):
        model = survives(folder, lambda: TwoTowers.load(folder))
        survives(folder, lambda: Config(folder))
        if model is not None:
            read_well += 1
            loaded = safetensors.torch.load((folder / "model.safetensors").read_bytes())
            for name, weight in model.state_dict().items():
                assert torch.equal(weight, loaded[name]) or bool(weight.isnan().any()), (seed, name)
    assert 5 <= read_well <= 95
