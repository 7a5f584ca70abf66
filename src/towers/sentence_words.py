"""Sentences as the words that a model reads: strings divided, lengths that a tower does not take refused."""

import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, cast

from towers.data import WordVectors
from towers.data.columns import SPLITTERS, Split, is_written_list
from towers.data.memory_rows import as_list, is_table
from towers.data.vectors import BLANK
from towers.model import Tower, TwoTowers
from towers.training.prediction import Vectors

Side = Literal["left", "right"]
Text = str | Sequence[str]
"""A sentence: a string, which is divided as in the model's training, or its words."""
Words = tuple[str, ...]


class Unfit(ValueError):
    """A sentence has a number of words that its tower does not take; `place` counts sentences from 0."""

    def __init__(self, problem: str, place: int) -> None:
        super().__init__(problem)
        self.place = place


class SentenceWords(NamedTuple):
    """Makes words of sentences, as the model's training did.

    Attributes:
        network: its towers say which lengths they take.
        vectors: of words; a sentence without a single known word is warned about.
        split: "rule" or "spaces", how a string becomes words.
        fit_length: "pad-or-cut" for towers of a fixed number of words; None refuses other sentences.
    """

    network: TwoTowers
    vectors: Vectors
    split: Split
    fit_length: Literal["pad-or-cut"] | None

    def divide(self, sentences: Iterable[Text], side: Side) -> list[Words]:
        """The words of each sentence, padded or cut where the model's training did so."""
        if isinstance(sentences, str):
            raise ValueError(f"{side} sentences must be a list of sentences, not one string: [{sentences[:40]!r}]")
        if is_table(sentences):
            raise ValueError(f"{side} sentences must be one column, not a whole {type(sentences).__name__}")
        tower = self._tower(side)
        least, most = (tower.kernel_words, sys.maxsize) if tower.words is None else (tower.words, tower.words)
        fitted = tower.words if self.fit_length is not None else None
        divide, divided = SPLITTERS[self.split], list[Words]()
        for place, sentence in enumerate(as_list(sentences)):
            if isinstance(sentence, str) and is_written_list(sentence):
                problem = f"{side} sentence {place} ({sentence!r:.60}) is a list that was written as text"
                raise ValueError(f"{problem}; give lists of words, or text")
            words = tuple(divide(sentence)) if isinstance(sentence, str) else _checked(sentence, side, place)
            if not _is_text("".join(words)):
                raise ValueError(f"{side} sentence {place} ({sentence!r:.60}) has a NUL, or half a character")
            if words and fitted is not None:
                words = (*words[:fitted], *[BLANK] * (fitted - len(words)))
            if not max(least, 1) <= len(words) <= most:
                takes = f"at least {least}" if tower.words is None else f"exactly {least}"
                has = "1 word" if len(words) == 1 else f"{len(words)} words"
                problem = f"{side} sentence {place} ({sentence!r:.60}) has {has}; its tower takes {takes}"
                if tower.words is not None:
                    problem += f". A model trained with --{side}-words any, or --fit-length pad-or-cut, takes others"
                raise Unfit(problem, place)
            divided.append(words)
        self._warn_of_unknown(divided, side)
        return divided

    def without(self, words: Words, place: int, side: Side) -> Words:
        """A sentence without one of its words; where the tower would not take that, with a blank word in its place."""
        tower = self._tower(side)
        fixed = tower.words is not None or len(words) <= tower.kernel_words
        return (*words[:place], *([BLANK] if fixed else []), *words[place + 1 :])

    def _tower(self, side: Side) -> Tower:
        return self.network.left if side == "left" else self.network.right

    def _warn_of_unknown(self, sentences: list[Words], side: Side) -> None:
        words = {word for sentence in sentences for word in sentence}
        has = (self.vectors if isinstance(self.vectors, WordVectors) else self.vectors.select(words)).has
        known = {word for word in words if has(word)}
        if len(known) == len(words):
            return
        unknown = [place for place, sentence in enumerate(sentences) if known.isdisjoint(sentence)]
        if unknown:
            first = f"the first is sentence {unknown[0]}, {' '.join(sentences[unknown[0]])[:60]!r}"
            have = f"1 {side} sentence has" if len(unknown) == 1 else f"{len(unknown)} {side} sentences have"
            problem = f"{have} no word with a vector ({first}); such scores mean nothing"
            warnings.warn(problem, stacklevel=_depth_of_caller())


def _is_text(text: str) -> bool:
    """Whether a text has no NUL and no half of a character."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text))


def _checked(sentence: Any, side: Side, place: int) -> Words:
    """A sentence that was given as its words."""
    if not isinstance(sentence, list | tuple) or not all(isinstance(word, str) for word in cast(list[Any], sentence)):
        raise ValueError(f"{side} sentence {place} is {sentence!r:.60}; expected a string, or a list of words")
    return tuple(cast(list[str], sentence))


def _depth_of_caller() -> int:
    """The `stacklevel` of the code outside of towers, and of the checks of its contracts, that called it."""
    frame, depth = sys._getframe(1), 1  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and (
        str(frame.f_globals.get("__name__")).startswith("towers.")
        or frame.f_code.co_filename.startswith("<contract of towers.")
    ):
        frame, depth = frame.f_back, depth + 1
    return depth
