"""How `topk.c` is called: the best items of each query, and the order in which items are alike their neighbours.

Sizes and dtypes must fit each other: the caller checks them (`towers.search`), for C reads whatever lies there.
"""

import ctypes
import math
import os
import time
from ctypes import c_double, c_int64, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor

from towers.kernels.cpu.library import Code, code
from towers.kernels.cpu.threads import start

BLOCK, BOX = 16, 128
"""Items that lie side by side, and items of a box."""
AT_ONCE, MOST = 8, 64
"""Queries that meet a block of items together, and the most that a thread takes at a time."""
MANY = 1 << 32
"""Items are put in order if they are fewer."""
GROUP = BLOCK * BOX
"""Items of a group of boxes."""
OFFER = 16
"""Nanoseconds for an item that is among the k best so far, at least; a scan meets about k (1 + log(items / k)).

With 14, walks are given up that take half of a scan's time; with 20, some go on that take 1.2 times as long.
"""
SAMPLE = 8192
"""Items by which `pace` is measured."""


class Job(ctypes.Structure):
    """The struct `Job` of `topk.c`."""

    _fields_ = (
        *((name, c_void_p) for name in ("queries", "weights", "blocks", "ids", "keep", "hidden_items", "hidden_from")),
        *((name, c_void_p) for name in ("boxes", "axes", "scores", "found", "computed")),
        *((name, c_double) for name in ("offset", "least", "slack", "rounding", "pace")),
        *((name, c_int64) for name in ("count", "dense", "hidden", "n_queries", "k", "part", "parts", "next")),
    )


class Boxes(NamedTuple):
    """What is known about boxes of 128 items and about groups of 16 boxes; see `topk.c`.

    fields: "blocks fields 16": of all boxes, then of all groups, in blocks of 16.
    axes: "dense axes", what a place is multiplied by to be an item's row.
    slack: what bounds are too low by at most, in every search.
    rounding: the same, times `sum |weights query|` of a query.
    """

    fields: Tensor
    axes: Tensor
    slack: float
    rounding: float


def serves(dtype: torch.dtype) -> bool:
    """Whether the C code runs on this machine, with this dtype."""
    return code(dtype) is not None


def search(
    queries: Tensor,
    weights: Tensor,
    offset: float,
    blocks: Tensor,
    ids: Tensor,
    k: int,
    *,
    least: float,
    keep: Tensor | None,
    hidden: tuple[Tensor, Tensor] | None,
    boxes: Boxes | None,
    pace: float = math.inf,
) -> tuple[Tensor, Tensor, Tensor]:
    """The scores and ids of the k best items of each query, best first, and what was scored for each query.

    `python benchmarks/run.py search` measures it beside torch.

    Args:
        queries: "queries dense".
        weights: "dense".
        offset: where each sum begins.
        blocks: the items, "blocks dense 16".
        ids: "count", int64.
        k: at least 1. Where fewer are found, scores are -inf and ids the largest int64.
        least: no smaller score is wanted.
        keep: "count" bool, which items may be found; None: all.
        hidden: items (places) that single queries may not find, and "queries+1" where those of each query begin.
        boxes: of the items, which `order` and `move` have put in order; None: every item is scored.
        pace: as `pace` measured it, by which walks over the boxes are given up in time; infinite: none is.

    Returns:
        scores "queries k", ids "queries k", and "queries": how many items and bounds were scored; negative where a walk
        was given up, and all items were scored.
    """
    count, n_items = queries.shape[0], ids.shape[0]
    scores, found = queries.new_empty((count, k)), ids.new_empty((count, k))
    computed = ids.new_empty((count,))
    threads = max(1, min(torch.get_num_threads(), -(-count // AT_ONCE)))
    part = min(MOST, -(-count // threads // AT_ONCE) * AT_ONCE) if count else AT_ONCE
    fields, axes, slack, rounding = boxes or (None, None, 0.0, 0.0)
    hidden_items, hidden_from = hidden if hidden is not None and len(hidden[0]) else (None, None)
    some = (queries, weights, blocks, ids, keep, hidden_items, hidden_from, fields, axes)
    given = [None if tensor is None else tensor.contiguous() for tensor in some]
    job = Job(
        *[None if tensor is None else tensor.data_ptr() for tensor in (*given, scores, found, computed)],
        offset, least, slack, rounding, pace + _offers(k, n_items), n_items, weights.shape[0],
        0 if axes is None else axes.shape[1], count, k, part, -(-count // part), 0,
    )  # fmt: skip
    start(_code(queries).topk_search, job, threads)
    return scores, found, computed


def _offers(k: int, count: int) -> float:
    """What keeping the best adds to the pace."""
    return OFFER * k * (1 + math.log(count / k)) / count if count > k else 0.0


def pace(weights: Tensor, offset: float, blocks: Tensor) -> float:
    """Nanoseconds that a pair takes where queries meet all items: the shortest of three measurements."""
    some = blocks[: SAMPLE // BLOCK]
    queries, ids = some[:4].transpose(1, 2).flatten(0, 1).nan_to_num(posinf=0.0), torch.arange(len(some) * BLOCK)
    times, clock = list[int](), time.thread_time_ns if os.name == "posix" else time.perf_counter_ns  # as in topk.c
    for _ in range(3):
        start = clock()
        search(queries, weights, offset, some, ids, 1, least=-math.inf, keep=None, hidden=None, boxes=None)
        times.append(clock() - start)
    return min(times) / (len(queries) * len(ids)) if len(ids) else math.inf


def rows(states: Tensor, weight: Tensor) -> Tensor:
    """States "count hidden" times `weight`, "hidden dense": "count dense".

    Each product and each sum is rounded, in the order of the numbers. `python benchmarks/run.py search` has the time to
    build an index, and searches whose queries are made so.
    """
    states, weight = states.contiguous(), weight.contiguous()
    out = states.new_empty(len(states), weight.shape[1])
    at = [c_void_p(tensor.data_ptr()) for tensor in (states, weight, out)]
    _code(out).topk_rows(*at, *(c_int64(size) for size in (len(states), *weight.shape)))
    return out


def order(rows: Tensor, read: Tensor) -> Tensor:
    """Which row each place gets so that those of a box are alike, by a k-d tree: "count", the bits of unsigned int32.

    While it works it takes the memory of one number more for each row.

    Args:
        rows: "count dense", contiguous, of the items; fewer than `MANY`.
        read: "axes dense"; a row times it has coordinates that are alike.

    Raises:
        MemoryError: there is none.
    """
    read, places = read.contiguous(), torch.empty(len(rows), dtype=torch.int32)
    sizes = [c_int64(size) for size in (len(rows), rows.shape[1], len(read))]
    at = [c_void_p(tensor.data_ptr()) for tensor in (rows, places, read)]
    if not _code(rows).topk_order(at[0], at[1], *sizes, at[2]):
        raise MemoryError(f"there is no memory to lay {len(rows)} items out")
    return places


def move(rows: Tensor, ids: Tensor, order: Tensor) -> None:
    """Rows "count dense", and their ids "count" int64, both contiguous, change places in place, by what `order` gave.

    The order is used up: its numbers change.
    """
    at = [c_void_p(tensor.data_ptr()) for tensor in (rows, ids, order)]
    _code(rows).topk_move(*at, c_int64(len(rows)), c_int64(rows.shape[1]))


def _code(like: Tensor) -> Code:
    own = code(like.dtype)
    assert own is not None
    return own
