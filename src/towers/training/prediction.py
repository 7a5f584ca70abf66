"""Prediction of any number of pairs, some at a time: each distinct sentence among them is encoded once."""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import chain
from threading import Lock
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from towers.data import Coverage, SentencePairs, WordVectors
from towers.data.batches import cut, reorder
from towers.data.distinct_words import DistinctWords
from towers.data.pairs import Sentence, look_up
from towers.data.vectors import BLANK
from towers.freed_memory import give_memory_back
from towers.model import TwoTowers
from towers.ragged import Ragged
from towers.training.fitting import MEASURING_BATCH
from towers.training.met_words import MetWords, Vectors
from towers.training.objectives import objective_of
from towers.training.options import Precision, check_arguments

TOKENS = 1 << 14
"""The most words in a batch: a batch of long sentences has fewer sentences, but at least one."""
REMEMBERED = 10_000
"""The number of missing words that are counted one by one; the most frequent ones are kept."""


@dataclass
class _Asked:
    """How many threads ask a network, and which of its modules were in training before the first of them."""

    count: int = 0
    training: list[torch.nn.Module] = field(default_factory=list[torch.nn.Module])


_asking = Lock()
_asked: WeakKeyDictionary[torch.nn.Module, _Asked] = WeakKeyDictionary()


@contextmanager
def answering(network: torch.nn.Module, device_type: str, *, mixed: bool = False) -> Generator[None]:
    """Without dropout, and in the dtype of the weights unless `mixed`, whatever the caller has set.

    A network that was in training mode is in it again when the last thread that asks it has its answers. torch.autocast
    and torch's default device are off inside, and as they were after it.
    """
    with _asking:
        asked = _asked.setdefault(network, _Asked())
        asked.count += 1
        if network.training:
            asked.training += [module for module in network.modules() if module.training]
            network.eval()
    with ExitStack() as stack:
        if mixed or torch.is_autocast_enabled(device_type):
            stack.enter_context(torch.autocast(device_type, torch.bfloat16, enabled=mixed))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        try:
            yield
        finally:
            with _asking:
                asked.count -= 1
                while asked.count == 0 and asked.training:
                    asked.training.pop().training = True


class Predictor:
    """A model with the vectors of its words: a call gives the probabilities of some pairs, in their order.

    Its memory does not grow with the number of calls. The pairs of a call are encoded in batches of similar length.

        with VectorStore("glove.840B.300d.txt") as vectors:
            predictor = Predictor(TwoTowers.load("my-run"), vectors)
            for pairs in SentencePairs.stream("pairs.tsv"):
                print(predictor(pairs))

    Args:
        model: the model; a copy of it is used, so that later changes have no effect.
        vectors: a table of word vectors, or a file of them.
        batch_size: sentences that a tower reads at a time.
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:1", …
        precision: as for `fit`.
        classes: the names of the classes, where the model answers with their probabilities.

    Raises:
        ValueError: the vectors have another width than the model's, the model has another number of outputs than there
            are classes, or an argument is out of range.
    """

    def __init__(
        self,
        model: TwoTowers,
        vectors: Vectors,
        *,
        batch_size: int = MEASURING_BATCH,
        device: str | torch.device = "auto",
        precision: Precision = "32-true",
        classes: Sequence[str] | None = None,
    ) -> None:
        self.objective = objective_of(model, classes, named="classes")
        self.place = check_arguments(batch_size=batch_size, device=device, precision=precision)
        check_width(model, vectors)
        dtype = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision)
        self.model = deepcopy(model).eval().to(device=self.place, dtype=dtype)
        self.vectors, self.batch_size, self.mixed = vectors, batch_size, precision == "bf16-mixed"
        self._met = MetWords(vectors, self.model.head_weight)
        self.private = False
        """Whether no other code has `model`: then `one` need not compare all weights with those of the call before."""
        self.pairs = 0
        self.unknown = 0
        """Pairs and encoded sentences so far with a sentence of which no word has a vector."""
        self.first_unknown: int | None = None
        """The line of the first of them."""
        self._tokens = self._tokens_found = 0
        self._distinct = DistinctWords()
        self._missing: Counter[str] = Counter()

    @torch.inference_mode()
    def __call__(self, pairs: SentencePairs) -> Tensor:
        """Probabilities (pairs) as float32 on the CPU; of bins the mean degree, of classes (pairs, classes).

        Raises:
            ShapeContractError: a sentence has a number of words that its tower does not take.
        """
        if not len(pairs):
            return torch.empty((0, self.model.outputs) if self.objective.kind == "classes" else 0)
        counts = Counter(chain.from_iterable(chain(pairs.left, pairs.right)))
        with answering(self.model, self.place.type, mixed=self.mixed):
            vectors = self.vectors.select(counts)
            left, right = self._states(pairs, vectors)
            answers = self.objective.answer(self.model.compare(left, right).float()).cpu()
        self.pairs += len(pairs)
        unknown = {word for word in counts if not vectors.has(word)}
        self._count(counts, unknown)
        self._note_unknown(pairs, unknown)
        if len(pairs) >= self.batch_size:  # for a single pair it would take longer than the pair
            give_memory_back()
        return answers

    @torch.inference_mode()
    def one(self, left: Sentence, right: Sentence) -> Tensor:
        """The probability of one pair, the words `left` and `right`, without what is only worth its time for many.

        What that gains: row "one pair" of `python benchmarks/run.py quick-paths`.
        """
        model, words = self.model, (*left, *right)
        if self.place.type != "cpu" or self.mixed or self._met.dtype != model.head_weight.dtype:
            return self(SentencePairs([left], [right]))
        with answering(model, "cpu"):
            ids, table, unknown = self._met.look_up(words, private=self.private)
            ends = torch.tensor([0, len(left), len(words)])
            both = Ragged.unchecked(ids, ends, table=table)
            if model.left is model.right and model.has_other_parts:  # both sentences in one call of each part
                states = model.encode_left(both)
                logit = model.compare(states[:1], states[1:])
            else:
                logit = model(both.sentences(0, 1), both.sentences(1, 2))
            answer = self.objective.answer(logit.float())
        self.pairs += 1
        self.unknown += unknown.issuperset(left) or unknown.issuperset(right)
        self._count(Counter(words), unknown)
        return answer

    @torch.inference_mode()
    def encode(self, sentences: Sequence[Sentence], side: Literal["left", "right"]) -> Tensor:
        """The states of sentences (sentences, hidden) as float32 on the CPU, by the tower of that side.

        Raises:
            ShapeContractError: a sentence has a number of words that the tower does not take.
        """
        if not sentences:
            return torch.empty(0, self.model.hidden)
        counts = Counter(chain.from_iterable(sentences))
        encode = self.model.encode_left if side == "left" else self.model.encode_right
        with answering(self.model, self.place.type, mixed=self.mixed):
            vectors = self.vectors.select(counts)
            states = self._encode(encode, sentences, vectors)
        unknown = {word for word in counts if not vectors.has(word)}
        self.unknown += sum(map(unknown.issuperset, sentences)) if unknown else 0
        self._count(counts, unknown)
        return states.float().cpu()

    def _states(self, pairs: SentencePairs, vectors: WordVectors) -> tuple[Tensor, Tensor]:
        """The states of the left and the right sentence of each pair."""
        model = self.model
        if model.left is model.right:
            both = self._encode(model.encode_left, [*pairs.left, *pairs.right], vectors)
            return both[: len(pairs)], both[len(pairs) :]
        left = self._encode(model.encode_left, pairs.left, vectors)
        return left, self._encode(model.encode_right, pairs.right, vectors)

    def _encode(
        self, encode: Callable[[Ragged], Tensor], sentences: Sequence[Sentence], vectors: WordVectors
    ) -> Tensor:
        """The state of each sentence; equal sentences are encoded once."""
        places: dict[Sentence, int] = {}
        place_of = torch.tensor([places.setdefault(sentence, len(places)) for sentence in sentences])
        ids = look_up(list(places), vectors)
        order = ids.lengths.argsort(stable=True)
        ids = reorder(ids, order)
        sizes = list(self._sizes(ids.lengths))
        table = vectors.table.to(self.model.dense.weight)
        states = torch.cat([encode(batch) for batch in cut(ids.to(self.place), table, sizes)])
        return states[order.argsort()[place_of].to(states.device)]

    def _sizes(self, lengths: Tensor) -> Iterator[int]:
        """The number of sentences of each batch, given the sorted lengths."""
        start = 0
        rising: list[int] = lengths.tolist()
        while start < len(rising):
            size = min(self.batch_size, len(rising) - start)
            while size > 1 and size * rising[start + size - 1] > TOKENS:
                size = (size + 1) // 2
            yield size
            start += size

    def _count(self, counts: Counter[str], unknown: set[str]) -> None:
        del counts[BLANK]
        missing = {word: count for word, count in counts.items() if word in unknown}
        total = counts.total()
        self._tokens += total
        self._tokens_found += total - sum(missing.values())
        self._distinct.add(counts, missing)
        if missing:
            self._missing.update(missing)
        if len(self._missing) > 2 * REMEMBERED:
            self._missing = Counter(dict(self._missing.most_common(REMEMBERED)))

    def _note_unknown(self, pairs: SentencePairs, unknown: set[str]) -> None:
        if not unknown:
            return
        for left, right, line in zip(pairs.left, pairs.right, pairs.lines, strict=True):
            if unknown.issuperset(left) or unknown.issuperset(right):
                self.unknown += 1
                self.first_unknown = line if self.first_unknown is None else self.first_unknown

    @property
    def coverage(self) -> Coverage:
        """How many words of all pairs so far have a vector; the number of different ones as by `DistinctWords`."""
        distinct = self._distinct
        return Coverage(self._tokens, self._tokens_found, distinct.types, distinct.types_found, self._missing)


def check_width(model: TwoTowers, vectors: Vectors) -> None:
    """Check that both towers take vectors of this width.

    Raises:
        ValueError: one does not.
    """
    for tower in (model.left, model.right):
        if vectors.width != tower.vector_width:
            wanted = f"the model takes {tower.vector_width}: use the vectors of its training"
            raise ValueError(f"{vectors.source} has {vectors.width} numbers a word; {wanted}")
