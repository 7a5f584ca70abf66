"""Exact search by the heads of presets: towers.search beside torch, which multiplies the products of features once.

Both must find the same before they are timed. The heads are new and the states are drawn: every pair is scored. Beside
them a search with candidates, and its recall: the share of the true best that it finds.
"""

import time
from typing import NamedTuple

import torch
from report import Row
from timing import interleaved
from torch import Tensor

from towers import TwoTowers
from towers.search import Index
from towers.training.presets import PRESETS, build

TITLE = "Exact search by heads of presets: time of all queries"
CHUNKS = (1000, 4000, 16000)
QUERIES, K, CANDIDATES = 64, 10, 1000


class Case(NamedTuple):
    preset: str
    outputs: int
    items: int

    @property
    def name(self) -> str:
        return f"{self.preset}, outputs {self.outputs}, {self.items:,} items, {QUERIES} queries, k {K}"


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case("small", 1, 20_000)]
    small = [Case("small", outputs, 300_000) for outputs in (1, 5)]
    return [*small, *(Case("similarity", outputs, 50_000) for outputs in (1, 5)), Case("entailment", 3, 50_000)]


def measure(case: Case, device: torch.device, *, quick: bool) -> list[Row]:
    """Rows of torch, of the exact search, and of the search with candidates."""
    torch.manual_seed(0)
    model = build(PRESETS[case.preset], vector_width=50, outputs=case.outputs)
    items, queries = torch.rand(case.items, model.hidden), torch.rand(QUERIES, model.hidden)
    index = Index(model)
    index.add(items)
    scores, ids = index.search(queries, K)
    by_torch = folded(model, queries, items, CHUNKS[0])
    assert (scores - by_torch[0]).abs().max() < 1e-4, "scores differ"
    chosen = index.search(queries, K, candidates=CANDIDATES)[1]
    assert not index.exact
    recall = (ids[:, None] == chosen[:, :, None]).any(2).float().mean().item()
    chunk = min(CHUNKS, key=lambda size: _seconds(lambda: folded(model, queries[:4], items, size)))
    calls = {
        f"torch, chunks of {chunk:,}": lambda: folded(model, queries, items, chunk),
        "towers.search": lambda: index.search(queries, K),
        f"towers.search, {CANDIDATES:,} candidates": lambda: index.search(queries, K, candidates=CANDIDATES),
    }
    rows = list[Row]()
    for name, timing in interleaved(calls, device, seconds=0.5 if quick else 4).items():
        speed = QUERIES * case.items / timing.milliseconds * 1e3
        details = case._asdict() | {"recall": recall if "candidates" in name else 1.0, "spread": timing.spread}
        rows.append(
            Row("search-heads", case.name, name, "search", timing.milliseconds, timing.time_ratio, speed, details)
        )
    return rows


@torch.inference_mode()
def folded(model: TwoTowers, queries: Tensor, items: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """What one writes without this library: for one query, the product and the differences of states are products of
    its own weights and the items' states; the absolute differences remain."""
    weight = dict(zip(model.pair_features.features, model.dense.weight.split(model.hidden, 1), strict=True))
    nothing = torch.zeros_like(next(iter(weight.values())))
    absolute, product, positive, negative = (
        weight.get(name, nothing)
        for name in ("absolute difference", "product", "positive difference", "negative difference")
    )
    absolute, linear = absolute + (positive + negative) / 2, (positive - negative) / 2
    found = list[Tensor]()
    for query in queries:
        constant, slope = model.dense.bias + linear @ query, (product * query - linear).T
        scores = list[Tensor]()
        for some in items.split(chunk):
            units = torch.addmm(constant, (some - query).abs_(), absolute.T).addmm_(some, slope).relu_()
            logits = model.logit(units)
            bins = torch.arange(model.outputs) / (model.outputs - 1) if model.outputs > 1 else None
            scores.append(logits[:, 0] if bins is None else logits.softmax(1) @ bins)
        found.append(torch.cat(scores))
    best = torch.stack(found).topk(K, 1)
    return best.values, best.indices


def _seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def summary(rows: list[Row]) -> str:
    """Pairs a second, how many times as fast as torch, and the recall."""
    lines = [f"{'pairs/s':>9} {'torch x':>8} {'recall':>8}"]
    lines += [
        f"{row.words_per_second / 1e6:7.2f} M {1 / row.time_ratio:8.1f} {100 * row.details['recall']:6.1f} %  "
        f"{row.implementation}, {row.case}"
        for row in rows
    ]
    return "\n".join(lines)
