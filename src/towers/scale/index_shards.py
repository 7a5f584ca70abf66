"""An index in several files, searched in parallel as if it were one."""

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from towers.checkpoint import replace, undamaged
from towers.contracts import contract
from towers.model import TwoTowers
from towers.scale.cores import cores
from towers.search import Index
from towers.search.scan import Found
from towers.search.scan import merge as merge_found

SHARDS = "shards.json"
"""Lists the files of a folder of shards and their sizes; it is written last, when they are all there."""


def merge(parts: Iterable[tuple[Tensor, Tensor]], k: int) -> tuple[Tensor, Tensor]:
    """The k best of what searches in several parts of a corpus have found, exactly: as one search in all of it.

    Args:
        parts: scores "queries found" and ids "queries found" of each part, where `found` is k, or the number of items
            of a smaller part.
        k: how many are wanted.

    Raises:
        ValueError: there is no part, k is above what the parts have together, or two parts have found one id: their
            items have ids of one range.

    >>> import torch
    >>> from towers.scale import merge
    >>> one = torch.tensor([[0.5, 0.1]]), torch.tensor([[3, 1]])
    >>> merge([one, (torch.tensor([[0.5, 0.2]]), torch.tensor([[2, 7]]))], k=3)
    (tensor([[0.5000, 0.5000, 0.2000]]), tensor([[2, 3, 7]]))
    """
    found = [Found(scores, ids, 0) for scores, ids in parts]
    count = sum(part.ids.shape[1] for part in found)
    if not found or not 1 <= k <= count:
        raise ValueError(f"k ({k}) must be from 1 to {count}, the number of items that the parts have found")
    whole = merge_found(found, count)
    twice = (whole.ids.sort(1).values.diff(dim=1) == 0).any(1)
    if bool(twice.any()):
        raise ValueError("two parts have found the same id; give the items of each part ids of their own")
    return whole.scores[:, :k], whole.ids[:, :k]


def listed(folder: Path) -> tuple[dict[Path, int], dict[str, str]]:
    """The files of a folder of shards, each with the number of its items, and texts about all of them.

    Raises:
        OSError: the list cannot be read.
        ValueError: there is no list, or a shard is missing.
    """
    listing = folder / SHARDS
    if not listing.is_file():
        raise ValueError(f"{folder}: is no index, or not a whole one: it has no {SHARDS}; run towers index again")
    with undamaged(listing):
        whole: dict[str, dict[str, Any]] = json.loads(listing.read_text("utf8"))
        counts = {folder / name: int(count) for name, count in whole["shards"].items()}
        about = {name: str(text) for name, text in whole.get("about", {}).items()}
    for file in counts:
        if not file.is_file():
            raise ValueError(
                f"{folder}: the shard {file.name} is missing; remove the folder and run towers index again"
            )
    return counts, about


class Shards:
    """Several indexes of one model, searched side by side. The result is that of one index with all their items.

    Args:
        indexes: of one side of one model; no id is in two of them.
        threads: how many are searched at a time; None: one for each core that this process may use.
        about: texts by name about all items together; None: those of the index, if there is one only.

    Raises:
        ValueError: there is no index, they are of several sides, models or outputs, or one takes sentences (has a
            loaded model).

    >>> import torch
    >>> from towers import TwoTowers
    >>> from towers.search import Index
    >>> from towers.scale import Shards
    >>> model = TwoTowers()
    >>> indexes = [Index(model), Index(model)]
    >>> for number, index in enumerate(indexes):
    ...     index.add(torch.rand(500, 6), ids=torch.arange(500) + 500 * number)
    >>> scores, ids = Shards(indexes).search(torch.rand(2, 6), k=10)
    >>> ids.shape
    torch.Size([2, 10])
    """

    def __init__(
        self, indexes: Sequence[Index], *, threads: int | None = None, about: Mapping[str, str] | None = None
    ) -> None:
        if not indexes:
            raise ValueError("Shards: there is no index")
        if len({index.side for index in indexes}) > 1:
            raise ValueError("Shards: some indexes have left items, others right ones")
        if len({(index.fingerprint, index.output) for index in indexes}) > 1:
            raise ValueError("Shards: the indexes are of several models, weights or outputs, whose scores differ")
        if any(index.loaded is not None for index in indexes):
            raise ValueError(
                "Shards: an index has a loaded model; make it with the model's network: Index(model.network)"
            )
        self.indexes = list(indexes)
        self.hidden = self.indexes[0].hidden
        self.about = dict(about if about is not None else indexes[0].about if len(indexes) == 1 else {})
        self._threads = min(len(self.indexes), threads or cores())

    def __len__(self) -> int:
        return sum(map(len, self.indexes))

    @classmethod
    def load(
        cls, path: str | PathLike[str], model: TwoTowers, *, output: int | None = None, verify: bool = False
    ) -> Self:
        """What `towers index` wrote: a file, or a folder of shards. They are mapped into memory, and read when needed.

        Args:
            path: the file or the folder.
            model: the model with which the index was made.
            output: as for `Index`.
            verify: as for `Index.load`.

        Raises:
            OSError: there is no such file, or it cannot be read.
            ValueError: as `Index.load`, of any shard; a folder has no list of its shards, or one is missing, cut off or
                was exchanged.
        """
        path = Path(path)
        if not path.is_dir():
            return cls([Index.load(path, model, output=output, verify=verify)])
        counts, about = listed(path)
        indexes: list[Index] = []
        for file, count in counts.items():
            indexes.append(Index.load(file, model, output=output, verify=verify))
            if len(indexes[-1]) != count:
                raise ValueError(
                    f"{file}: has {len(indexes[-1])} items, not {count}; remove the folder and run towers index again"
                )
        return cls(indexes, about=about)

    @staticmethod
    def write_list(folder: Path, counts: dict[str, int], about: Mapping[str, str] | None = None) -> None:
        """Write the list of the shards in `folder`; then it is whole. `counts` has the items of each, by its name, and
        `about` texts about all of them."""
        text = json.dumps({"shards": counts, "about": dict(about or {})}, indent=1) + "\n"
        replace(folder / SHARDS, lambda partial: partial.write_text(text, encoding="utf8"))

    @contract
    def search(
        self, queries: Float[Tensor, "queries {self.hidden}"], k: int
    ) -> tuple[Float[Tensor, "queries {k}"], Int[Tensor, "queries {k}"]]:
        """The scores and the ids of the k best items of each query, as `Index.search` of all items.

        Args:
            queries: states of the other side, "queries hidden".
            k: how many items; at most as many as there are.

        Raises:
            ShapeContractError: the width is not `hidden`.
            ValueError: a query is not finite, k is below 1 or above the number of items, or two shards have one id.
        """
        if k < 1:
            raise ValueError(f"Shards.search: k ({k}) must be at least 1")
        filled = [(index, size) for index in self.indexes if (size := len(index))]
        if k > (count := sum(size for _, size in filled)):
            raise ValueError(f"Shards.search: k ({k}) must be at most {count}, the number of items")
        if len(filled) == 1:
            return filled[0][0].search(queries, k)

        def search(shard: tuple[Index, int]) -> tuple[Tensor, Tensor]:
            index, size = shard
            with torch.inference_mode():
                return index.search(queries, min(k, size))

        with ThreadPoolExecutor(self._threads) as pool:
            return merge(pool.map(search, filled), k)
