"""A search through boxes gives the bits of one that scores every item, and says how many pairs it scored."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.searching import all_scores, exact_model, exact_states, plain_model, sorted_search

from towers import TwoTowers
from towers.kernels.cpu import topk_call, why_not
from towers.search import Index, index_file
from towers.search import items as laid_out
from towers.search.axes import principal_axes, read_of, state_axes
from towers.search.boxes import chosen_axes
from towers.search.head import Head

pytestmark = pytest.mark.skipif(why_not() is not None, reason="the C code cannot run")


@pytest.fixture(scope="module")
def whole_budget() -> Iterator[None]:
    """Queries walk, however long it takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laid_out, "FEWEST", topk_call.BOX)
        patch.setattr(topk_call, "pace", lambda *_: math.inf)
        yield


PACE = topk_call.pace
SHAPES = [
    *("1", "1e18", "1e30", "1e-20", "1e-40", "zero columns", "no weights"),
    *("nearly equal columns", "nearly equal rows", "lines", "huge and tiny weights"),
]


def both(index: Index, queries: torch.Tensor, k: int, **options) -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    """Through boxes, and then without."""
    results, items = [], index._laid_out()
    for own in (items, replace(items, boxes=None)):
        index._items = own
        results.append((*index.search(queries, k, **options), index.pairs_computed))
    index._items = items
    return results


@settings(max_examples=40)
@given(
    st.integers(0, 99), st.integers(130, 2500), st.integers(1, 60), st.sampled_from(["left", "right"]), st.booleans()
)
def test_boxes_change_no_bit(whole_budget: None, seed: int, count: int, k: int, side: str, rounded: bool):
    torch.manual_seed(seed)
    model = exact_model(seed=seed) if rounded else plain_model()
    items = exact_states(count, seed=seed) if rounded else torch.randn(count, 3)
    queries = exact_states(5, seed=seed + 1) if rounded else torch.randn(5, 3)
    index = Index(model, side)
    index.add(items, torch.randperm(3 * count)[:count])
    few = [set(torch.randint(3 * count, (count // 5,)).tolist()) for _ in range(5)]
    for options in ({}, {"exclude": few}, {"filter": torch.arange(3 * count) % 3 > 0}):
        walked, scanned = both(index, queries, k, **options)
        assert torch.equal(walked[0], scanned[0])
        assert torch.equal(walked[1], scanned[1])
        assert scanned[2] == 5 * count


@settings(max_examples=40)
@given(
    st.integers(0, 99),
    st.sampled_from([(1, 16), (6, 16), (20, 4), (3, 5)]),
    st.sampled_from(SHAPES),
    st.sampled_from(["state", "principal"]),
    st.booleans(),
)
def test_bounds_are_above_all_scores(
    whole_budget: None, seed: int, sizes: tuple[int, int], shape: str, kind: str, double: bool
):
    """Whatever the head by which states become rows and scores, and whatever the axes of the boxes."""
    torch.manual_seed(seed)
    model = plain_model(*sizes).to(torch.float64 if double else torch.float32)
    weight, weights, bias = (own.detach() for own in (model.dense.weight, model.logit.weight, model.dense.bias))
    states, queries = (torch.randn(count, sizes[0], dtype=weight.dtype) for count in (2000, 16))
    if shape == "zero columns":
        weight[:, 0], weights[:, ::2] = 0, 0
    elif shape == "no weights":
        torch.nn.init.zeros_(weights)
    elif shape == "nearly equal columns":
        weight[:, -1] = weight[:, 0] * (1 + 1e-6)
    elif shape == "nearly equal rows":
        states = states[:1] + 1e-7 * states
    elif shape == "lines":  # bounds are the scores themselves, and they differ by rounding alone
        states, bias[:] = states[:1] + 1e-6 * states, bias + 100
    elif shape == "huge and tiny weights":
        weights *= torch.logspace(-36, 30, sizes[1], dtype=weight.dtype)
    else:
        model.requires_grad_(False)
        weight *= float(shape)
        bias *= float(shape)
        weights *= float(shape) if float(shape) < 1 else 1.0
    axes = {"state": lambda rows, head: state_axes(head), "principal": principal_axes}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laid_out, "chosen_axes", axes[kind])
        index = Index(model)
        index.add(states)
        index._laid_out()
    for k in (1, 4):
        walked, scanned = both(index, queries, k)
        assert torch.equal(walked[0], scanned[0])
        assert torch.equal(walked[1], scanned[1])


@pytest.mark.parametrize(("scale", "weight"), [(1e-31, 1e29), (1e38, 1.0)])
def test_numbers_near_the_ends_of_a_dtype_have_bounds(whole_budget: None, scale: float, weight: float):
    """A kink between two numbers whose difference is next to nothing, or above what float32 holds."""
    model = plain_model(1, 1)
    for layer, value in ((model.dense, scale), (model.logit, weight)):
        torch.nn.init.constant_(layer.weight, value)
        torch.nn.init.zeros_(layer.bias)
    index = Index(model)
    index.add(torch.cat([torch.full((900, 1), 0.5), torch.tensor([[2.2], [-2.2]]).repeat(500, 1)]))
    for query in (0.0, 1.0, -1.0, 0.6):
        walked, scanned = both(index, torch.full((1, 1), query), 1)
        assert torch.equal(walked[0], scanned[0])
        assert torch.equal(walked[1], scanned[1])


def test_axes_are_chosen_by_the_pairs_that_a_sample_scores():
    torch.manual_seed(2)
    head = Head(plain_model(6, 16), "right")
    independent = head.item_rows(torch.rand(40000, 6) * 2 - 1)
    assert torch.equal(chosen_axes(independent, head), state_axes(head))
    alike = head.item_rows(torch.randn(40000, 2) @ torch.randn(2, 6) + 0.02 * torch.randn(40000, 6))
    before = alike.clone()
    assert torch.equal(chosen_axes(alike, head), principal_axes(alike, head))
    assert torch.equal(alike, before)


@pytest.mark.parametrize("shape", ["as it is", "zero columns", "nearly equal columns"])
def test_a_place_times_the_axes_is_the_row(shape: str):
    torch.manual_seed(0)
    model = plain_model(6, 16)
    if shape == "zero columns":
        model.dense.weight.detach()[:, 0] = 0
    elif shape == "nearly equal columns":
        model.dense.weight.detach()[:, 1] = model.dense.weight[:, 0] * (1 + 1e-6)
    head = Head(model, "right")
    rows = head.item_rows(torch.randn(500, 6))
    for axes in (state_axes(head), principal_axes(rows, head)):
        assert (rows @ read_of(axes, head) @ axes.T - rows).abs().max() < 1e-5


def test_ties_across_boxes_go_to_the_smaller_ids(whole_budget: None):
    model, items, queries = exact_model(), exact_states(30).repeat(100, 1), exact_states(4, seed=1)
    ids = torch.randperm(3000)
    index = Index(model)
    index.add(items, ids)
    scores, found = index.search(queries, 150)
    assert (scores.tolist(), found.tolist()) == sorted_search(all_scores(model, queries, items), ids.tolist(), 150)


def line_model() -> TwoTowers:
    """Every score is a line in the state's only number, and so is its bound."""
    torch.manual_seed(0)
    model = plain_model(1, 16)
    for parameter, value in ((model.dense.weight, 1.0), (model.dense.bias, 3.0), (model.logit.weight, 0.5)):
        torch.nn.init.constant_(parameter, value)
    return model


@pytest.mark.parametrize("pace", [0.0, 1e-6, math.inf])
def test_walks_that_take_too_long_are_given_up(pace: float, monkeypatch: pytest.MonkeyPatch):
    """`pace` in nanoseconds a pair: a scan that takes no time, next to none, or for ever."""
    monkeypatch.setattr(topk_call, "pace", lambda *_: pace)
    monkeypatch.setattr(topk_call, "OFFER", 0)
    monkeypatch.setattr(laid_out, "FEWEST", topk_call.BOX)
    index, queries = Index(line_model()), torch.rand(12, 1)
    index.add(torch.rand(5000, 1))
    queries[1::2] = -10.0  # no unit is above 0: all scores are equal, and so all bounds
    walked, scanned = both(index, queries, 20)
    assert torch.equal(walked[0], scanned[0])
    assert torch.equal(walked[1], scanned[1])
    assert scanned[2] == 12 * 5000
    bounds = 3 + 40  # of groups and boxes
    if pace == 0:
        assert walked[2] == 12 * 5000
    elif pace == math.inf:
        assert 6 * 5000 < walked[2] <= 6 * (5000 + bounds) + 6 * (1000 + bounds)
    else:  # the first walk that takes long is the last one, or, where other programs took time, one of the first
        counts, search = list[Any](), topk_call.search
        monkeypatch.setattr(topk_call, "search", lambda *args, **how: counts.append(search(*args, **how)) or counts[-1])
        index.search(queries[1:2].expand(64, 1), 20)
        ((_, _, computed),) = counts
        assert (computed < 0).any(), "a walk was given up"
        assert (computed == 5000).sum() > 32, "most were not begun"


def test_few_pairs_are_scored_where_items_lie_on_a_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(topk_call, "pace", lambda *_: math.inf)
    index = Index(line_model())
    index.add(torch.rand(20000, 1))
    index.search(torch.rand(30, 1), 10)
    assert index.pairs_computed < 30 * 20000 / 50


@pytest.mark.parametrize("count", [129, 257, 512, 1000, 4097])
def test_removing_and_loading_keep_boxes_right(whole_budget: None, tmp_path: Path, count: int):
    torch.manual_seed(0)
    model, items, queries = plain_model(), torch.randn(count, 3), torch.randn(6, 3)
    index = Index(model)
    index.add(items)
    index.remove(torch.randperm(count)[: count // 3])
    index.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index", model)
    assert loaded._laid_out().boxes is not None or len(index) <= 128
    walked, scanned = both(loaded, queries, 25)
    assert torch.equal(walked[0], scanned[0])
    assert torch.equal(walked[1], scanned[1])


def test_files_of_format_1_are_searched_through_their_boxes(whole_budget: None, tmp_path: Path):
    """They have no axes: places are states."""
    torch.manual_seed(0)
    model, items, queries = line_model(), torch.rand(3000, 1), torch.rand(6, 1)
    path, index = tmp_path / "index", Index(model)
    index.add(items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laid_out, "chosen_axes", lambda rows, head: head.weight)
        patch.setattr(index_file, "FORMAT", 1)
        index.save(path)
        tensors, about, *_ = index_file.read(path)
        assert torch.equal(tensors.pop("axes"), model.dense.weight)
        index_file.write(path, tensors, about)
    loaded = Index.load(path, model)
    for removed in (torch.arange(0, 3000, 7), torch.arange(0)):
        walked, scanned = both(loaded, queries, 5)
        assert torch.equal(walked[0], scanned[0])
        assert torch.equal(walked[1], scanned[1])
        assert walked[2] < scanned[2] / 3
        loaded.remove(removed)
        loaded.save(path)
        loaded = Index.load(path, model)


def test_the_pace_of_a_scan_is_measured():
    assert 0 < PACE(torch.ones(16), 0.0, torch.randn(40, 16, 16)) < 1e6
    assert PACE(torch.ones(16), 0.0, torch.empty(0, 16, 16)) == math.inf


def test_an_order_has_each_item_once():
    torch.manual_seed(0)
    rows = torch.randint(3, (5000, 4)).float()  # many equal keys
    moved, ids = rows.clone(), torch.arange(5000)
    topk_call.move(moved, ids, topk_call.order(rows, torch.eye(4)))
    assert torch.equal(ids.sort().values, torch.arange(5000))
    assert torch.equal(moved, rows[ids])
    assert not torch.equal(ids, torch.arange(5000))


def test_few_items_have_no_boxes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(laid_out, "FEWEST", 8192)
    index = Index(plain_model())
    for count, boxes in ((8192, False), (1, True)):
        index.add(torch.randn(count, 3))
        assert (index._laid_out().boxes is not None) == boxes


def test_a_thousand_queries_find_what_sorting_all_scores_finds():
    model, items, queries = exact_model(), exact_states(9000), exact_states(1000, seed=1)  # scores have no rounding
    index = Index(model)
    index.add(items)
    assert index._laid_out().boxes is not None
    scores, ids = index.search(queries, 10)
    for some, own, found in zip(queries.split(100), scores.split(100), ids.split(100), strict=True):
        every = all_scores(model, some, items)
        order = every.argsort(dim=1, descending=True, stable=True)[:, :10]
        assert torch.equal(found, order)
        assert torch.equal(own, every.gather(1, order))
