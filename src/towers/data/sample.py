"""The built-in sample: sentences, statements of five words, and whether the statement is true of the sentence.

A sentence tells what a person did to an animal, or an animal to a person. The statement repeats it, perhaps in other
words of the same meaning. It is false because the two have changed places, or now and then because something else was
done. So the words alone say next to nothing; their order does, and the sentence may be in the passive.

    yesterday a clever rooster followed the doctor near the river | the cockerel chased a physician | true
    the farmer was noticed by a lonely dog                        | the peasant spotted the hound   | false
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Literal, NamedTuple, TypeVar

import torch

from towers.data.pairs import Sentence, SentencePairs
from towers.data.vectors import WordVectors, hashed

WIDTH = 300
SCALE = 0.4  # the root mean square of the vectors' numbers, about that of GloVe
PASSIVE = 0.12  # the share of sentences in the passive
OTHER_DEED = 16  # one false statement in this number is false because of the deed

PEOPLE = (
    ("boy", "lad"),
    ("girl", "lass"),
    ("man", "guy"),
    ("woman", "lady"),
    ("child", "kid"),
    ("farmer", "peasant"),
    ("doctor", "physician"),
    ("teacher", "tutor"),
)
ANIMALS = (
    ("dog", "hound"),
    ("cat", "kitten"),
    ("horse", "pony"),
    ("rabbit", "bunny"),
    ("donkey", "mule"),
    ("rooster", "cockerel"),
    ("goat", "ram"),
    ("pig", "hog"),
)
DEEDS = (("chased", "followed", "pursued", "hunted"), ("noticed", "spotted", "watched", "observed"))
MANNERS = ("young", "little", "big", "happy", "tired", "hungry", "quiet", "friendly", "clever", "brown", "lonely")
ARTICLES = ("the", "a")
OPENINGS = (
    "",
    "",
    "yesterday",
    "last night",
    "in the morning",
    "they say that",
    "after the long rain",
    "one day in the village",
    "as we all know by now",
)
ENDINGS = (
    "",
    "",
    "outside",
    "near the river",
    "in the garden",
    "behind the old house",
    "before it was dark",
    "on the way to town",
)
# Words of one concept mean the same, concepts of one topic are related.
TOPICS: Mapping[str, Sequence[Sequence[str]]] = {
    "people": PEOPLE,
    "animals": ANIMALS,
    "deeds": DEEDS,
    "manners": [(manner,) for manner in MANNERS],
}


T = TypeVar("T")


class Event(NamedTuple):
    """Who did what to whom; each a concept, that is, words to choose from."""

    doer: Sequence[str]
    deed: Sequence[str]
    other: Sequence[str]


def sample_pairs(count: int = 2500, *, seed: int = 0) -> SentencePairs:
    """Make `count` pairs, every second of them true, bound to vectors in which words of like meaning are near.

    Left sentences have 5 to 20 words, and none comes twice. The vectors depend on neither `count` nor `seed`, and a
    larger `count` only adds pairs.

    Raises:
        ValueError: `count` is negative.

    >>> from towers.data import sample_pairs
    >>> pairs = sample_pairs(2)
    >>> len(pairs), pairs.labels
    (2, tensor([0., 1.]))
    """
    if count < 0:
        raise ValueError(f"count ({count}) must not be negative")
    chance = Chance(seed)
    pairs: dict[Sentence, Sentence] = {}
    while len(pairs) < count:
        event = chance.event()
        told = chance.sentence(event)
        if told not in pairs:
            pairs[told] = chance.statement(event if len(pairs) % 2 else falsify(event, len(pairs) // 2))
    labels = [number % 2 for number in range(count)]
    return SentencePairs(list(pairs), list(pairs.values()), labels, source="sample").with_vectors(sample_vectors())


def falsify(event: Event, number: int) -> Event:
    """What did not happen: the other way round, or for one number in sixteen another deed."""
    if number % OTHER_DEED:
        return Event(event.other, event.deed, event.doer)
    return event._replace(deed=DEEDS[1 - DEEDS.index(tuple(event.deed))])


class Chance:
    """Everything that is drawn; by `Random.random` alone, the one method that Python promises never to change."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed).random

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return choices[int(self.random() * len(choices))]

    def event(self) -> Event:
        """A person did something to an animal, or an animal to a person."""
        person, animal, deed = self.pick(PEOPLE), self.pick(ANIMALS), self.pick(DEEDS)
        return Event(person, deed, animal) if self.random() < 0.5 else Event(animal, deed, person)

    def sentence(self, event: Event) -> Sentence:
        """The event told in any number of words, in the active or the passive."""
        opening, ending = self.pick(OPENINGS).split(), self.pick(ENDINGS).split()
        doer, deed, other = self.someone(event.doer), self.pick(event.deed), self.someone(event.other)
        told = [*other, "was", deed, "by", *doer] if self.random() < PASSIVE else [*doer, deed, *other]
        return (*opening, *told, *ending)

    def someone(self, concept: Sequence[str]) -> list[str]:
        """A person or an animal, with an article and perhaps an adjective."""
        manner = [self.pick(MANNERS)] if self.random() < 0.5 else []
        return [self.pick(ARTICLES), *manner, self.pick(concept)]

    def statement(self, event: Event) -> Sentence:
        """The event in five words."""
        doer, deed, other = (self.pick(concept) for concept in event)
        return (self.pick(ARTICLES), doer, deed, self.pick(ARTICLES), other)


def sample_vectors(missing: Literal["hash", "zero"] = "hash") -> WordVectors:
    """A vector for every word of the sample: what its topic, its concept and it alone contribute, each hashed."""
    table: dict[str, torch.Tensor] = {}
    for topic, concepts in TOPICS.items():
        for concept in concepts:
            shared = 0.8 * hashed(f"topic {topic}", WIDTH) + 0.45 * hashed(f"concept {concept[0]}", WIDTH)
            table.update({word: shared + 0.4 * hashed(word, WIDTH) for word in concept})
    for word in " ".join([*ARTICLES, *OPENINGS, *ENDINGS, "was by"]).split():
        table.setdefault(word, hashed(word, WIDTH))
    return WordVectors(list(table), SCALE * torch.stack(list(table.values())), missing=missing, source="sample")
