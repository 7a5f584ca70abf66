"""WordTable: the vectors of words that came so far, and their products with weights, each word multiplied once."""

import operator
from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from towers.layers.cache import can_keep

_SAMPLED = 64
"""Numbers of each weight that are compared too: this finds a change through `.data`, which torch does not count."""


class _Rows:
    """Room for rows, of which the first are there."""

    def __init__(self, like: Tensor, limit: int) -> None:
        with torch.inference_mode(False):  # a tensor of inference mode cannot be used outside of it
            self.room = torch.empty(limit, *like.shape[1:], dtype=like.dtype, device="cpu")
        self.there = self.room[:0]

    def add(self, rows: Tensor) -> None:
        first, end = len(self.there), len(self.there) + len(rows)
        if len(rows) == len(self.room):  # all at once: they are not copied
            self.room = self.there = rows
            return
        with torch.inference_mode(False), torch.no_grad():
            self.room[first:end].copy_(rows)
            self.there = self.room[:end]


class _Product:
    """What `make` gave for the rows of a table, and the weights at that moment."""

    def __init__(self, made: Tensor, limit: int, weights: Sequence[Tensor], how: Hashable) -> None:
        self.rows = _Rows(made, limit)
        self.rows.add(made)
        self.how, self.weights = how, weights
        self.states = [(weight.data_ptr(), weight._version) for weight in weights]
        flat = [weight.detach().flatten() for weight in weights]
        self.samples = [one[:: max(1, len(one) // _SAMPLED)] for one in flat]
        self.copies = [one.clone() for one in self.samples]

    def holds(self, weights: Sequence[Tensor], how: Hashable) -> bool:
        """Whether these are the same weights, unchanged."""
        return (
            how == self.how
            and len(weights) == len(self.weights)
            and all(map(operator.is_, weights, self.weights))
            and [(weight.data_ptr(), weight._version) for weight in weights] == self.states
            and all(map(torch.equal, self.samples, self.copies))
        )


class WordTable:
    """A table of word vectors to which rows are added; rows that are there never change.

    What `add` returns is the table of a Ragged of word ids. Layers that multiply words ask for `product`, in plain
    eager code without gradients: there each word is multiplied by a layer's weights once, until these change. For all
    other code it is a tensor as any. The products are kept as long as the WordTable is. Several threads may use one.

    Args:
        limit: the number of rows for which there is room.
        like: a tensor of the width and dtype of the rows, "… width".
    """

    def __init__(self, limit: int, like: Tensor) -> None:
        self.limit = limit
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
            None where it cannot be kept: gradients are wanted, or torch does not count the changes of a weight.
        """
        if not can_keep(*weights):
            return None
        with self._lock:
            vectors, found = self._rows.there, self._products.get(owner)
            if found is None or not found.holds(weights, how):
                found = self._products[owner] = _Product(make(vectors), self.limit, weights, how)
            elif len(found.rows.there) < len(vectors):
                found.rows.add(make(vectors[len(found.rows.there) :]))
            return found.rows.there
