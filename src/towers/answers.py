"""A model with its words: sentences in, scores, states and the most similar sentences out."""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor

from towers.checkpoint import CONFIG, read_config
from towers.data import SentencePairs, VectorStore
from towers.data.columns import SPLITTERS
from towers.data.kept_vectors import FILE, ExtendedVectors, load_vectors
from towers.data.sample import sample_vectors
from towers.model import Tower, TwoTowers
from towers.training.prediction import Predictor, Vectors, check_width

Side = Literal["left", "right"]
Text = str | Sequence[str]
"""A sentence: a string, which is divided as in the model's training, or its words."""
BLOCK = 1 << 22
"""Numbers of the head's hidden layer that `similarity` holds at a time."""


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
        limits = cast(list[Any], data.get("label_range") or [0.0, 1.0])
        numbers = len(limits) == 2 and all(type(limit) in (int, float) for limit in limits)
        self._check("data", data, "label_range", numbers, "two numbers")
        self._check("vectors", vectors, "source", isinstance(vectors.get("source", ""), str), "a string")
        self._check("vectors", vectors, "missing", vectors.get("missing", "hash") in ["hash", "zero"], "hash or zero")
        self.label_range: tuple[float, float] = (limits[0], limits[1])
        self.source: str | None = vectors.get("source")
        self.carries = vectors.get("file") == FILE
        """Whether the folder has the vectors; those of towers 0.1.0 have not."""
        self.missing: Any = vectors.get("missing", "hash")

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
    """
    config = Config(Path(folder))
    network = TwoTowers.load(folder)
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
    split, fit_length = config.data.get("split", "rule"), config.data.get("fit_length")
    return Model(network, words, split=split, fit_length=fit_length, label_range=config.label_range)


class Model:
    """Two towers with the vectors of their words.

        model = towers.load("towers-run")
        model.score("a happy ram was spotted by the lass", "the lass noticed a ram")

    Sentences are strings, divided into words as in the model's training, or lists of words. Any iterable of them will
    do: lists, generators, columns of pandas, polars and Arrow. Every method raises a ValueError for a sentence with a
    number of words that its tower does not take, and warns about sentences without a single known word.

    Args:
        network: the towers; a copy is used.
        vectors: the vectors of words.
        split: "rule" or "spaces", how a string becomes words.
        fit_length: "pad-or-cut" for towers of a fixed number of words; None refuses other sentences.
        label_range: what the probabilities 0 and 1 mean; scores are in this range.

    Raises:
        ValueError: the vectors have another width than the towers take.
    """

    def __init__(
        self,
        network: TwoTowers,
        vectors: Vectors,
        *,
        split: Literal["rule", "spaces"] = "rule",
        fit_length: Literal["pad-or-cut"] | None = None,
        label_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self._predictor = Predictor(network, vectors)
        self.network = self._predictor.model
        self.split, self.fit_length, self.label_range = split, fit_length, label_range

    @overload
    def score(self, left: str, right: str) -> float: ...
    @overload
    def score(self, left: Iterable[tuple[Text, Text]]) -> Tensor: ...
    def score(self, left: str | Iterable[tuple[Text, Text]], right: str | None = None) -> float | Tensor:
        """The score of a pair as a float, or of many pairs as a tensor (pairs), float32 on the CPU.

        Raises:
            ValueError: a sentence has a number of words that its tower does not take.
        """
        if isinstance(left, str):
            if right is None:
                raise ValueError("right is missing: score takes two sentences, or pairs of sentences")
            return float(self._scores([(left, right)])[0])
        return self._scores(list(left))

    def _scores(self, pairs: list[tuple[Text, Text]]) -> Tensor:
        lefts = self._divide([left for left, _ in pairs], "left")
        rights = self._divide([right for _, right in pairs], "right")
        return self._in_range(self._predictor(SentencePairs(lefts, rights)))

    def encode(self, sentences: Iterable[Text], *, side: Side = "left") -> Tensor:
        """The states of sentences (sentences, hidden), float32 on the CPU.

        Raises:
            ValueError: `side` is neither "left" nor "right", or its tower does not take a sentence.
        """
        if side not in ("left", "right"):
            raise ValueError(f'side ({side!r}) must be "left" or "right"')
        return self._predictor.encode(self._divide(sentences, side), side)

    def similarity(self, left: Iterable[Text] | Tensor, right: Iterable[Text] | Tensor) -> Tensor:
        """The scores of every left with every right sentence (left, right), float32 on the CPU.

        States from `encode` will do in place of sentences. The memory beside the result is bounded.

        Raises:
            ValueError: a tower does not take a sentence.
        """
        lefts, rights = self._states(left, "left"), self._states(right, "right")
        rows = max(1, BLOCK // max(1, len(rights) * self.network.dense.out_features))
        with torch.inference_mode():
            parts = [
                self.network.compare(part[:, None], rights[None]).float().sigmoid().cpu() for part in lefts.split(rows)
            ]
        return self._in_range(torch.cat(parts) if parts else torch.empty(0, len(rights)))

    def most_similar(
        self, query: str | Iterable[Text], sentences: Iterable[Text] | Tensor, k: int = 10
    ) -> tuple[Tensor, Tensor]:
        """The scores and the positions of the k sentences with the highest scores, best first, for a query or several.

        The query is read by the left tower, the sentences by the right one; they may be states of `encode`. For one
        query, a string, both results have one axis (k), otherwise two (queries, k). A k beyond the number of sentences
        gives all of them.

        Raises:
            ValueError: k is less than 1, or a tower does not take a sentence.
        """
        if k < 1:
            raise ValueError(f"k ({k}) must be at least 1")
        scores = self.similarity([query] if isinstance(query, str) else query, sentences)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
        best = scores.gather(1, order)
        return (best[0], order[0]) if isinstance(query, str) else (best, order)

    def _in_range(self, probabilities: Tensor) -> Tensor:
        low, high = self.label_range
        return low + (high - low) * probabilities

    def _states(self, sentences: Iterable[Text] | Tensor, side: Side) -> Tensor:
        states = sentences if isinstance(sentences, Tensor) else self.encode(sentences, side=side)
        return states.to(self.network.dense.weight)

    def _divide(self, sentences: Iterable[Text], side: Side) -> list[tuple[str, ...]]:
        """The words of each sentence, padded or cut where the model's training did so."""
        if isinstance(sentences, str):
            raise ValueError(f"{side} sentences must be a list of sentences, not one string: [{sentences[:40]!r}]")
        tower: Tower = getattr(self.network, side)
        divide, divided = SPLITTERS[self.split], list[tuple[str, ...]]()
        for place, sentence in enumerate(sentences):
            words = tuple(divide(sentence)) if isinstance(sentence, str) else tuple(sentence)
            if words and tower.words is not None and self.fit_length is not None:
                words = (*words[: tower.words], *[""] * (tower.words - len(words)))
            least, most = (tower.kernel_words, None) if tower.words is None else (tower.words, tower.words)
            if len(words) < max(least, 1) or (most is not None and len(words) > most):
                takes = f"at least {least}" if most is None else f"exactly {most}"
                has = "1 word" if len(words) == 1 else f"{len(words)} words"
                raise ValueError(f"{side} sentence {place} ({sentence!r:.60}) has {has}; its tower takes {takes}")
            divided.append(words)
        self._warn_of_unknown(divided, side)
        return divided

    def _warn_of_unknown(self, sentences: list[tuple[str, ...]], side: Side) -> None:
        known = self._predictor.vectors.select({word for sentence in sentences for word in sentence})
        unknown = [place for place, words in enumerate(sentences) if not any(map(known.has, words))]
        if unknown:
            first = f"the first is sentence {unknown[0]}, {' '.join(sentences[unknown[0]])[:60]!r}"
            problem = f"{len(unknown)} {side} sentences have no word with a vector ({first})"
            warnings.warn(f"{problem}; their scores mean nothing", stacklevel=4)
