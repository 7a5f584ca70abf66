"""A model with its words: sentences in, scores, states and the most similar sentences out."""

import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import index
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, overload

import torch
from torch import Tensor

from towers.data import Coverage, SentencePairs, VectorStore, WordVectors
from towers.data.columns import Columns
from towers.data.kept_vectors import ExtendedVectors, digest, load_vectors
from towers.data.memory_rows import MemoryRows, as_list, is_table
from towers.data.sample import sample_vectors
from towers.data.vectors import BLANK
from towers.ensemble import load_network
from towers.evaluated import Evaluated
from towers.every_pair import Distinct, every_pair
from towers.model import TwoTowers
from towers.model_config import Config
from towers.sentence_words import SentenceWords, Side, Text, Words
from towers.training.objectives import Objective
from towers.training.prediction import Predictor, Vectors, check_width

if TYPE_CHECKING:
    import numpy

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


def load(folder: str | PathLike[str], *, vectors: str | PathLike[str] | None = None) -> "Model":
    """A model that `towers fit` saved, with its words.

    Args:
        folder: the folder of the run.
        vectors: a file of the same word vectors, for words that the folder lacks; a folder of towers 0.1.0 needs it,
            and warns that it has nothing to compare them with.

    Raises:
        ImportError: safetensors is not installed.
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: a file is damaged, a weight is not finite, or the vectors are not those that the model learned with.

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
    _check_weights(network, f"{folder}: ")
    if config.carries or config.source == "sample":
        kept = load_vectors(folder, missing=config.missing) if config.carries else sample_vectors(config.missing)
        check_width(network, kept)
        words: Vectors = kept
        if vectors is not None:
            words = ExtendedVectors(kept, VectorStore(vectors, missing=config.missing))
    elif vectors is not None:
        words = VectorStore(vectors, missing=config.missing)
        warnings.warn(config.not_compared(vectors), stacklevel=2)
    else:
        raise ValueError(
            f"{folder} does not carry its word vectors; give vectors= (--vectors), the file that it was trained with"
        )
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
    """Two towers with the vectors of their words; `towers.load` makes one from the folder of a run.

    Sentences are strings, divided into words as in the model's training, or lists of words. Any iterable of them will
    do: lists, generators, columns of pandas, polars, Arrow and Hugging Face datasets. Every method raises a ValueError
    for a sentence with a number of words that its tower does not take, and warns about sentences without a single known
    word; `coverage` counts the words that had no vector. Long work shows a progress bar on a terminal; `progress=`
    True or False decides otherwise.

    Answers do not depend on torch.autocast, torch's default device, or whether `network` is in training. A process that
    forks (a server with `--preload`) calls no method before: torch's threads do not come along, and a child would wait
    for them for ever, as in every program with torch (pytorch#49555).

    Args:
        network: the towers; a copy is used.
        vectors: the vectors of words.
        split: "rule" or "spaces", how a string becomes words.
        fit_length: "pad-or-cut" for towers of a fixed number of words; None refuses other sentences.
        label_range: what the probabilities 0 and 1 mean; scores are in this range.
        columns: the names of the left and the right sentences where a whole table is scored.
        classes: the names of the classes, of a network that answers with classes.

    Raises:
        ValueError: there are other than `outputs` classes, the vectors have another width than the towers take, or a
            weight is not finite. A method raises it too where an answer is not finite.

    >>> import towers
    >>> from towers.answers import Model
    >>> from towers.data import sample_pairs
    >>> model = Model(towers.TwoTowers(), sample_pairs(1).vectors)
    >>> 0 < model.score("a happy ram was spotted by the lass", "the lass noticed a ram") < 1
    True
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
        _check_weights(network)
        self._predictor = Predictor(network, vectors, classes=classes)
        self.classes = None if classes is None else tuple(classes)
        self._network = self._predictor.model
        self._predictor.private = True
        self._sentences = SentenceWords(self._network, vectors, split, fit_length)
        self.split: Literal["rule", "spaces"] = split
        self.fit_length, self.label_range, self.columns = fit_length, label_range, columns

    @property
    def network(self) -> TwoTowers:
        """The towers. Who has them may change them, so from now on their weights are compared at each typed pair."""
        self._predictor.private = False
        return self._network

    @property
    def vectors_digest(self) -> str | None:
        """Tells the vectors that the model learned with from others; None where they lie in a file."""
        return digest(self._predictor.vectors)

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

    @property
    def unknown(self) -> int:
        """Pairs, and encoded sentences, so far that had a sentence without a known word: their answers mean nothing."""
        return self._predictor.unknown

    def __repr__(self) -> str:
        network, vectors = self._network, self._predictor.vectors
        low, high = self.label_range
        answers = f"{low:g} to {high:g}" if self.classes is None else f"classes {', '.join(self.classes)}"
        weights = sum(weight.numel() for weight in network.parameters())
        return f"Model({type(network).__name__} of {weights:,} parameters, scores: {answers}, vectors={vectors!r})"

    @overload
    def score(self, left: str, right: str, *, class_name: str | None = None) -> "float | dict[str, float]": ...  # pyright: ignore[reportOverlappingOverload]  (a string is Any)
    @overload
    def score(
        self,
        left: Any,
        right: Any = None,
        *,
        class_name: str | None = None,
        tensor: Literal[False] = False,
        progress: bool | None = None,
    ) -> "numpy.ndarray[Any, Any]": ...
    @overload
    def score(
        self,
        left: Any,
        right: Any = None,
        *,
        class_name: str | None = None,
        tensor: Literal[True],
        progress: bool | None = None,
    ) -> Tensor: ...
    def score(
        self,
        left: Any,
        right: Any = None,
        *,
        class_name: str | None = None,
        tensor: bool = False,
        progress: bool | None = None,
    ) -> "float | dict[str, float] | numpy.ndarray[Any, Any] | Tensor":
        """The score of two sentences, or the scores of many pairs.

        Args:
            left: a sentence, or many; without `right`: pairs of sentences, or a table with the columns of `columns`
                (a frame of pandas or polars, a table of Arrow, a Hugging Face dataset, a dict of columns).
            right: the second sentence, or as many as there are left ones.
            class_name: of a model with `classes`: the probability of this class is the score.
            tensor: return a tensor in place of an array.
            progress: show a progress bar; None: on a terminal, if there are thousands of pairs.

        Returns:
            A float for two strings, otherwise an array of NumPy (pairs), float32. Of a model with `classes`, without
            `class_name`: the probability of each class, by its name, otherwise an array (pairs, classes).

        Raises:
            ValueError: a sentence has a number of words that its tower does not take, something is no sentence or no
                pair of them (its place is named), left and right are not equally many, or `class_name` is none of the
                model's classes.
        """
        output = None if class_name is None else self.output_of(class_name)
        if isinstance(left, str) and isinstance(right, str):
            (one,), (other,) = self._sentences.divide([left], "left"), self._sentences.divide([right], "right")
            answer = _numbers(self._predictor.one(one, other))
            if output is not None:
                return float(answer[0, output])
            if self.classes is not None:
                return dict(zip(self.classes, answer[0].tolist(), strict=True))
            return float(self._in_range(answer)[0])
        scores = self._scores(*self._sides(left, right), progress)
        scores = scores if output is None else scores[:, output]
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
            name, other = ("right", right) if isinstance(left, str) else ("left", left)
            problem = "left and right must both be one sentence, or both be lists of sentences"
            raise ValueError(f"{name} ({other!r:.60}) is no string, and the other is: {problem}")
        else:
            for side, sentences in (("left", left), ("right", right)):
                if is_table(sentences) or isinstance(sentences, set | frozenset | bytes):
                    what = f"not a whole {type(cast(object, sentences)).__name__}"
                    raise ValueError(f"{side} must be a sentence, or one column or list of sentences, {what}")
            lefts, rights = as_list(left), as_list(right)
        if len(lefts) != len(rights):
            raise ValueError(f"there are {len(lefts)} left and {len(rights)} right sentences; each needs its other")
        return self._sentences.divide(lefts, "left"), self._sentences.divide(rights, "right")

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
        answers = _numbers(torch.cat(parts)) if parts else self._predictor(SentencePairs([], []))
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
        divide, without = self._sentences.divide, self._sentences.without
        sides: dict[Side, Words] = {"left": divide([left], "left")[0], "right": divide([right], "right")[0]}
        places: list[tuple[Side, int]] = [
            (side, place) for side, words in sides.items() for place, word in enumerate(words) if word != BLANK
        ]
        pairs = [sides, *({**sides, side: without(sides[side], place, side)} for side, place in places)]
        scores = self._scores([pair["left"] for pair in pairs], [pair["right"] for pair in pairs])
        if self.classes is not None:
            scores = scores[:, int(scores[0].argmax()) if output is None else output]
        whole, *others = scores.tolist()
        effects = (
            Effect(side, place, sides[side][place], whole - other)
            for (side, place), other in zip(places, others, strict=True)
        )
        return sorted(effects, key=lambda effect: -abs(effect.effect))

    def encode(self, sentences: Iterable[Text], *, side: Side = "left", progress: bool | None = None) -> Tensor:
        """The states of sentences (sentences, hidden), float32 on the CPU.

        Raises:
            ValueError: `side` is neither "left" nor "right", or its tower does not take a sentence.
        """
        if side not in ("left", "right"):
            raise ValueError(f'side ({side!r}) must be "left" or "right"')
        words = self._sentences.divide(sentences, side)
        parts = [self._predictor.encode(words[part], side) for part in _slices(len(words), "sentences", progress)]
        states = _numbers(torch.cat(parts)) if parts else self._predictor.encode([], side)
        first: dict[Words, int] = {}  # a sentence's bits may depend on its batch: of equal ones the first counts
        return states[[first.setdefault(sentence, place) for place, sentence in enumerate(words)]]

    def similarity(
        self, left: Iterable[Text] | Tensor, right: Iterable[Text] | Tensor, *, class_name: str | None = None
    ) -> Tensor:
        """The scores of every left with every right sentence (left, right), float32 on the CPU.

        States from `encode` will do in place of sentences. The memory beside the result is bounded. Of a model with
        `classes` the scores are the probabilities of the class `class_name`.

        Raises:
            ValueError: a tower does not take a sentence, states are not finite or no dense tensor with data, or
                `class_name` is none of the model's classes.
        """
        output = self.output_of(class_name)
        lefts, rights = Distinct.of(self._states(left, "left")), Distinct.of(self._states(right, "right"))
        scores, first = torch.empty(len(lefts.which), len(rights.which), dtype=torch.float32, device="cpu"), 0
        for ranked in every_pair(self._network, self.objective, lefts, rights, output):
            lefts.fill(scores, first, self.scores_of(ranked))
            first += len(ranked)
        return scores

    def scores_of(self, ranked: Tensor) -> Tensor:
        """The scores of what `towers.search.Index` ranks by, `ranked`: logits, the log-odds of a class, or degrees."""
        ranked = _numbers(ranked)
        return self._in_range(ranked if self._predictor.objective.kind == "bins" else ranked.sigmoid())

    def ranked_of(self, score: float) -> float:
        """A number below which nothing that `towers.search.Index` finds by has this score, or a higher one."""
        low, high = self.label_range
        rounded = 1e-6 * (1 + max(abs(low), abs(high)) / (high - low))  # what scores of float32 are off by
        probability = (score - low) / (high - low) - rounded
        if self._predictor.objective.kind == "bins":
            return probability
        if 0 < probability < 1:
            return math.log(probability / (1 - probability))
        return -math.inf if probability <= 0 else math.inf

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
            ValueError: k is less than 1 or no whole number, a tower does not take a sentence, states are not finite or
                no dense tensor with data, or `class_name` is none of the model's classes.
        """
        output, given = self.output_of(class_name), k
        try:
            k = index(k)
        except TypeError:  # an array of one number too
            raise ValueError(f"k ({k!r}) must be a whole number") from None
        if k < 1 or given is True:
            raise ValueError(f"k ({given}) must be a whole number of at least 1")
        queries = Distinct.of(self._states([query] if isinstance(query, str) else query, "left"))
        items = Distinct.of(self._states(sentences, "right"))
        k = min(k, len(items.which))
        scores = [torch.empty(0, k, dtype=torch.float32, device="cpu")]
        places = [torch.empty(0, k, dtype=torch.int64, device="cpu")]
        for ranked in every_pair(self._network, self.objective, queries, items, output):
            order = ranked.argsort(dim=1, descending=True, stable=True)[:, :k]  # logits differ where scores are equal
            scores.append(self.scores_of(ranked.gather(1, order)))
            places.append(order)
        best, order = (queries.spread(torch.cat(parts), 0) for parts in (scores, places))
        return (best[0], order[0]) if isinstance(query, str) else (best, order)

    def _in_range(self, probabilities: Tensor) -> Tensor:
        low, high = self.label_range
        return low + (high - low) * probabilities

    def _states(self, sentences: Iterable[Text] | Tensor, side: Side) -> Tensor:
        states = sentences.detach() if isinstance(sentences, Tensor) else self.encode(sentences, side=side)
        dense = states.layout == torch.strided and not (states.is_meta or states.is_complex())
        if not dense or not states.dim() or not states.shape[-1]:
            kind = f"{states.dtype} {tuple(states.shape)}, {states.layout}, on {states.device}"
            raise ValueError(f"{side} states are {kind}; expected those of encode, (sentences, {self._network.hidden})")
        states = states.reshape(-1, states.shape[-1]).to(self._network.dense.weight)
        if not bool(states.isfinite().all()):
            row = int((~states.isfinite().all(1)).nonzero()[0])
            raise ValueError(f"{side} state {row} is not finite (NaN or infinity)")
        return states


def _check_weights(network: TwoTowers, named: str = "") -> None:
    for name, weight in network.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ValueError(f"{named}the weight {name} is not finite, and the network gives no number; train it again")


def _numbers(answers: Tensor) -> Tensor:
    """The answers, if all are finite."""
    if not bool(answers.isfinite().all()):
        raise ValueError("the network gives no finite number: its weights, or vectors, are too large")
    return answers


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
