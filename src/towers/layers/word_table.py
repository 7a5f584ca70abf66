"""WordTable: the vectors of words that came so far, and their products with weights, each word multiplied once."""

import operator
from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from towers.layers.cache import can_keep

_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers by their size in bytes."""


class _Rows:
    """Room for rows, of which the first are there."""

    def __init__(self, like: Tensor, limit: int) -> None:
        with torch.inference_mode(False):  # a tensor of inference mode cannot be used outside of it
            self.room = torch.empty(limit, *like.shape[1:], dtype=like.dtype, device="cpu")
        self.there = self.room[:0]

    def add(self, rows: Tensor) -> None:
        first, end = len(self.there), len(self.there) + len(rows)
        with torch.inference_mode(False), torch.no_grad():
            self.room[first:end].copy_(rows)
            self.there = self.room[:end]


class _Values:
    """What a dense tensor holds, in two numbers, to find a change through `.data`, which torch does not count.

    One is the sum of its bits, read as whole numbers of 8 bytes modulo 2**64: a change of one value changes it. The
    other is a sample with a value of each row, and of each column of a tall matrix: it finds rows that changed places,
    and signs. For the weights of `similarity` they take 40 microseconds, where a comparison of all takes 100.
    """

    def __init__(self, tensor: Tensor) -> None:
        flat = tensor.detach().flatten()
        whole = 8 if (flat.nbytes | flat.data_ptr()) % 8 == 0 else flat.element_size()
        self.bits = flat.view(_WHOLE[whole])
        self.sample = flat[:: tensor.shape[-1] + 1 if tensor.dim() > 1 else 1]
        self.sum, self.copy = self.bits.sum().item(), self.sample.clone()

    def hold(self) -> bool:
        """Whether the tensor holds what it held."""
        return torch.equal(self.sample, self.copy) and self.bits.sum().item() == self.sum


class _Product:
    """What is made of the rows of a table, and the weights at the moment before."""

    def __init__(self, weights: Sequence[Tensor], how: Hashable, private: bool) -> None:
        self.how, self.weights = how, weights
        self.states = [(weight.data_ptr(), weight._version) for weight in weights]
        self.values = None if private else [_Values(weight) for weight in weights]
        self.rows: _Rows | None = None

    def holds(self, weights: Sequence[Tensor], how: Hashable, private: bool) -> bool:
        """Whether these are the same weights, unchanged."""
        return (
            how == self.how
            and len(weights) == len(self.weights)
            and all(map(operator.is_, weights, self.weights))
            and [(weight.data_ptr(), weight._version) for weight in weights] == self.states
            and (private or (self.values is not None and all(values.hold() for values in self.values)))
        )

    def of(self, vectors: Tensor, make: Callable[[Tensor], Tensor], limit: int) -> Tensor:
        """The product of each vector; of those that came before, the one that was made then."""
        if self.rows is None:
            made = make(vectors)
            self.rows = _Rows(made, limit)
            self.rows.add(made)
        elif len(self.rows.there) < len(vectors):
            self.rows.add(make(vectors[len(self.rows.there) :]))
        return self.rows.there


class WordTable:
    """A table of word vectors to which rows are added; rows that are there never change.

    What `add` returns is the table of a Ragged of word ids. Layers that multiply words ask for `product`, in plain
    eager code without gradients: there each word is multiplied by a layer's weights once, until these change. For all
    other code it is a tensor as any. The products are kept as long as the WordTable is. Several threads may use one.

    Args:
        limit: the number of rows for which there is room.
        like: a tensor of the width and dtype of the rows, "… width".
        private: no other code can change weights meanwhile, so that changes through `.data`, which torch does not
            count, need not be looked for at each call. That takes 40 microseconds, and a fifth of the time of a typed
            pair, since it moves all weights through the cache. It may be set at any time.
    """

    def __init__(self, limit: int, like: Tensor, *, private: bool = False) -> None:
        self.limit, self.private = limit, private
        self._rows = _Rows(like, limit)
        self._products: WeakKeyDictionary[nn.Module, _Product] = WeakKeyDictionary()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._rows.there)

    def add(self, rows: Tensor) -> Tensor:
        """Add rows at the end, and return all of them, "words width".

        Raises:
            ValueError: there is no room for them.
        """
        with self._lock:
            if len(self) + len(rows) > self.limit:
                raise ValueError(f"there is room for {self.limit} rows; {len(self)} are there, {len(rows)} more came")
            self._rows.add(rows)
            table: Any = self._rows.there
            table.word_table = ref(self)  # a circle would keep tensors until Python looks for circles
            return table

    @staticmethod
    def of(table: Tensor) -> "WordTable | None":
        """The WordTable that a Ragged's table belongs to, if it is still there."""
        found = table.__dict__.get("word_table")
        return found and found()

    def product(
        self, owner: nn.Module, make: Callable[[Tensor], Tensor], weights: Sequence[Tensor], how: Hashable = None
    ) -> Tensor | None:
        """What `make` gives for each row, "words …"; of rows that came before, what it gave then.

        Args:
            owner: the layer, which has one product.
            make: gives a row of the result for each row, whatever stands beside it.
            weights: what the result depends on beside the rows: when one has changed, all is made again.
            how: the same of other values.

        Returns:
            None where it cannot be kept: gradients are wanted, torch does not count the changes of a weight, or one is
            not dense.
        """
        if not can_keep(*weights) or not all(weight.is_contiguous() for weight in weights):
            return None
        with self._lock:
            found = self._products.get(owner)
            if found is None or not found.holds(weights, how, self.private):
                found = self._products[owner] = _Product(weights, how, self.private)
            return found.of(self._rows.there, make, self.limit)
