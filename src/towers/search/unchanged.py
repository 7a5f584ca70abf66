"""Whether a model still has the weights that an index was made with."""

from towers.model import TwoTowers
from towers.search.head import fingerprint


class Unchanged:
    """The weights of a model at one moment. Later calls ask whether they are the same.

    Torch counts the changes of every tensor. Only where a count, or the place in memory, is another one, the weights
    themselves are looked at.
    """

    def __init__(self, model: TwoTowers) -> None:
        self._model, self.fingerprint = model, fingerprint(model)
        self._look()

    def _look(self) -> None:
        """Note what the model is made of now."""
        parts = list(self._model.modules())
        kept = [kind for part in parts for kind in (part._parameters, part._buffers)]  # pyright: ignore[reportPrivateUsage]
        self._kept, self._parts = [kind for kind in kept if kind], [part._modules for part in parts if part._modules]  # pyright: ignore[reportPrivateUsage]
        self._states, self._modules = self._now(), self._modules_now()

    def _now(self) -> list[tuple[int, int]]:
        tensors = [tensor for kind in self._kept for tensor in kind.values() if tensor is not None]
        return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]

    def _modules_now(self) -> list[object]:
        return [part for kind in self._parts for part in kind.values()]

    def check(self, call: str) -> None:
        """Refuse other weights.

        Raises:
            ValueError: the model has been trained, or changed in another way.
        """
        if self._now() == self._states and self._modules_now() == self._modules:
            return
        if fingerprint(self._model) != self.fingerprint:
            problem = "the weights of the model have changed since the index was made"
            raise ValueError(f"Index.{call}: {problem}; make a new index, and encode its items again")
        self._look()
