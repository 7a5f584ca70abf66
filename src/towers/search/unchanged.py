"""Whether a model still has the weights that an index was made with."""

from towers.model import TwoTowers
from towers.search.head import fingerprint


class Unchanged:
    """The weights of a model at one moment. Later calls ask whether they are the same.

    Torch counts the changes of every tensor. Only where a count, or the place in memory, is another one, the weights
    themselves are looked at.
    """

    def __init__(self, model: TwoTowers) -> None:
        kept = [kind for part in model.modules() for kind in (part._parameters, part._buffers)]  # pyright: ignore[reportPrivateUsage]
        self._model, self._kept = model, [kind for kind in kept if kind]
        self.fingerprint, self._states = fingerprint(model), self._now()

    def _now(self) -> list[tuple[int, int]]:
        tensors = [tensor for kind in self._kept for tensor in kind.values() if tensor is not None]
        return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]

    def check(self, call: str) -> None:
        """Refuse other weights.

        Raises:
            ValueError: the model has been trained, or changed in another way.
        """
        now = self._now()
        if now == self._states:
            return
        if fingerprint(self._model) != self.fingerprint:
            problem = "the weights of the model have changed since the index was made"
            raise ValueError(f"Index.{call}: {problem}; make a new index, and encode its items again")
        self._states = now
