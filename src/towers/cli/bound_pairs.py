"""The sentence pairs of a run: read, checked against the towers that are to read them, bound to word vectors."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from towers.cli.lengths import fitted
from towers.data import Coverage, SentencePairs, VectorStore, WordVectors, sample_pairs
from towers.model import TwoTowers

COLUMNS: dict[str, Any] = {"left_column": "sentence1", "right_column": "sentence2", "split": "rule"}
LABELS: dict[str, Any] = {"label_column": "label", "label_range": (0.0, 1.0)}
PARTS = ("train", "dev", "test")
SAMPLE_SHARES = (0.8, 0.1, 0.1)


class Data(NamedTuple):
    """The pairs of a run, bound to their vectors, and what config.json says of both."""

    parts: dict[str, SentencePairs]
    """"train", and "dev" and "test" where there are any."""
    vectors: WordVectors
    extra: dict[str, Any]


def load(arguments: argparse.Namespace, model: TwoTowers) -> Data:
    """The files that the options name, or the built-in sample.

    Raises:
        ValueError: options do not go together, a file is bad, or a sentence has a length that its tower does not take.
    """
    return _sample(arguments, model) if arguments.train is None else _files(arguments, model)


def warn_of_missing(command: str, coverage: Coverage, source: str) -> bool:
    """Say it where most words have no vector: the work would go on, and be worth little."""
    found, words = coverage.types_found, coverage.types
    if 2 * found < words:
        problem = f"only {found} of {words} different words have a vector in {source}"
        advice = "are these the vectors that you meant?"
        print(f"towers {command}: warning: {problem}; {advice}", file=sys.stderr, flush=True)
    return 2 * found < words


def covered(vectors: WordVectors | VectorStore, coverage: Coverage) -> str:
    """What is said of the words that were looked up: how many have a vector, and whether the file repeats any."""
    twice = f"; repeated words in {vectors.source}: {vectors.duplicates}, the first of each counts"
    return f"{coverage}{twice if vectors.duplicates else ''}"


def _files(arguments: argparse.Namespace, model: TwoTowers) -> Data:
    if arguments.vectors is None:
        raise ValueError("--train needs --vectors: a file of word vectors (GloVe, word2vec or fastText)")
    for name in (*PARTS, "vectors"):
        if getattr(arguments, name) == Path("-"):
            raise ValueError(f"--{name} -: standard input cannot be read again when a run goes on; name a file")
    columns = chosen(arguments, COLUMNS | LABELS)
    paths = {name: getattr(arguments, name) for name in PARTS if getattr(arguments, name) is not None}
    parts = {name: SentencePairs.load(path, **columns) for name, path in paths.items()}
    parts = {name: fitted(part, model, arguments.fit_length, "fit") for name, part in parts.items()}
    vocabulary = set[str]().union(*(part.vocabulary for part in parts.values()))
    missing = arguments.missing or "hash"
    vectors = WordVectors.load(arguments.vectors, vocabulary, missing=missing)
    extra = _extra(str(arguments.vectors.resolve()), missing, columns | {"fit_length": arguments.fit_length})
    return Data({name: part.with_vectors(vectors) for name, part in parts.items()}, vectors, extra)


def _sample(arguments: argparse.Namespace, model: TwoTowers) -> Data:
    for name in ("dev", "test", "vectors", "missing", *COLUMNS, *LABELS):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} goes with --train; without that, the built-in sample is used")
    pairs = fitted(sample_pairs(), model, arguments.fit_length, "fit")
    assert pairs.vectors is not None
    parts: dict[str, SentencePairs] = dict(zip(PARTS, pairs.split(*SAMPLE_SHARES), strict=True))
    return Data(parts, pairs.vectors, _extra("sample", "hash", {**COLUMNS, "fit_length": arguments.fit_length}))


def _extra(source: str, missing: str, data: Mapping[str, Any]) -> dict[str, Any]:
    return {"vectors": {"source": source, "missing": missing}, "data": dict(data)}


def chosen(arguments: argparse.Namespace, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options of these names, each as given or else its default."""
    given = {name: getattr(arguments, name) for name in defaults}
    return {name: defaults[name] if value is None else value for name, value in given.items()}
