"""Index: the states of many items, searched exactly by the score of a TwoTowers."""

import math
from collections.abc import Mapping
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Self, SupportsIndex

import torch
from jaxtyping import Float, Int
from torch import Tensor

from towers.checkpoint import undamaged
from towers.contracts import contract
from towers.ensemble import Ensemble
from towers.freed_memory import give_memory_back
from towers.kernels.cpu import topk_call
from towers.kernels.cpu.topk_call import BLOCK, BOX, Boxes
from towers.model import TwoTowers
from towers.search import index_file, scan
from towers.search.all_pairs import all_pairs
from towers.search.allowed import LARGEST, Allowed, Exclude, Ids, ListedIds, allowed, in_order, one_or_more
from towers.search.candidates import best_of_candidates
from towers.search.compared import Compared
from towers.search.head import Head, Side, fingerprint
from towers.search.items import RETURNED, Items, Rows, lay_out
from towers.search.own_lock import OwnLock
from towers.search.plain_torch import plain_torch
from towers.search.sentences import VECTORS, SentenceModel, Sentences, check_vectors, network_of, scores_of
from towers.search.unchanged import Unchanged

PART = 1 << 19
"""Items whose rows lie in one part until they are laid out: each is given back to the system when it was copied."""


class Index:
    """Items of one side of a TwoTowers, and for each query of the other side those with the highest scores.

    Scores are logits, those of `model.compare` within rounding; of a model with several outputs see `output`. The
    search is exact: it gives what comparing every query with every item would give, in a bounded memory. Of equal
    scores the smaller id comes first, at the boundary of k too, so that results do not depend on blocks or on the order
    of `add`.

    The index lies in the CPU's memory, and computes there. Queries on a CUDA device are searched there by a kernel in
    Triton, if the model has the head of one difference in float32 and k is at most 1,024, where
    `towers.kernels.triton.runs_on` is true. The first such search copies the items to the device, where they stay: 4
    bytes for each dense unit of an item, and 8 for its id. The kernel scores every pair, summed in the same order as on
    the CPU. Other heads and dtypes are computed on the CPU wherever the queries are, and so is `all_pairs`.

    With C code (`TOWERS_NATIVE`) more than 8,192 items lie in boxes with upper bounds of their scores, and a query
    skips the boxes that cannot hold one of its best, where these are at least half of them. `pairs_computed` says how
    many pairs (and bounds) the last search scored, and `exact` whether it was exact: all are, but those with
    `candidates`. `about` has the texts by name that `save` was given; of a new index it is empty.

    Several threads may use one index: each search finds the items that were added, and not removed, before it began.

    An index serves the weights that the model had when it was made. After more training it refuses to work: make a new
    one. What torch does not count is not seen: changes in place through `.data`, as in `weight.data.mul_(2)`.

    Args:
        model: gives the score, a TwoTowers with TwoTowers's own `compare`; or a model of `towers.load`. With that one
            `add` and `search` take sentences too, and all scores are as those of its `score`. Where several of them are
            equal, the logits still give the order.
        side: which tower encodes the items: "right" (queries are left states) or "left".
        output: of a model of classes, the number of the class whose log-odds, log(p / (1 - p)), are the score. None: a
            model of several outputs answers with bins, and their mean degree, from 0 to 1, is the score.
        class_name: of a loaded model with classes, the class whose probability is the score.

    Other heads than the dense layers of one difference (of presets, of several outputs, of ensembles) have no boxes.
    Every pair is scored in the weights' dtype, with a bound of the error, and those pairs that may be among the best
    are scored again in float64. Scores are those of float64, rounded once.

    Raises:
        ValueError: `side` is neither, the model is on the device meta or has another `compare`, `output` or
            `class_name` is none of its classes or is given with the other kind of model, or a weight is not finite.

    >>> import torch
    >>> from towers import TwoTowers
    >>> from towers.search import Index
    >>> model = TwoTowers()
    >>> index = Index(model)
    >>> index.add(torch.rand(1000, 6))  # states, of model.encode_right
    >>> scores, ids = index.search(torch.rand(2, 6), k=10)
    >>> scores.shape, ids.shape
    (torch.Size([2, 10]), torch.Size([2, 10]))
    """

    @plain_torch
    def __init__(
        self,
        model: TwoTowers | SentenceModel,
        side: Side = "right",
        *,
        output: int | None = None,
        class_name: str | None = None,
    ) -> None:
        if side not in ("left", "right"):
            raise ValueError(f"Index: side is {side!r}; expected 'left' or 'right'")
        self.loaded = None if isinstance(model, TwoTowers) else model
        model, output = network_of(model), _output(model, output, class_name)
        if any(parameter.is_meta for parameter in model.parameters()):
            raise ValueError("Index: the model is on the device meta, without weights; load them first")
        if type(model).compare not in (TwoTowers.compare, Ensemble.compare):
            raise ValueError(
                f"Index: {type(model).__name__} has a compare of its own; only TwoTowers's can be searched"
            )
        self.side: Side = side
        self.hidden = model.hidden
        usual = type(model).compare is TwoTowers.compare and model.outputs == 1
        usual = usual and model.pair_features.features == ("difference",)
        self._head = Head(model, side) if usual else Compared(model, side, output)
        if not self._head.is_finite():
            raise ValueError("Index: a weight of the model's head is not finite")
        self.output = output
        self._model = Unchanged(model)
        self._items = lay_out((), 0, self._head)
        self._added = list[Rows]()
        self._untidied = 0
        self._next_id = 0
        self._lock, self._torn = OwnLock(), False
        self.pairs_computed = 0
        self.exact = True
        self.about: dict[str, str] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._items) + sum(len(ids) for _, ids in self._added)

    @property
    def fingerprint(self) -> str:
        """Tells the weights of its model from others."""
        return self._model.fingerprint

    @contract
    @plain_torch
    def add(
        self,
        items: Float[Tensor, "items {self.hidden}"] | Sentences,
        ids: Int[Tensor, "items"] | ListedIds | None = None,
    ) -> None:
        """Add the states of items. They are laid out at the next search, so that several calls cost as much as one.

        Args:
            items: states of the index's side, "items hidden"; or sentences, if the index has a loaded model.
            ids: a number from 0 to 2^63 - 2 for each, which no other item has, in a tensor, array, list or range; None:
                they count on from the largest id so far, first from 0.

        Raises:
            ShapeContractError: a width is not `hidden`, or there is not one id for each item.
            ValueError: a state is not finite, or the states are no dense tensor with data; an id is no integer,
                negative, too large or used already, or the ids are a set; or there is no model that reads sentences, or
                its tower does not take one, or the model's weights have changed. Nothing is added then.
        """
        if ids is not None and not isinstance(ids, Tensor):
            return self.add(items, in_order("Index.add", "ids", ids))
        if not isinstance(items, Tensor):
            return self.add(self._states(items, "add", "items", self.side), ids)
        self._model.check("add")
        _check_dense(items, "add", "items")
        parts = list[Tensor]()
        for first in range(0, len(items), PART):
            rows = self._head.item_rows(items[first : first + PART])
            _check_finite(rows, "add", "items", first)
            parts.append(rows)
        with self._lock:
            self._check_items("add")
            own = self._new_ids(ids, len(items))
            if not parts:
                return
            divided = [own[first : first + PART] for first in range(0, len(own), PART)]
            self._added.extend(zip(parts, divided, strict=True))
            self._untidied += len(items)
            if self._untidied >= RETURNED:  # what lies between parts was the caller's
                self._untidied = 0
                give_memory_back()
            self._next_id = max(self._next_id, (own[-1] if isinstance(own, range) else int(own.max())) + 1)

    def _states(self, sentences: Sentences, call: str, name: str, side: Side) -> Tensor:
        if self.loaded is None:
            raise ValueError(f"Index.{call}: {name} is no tensor of states; sentences need Index(towers.load(…))")
        return self.loaded.encode(sentences, side=side)

    def _new_ids(self, ids: Tensor | None, count: int) -> Tensor | range:
        if ids is None:
            if self._next_id + count > LARGEST + 1:
                raise ValueError(f"Index.add: no ids follow {self._next_id - 1}, which an item has or had; give ids")
            return range(self._next_id, self._next_id + count)
        own = ids.detach().to("cpu", torch.int64, copy=True)
        if len(own) and int(own.min()) < 0:
            raise ValueError(f"Index.add: ids has {int(own.min())}; an id is at least 0")
        if len(own) and int(own.max()) > LARGEST:
            raise ValueError(f"Index.add: ids has {int(own.max())}; an id is at most {LARGEST}")
        if bool((own.diff() <= 0).any()):
            distinct, counts = own.unique(return_counts=True)
            if len(distinct) < len(own):
                raise ValueError(f"Index.add: ids has {int(distinct[counts > 1][0])} more than once")
        if not len(own) or int(own.min()) >= self._next_id:
            return own
        waiting = [torch.arange(ids.start, ids.stop) if isinstance(ids, range) else ids for _, ids in self._added]
        waiting = torch.cat([own.new_empty(0), *waiting])
        used = own[(self._items.places(own) >= 0) | torch.isin(own, waiting)]
        if len(used):
            raise ValueError(
                f"Index.add: ids has {int(used.min())}, which an item of the index has; remove that item first"
            )
        return own

    def _check_items(self, call: str) -> None:
        if self._torn:
            problem = "an earlier call was interrupted while it laid out the items, and some are lost"
            raise ValueError(f"Index.{call}: {problem}; make a new index")
        if self._items.source is not None:
            self._items.source.check(call)

    def _laid_out(self, call: str = "search", *, whole: bool = True) -> Items:
        """The items, with those that were added.

        Args:
            call: the method, for errors.
            whole: it reads all items, so a file is verified first.
        """
        with self._lock:
            self._check_items(call)
            parts = self._added
            if parts:
                self._items.verify()
                count = len(parts)
                added = (parts.pop() for _ in range(count))
                try:
                    self._items = lay_out(chain(added, self._items.parts(PART)), len(self), self._head)
                except BaseException:  # Ctrl-C too
                    self._torn = len(parts) < count
                    raise
            if whole or self._items.boxes is None:
                self._items.verify()
            return self._items

    @contract
    @plain_torch
    def search(
        self,
        queries: Float[Tensor, "queries {self.hidden}"] | Sentences,
        k: int,
        exclude: Exclude | None = None,
        filter: Ids | None = None,
        candidates: int | None = None,
    ) -> tuple[Float[Tensor, "queries {k}"], Int[Tensor, "queries {k}"]]:
        """The scores and the ids of the k best items of each query, best first.

        Args:
            queries: states of the other side, "queries hidden"; or sentences, if the index has a loaded model.
            k: how many items; at most as many as each query may find.
            exclude: ids that are not wanted: for all queries one tensor, array, set or list of ints, or one int; or for
                each query its own, in a list or a tensor "queries excluded". An id that no item has changes nothing.
            filter: the ids that are wanted, or a mask of bools by id, one for each id from 0 to the largest.
            candidates: at least k, such as 1000: a cheap function first chooses this many for each query, and only
                these are scored. The result is then not exact, and `exact` is False. Other heads than the dense layers
                of one difference become faster so; the search of that head is cheap enough, and stays exact.

        Raises:
            ShapeContractError: the width is not `hidden`.
            ValueError: a query is not finite, k is below 1 or above the number of items that a query may find,
                `candidates` is below k, or `exclude` or `filter` has another form; or the model's weights have changed;
                or of sentences as for `add`.
        """
        if not isinstance(queries, Tensor):
            own = self._states(queries, "search", "queries", "left" if self.side == "right" else "right")
            return self.search(own, k, exclude, filter, candidates)
        self._model.check("search")
        items = self._laid_out("search", whole=queries.is_cuda)
        rows = self._query_rows(queries, items)
        wanted = allowed(items, len(queries), exclude, filter)
        self._check_k(k, items, wanted)
        if candidates is not None and (candidates < k or isinstance(candidates, bool)):
            raise ValueError(f"Index.search: candidates ({candidates}) must be at least k ({k})")
        if candidates is None or candidates >= len(items) or isinstance(self._head, Head):
            self.exact, found = True, scan.best(rows, self._head, items, k, wanted, device=queries.device)
        else:
            self.exact, found = False, best_of_candidates(rows, self._head, items, k, candidates, wanted)
        self.pairs_computed = found.computed
        scores = found.scores if self.loaded is None else scores_of(self.loaded, found.scores)
        return scores.to(queries.device), found.ids.to(queries.device)

    def _query_rows(self, queries: Tensor, items: Items) -> Tensor:
        _check_dense(queries, "search", "queries")
        own = self._head.item_rows(queries)
        rows = self._head.query_rows(own)
        if self._head.may_overflow(rows, items.largest):  # also where a number is not finite
            _check_finite(own, "search", "queries")
            raise ValueError(f"Index.search: scores of these queries may be above what {rows.dtype} holds")
        return rows

    def _check_k(self, k: int, items: Items, wanted: Allowed) -> None:
        if k < 1 or isinstance(k, bool):
            raise ValueError(f"Index.search: k ({k}) must be a whole number of at least 1")
        if not len(items):
            raise ValueError("Index.search: the index is empty; add items first")
        if k > len(items):
            raise ValueError(f"Index.search: k ({k}) must be at most {len(items)}, the number of items")
        left, query = wanted.left(len(items))
        if k > left:
            of = "" if query is None else f" for query {query}"
            raise ValueError(f"Index.search: k ({k}) must be at most {left}, what exclude and filter leave{of}")

    @contract
    @plain_torch
    def all_pairs(
        self, threshold: float | int | None = None, k: int | None = None
    ) -> tuple[Float[Tensor, "pairs"], Int[Tensor, "pairs 2"]]:
        """Pairs of items of the index, each item being a query for all others: scores, and (query id, item id).

        This is for a model whose two sides read the same sentences (shared towers): with right items, the score of a
        pair (i, j) is compare(state of i, state of j). Best pairs come first, of equal scores that of the smaller ids.

        Args:
            threshold: pairs with at least this score; None: pairs with any score.
            k: at most the k best others of each item; None: all of them.

        Raises:
            ValueError: neither is given, k is below 1 or not below the number of items, or threshold is NaN; or the
                model's weights have changed.
        """
        if threshold is None and k is None:
            raise ValueError("Index.all_pairs: give threshold, k, or both")
        self._model.check("all_pairs")
        items = self._laid_out("all_pairs")
        if k is not None and len(items) < 2:
            raise ValueError(f"Index.all_pairs: k ({k}) has no pairs to choose from: the index has {len(items)} items")
        if k is not None and (isinstance(k, bool) or not 1 <= k < len(items)):
            raise ValueError(f"Index.all_pairs: k ({k}) must be from 1 to {len(items) - 1}, the number of other items")
        if threshold is not None and threshold != threshold:
            raise ValueError("Index.all_pairs: threshold is NaN")
        if self._head.may_overflow_among(items.largest):
            raise ValueError(f"Index.all_pairs: scores of these items may be above what {self._head.dtype} holds")
        least = -math.inf if threshold is None else threshold
        if self.loaded is None:
            return all_pairs(self._head, items, least, k)
        scores, ids = all_pairs(self._head, items, self.loaded.ranked_of(least), k)
        scores = scores_of(self.loaded, scores)
        return scores[scores >= least], ids[scores >= least]

    @contract
    @plain_torch
    def remove(self, ids: Ids | SupportsIndex) -> None:
        """Take items out.

        Args:
            ids: of the items: a tensor, array, set or list of ints, or one int.

        Raises:
            ValueError: no item has one of these ids, or they are no integers. Nothing is removed then.
        """
        own = one_or_more("Index.remove", "ids", ids)
        with self._lock:
            items = self._laid_out("remove")
            places = items.places(own)
            if bool((places < 0).any()):
                raise ValueError(f"Index.remove: no item has the id {int(own[places < 0][0])}")
            kept = torch.ones(len(items), dtype=torch.bool)
            kept[places] = False
            masks = reversed(kept.split(PART))
            left = ((rows[own], ids[own]) for (rows, ids), own in zip(items.parts(PART), masks, strict=False))
            axes = None if items.boxes is None else items.boxes.axes
            self._items = lay_out(left, int(kept.sum()), self._head, axes=axes)

    # On disk.

    @plain_torch
    def save(self, path: str | PathLike[str], *, about: Mapping[str, str] | None = None) -> None:
        """Write the index to the file `path`: whole, under another name, which is then changed.

        Args:
            path: the file.
            about: texts by name, that lie in the file too and are the `about` of the index from now on; None: those
                that it has. With a loaded model `vectors` is added, a digest of its word vectors.

        Raises:
            ValueError: a name or a value of `about` is no string.
            OSError: it cannot be written; an older file is unchanged.
        """
        if about is not None:
            self.about = index_file.texts(about)
        if Path(path).is_dir():
            raise IsADirectoryError(f"Index.save: {path} is a folder; name a file, such as {Path(path, 'items.index')}")
        digest = None if self.loaded is None else self.loaded.vectors_digest
        if digest is not None:
            self.about = {**self.about, VECTORS: digest}
        with self._lock:
            items, next_id = self._laid_out("save"), self._next_id
        own = {
            "fingerprint": self.fingerprint,
            "side": self.side,
            "next_id": next_id,
            "largest": items.largest,
            "about": self.about,
        }
        tensors = {index_file.STATES: items.blocks, "ids": items.ids}
        if items.boxes is not None:
            tensors["boxes"] = items.boxes.fields
            tensors["axes"] = items.boxes.axes
            own |= {"slack": items.boxes.slack, "rounding": items.boxes.rounding}
        index_file.write(path, tensors, own)

    @classmethod
    @plain_torch
    def load(
        cls,
        path: str | PathLike[str],
        model: TwoTowers | SentenceModel,
        *,
        output: int | None = None,
        class_name: str | None = None,
        verify: bool = False,
    ) -> Self:
        """An index that `save` wrote. The file is mapped into memory: it is read when it is searched.

        Checksums of the file are compared here, which reads it once (about 2 GB a second), without a copy. Of a file
        above 256 MiB those of the states, most of it, are compared by the first call that reads all of them, and never
        if all calls are searches through boxes, which read few; `verify` compares them here too. A file of an older
        towers may have no checksums.

        The file may be replaced or removed meanwhile, as `save` does it: the index keeps the file that it has. Where
        another program writes into that file itself, as `cp` does, the next call refuses to go on.

        Args:
            path: the file.
            model: the model with which the index was made, with the same weights.
            output, class_name: as for `Index`; an index serves all classes.
            verify: compare all checksums now, however large the file is.

        Raises:
            OSError: there is no such file, or it cannot be read.
            ValueError: the file is no index, is damaged or cut off, has a newer format, or is of another model,
                or its sentences were encoded with other word vectors; or with `verify` it has no checksums.
        """
        if Path(path).is_dir():
            shards = "; towers.scale.Shards.load reads the shards that towers index wrote into one"
            raise IsADirectoryError(f"Index.load: {path} is a folder{shards}")
        tensors, own, source = index_file.read(path, verify=verify)
        if own.get("fingerprint") != fingerprint(network_of(model)):
            raise ValueError(f"{path}: is an index of another model, or of other weights; make it again with this one")
        _output(model, output, class_name)
        with undamaged(Path(path)):
            index = cls(model, own["side"], output=output, class_name=class_name)
            head, blocks, ids = index._head, tensors[index_file.STATES], tensors["ids"]
            index_file.check_blocks(blocks, len(ids), head.dense, head.dtype)
            boxes, pace = None, math.inf
            if "boxes" in tensors and isinstance(head, Head):  # old files have none: every pair is scored
                groups = -(-len(ids) // (BOX * BLOCK))
                count = BLOCK * (groups + -(-groups // BLOCK))
                axes = tensors.get("axes", head.weight)  # boxes of format 1 are those of states
                index_file.check_axes(axes, head.dense, head.dtype)
                index_file.check_blocks(tensors["boxes"], count, 2 * (head.dense + axes.shape[1]), head.dtype)
                boxes = Boxes(tensors["boxes"], axes, float(own["slack"]), float(own["rounding"]))
                pace = topk_call.pace(head.weights, head.offset, blocks)
            index._items = Items(blocks, ids, float(own["largest"]), boxes, pace, source)
            index._next_id = int(own["next_id"])
            index.about = index_file.texts(own.get("about", {}))  # old files have none
        if index.loaded is not None:
            check_vectors(index.about, index.loaded, path)
        return index


def _check_dense(states: Tensor, call: str, name: str) -> None:
    if states.is_meta or states.layout != torch.strided:
        kind = "on the device meta, without numbers" if states.is_meta else f"{states.layout}"
        raise ValueError(f"Index.{call}: {name} is {kind}; expected a dense tensor of states")


def _check_finite(rows: Tensor, call: str, name: str, first: int = 0) -> None:
    """Of the rows of states, those from `first` on."""
    if rows.numel() and not all(math.isfinite(end) for end in rows.aminmax()):
        row = first + int((~torch.isfinite(rows).all(1)).nonzero()[0])
        raise ValueError(f"Index.{call}: {name}[{row}] is not finite (NaN or infinity), or too large to be scored")


def _output(model: TwoTowers | SentenceModel, output: int | None, class_name: str | None) -> int | None:
    """The number of the class whose score is asked for, if the model has it."""
    if not isinstance(model, TwoTowers):
        if output is not None:
            raise ValueError(f"Index: output is {output!r}; of a loaded model say class_name")
        return model.output_of(class_name)
    if class_name is not None:
        raise ValueError(f"Index: class_name is {class_name!r}; a TwoTowers knows no names: say output, its number")
    if output is not None and not (model.outputs > 1 and 0 <= output < model.outputs):
        known = "one output" if model.outputs == 1 else f"outputs 0 to {model.outputs - 1}"
        raise ValueError(f"Index: output is {output!r}; the model has {known}")
    return output
