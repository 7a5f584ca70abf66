"""A model with its words: sentences in, scores, states and the most similar sentences out."""

import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, overload

import torch
from torch import Tensor

from towers.checkpoint import CONFIG, read_config
from towers.data import Coverage, SentencePairs, VectorStore, WordVectors
from towers.data.columns import SPLITTERS, Columns
from towers.data.kept_vectors import FILE, ExtendedVectors, load_vectors
from towers.data.memory_rows import MemoryRows, as_list, is_table
from towers.data.sample import sample_vectors
from towers.data.vectors import BLANK
from towers.ensemble import load_network
from towers.evaluated import Evaluated
from towers.model import Tower, TwoTowers
from towers.training.objectives import Objective, log_odds
from towers.training.prediction import Predictor, Vectors, check_width

if TYPE_CHECKING:
    import numpy

Side = Literal["left", "right"]
Text = str | Sequence[str]
"""A sentence: a string, which is divided as in the model's training, or its words."""
Words = tuple[str, ...]
BLOCK = 1 << 22
"""Features of pairs that `similarity` holds at a time."""
SLICE = 4096
"""Sentences, or pairs, that are read between two steps of a progress bar."""


class Effect(NamedTuple):
    """What a word does to a score."""

    side: Side
    place: int
    """The place of the word in its sentence, from 0."""
    word: str
    effect: float
    """The score of the pair less its score without the word: above 0, the word raises the score."""


class Config:
    """What config.json of a saved model says about vectors and columns. It is checked, since people edit it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CONFIG
        config = read_config(folder)
        data: dict[str, Any] = config.get("data", {})
        vectors: dict[str, Any] = config.get("vectors", {})
        self.data = data
        for name in ("left_column", "right_column"):
            self._check("data", data, name, isinstance(data.get(name, ""), str), "a string")
        self._check("data", data, "split", data.get("split", "rule") in list(SPLITTERS), " or ".join(SPLITTERS))
        known = data.get("fit_length") in (None, "pad-or-cut")
        self._check("data", data, "fit_length", known, "null or pad-or-cut")
        self.label_range, self.second_label_range = map(self._limits, ("label_range", "second_label_range"))
        self.classes, self.second_classes = (self._names(name) for name in ("classes", "second_classes"))
        self._check("vectors", vectors, "source", isinstance(vectors.get("source", ""), str), "a string")
        self._check("vectors", vectors, "missing", vectors.get("missing", "hash") in ["hash", "zero"], "hash or zero")
        self.source: str | None = vectors.get("source")
        self.carries = vectors.get("file") == FILE
        """Whether the folder has the vectors; those of towers 0.1.0 have not."""
        self.missing: Any = vectors.get("missing", "hash")

    def _limits(self, name: str) -> tuple[float, float]:
        """What the probabilities 0 and 1 mean."""
        limits = cast(list[Any], self.data.get(name) or [0.0, 1.0])
        numbers = len(limits) == 2 and all(type(limit) in (int, float) for limit in limits)
        self._check("data", self.data, name, numbers, "two numbers")
        return limits[0], limits[1]

    def _names(self, name: str) -> tuple[str, ...] | None:
        """The names of classes, if there are any."""
        classes = cast(list[Any] | None, self.data.get(name))
        named = classes is None or (len(classes) > 0 and all(isinstance(one, str) for one in classes))
        self._check("data", self.data, name, named, "the names of classes")
        return None if classes is None else tuple(classes)

    def _check(self, section: str, values: Mapping[str, Any], name: str, right: bool, expected: str) -> None:
        if not right:
            found = json.dumps(values[name])[:40]
            raise ValueError(f'{self.path}: is damaged: "{name}" in "{section}" is {found}; expected {expected}')


def load(folder: str | PathLike[str], *, vectors: str | PathLike[str] | None = None) -> "Model":
    """A model that `towers fit` saved, with its words.

    Args:
        folder: the folder of the run.
        vectors: a file of the same word vectors, for words that the folder lacks; a folder of towers 0.1.0 needs it.

    Raises:
        ImportError: safetensors is not installed.
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: a file is damaged, or the vectors are not those that the model learned with.

    >>> import tempfile, towers
    >>> from towers.data import sample_pairs
    >>> from towers.training import fit
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     history = fit(towers.TwoTowers(), sample_pairs(20), epochs=1, out=folder, progress=False)
    ...     model = towers.load(folder)
    >>> 0 < model.score("a dog runs in the park", "an animal moves around outside") < 1
    True
    """
    config = Config(Path(folder))
    network = load_network(folder)
    if config.carries:
        words: Vectors = load_vectors(folder, missing=config.missing)
        check_width(network, words)
        if vectors is not None:
            words = ExtendedVectors(words, VectorStore(vectors, missing=config.missing))
    elif vectors is not None:
        words = VectorStore(vectors, missing=config.missing)
    elif config.source == "sample":
        words = sample_vectors(config.missing)
    else:
        raise ValueError(f"{folder} does not carry its word vectors; give vectors=, the file that it was trained with")
    data = config.data
    return Model(
        network,
        words,
        split=data.get("split", "rule"),
        fit_length=data.get("fit_length"),
        label_range=config.label_range,
        classes=config.classes,
        columns=(data.get("left_column", "sentence1"), data.get("right_column", "sentence2")),
    )


class Model(Evaluated):
    """Two towers with the vectors of their words.

        model = towers.load("towers-run")
        model.score("a happy ram was spotted by the lass", "the lass noticed a ram")

    Sentences are strings, divided into words as in the model's training, or lists of words. Any iterable of them will
    do: lists, generators, columns of pandas, polars, Arrow and Hugging Face datasets. Every method raises a ValueError
    for a sentence with a number of words that its tower does not take, and warns about sentences without a single known
    word; `coverage` counts the words that had no vector. Long work shows a progress bar on a terminal; `progress=`
    True or False decides otherwise.

    Args:
        network: the towers; a copy is used.
        vectors: the vectors of words.
        split: "rule" or "spaces", how a string becomes words.
        fit_length: "pad-or-cut" for towers of a fixed number of words; None refuses other sentences.
        label_range: what the probabilities 0 and 1 mean; scores are in this range.
        columns: the names of the left and the right sentences where a whole table is scored.
        classes: the names of the classes, of a network that answers with classes.

    Raises:
        ValueError: there are other than `outputs` classes, or the vectors have another width than the towers take.
    """

    def __init__(
        self,
        network: TwoTowers,
        vectors: Vectors,
        *,
        split: Literal["rule", "spaces"] = "rule",
        fit_length: Literal["pad-or-cut"] | None = None,
        label_range: tuple[float, float] = (0.0, 1.0),
        columns: tuple[str, str] = ("sentence1", "sentence2"),
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self._predictor = Predictor(network, vectors, classes=classes)
        self.classes = None if classes is None else tuple(classes)
        self.network = self._predictor.model
        self.split: Literal["rule", "spaces"] = split
        self.fit_length, self.label_range, self.columns = fit_length, label_range, columns

    @property
    def objective(self) -> Objective:
        """What the logits of the network mean."""
        return self._predictor.objective

    def words_of(self, pairs: SentencePairs) -> WordVectors:
        """The vectors of the words of some pairs."""
        return self._predictor.vectors.select(pairs.vocabulary)

    @property
    def coverage(self) -> Coverage:
        """How many words of all sentences so far have a vector, and which have none."""
        return self._predictor.coverage

    @overload
    def score(self, left: str, right: str) -> "float | dict[str, float]": ...  # pyright: ignore[reportOverlappingOverload]  (a string is Any)
    @overload
    def score(
        self, left: Any, right: Any = None, *, tensor: Literal[False] = False, progress: bool | None = None
    ) -> "numpy.ndarray[Any, Any]": ...
    @overload
    def score(self, left: Any, right: Any = None, *, tensor: Literal[True], progress: bool | None = None) -> Tensor: ...
    def score(
        self, left: Any, right: Any = None, *, tensor: bool = False, progress: bool | None = None
    ) -> "float | dict[str, float] | numpy.ndarray[Any, Any] | Tensor":
        """The score of two sentences, or the scores of many pairs.

        Args:
            left: a sentence, or many; without `right`: pairs of sentences, or a table with the columns of `columns`
                (a frame of pandas or polars, a table of Arrow, a Hugging Face dataset, a dict of columns).
            right: the second sentence, or as many as there are left ones.
            tensor: return a tensor in place of an array.
            progress: show a progress bar; None: on a terminal, if there are thousands of pairs.

        Returns:
            A float for two strings, otherwise an array of NumPy (pairs), float32. Of a model with `classes`: the
            probability of each class, by its name, otherwise an array (pairs, classes).

        Raises:
            ValueError: a sentence has a number of words that its tower does not take, something is no sentence or no
                pair of them (its place is named), or left and right are not equally many.
        """
        if isinstance(left, str) and isinstance(right, str):
            (one,), (other,) = self._divide([left], "left"), self._divide([right], "right")
            answer = self._predictor.one(one, other)
            if self.classes is not None:
                return dict(zip(self.classes, answer[0].tolist(), strict=True))
            return float(self._in_range(answer)[0])
        scores = self._scores(*self._sides(left, right), progress)
        return scores if tensor else scores.numpy()

    def _sides(self, left: Any, right: Any) -> tuple[list[Words], list[Words]]:
        """The words of both sides of what `score` was given."""
        if right is None and isinstance(left, str):
            raise ValueError("right is missing: score takes two sentences, or pairs of sentences")
        if right is None and is_table(left):
            table = Columns(MemoryRows(left))
            lefts, rights = (cast(list[Any], table.sentences(name, self.split)) for name in self.columns)
        elif right is None:
            sides = list(zip(*map(self._pair, as_list(left), iter(range(sys.maxsize))), strict=True))
            lefts, rights = map(list[Any], sides or ((), ()))
        elif isinstance(left, str) or isinstance(right, str):
            raise ValueError("left and right must both be one sentence, or both be lists of sentences")
        else:
            lefts, rights = as_list(left), as_list(right)
        if len(lefts) != len(rights):
            raise ValueError(f"there are {len(lefts)} left and {len(rights)} right sentences; each needs its other")
        return self._divide(lefts, "left"), self._divide(rights, "right")

    def _pair(self, pair: Any, place: int) -> tuple[Any, Any]:
        """The two sentences of a pair; a row of a dataset is a dict."""
        if isinstance(pair, Mapping):
            row = cast(Mapping[str, Any], pair)
            absent = [name for name in self.columns if name not in row]
            if absent:
                raise ValueError(f"pair {place} has no {absent[0]!r}, only {', '.join(map(repr, row))}")
            return row[self.columns[0]], row[self.columns[1]]
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(cast(Sequence[Any], pair)) != 2:
            raise ValueError(f"pair {place} ({pair!r:.60}) must be two sentences")
        one, other = cast(Sequence[Any], pair)
        return one, other

    def _scores(self, lefts: list[Words], rights: list[Words], progress: bool | None = False) -> Tensor:
        parts = [
            self._predictor(SentencePairs(lefts[part], rights[part])) for part in _slices(len(lefts), "pairs", progress)
        ]
        answers = torch.cat(parts) if parts else self._predictor(SentencePairs([], []))
        return answers if self.classes is not None else self._in_range(answers)

    def output_of(self, class_name: str | None) -> int | None:
        """The number of the class whose probability is the score; None for a model of degrees.

        Raises:
            ValueError: the model answers with classes and `class_name` is none of them, or it has no classes.
        """
        if self.classes is None and class_name is None:
            return None
        if self.classes is None:
            raise ValueError(f"class_name ({class_name!r}): this model answers with a score, and has no classes")
        if class_name not in self.classes:
            named = "is missing (--class NAME)" if class_name is None else f"({class_name!r}) is none of them"
            raise ValueError(f"this model answers with classes ({', '.join(self.classes)}); class_name {named}")
        return self.classes.index(class_name)

    def explain(self, left: Text, right: Text, *, class_name: str | None = None) -> list[Effect]:
        """Which words move the score of a pair: the change of the score when one is left out, the largest first.

        Where a tower would not take the sentence without the word, since it takes a fixed number of words or the
        sentence is too short then, a blank word (zeros) stands in its place.

        Of a model with `classes` the score is the probability of the class `class_name`; None: the most probable one.

        Raises:
            ValueError: a tower does not take its sentence, or `class_name` is none of the model's classes.
        """
        output = None if class_name is None else self.output_of(class_name)
        sides = {"left": self._divide([left], "left")[0], "right": self._divide([right], "right")[0]}
        places = [(side, place) for side, words in sides.items() for place, word in enumerate(words) if word != BLANK]
        pairs = [sides, *(sides | {side: self._without(side, sides[side], place)} for side, place in places)]
        scores = self._scores([pair["left"] for pair in pairs], [pair["right"] for pair in pairs])
        if self.classes is not None:
            scores = scores[:, int(scores[0].argmax()) if output is None else output]
        whole, *others = scores.tolist()
        effects = (
            Effect(cast(Side, side), place, sides[side][place], whole - other)
            for (side, place), other in zip(places, others, strict=True)
        )
        return sorted(effects, key=lambda effect: -abs(effect.effect))

    def _without(self, side: str, words: Words, place: int) -> Words:
        tower: Tower = getattr(self.network, side)
        fixed = tower.words is not None or len(words) <= tower.kernel_words
        return (*words[:place], *([BLANK] if fixed else []), *words[place + 1 :])

    def encode(self, sentences: Iterable[Text], *, side: Side = "left", progress: bool | None = None) -> Tensor:
        """The states of sentences (sentences, hidden), float32 on the CPU.

        Raises:
            ValueError: `side` is neither "left" nor "right", or its tower does not take a sentence.
        """
        if side not in ("left", "right"):
            raise ValueError(f'side ({side!r}) must be "left" or "right"')
        words = self._divide(sentences, side)
        parts = [self._predictor.encode(words[part], side) for part in _slices(len(words), "sentences", progress)]
        return torch.cat(parts) if parts else self._predictor.encode([], side)

    def similarity(
        self, left: Iterable[Text] | Tensor, right: Iterable[Text] | Tensor, *, class_name: str | None = None
    ) -> Tensor:
        """The scores of every left with every right sentence (left, right), float32 on the CPU.

        States from `encode` will do in place of sentences. The memory beside the result is bounded. Of a model with
        `classes` the scores are the probabilities of the class `class_name`.

        Raises:
            ValueError: a tower does not take a sentence, or `class_name` is none of the model's classes.
        """
        output = self.output_of(class_name)
        blocks = list(self._blocks(self._states(left, "left"), states := self._states(right, "right"), output))
        return self.scores_of(torch.cat(blocks)) if blocks else torch.empty(0, len(states))

    def _blocks(self, lefts: Tensor, rights: Tensor, output: int | None) -> Iterator[Tensor]:
        """What orders the pairs of some left states after the others with all right states: see `scores_of`."""
        size = max(1, BLOCK // max(self.network.pair_features.width, self.network.dense.out_features))
        rows = max(1, size // max(1, len(rights)))
        with torch.inference_mode():
            for part in lefts.split(rows) if len(lefts) else ():
                yield torch.cat([self._ranked(part, some, output) for some in rights.split(size)], 1)

    def _ranked(self, lefts: Tensor, rights: Tensor, output: int | None) -> Tensor:
        logits = self.network.compare(lefts[:, None], rights[None]).float().cpu()
        if self.network.outputs == 1:
            return logits
        return self._predictor.objective.answer(logits) if output is None else log_odds(logits, output)

    def scores_of(self, ranked: Tensor) -> Tensor:
        """The scores of what `towers.search.Index` finds by: logits, the log-odds of a class, or of bins degrees."""
        return self._in_range(ranked if self._predictor.objective.kind == "bins" else ranked.sigmoid())

    def most_similar(
        self,
        query: str | Iterable[Text],
        sentences: Iterable[Text] | Tensor,
        k: int = 10,
        *,
        class_name: str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The scores and the positions of the k sentences with the highest scores, best first, for a query or several.

        The query is read by the left tower, the sentences by the right one; they may be states of `encode`. For one
        query, a string, both results have one axis (k), otherwise two (queries, k). A k beyond the number of sentences
        gives all of them. The memory beside the result is bounded. Of a model with `classes` the scores are the
        probabilities of the class `class_name`.

        Raises:
            ValueError: k is less than 1, a tower does not take a sentence, or `class_name` is none of the model's
                classes.
        """
        output = self.output_of(class_name)
        if k < 1:
            raise ValueError(f"k ({k}) must be at least 1")
        states = self._states(sentences, "right")
        scores, places = [torch.empty(0, min(k, len(states)))], [torch.empty(0, min(k, len(states)), dtype=torch.int64)]
        for ranked in self._blocks(self._states([query] if isinstance(query, str) else query, "left"), states, output):
            order = ranked.argsort(dim=1, descending=True, stable=True)[:, :k]  # logits differ where scores are equal
            scores.append(self.scores_of(ranked.gather(1, order)))
            places.append(order)
        best, order = torch.cat(scores), torch.cat(places)
        return (best[0], order[0]) if isinstance(query, str) else (best, order)

    def _in_range(self, probabilities: Tensor) -> Tensor:
        low, high = self.label_range
        return low + (high - low) * probabilities

    def _states(self, sentences: Iterable[Text] | Tensor, side: Side) -> Tensor:
        states = sentences if isinstance(sentences, Tensor) else self.encode(sentences, side=side)
        return states.reshape(-1, states.shape[-1]).to(self.network.dense.weight)

    def _divide(self, sentences: Iterable[Text], side: Side) -> list[Words]:
        """The words of each sentence, padded or cut where the model's training did so."""
        if isinstance(sentences, str):
            raise ValueError(f"{side} sentences must be a list of sentences, not one string: [{sentences[:40]!r}]")
        if is_table(sentences):
            raise ValueError(f"{side} sentences must be one column, not a whole {type(sentences).__name__}")
        tower: Tower = getattr(self.network, side)
        least, most = (tower.kernel_words, sys.maxsize) if tower.words is None else (tower.words, tower.words)
        fitted = tower.words if self.fit_length is not None else None
        divide, divided = SPLITTERS[self.split], list[Words]()
        for place, sentence in enumerate(as_list(sentences)):
            words = tuple(divide(sentence)) if isinstance(sentence, str) else _checked(sentence, side, place)
            if words and fitted is not None:
                words = (*words[:fitted], *[BLANK] * (fitted - len(words)))
            if not max(least, 1) <= len(words) <= most:
                takes = f"at least {least}" if tower.words is None else f"exactly {least}"
                has = "1 word" if len(words) == 1 else f"{len(words)} words"
                raise ValueError(f"{side} sentence {place} ({sentence!r:.60}) has {has}; its tower takes {takes}")
            divided.append(words)
        self._warn_of_unknown(divided, side)
        return divided

    def _warn_of_unknown(self, sentences: list[Words], side: Side) -> None:
        vectors = self._predictor.vectors
        words = {word for sentence in sentences for word in sentence}
        has = (vectors if isinstance(vectors, WordVectors) else vectors.select(words)).has
        known = {word for word in words if has(word)}
        if len(known) == len(words):
            return
        unknown = [place for place, sentence in enumerate(sentences) if known.isdisjoint(sentence)]
        if unknown:
            first = f"the first is sentence {unknown[0]}, {' '.join(sentences[unknown[0]])[:60]!r}"
            have = f"1 {side} sentence has" if len(unknown) == 1 else f"{len(unknown)} {side} sentences have"
            problem = f"{have} no word with a vector ({first}); such scores mean nothing"
            warnings.warn(problem, stacklevel=_depth_of_caller())


def _checked(sentence: Any, side: Side, place: int) -> Words:
    """A sentence that was given as its words."""
    if not isinstance(sentence, list | tuple) or not all(isinstance(word, str) for word in cast(list[Any], sentence)):
        raise ValueError(f"{side} sentence {place} is {sentence!r:.60}; expected a string, or a list of words")
    return tuple(cast(list[str], sentence))


def _slices(count: int, unit: str, progress: bool | None) -> Iterator[slice]:
    """The places from 0 to `count`, some at a time, under a progress bar."""
    shown = (count > SLICE and sys.stderr.isatty()) if progress is None else progress
    if not shown:
        yield from (slice(start, start + SLICE) for start in range(0, count, SLICE))
        return
    from tqdm.auto import tqdm

    with tqdm(total=count, leave=False, unit=f" {unit}", unit_scale=True) as bar:
        for start in range(0, count, SLICE):
            yield slice(start, start + SLICE)
            bar.update(min(SLICE, count - start))


def _depth_of_caller() -> int:
    """The `stacklevel` of the code outside of towers that called it."""
    frame, depth = sys._getframe(1), 1  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("towers."):
        frame, depth = frame.f_back, depth + 1
    return depth
