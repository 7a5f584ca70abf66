"""Exact search over many states: towers.search beside the plain torch expression and topk, in its best chunks.

Both must find the same before they are timed. Times are those of one core (`--quick`) or of all threads.

If they are installed, sentence-transformers searches with the same score (`semantic_search(score_function=
model.similarity)`, its default chunks), and faiss and usearch with another one, for scale: the inner product of states.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from report import COLOURS, Row, save
from timing import Timing, interleaved
from torch import Tensor

from towers import TwoTowers
from towers.answers import Model
from towers.data import sample_pairs
from towers.data.sample import sample_vectors
from towers.search import Index
from towers.training import fit
from towers.training.prediction import Predictor

TITLE = "Exact search: time of all queries"
CHUNKS = (250, 1000, 4000)
QUERIES = 64
SEEDS = 7
"""Trained models: how many pairs a search scores depends on the model."""
SAME = "semantic_search, the same score"
MANY = 1_000_000
"""Beyond this number of items plain torch is not measured: ten times the items take it ten times as long."""


class Case(NamedTuple):
    states: str  # "uniform", under a new model; or "trained", of sentences, under a trained model
    items: int
    k: int
    seed: int = 0  # of the model
    dense: int = 16  # units of its head

    @property
    def name(self) -> str:
        seed = f" (seed {self.seed})" if self.seed else ""
        dense = f", dense {self.dense}" if self.dense != 16 else ""
        return f"{self.states} states{seed}{dense}, {self.items:,} items, {QUERIES} queries, k {self.k}"


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case("uniform", 100_000, 10)]
    uniform = [Case("uniform", items, k) for items in (10_000, 100_000, 1_000_000) for k in (10, 100)]
    trained = [Case("trained", 200_000, k, seed) for seed in range(SEEDS) for k in (10, 100)]
    others = [Case("uniform", 100_000, k, dense=dense) for dense in (8, 64) for k in (1, 10, 1000)]
    return [*uniform, Case("uniform", 10_000_000, 10), *trained, *others]


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
    _check(found, every_pair(), model)
    candidates = {"towers.search, every pair": every_pair, "towers.search": through_boxes}
    if case.items <= MANY:
        _check(found, plain(model, side, queries, items, case.k, CHUNKS[0]), model, bits=False)
        chunk = min(CHUNKS, key=lambda size: _seconds(lambda: plain(model, side, queries, items, case.k, size)))
        torch_too = {f"torch, chunks of {chunk:,}": lambda: plain(model, side, queries, items, case.k, chunk)}
        candidates = torch_too | candidates
    timings = interleaved(candidates, device, seconds=0.5 if quick else 4)
    if case.states == "uniform" and case.k == 10 and case.dense == 16:
        timings |= _peers(model, queries, items, case.k, found, timings)
    pairs, rows = QUERIES * case.items, list[Row]()
    for name, timing in timings.items():
        share = computed / pairs if name == "towers.search" else 1.0
        details = case._asdict() | {"share": share, "build_seconds": building, "spread": timing.spread}
        speed = pairs / timing.milliseconds * 1e3
        rows.append(Row("search", case.name, name, "search", timing.milliseconds, timing.time_ratio, speed, details))
    return rows


def _peers(
    model: TwoTowers, queries: Tensor, items: Tensor, k: int, found: tuple[Tensor, Tensor], beside: dict[str, Timing]
) -> dict[str, Timing]:
    """Searches by other packages, each if installed, in one thread or as many as torch has; the best of three calls, or
    the first one if it takes more than a second."""
    calls = dict[str, Callable[[], Any]]()
    if find_spec("sentence_transformers"):
        semantic_search = import_module("sentence_transformers.util").semantic_search
        score = Model(model, sample_vectors()).similarity

        def same_score(some: Tensor = items) -> list[list[dict[str, float]]]:
            return semantic_search(queries, some, score_function=score, top_k=k)

        same_score(items[:1000])  # what is made at first use is not timed
        calls[SAME] = same_score
    if find_spec("faiss"):
        faiss = import_module("faiss")
        faiss.omp_set_num_threads(torch.get_num_threads())
        flat = faiss.IndexFlatIP(items.shape[1])
        flat.add(items.numpy())
        calls["faiss, inner product"] = lambda: flat.search(queries.numpy(), k)
    if find_spec("usearch"):
        usearch = import_module("usearch.index")
        options = {"metric": usearch.MetricKind.IP, "exact": True, "threads": torch.get_num_threads()}
        calls["usearch, inner product"] = lambda: usearch.search(items.numpy(), queries.numpy(), k, **options)
    base, timings = next(iter(beside.values())), dict[str, Timing]()
    for name, call in calls.items():
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        if name == SAME:
            scores = torch.tensor([[hit["score"] for hit in own] for own in result])
            assert (scores - found[0].sigmoid()).abs().max() < 1e-5, "semantic_search finds other scores"
        if seconds < 1:
            seconds = min(seconds, _seconds(call), _seconds(call))
        timings[name] = Timing(1e3 * seconds, 1e3 * seconds / base.milliseconds * base.time_ratio, 0.0, 1)
    return timings


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
    torch.manual_seed(case.seed)
    if case.states == "uniform":
        items, queries = (torch.rand(count, 6) * 2 - 1 for count in (case.items, QUERIES))
        return TwoTowers(dense=case.dense), "right", items, queries
    model, lefts, rights = _trained(case.items, case.seed)
    return model, "left", lefts, rights


@lru_cache(1)
def _trained(count: int, seed: int) -> tuple[TwoTowers, Tensor, Tensor]:
    """A model trained on the built-in sample, the states of distinct sentences, and those of distinct statements."""
    torch.manual_seed(seed)
    pairs = sample_pairs(count)
    model = TwoTowers()
    fit(model, pairs.select(range(2000)), epochs=3, progress=False)
    predictor = Predictor(model, sample_vectors())
    rights = predictor.encode(list(dict.fromkeys(pairs.right))[:QUERIES], "right")
    return model, predictor.encode(pairs.left, "left"), rights


def _check(found: tuple[Tensor, Tensor], again: tuple[Tensor, Tensor], model: TwoTowers, *, bits: bool = True) -> None:
    if bits:
        assert torch.equal(found[0], again[0]), "boxes change the scores"
        assert torch.equal(found[1], again[1]), "boxes change the ids"
    bound = 1e-5 * model.logit.weight.abs().sum().item()
    assert (found[0] - again[0]).abs().max() < bound, "scores differ from the model's"


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


LINES = {"semantic_search": SAME, "torch": "torch, its best chunks"}
LINES |= {"towers.search, every pair": "towers.search, every pair", "towers.search": "towers.search"}


def plot(rows: Sequence[Row], title: str, about: dict[str, object], path: Path) -> None:
    """Time against the number of items, k = 10, uniform states; no picture where `--only` left none of them."""
    rows = [row for row in rows if row.details["states"] == "uniform" and row.details["k"] == 10
            and row.details.get("dense", 16) == 16]  # fmt: skip
    if not rows:
        return
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for (start, label), colour in zip(LINES.items(), COLOURS, strict=False):
        own = [row for row in rows if row.implementation == start or row.implementation.startswith(f"{start}, c")
               or (start == "semantic_search" and row.implementation.startswith(start))]  # fmt: skip
        sizes = [int(str(row.details["items"])) for row in own]
        width = 3 if start == "towers.search" else 1.5
        axes.plot(sizes, [row.milliseconds for row in own], marker="o", color=colour, label=label, linewidth=width)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("items")
    axes.set_ylabel(f"milliseconds for {QUERIES} queries, k = 10")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.set_title(f"{title}\n{about['name']}, threads: {about['threads']}, torch {about['torch']}", fontsize=10)
    save(figure, path, dpi=110)
