"""What several commands share: sentence pairs read, checked against the towers, bound to word vectors."""

import argparse
import sys
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from towers.answers import Model
from towers.answers import load as load_model
from towers.data import Coverage, SentencePairs, WordVectors, sample_pairs
from towers.data.columns import Columns
from towers.data.kept_vectors import FILE, FIRST, save_vectors
from towers.data.pair_labels import read_labels, read_second
from towers.data.readers import read_rows
from towers.data.rows import Rows
from towers.data.words import is_unspaced
from towers.model import Tower, TwoTowers
from towers.training.prediction import Vectors
from towers.training.presets import Preset
from towers.training.processes import is_main

COLUMNS: dict[str, Any] = {"left_column": "sentence1", "right_column": "sentence2", "split": "rule"}
READING: dict[str, Any] = {"format": None, "separator": None}
LABELS: dict[str, Any] = {"label_column": "label", "label_range": (0.0, 1.0)}
PARTS = ("train", "dev", "test")
LINES = 5
"""How many lines of skipped rows, and how many words without a vector, are named."""
SAMPLE_SHARES = (0.8, 0.1, 0.1)
Command = Literal["fit", "predict"]


_UNSPACED = "text without spaces between words must be divided into words beforehand"
_SEGMENT = f"{_UNSPACED}; then say --split spaces"


class Data(NamedTuple):
    """The pairs of a run, bound to word vectors, and the entries of config.json about them."""

    parts: dict[str, SentencePairs]
    """"train", and "dev" and "test" where there are any."""
    vectors: WordVectors
    extra: dict[str, Any]


def load(arguments: argparse.Namespace, model: TwoTowers, preset: Preset | None = None) -> Data:
    """The files that the options name, or the built-in sample.

    Raises:
        ValueError: options do not go together, a file is bad, or a sentence has a length that its tower does not take.
    """
    return _sample(arguments, model) if arguments.train is None else _files(arguments, model, preset)


@contextmanager
def answering(arguments: argparse.Namespace) -> Generator[Model]:
    """The model of --model, or of the newest run in the current folder; its warnings are lines on standard error.

    Raises:
        FileNotFoundError: no model is named, and there is no finished run.
        ValueError: as `towers.load`.
    """
    folder = newest(arguments)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        model = load_model(folder, vectors=arguments.vectors)
        yield model
    if problem := unknown_words(model.coverage):
        print(f"towers {arguments.command}: {problem}", file=sys.stderr, flush=True)
    for warning in noted:
        print(f"towers {arguments.command}: warning: {warning.message}", file=sys.stderr, flush=True)


def unknown_words(coverage: Coverage) -> str | None:
    """How many different words have no vector, and which; None if all have one."""
    unknown = coverage.types - coverage.types_found
    if not unknown:
        return None
    named = ", ".join(repr(word) for word, _ in coverage.missing.most_common(LINES))
    have = "has" if unknown == 1 else "have"
    told = f"{unknown} of {coverage.types} different words {have} no vector: {named}{', …' if unknown > LINES else ''}"
    unspaced = sum(map(is_unspaced, coverage.missing))
    return f"{told}; {_UNSPACED}" if 2 * unspaced > len(coverage.missing) else told


def newest(arguments: argparse.Namespace) -> Path:
    """The folder of --model, or of the newest run in the current folder, which is named on standard error.

    Raises:
        FileNotFoundError: no model is named, and there is no finished run.
    """
    folder: Path | None = arguments.model
    if folder is None:
        runs = [config for config in Path().glob("towers-run*/config.json") if config.is_file()]
        if not runs:
            raise FileNotFoundError("there is no finished towers-run* here; name a model with --model DIR")
        folder = max(runs, key=lambda config: config.stat().st_mtime_ns).parent
        print(f"towers {arguments.command}: the model is {folder}", file=sys.stderr, flush=True)
    return folder


def warn_of_missing(command: str, coverage: Coverage, source: str) -> bool:
    """Print a warning if most words have no vector: the result would be worth little."""
    found, words = coverage.types_found, coverage.types
    if 2 * found < words:
        problem = f"only {found} of {words} different words have a vector in {source}"
        unspaced = sum(map(is_unspaced, coverage.missing))
        advice = _SEGMENT if 2 * unspaced > len(coverage.missing) else "are these the vectors that you meant?"
        print(f"towers {command}: warning: {problem}; {advice}", file=sys.stderr, flush=True)
    return 2 * found < words


def covered(vectors: Vectors, coverage: Coverage) -> str:
    """The sentence about the words that were looked up: how many have a vector, how many the file repeats."""
    twice = f"; repeated words in {vectors.source}: {vectors.duplicates}, the first of each counts"
    return f"{coverage}{twice if vectors.duplicates else ''}"


def _files(arguments: argparse.Namespace, model: TwoTowers, preset: Preset | None) -> Data:
    if arguments.vectors is None:
        raise ValueError("--train needs --vectors: a file of word vectors (GloVe, word2vec or fastText)")
    for name in (*PARTS, "vectors"):
        if getattr(arguments, name) == Path("-"):
            raise ValueError(f"--{name} -: standard input cannot be read again when a run goes on; name a file")
    columns = chosen(arguments, COLUMNS | LABELS)
    reading = chosen(arguments, READING)
    paths = {name: getattr(arguments, name) for name in PARTS if getattr(arguments, name) is not None}
    labels: dict[str, Any] = {"classes": "found" if preset is None or not preset.as_classes else True}
    labels |= {name: getattr(arguments, name) for name in ("yes", "second_label_column", "second_label_range")}
    parts: dict[str, SentencePairs] = {}
    for name, path in paths.items():  # the classes of the training pairs are those of all
        if arguments.skip_bad:
            parts[name] = skipping(path, model, columns | labels, reading, "fit")
        else:
            parts[name] = SentencePairs.load(path, **columns, **labels, **reading)
        train = parts["train"]
        labels |= {"classes": train.classes or False, "second_classes": train.second_classes}
    parts = {name: fitted(part, model, arguments.fit_length, "fit") for name, part in parts.items()}
    vocabulary = set[str]().union(*(part.vocabulary for part in parts.values()))
    missing = arguments.missing or ("hash" if preset is None else "zero")
    vectors = WordVectors.load(arguments.vectors, vocabulary, missing=missing)
    names = {name: path.name for name, path in paths.items()}
    extra = _extra(arguments.vectors.name, missing, columns | {"fit_length": arguments.fit_length} | names)
    extra["data"] |= {name: value for name, value in _learned(arguments, parts["train"]).items() if value is not None}
    return Data({name: part.with_vectors(vectors) for name, part in parts.items()}, vectors, extra)


def _learned(arguments: argparse.Namespace, train: SentencePairs) -> dict[str, Any]:
    """The entries about labels that are not numbers; None where they are."""
    classes, second = train.classes, train.second_classes
    return {
        "classes": None if classes is None else list(classes),
        "yes": arguments.yes,
        "second_label_column": arguments.second_label_column,
        "second_label_range": arguments.second_label_range,
        "second_classes": None if second is None else list(second),
        "preset": arguments.preset,
    }


def skipping(
    path: Path, model: TwoTowers, columns: Mapping[str, Any], reading: Mapping[str, Any], command: str
) -> SentencePairs:
    """The pairs of a file but those with a bad sentence, or without a label; they are counted in a warning."""
    (rows,) = read_rows(path, reading["format"], separator=reading["separator"], rows=None)
    skipped, asked = Skipped(), Columns(rows)
    ranges = {"label_column": columns["label_range"], "second_label_column": columns.get("second_label_range")}
    if columns["yes"] is not None or columns["classes"] not in (False, "found"):
        ranges["label_column"] = None
    of_labels = [(columns.get(name), range_) for name, range_ in ranges.items()]
    yes = columns["yes"]
    missing = [asked.missing(name, range_, yes) for name, range_ in of_labels if name is not None]
    good, pairs = skipped.usable(rows, columns, model, missing)
    if skipped.rows and is_main(alone=False):
        print(f"towers {command}: warning: {path}: {skipped.told('left out')}", file=sys.stderr, flush=True)
    if not good:
        raise ValueError(f"{path}: no pair is left; all were left out")
    asked = Columns(rows.take(good))
    labels = read_labels(asked, *(columns[name] for name in ("label_column", "label_range", "classes", "yes")))
    of_second = ("second_label_column", "second_classes", "second_label_range")
    labels |= read_second(asked, *(columns.get(name) for name in of_second))
    return SentencePairs(pairs.left, pairs.right, source=pairs.source, lines=pairs.lines, **labels)


def _sample(arguments: argparse.Namespace, model: TwoTowers) -> Data:
    for name in (
        "dev",
        "test",
        "vectors",
        "missing",
        "keep_words",
        "skip_bad",
        "second_label_column",
        "second_label_range",
        "yes",
        *COLUMNS,
        *LABELS,
        *READING,
    ):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} goes with --train; without that, the built-in sample is used")
    pairs = fitted(sample_pairs(), model, arguments.fit_length, "fit")
    assert pairs.vectors is not None
    parts: dict[str, SentencePairs] = dict(zip(PARTS, pairs.split(*SAMPLE_SHARES), strict=True))
    return Data(parts, pairs.vectors, _extra("sample", "hash", {**COLUMNS, "fit_length": arguments.fit_length}))


def _extra(source: str, missing: str, data: Mapping[str, Any]) -> dict[str, Any]:
    return {"vectors": {"source": source, "missing": missing, "file": FILE}, "data": dict(data)}


def keep_vectors(folder: Path, arguments: argparse.Namespace, data: Data) -> None:
    """Put the vectors of a run into its folder: of the words of its pairs, and of the first words of the file.

    Raises:
        OSError: the file cannot be written, or the vectors are gone.
    """
    vectors, first = data.vectors, arguments.keep_words
    if arguments.train is not None and first != 0:
        most = sys.maxsize if first == "all" else FIRST if first is None else first
        vectors = WordVectors.load(arguments.vectors, vectors.known, missing=vectors.missing, first=most)
    save_vectors(folder, vectors)


def chosen(arguments: argparse.Namespace, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options of these names, each as given or else its default."""
    given = {name: getattr(arguments, name) for name in defaults}
    return {name: defaults[name] if value is None else value for name, value in given.items()}


def fitted(
    pairs: SentencePairs, model: TwoTowers, fit_length: str | None, command: Command, *, before: int = 0
) -> SentencePairs:
    """Pairs that the model can read: checked, and with `fit_length` padded or cut.

    Only sentences of a tower with a fixed number of words are padded or cut. `before` is the number
    of pairs of the same file that were checked before.

    Raises:
        ValueError: a sentence has a number of words that its tower does not take; the message names file and line, and
            the options that help.
    """
    if fit_length is not None and model.left.words is not None:
        pairs = pairs.fit_left(model.left.words)
    if fit_length is not None and model.right.words is not None:
        pairs = pairs.fit_right(model.right.words)
    sides = (("left", pairs.left, model.left), ("right", pairs.right, model.right))
    wrong = {
        side: [index for index, sentence in enumerate(sentences) if not _takes(tower, len(sentence))]
        for side, sentences, tower in sides
    }
    misfits = len(set(wrong["left"]) | set(wrong["right"]))
    for side, sentences, tower in sides:
        if wrong[side]:
            first = wrong[side][0]
            count = len(sentences[first])
            pairs_so_far = f"the first {before + len(pairs)}" if before else len(pairs)
            others = f" ({misfits} of {pairs_so_far} pairs do not fit)" if misfits > 1 else ""
            problem = f"the {side} sentence has {_words(count)}; this tower takes {_range(tower)}{others}"
            way_out = _WAYS_OUT[command, "any" if tower.words is None else side].format(
                words=tower.words, count=count, any=_ANY[model.left is model.right, side]
            )
            raise ValueError(f"{pairs.source}, line {pairs.lines[first]}: {problem}. {way_out}")
    return pairs


class Skipped:
    """Rows of files that are left out, because a sentence has too few words, or a label is missing."""

    def __init__(self) -> None:
        self.rows = 0
        self.unlabelled = 0
        """Those of the rows that only lack a label."""
        self.first: list[int] = []

    def usable(
        self, rows: Rows, options: Mapping[str, Any], model: TwoTowers, without_label: Sequence[set[int]] = ()
    ) -> tuple[list[int], SentencePairs]:
        """The places of the rows of which both towers can read the sentences, and their pairs, without labels.

        A sentence without words is not usable, nor is one that is too short for a tower of any number of words.
        `without_label`: the places of rows that lack a label, and so are not usable either.
        """
        columns = Columns(rows)
        names = options["left_column"], options["right_column"]
        left, right = (columns.sentences(name, options["split"], empty=True) for name in names)
        least = [tower.kernel_words if tower.words is None else 1 for tower in (model.left, model.right)]
        good = [place for place in range(len(rows)) if len(left[place]) >= least[0] and len(right[place]) >= least[1]]
        unlabelled = set[int]().union(*without_label)
        self.unlabelled += len(unlabelled.intersection(good))
        good = [place for place in good if place not in unlabelled]
        if len(good) < len(rows):
            taken = set(good)
            bad = [line for place, line in enumerate(rows.lines) if place not in taken]
            self.rows += len(bad)
            self.first = [*self.first, *bad][:LINES]
        lines = [rows.lines[place] for place in good]
        pairs = SentencePairs([left[i] for i in good], [right[i] for i in good], source=rows.path, lines=lines)
        return good, pairs

    def told(self, verb: str) -> str:
        """Which pairs they are, in words."""
        places = ", ".join(map(str, self.first)) + (", …" if self.rows > len(self.first) else "")
        line = "line" if self.rows == 1 else "lines"
        pairs = "1 pair" if self.rows == 1 else f"{self.rows} pairs"
        why = "a sentence is empty or too short"
        if self.unlabelled:
            why = "the label is missing" if self.unlabelled == self.rows else f"{why}, or the label is missing"
        return f"{pairs} {verb}: {why} ({line} {places})"


_ANY = {
    (False, "left"): "--left-words any",
    (False, "right"): "--right-words any",
    (True, "left"): "--left-words any --right-words any",  # one tower: both options must be equal
    (True, "right"): "--left-words any --right-words any",
}


_FIT = "Use {any} for sentences of any length, or --fit-length pad-or-cut to make them {words} words long"
_PREDICT = "Use --fit-length pad-or-cut to make sentences {words} words long, or train with {any}"
_WAYS_OUT = {
    ("fit", "left"): _FIT,
    ("fit", "right"): _FIT,
    ("fit", "any"): "Leave such pairs out, or use --kernel-words {count}",
    ("predict", "left"): _PREDICT,
    ("predict", "right"): _PREDICT,
    ("predict", "any"): "Leave such pairs out, or train with --kernel-words {count}",
}


def _takes(tower: Tower, words: int) -> bool:
    return words >= tower.kernel_words if tower.words is None else words == tower.words


def _range(tower: Tower) -> str:
    return f"exactly {tower.words}" if tower.words is not None else f"at least {tower.kernel_words}"


def _words(count: int) -> str:
    return f"{count} word" if count == 1 else f"{count} words"
