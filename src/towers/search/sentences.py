"""What an index asks of a loaded model: the states of sentences, and scores in its own range."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from towers.model import TwoTowers
from towers.search.head import Side

if TYPE_CHECKING:
    Sentences = Iterable[Any]
else:

    class _NoTensor(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, Iterable) and not isinstance(value, Tensor)

    class Sentences(metaclass=_NoTensor):
        """Sentences: strings, or lists of words; `encode` looks at them. A tensor of states can be iterated over too,
        and is none."""


class SentenceModel(Protocol):
    """What `towers.load` gives."""

    @property
    def network(self) -> TwoTowers:
        """The towers."""
        ...

    @property
    def vectors_digest(self) -> str | None:
        """Tells its word vectors from others."""
        ...

    def encode(self, sentences: Sentences, *, side: Side = "left", progress: bool | None = None) -> Tensor:
        """The states of sentences, "sentences hidden"."""
        ...

    def output_of(self, class_name: str | None) -> int | None:
        """The number of the class whose probability is the score; None for a model without classes."""
        ...

    def scores_of(self, ranked: Tensor) -> Tensor:
        """The model's scores of what an index of its network gives."""
        ...

    def ranked_of(self, score: float) -> float:
        """A number below which nothing that an index of its network gives has this score, or a higher one."""
        ...


def network_of(model: TwoTowers | SentenceModel) -> TwoTowers:
    """The network of a loaded model; a network itself.

    Raises:
        ValueError: it is neither.
    """
    network: object = model if isinstance(model, TwoTowers) else getattr(model, "network", None)
    if not isinstance(network, TwoTowers):
        raise ValueError(f"Index: model is {type(model).__name__}; expected a TwoTowers, or what towers.load gives")
    return network


def scores_of(model: SentenceModel, ranked: Tensor) -> Tensor:
    """The model's scores of what an index finds, computed in float64 and rounded once.

    In float32 the last bit of torch's sigmoid depends on where a number lies in its tensor, so on blocks and shards.
    """
    return model.scores_of(ranked.double()).to(ranked.dtype)


VECTORS = "vectors"
"""The name, in what an index of sentences says about itself, of the digest of the word vectors."""


def check_vectors(about: Mapping[str, str], model: SentenceModel, path: object) -> None:
    """Refuse an index whose sentences were encoded with other word vectors. Where one is not known, nothing is said.

    Raises:
        ValueError: it was.
    """
    before, now = about.get(VECTORS), model.vectors_digest
    if before is not None and now is not None and before != now:
        raise ValueError(f"{path}: its sentences were encoded with other word vectors; make it again with this model")
