"""Exact search over many states: towers.search beside the plain torch expression and topk, in its best chunks.

Both must find the same before they are timed. Times are those of one core (`--quick`) or of all threads.
"""

import time
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch
from report import Row
from timing import interleaved
from torch import Tensor

from towers import TwoTowers
from towers.data import sample_pairs
from towers.data.sample import sample_vectors
from towers.search import Index
from towers.training import fit
from towers.training.prediction import Predictor

TITLE = "Exact search: time of all queries"
CHUNKS = (250, 1000, 4000)
QUERIES = 64


class Case(NamedTuple):
    states: str  # "uniform", under a new model; or "trained", of sentences, under a trained model
    items: int
    k: int

    @property
    def name(self) -> str:
        return f"{self.states} states, {self.items:,} items, {QUERIES} queries, k {self.k}"


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case("uniform", 100_000, 10)]
    uniform = [Case("uniform", items, k) for items in (10_000, 100_000, 1_000_000) for k in (10, 100)]
    return [*uniform, Case("trained", 200_000, 10), Case("trained", 200_000, 100)]


def measure(case: Case, device: torch.device, *, quick: bool) -> list[Row]:
    """Rows of plain torch, of a search that scores every pair, and of the search as it comes."""
    model, side, items, queries = _given(case)
    index = Index(model, side)
    index.add(items)
    start = time.perf_counter()
    laid_out = index._laid_out()
    building = time.perf_counter() - start
    without_boxes = Index(model, side)
    without_boxes._items = replace(laid_out, boxes=None)

    def every_pair() -> tuple[Tensor, Tensor]:
        return without_boxes.search(queries, case.k)

    def through_boxes() -> tuple[Tensor, Tensor]:
        return index.search(queries, case.k)

    found, computed = index.search(queries, case.k), index.pairs_computed
    _check(found, every_pair(), plain(model, side, queries, items, case.k, CHUNKS[0]), model)
    chunk = min(CHUNKS, key=lambda size: _seconds(lambda: plain(model, side, queries, items, case.k, size)))
    candidates = {
        f"torch, chunks of {chunk:,}": lambda: plain(model, side, queries, items, case.k, chunk),
        "towers.search, every pair": every_pair,
        "towers.search": through_boxes,
    }
    pairs = QUERIES * case.items
    rows = list[Row]()
    for name, timing in interleaved(candidates, device, seconds=0.5 if quick else 4).items():
        share = computed / pairs if name == "towers.search" else 1.0
        details = case._asdict() | {"share": share, "build_seconds": building, "spread": timing.spread}
        speed = pairs / timing.milliseconds * 1e3
        rows.append(Row("search", case.name, name, "search", timing.milliseconds, timing.time_ratio, speed, details))
    return rows


def plain(model: TwoTowers, side: str, queries: Tensor, items: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """What one writes without this library: scores of all queries with a chunk of items, and the best so far."""
    one = queries.unsqueeze(1)
    scores, ids = list[Tensor](), list[Tensor]()
    with torch.inference_mode():
        for first in range(0, len(items), chunk):
            some = items[first : first + chunk]
            logits = model.compare(one, some) if side == "right" else model.compare(some, one)
            best = logits.topk(min(k, len(some)), 1)
            scores.append(best.values)
            ids.append(best.indices + first)
        best = torch.cat(scores, 1).topk(k, 1)
        return best.values, torch.cat(ids, 1).gather(1, best.indices)


def _given(case: Case) -> tuple[TwoTowers, str, Tensor, Tensor]:
    torch.manual_seed(0)
    if case.states == "uniform":
        items, queries = (torch.rand(count, 6) * 2 - 1 for count in (case.items, QUERIES))
        return TwoTowers(), "right", items, queries
    model, lefts, rights = _trained(case.items)
    return model, "left", lefts, rights


@lru_cache(1)
def _trained(count: int) -> tuple[TwoTowers, Tensor, Tensor]:
    """A model trained on the built-in sample, the states of distinct sentences, and those of distinct statements."""
    pairs = sample_pairs(count)
    model = TwoTowers()
    fit(model, pairs.select(range(2000)), epochs=3, progress=False)
    predictor = Predictor(model, sample_vectors())
    rights = predictor.encode(list(dict.fromkeys(pairs.right))[:QUERIES], "right")
    return model, predictor.encode(pairs.left, "left"), rights


def _check(found: tuple[Tensor, Tensor], again: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], model: TwoTowers):
    assert torch.equal(found[0], again[0]), "boxes change the scores"
    assert torch.equal(found[1], again[1]), "boxes change the ids"
    bound = 1e-5 * model.logit.weight.abs().sum().item()
    assert (found[0] - theirs[0]).abs().max() < bound, "scores differ from the model's"


def _seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def summary(rows: list[Row]) -> str:
    """Pairs a second, how many times as fast as torch, and the share of the pairs that were scored."""
    lines = [f"{'pairs/s':>9} {'torch x':>8} {'scored':>8}"]
    for row in rows:
        share = row.details["share"]
        lines.append(
            f"{row.words_per_second / 1e6:7.0f} M {1 / row.time_ratio:8.1f} {100 * share:6.1f} %  "
            f"{row.implementation}, {row.case}"
        )
    builds = {row.case: row.details["build_seconds"] for row in rows}
    lines += [f"{1e3 * seconds:7.0f} ms to build the index of {case}" for case, seconds in builds.items()]
    return "\n".join(lines)
