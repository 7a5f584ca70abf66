"""Tables in memory as the pairs of a training, and the words of a training as part of its folder."""

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from towers.data import SentencePairs, WordVectors
from towers.data.kept_vectors import FILE, FIRST, save_vectors
from towers.data.memory_rows import is_table

AnyVectors = WordVectors | str | PathLike[str]


def pairs_of(
    parts: Mapping[str, Any], vectors: AnyVectors | None, columns: Mapping[str, Any] | None
) -> dict[str, SentencePairs]:
    """The parts of a training as pairs with vectors: pairs as they are, tables by `SentencePairs.from_table`.

    The classes of the first part are those of all.

    Raises:
        TypeError: a part is neither pairs nor a table, or `columns` has an unknown name.
        ValueError: there is a table and no vectors, or vectors or columns and no table; or as `SentencePairs`.
    """
    tables = {name for name, part in parts.items() if not isinstance(part, SentencePairs)}
    for name in tables:
        if not is_table(parts[name]):
            kind = type(parts[name]).__name__
            raise TypeError(f"{name} must be towers.data.SentencePairs, or a table with named columns, not {kind}")
    if not tables:
        for name, given in (("vectors", vectors), ("columns", columns)):
            if given is not None:
                raise ValueError(f"{name} goes with tables; SentencePairs have theirs already")
        return dict(parts)
    if vectors is None:
        raise ValueError(f"{min(tables)} is a table; give vectors= too: WordVectors, or a file of them")
    how: dict[str, Any] = {"classes": "found", **(columns or {})}
    read: dict[str, SentencePairs] = {}
    for name, part in parts.items():
        read[name] = _of_table(name, part, how) if name in tables else part
        first = next(iter(read.values()))
        how |= {"classes": first.classes or False, "second_classes": first.second_classes}
    if not isinstance(vectors, WordVectors):
        vocabulary = set[str]().union(*(part.vocabulary for part in read.values()))
        vectors = WordVectors.load(vectors, vocabulary)
    return {name: part if part.vectors is not None else part.with_vectors(vectors) for name, part in read.items()}


def _of_table(name: str, table: Any, how: Mapping[str, Any]) -> SentencePairs:
    try:
        pairs = SentencePairs.from_table(table, **how)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    pairs.source = f"{name}: {pairs.source}"
    return pairs


def described(parts: Mapping[str, SentencePairs]) -> dict[str, Any]:
    """The entries of config.json about the pairs of a training and their vectors."""
    train = next(iter(parts.values()))
    vectors = train.vectors
    assert vectors is not None
    classes = {"classes": train.classes, "second_classes": train.second_classes}
    return {
        "vectors": {"source": Path(vectors.source).name, "missing": vectors.missing, "file": FILE},
        "data": {
            **train.how,
            **{name: list(names) for name, names in classes.items() if names is not None},
            **{name: Path(part.source).name for name, part in parts.items()},
        },
    }


def keep_words(folder: Path, parts: Mapping[str, SentencePairs], vectors: AnyVectors | None) -> None:
    """Put the vectors of the words of all parts into a folder, and those of the first 200,000 words that are there.

    Raises:
        OSError: the file cannot be written, or the file `vectors` is gone.
    """
    words = set[str]().union(*(part.vocabulary for part in parts.values()))
    own = next(iter(parts.values())).vectors
    assert own is not None
    if vectors is None or isinstance(vectors, WordVectors):
        few = len(own.known) <= FIRST
        kept = own if few else own.select([*own.known[:FIRST], *words])
    else:
        kept = WordVectors.load(fspath(vectors), words, missing=own.missing, first=FIRST)
    save_vectors(folder, kept)
