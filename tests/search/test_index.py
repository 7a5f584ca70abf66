"""`Index` finds what sorting all scores finds, ties included; it refuses what it cannot search."""

import copy
import json
import os
import pickle
import random
import re
import sys
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.searching import all_scores, exact_model, exact_states, plain_model, sorted_search
from tests.helpers.small import forgetful_model

from towers import ShapeContractError, TwoTowers
from towers.contracts import checks
from towers.search import Index, scan
from towers.search.items import lay_out
from towers.training.presets import PRESETS, build

pytestmark = pytest.mark.usefixtures("backend")


def index_of(model: TwoTowers, items: torch.Tensor, ids: object = None, side: str = "right") -> Index:
    index = Index(model, side)
    index.add(items, ids)
    return index


def agrees(found, expected) -> bool:
    scores, ids = found
    return (scores.tolist(), ids.tolist()) == expected


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("hidden", "dense"), [(6, 16), (1, 1), (7, 33)])
def test_scores_are_those_of_compare(side: str, hidden: int, dense: int):
    model = plain_model(hidden, dense)
    items, queries = torch.rand(500, hidden) * 2 - 1, torch.rand(9, hidden) * 2 - 1
    scores, ids = index_of(model, items, side=side).search(queries, k=500)
    expected = all_scores(model.double(), queries.double(), items.double(), side)
    assert (ids.sort(1).values == torch.arange(500)).all()
    bound = 1e-5 * model.logit.weight.abs().sum().item()
    assert (scores - expected.gather(1, ids)).abs().max() < bound
    assert (scores.diff(dim=1) <= 0).all()


def test_items_and_queries_of_several_parts(monkeypatch):
    monkeypatch.setattr("towers.search.index.PART", 4)
    model, items, queries = plain_model(), torch.rand(30, 3), torch.rand(9, 3)
    scores, ids = index_of(model, items).search(queries, k=3)
    parts = [index_of(model, items).search(query.unsqueeze(0), k=3) for query in queries]
    assert torch.equal(scores, torch.cat([part for part, _ in parts]))
    assert torch.equal(ids, torch.cat([part for _, part in parts]))


def test_a_model_in_float64_is_searched_in_float64():
    model = plain_model().double()
    items, queries = torch.randn(300, 3).double(), torch.randn(4, 3).double()
    scores, ids = index_of(model, items).search(queries, k=20)
    assert scores.dtype == torch.float64
    every = all_scores(model, queries, items)
    torch.testing.assert_close(scores, every.topk(20).values, rtol=0, atol=1e-13)
    torch.testing.assert_close(scores, every.gather(1, ids), rtol=0, atol=1e-13)  # equal scores stand in another order
    assert all(len(set(row)) == 20 for row in ids.tolist())


def test_a_model_in_half_precision_is_searched_in_float32():
    model = exact_model().bfloat16()
    items, queries = exact_states(100), exact_states(3, seed=1)
    scores, _ = index_of(model, items.bfloat16()).search(queries.bfloat16(), k=5)
    assert scores.dtype == torch.float32
    assert agrees((scores, _), sorted_search(all_scores(model.float(), queries, items), list(range(100)), 5))


@st.composite
def searches(draw: st.DrawFn):
    count, queries = draw(st.integers(1, 70)), draw(st.integers(0, 5))
    ids = draw(st.lists(st.integers(0, 200), min_size=count, max_size=count, unique=True))
    k = draw(st.integers(1, count))
    some = st.sets(st.sampled_from([*ids, 201]), max_size=count - k)
    exclude = draw(st.one_of(st.none(), some, st.lists(some, min_size=queries, max_size=queries)))
    wanted = None
    if exclude is None:
        wanted = draw(st.one_of(st.none(), st.sets(st.sampled_from(ids), min_size=k)))
    return count, queries, ids, k, exclude, wanted, draw(st.integers(0, 9)), draw(st.integers(1, count))


@settings(max_examples=100)
@given(searches(), st.booleans(), st.sampled_from(["left", "right"]))
def test_any_search_is_that_of_sorting(search, mask: bool, side: str):
    count, queries, ids, k, exclude, wanted, seed, part = search
    model, items = exact_model(seed=seed), exact_states(count, levels=1, seed=seed)
    asked = exact_states(queries, levels=1, seed=seed + 1)
    index = Index(model, side)
    index.add(items[:part], torch.tensor(ids[:part]))
    index.add(items[part:], torch.tensor(ids[part:], dtype=torch.int64))
    unwanted = [exclude] * queries if isinstance(exclude, set) else list(exclude or [set()] * queries)
    if wanted is not None:
        unwanted = [set(ids) - wanted] * queries
        if mask:
            wanted = torch.tensor([id in wanted for id in range(201)])
    found = index.search(asked, k, exclude=exclude, filter=wanted)
    assert agrees(found, sorted_search(all_scores(model, asked, items, side), ids, k, unwanted))


def test_ties_at_the_boundary_of_k_go_to_the_smaller_ids_in_any_order():
    model, queries = exact_model(), exact_states(3, seed=1)
    items = exact_states(40).repeat(200, 1)  # 8,000 items, more than a tile, each 200 times
    for ids in (torch.arange(8000), torch.arange(8000).flip(0), torch.randperm(8000)):
        found = index_of(model, items, ids).search(queries, 300)
        assert agrees(found, sorted_search(all_scores(model, queries, items), ids.tolist(), 300))


def test_blocks_and_batches_change_no_bit(monkeypatch: pytest.MonkeyPatch):
    model, items, queries = plain_model(6, 16), torch.randn(2500, 6), torch.randn(20, 6)
    scores, ids = index_of(model, items).search(queries, 30)
    monkeypatch.setattr(scan, "QUERIES", 7)
    monkeypatch.setattr(scan, "ITEMS", 48)
    parts = Index(model)
    for first in range(0, 2500, 617):
        parts.add(items[first : first + 617])
    again = [parts.search(query.unsqueeze(0), 30) for query in queries]
    assert torch.equal(scores, torch.cat([score for score, _ in again]))
    assert torch.equal(ids, torch.cat([id for _, id in again]))


def test_shards_merge_to_the_search_of_the_whole():
    model, items, queries = exact_model(), exact_states(300, levels=1), exact_states(4, seed=1)
    whole = index_of(model, items).search(queries, 25)
    ids = [torch.arange(first, 300, 7) for first in range(7)]
    shards = [index_of(model, items[own], own).search(queries, 25) for own in ids]
    scores, ids, _ = scan.merge([scan.Found(*shard, 0) for shard in shards], 25)
    assert torch.equal(scores, whole[0])
    assert torch.equal(ids, whole[1])


def test_ids_count_on_from_the_largest():
    index = index_of(exact_model(), exact_states(3))
    index.add(exact_states(2), torch.tensor([10, 7]))
    index.add(exact_states(1))
    index.add(exact_states(0))
    assert len(index) == 6
    assert sorted(index.search(exact_states(1), 6)[1][0].tolist()) == [0, 1, 2, 7, 10, 11]


def test_removed_items_are_not_found():
    model, items, queries = exact_model(), exact_states(50), exact_states(3, seed=1)
    index = index_of(model, items)
    index.remove(torch.arange(0, 50, 2))
    assert len(index) == 25
    gone = [set(range(0, 50, 2))] * 3
    assert agrees(
        index.search(queries, 25), sorted_search(all_scores(model, queries, items), list(range(50)), 25, gone)
    )
    index.remove(torch.arange(1, 50, 2))
    assert len(index) == 0
    index.add(items[:1])
    assert index.search(queries[:1], 1)[1].tolist() == [[50]]


@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
def test_rows_that_were_laid_out_are_given_back(monkeypatch):
    """Small parts lie between other things that were allocated meanwhile, so that glibc alone keeps them."""
    monkeypatch.setattr("towers.search.items.RETURNED", 1 << 14)
    count, size, between = 200_000, 2000, list[torch.Tensor]()
    index, held = Index(plain_model(dense=32)), list[int]()
    for _ in range(0, count, size):
        index.add(torch.randn(size, 3))
        between.append(torch.zeros(1000))
    held.append(held_bytes())
    assert len(index.search(torch.zeros(1, 3), 1)[1]) == 1
    held.append(held_bytes())
    assert held[1] - held[0] < count * 32 * 4 / 2  # before there were the rows alone, now what is laid out


def held_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_ids_to_remove_in_any_form():
    forms = [
        torch.tensor([0, 1]),
        np.array([2, 3], dtype=np.uint64),
        [4, np.int32(5)],
        {6},
        range(7, 9),
        9,
        np.int64(10),
    ]
    forms += [torch.tensor(11), np.array(12), [], [13, 13]]
    index = index_of(plain_model(), torch.randn(15, 3))
    for ids in forms:
        index.remove(ids)
    assert index.search(torch.randn(1, 3), 1)[1].tolist() == [[14]]
    assert len(index) == 1


def test_ids_to_add_in_any_form():
    model, items = plain_model(), torch.randn(12, 3)
    forms = [torch.tensor([5, 3]), [7, np.int32(1)], range(10, 6, -2), np.array([0, 9], dtype=np.uint64), (4, 2)]
    forms += [np.array([11, 258], dtype=">i4")]  # another order of bytes
    expected = index_of(model, items, torch.tensor([5, 3, 7, 1, 10, 8, 0, 9, 4, 2, 11, 258]))
    index = index_of(model, torch.empty(0, 3), [])
    for number, ids in enumerate(forms):
        index.add(items[2 * number : 2 * number + 2], ids)
    queries = torch.randn(2, 3)
    assert all(map(torch.equal, index.search(queries, 12), expected.search(queries, 12)))


def test_a_saved_index_gives_the_same_bits(tmp_path: Path):
    model, queries = plain_model(), torch.randn(4, 3)
    index = index_of(model, torch.randn(45, 3), torch.randperm(100)[:45])
    index.save(tmp_path / "items.index")
    loaded = Index.load(tmp_path / "items.index", model)
    assert [path.name for path in tmp_path.iterdir()] == ["items.index"]
    assert len(loaded) == 45
    for one, other in zip(index.search(queries, 45), loaded.search(queries, 45), strict=True):
        assert torch.equal(one, other)
    for own in (index, loaded):
        own.add(torch.ones(1, 3))
    loaded.save(tmp_path / "items.index")  # onto the file that it reads
    again = Index.load(tmp_path / "items.index", model)
    for one, other in zip(index.search(queries, 46), again.search(queries, 46), strict=True):
        assert torch.equal(one, other)


def test_an_index_of_the_left_side_is_loaded_as_one(tmp_path: Path):
    model = plain_model()
    index_of(model, torch.randn(9, 3), side="left").save(tmp_path / "left")
    assert Index.load(tmp_path / "left", model).side == "left"


def test_an_empty_index_is_saved_and_loaded(tmp_path: Path):
    model = plain_model()
    Index(model).save(tmp_path / "empty")
    index = Index.load(tmp_path / "empty", model)
    index.add(torch.zeros(1, 3))
    assert index.search(torch.zeros(1, 3), 1)[1].tolist() == [[0]]


def pairs_by_sorting(scores: torch.Tensor, ids: list[int], threshold: float, k: int) -> list[tuple[float, int, int]]:
    found = []
    for query, row in zip(ids, scores.tolist(), strict=True):
        others = sorted((-score, id) for score, id in zip(row, ids, strict=True) if id != query and score >= threshold)
        found += [(score, query, id) for score, id in others[:k]]
    return [(-score, query, id) for score, query, id in sorted(found)]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("threshold", "k"), [(None, 3), (0.25, None), (-100.0, None), (100.0, None), (0, 2), (-9.0, 89)]
)
def test_all_pairs_are_those_of_sorting(side: str, threshold: float | None, k: int | None):
    model, items, ids = exact_model(), exact_states(90), torch.randperm(200)[:90]
    scores, pairs = index_of(model, items, ids, side).all_pairs(threshold=threshold, k=k)
    least = -torch.inf if threshold is None else threshold
    expected = pairs_by_sorting(all_scores(model, items, items, side), ids.tolist(), least, k or 90)
    assert [(score, *pair) for score, pair in zip(scores.tolist(), pairs.tolist(), strict=True)] == expected


def test_all_pairs_of_few_items():
    model = exact_model()
    for count in (0, 1):
        scores, pairs = index_of(model, exact_states(count)).all_pairs(threshold=0.0)
        assert (scores.shape, pairs.shape) == ((0,), (0, 2))


def test_no_gradients_and_no_changed_inputs():
    model, items, queries = plain_model(), torch.randn(20, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    before = items.clone()
    scores, _ = index_of(model, items).search(queries, 2)
    assert not scores.requires_grad
    assert torch.equal(items, before)


def test_ids_and_masks_of_numpy():
    index, queries = index_of(plain_model(), torch.randn(9, 3)), torch.randn(2, 3)
    fixed = np.array([1, 4, 7])
    fixed.flags.writeable = False
    each, mask = np.array([[1, 2], [3, 4]]), np.arange(9) % 2 == 0
    for arrays, ids in (
        ({"exclude": fixed}, {"exclude": {1, 4, 7}}),
        ({"exclude": [np.int64(1), 4, 7]}, {"exclude": {1, 4, 7}}),
        ({"exclude": 5}, {"exclude": {5}}),
        ({"exclude": np.array(5)}, {"exclude": {5}}),
        ({"exclude": each}, {"exclude": [{1, 2}, {3, 4}]}),
        ({"exclude": [each[0], {np.int32(3), 4}]}, {"exclude": [{1, 2}, {3, 4}]}),
        ({"filter": fixed[::-1]}, {"filter": {1, 4, 7}}),
        ({"filter": mask}, {"filter": {0, 2, 4, 6, 8}}),
    ):
        found, expected = index.search(queries, 3, **arrays), index.search(queries, 3, **ids)
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("seed", [0, 1])
def test_any_program_finds_what_sorting_finds(seed: int, tmp_path: Path, monkeypatch):
    """Adding, removing and adding again, saving and loading in any order, with ids up to the largest one."""
    monkeypatch.setattr("towers.search.items.FEWEST", (8192, 40)[seed % 2])
    draw, model = random.Random(seed), exact_model(seed=seed)
    index, items = Index(model), dict[int, torch.Tensor]()
    for step in range(10):
        if step % 2 == 0:
            ids = draw.sample([*range(200), *range(scan.NONE - 200, scan.NONE)], draw.choice([0, 1, 17, 60]))
            ids = [id for id in ids if id not in items]
            states = exact_states(len(ids), levels=1, seed=100 * seed + step)
            index.add(states, torch.tensor(ids, dtype=torch.int64))
            items |= zip(ids, states, strict=True)
        elif step % 3 == 0:
            ids = draw.sample([*items], draw.choice([min(1, len(items)), len(items) // 2, len(items)]))
            index.remove(torch.tensor(ids, dtype=torch.int64))
            for id in ids:
                del items[id]
        else:
            index.save(tmp_path / "index")
            index = Index.load(tmp_path / "index", model)
        assert len(index) == len(items)
        if len(items) < 2:
            continue
        table, queries, k = torch.stack([*items.values()]), exact_states(2, seed=step), draw.randint(1, len(items) - 1)
        unwanted = [set(draw.sample([*items], len(items) - k)) | {-1, 2**70, 1000} for _ in queries]
        expected = sorted_search(all_scores(model, queries, table), [*items], k, unwanted)
        assert agrees(index.search(queries, k, exclude=unwanted), expected)
        scores, pairs = index.all_pairs(threshold=0.0, k=k)
        expected = pairs_by_sorting(all_scores(model, table, table), [*items], 0.0, k)
        assert [(score, *pair) for score, pair in zip(scores.tolist(), pairs.tolist(), strict=True)] == expected


# What is refused.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda index: index.search(torch.zeros(2, 3), 0), "k (0) must be a whole number of at least 1"),
        (lambda index: index.search(torch.zeros(2, 3), True), "k (True) must be a whole number of at least 1"),
        (lambda index: index.search(torch.zeros(2, 3), 11), "k (11) must be at most 10, the number of items"),
        (lambda index: index.search(torch.zeros(2, 3), 3, exclude=set(range(8))), "k (3) must be at most 2, what exclude and filter leave"),
        (lambda index: index.search(torch.zeros(2, 3), 3, filter={1, 2}), "k (3) must be at most 2"),
        (lambda index: index.search(torch.zeros(2, 3), 9, exclude=[{1}, {1, 2, 99}]), "k (9) must be at most 8, what exclude and filter leave for query 1"),
        (lambda index: index.search(torch.zeros(2, 3), 1, exclude=[{1}]), "exclude has ids for 1 queries; there are 2"),
        (lambda index: index.search(torch.zeros(2, 3), 1, exclude=[{1}, {True}]), "exclude has True; expected ids"),
        (lambda index: index.search(torch.zeros(2, 3), 1, exclude={0: [1]}), "exclude is a dict; expected ids, or a list with the ids of each query"),
        (lambda index: index.search(torch.zeros(2, 3), 1, exclude=[{1}, {1: 2}]), "exclude has {1: 2}; expected ids"),
        (lambda index: index.search(torch.zeros(2, 3), 1, exclude=np.ma.array([1, 2], mask=[0, 1])), "exclude is a masked array; exclude.compressed() has what is not masked"),
        (lambda index: index.remove(np.ma.array([1, 2], mask=[0, 1])), "ids is a masked array; ids.compressed() has what is not masked"),
        (lambda index: index.search(torch.zeros(2, 3), 1, filter=torch.ones(10, dtype=torch.uint8)), "filter is torch.uint8: .bool() makes a mask of it, and .long() ids"),
        (lambda index: index.search(torch.zeros(2, 3), 1, filter=torch.ones(9, dtype=torch.bool)), "filter is a mask (9,); expected one entry for each id, 0 to 9"),
        (lambda index: index.search(torch.zeros(2, 3), 1, filter=torch.ones(9)), "filter is torch.float32 (9,); expected ids"),
        (lambda index: index.search(torch.zeros(2, 3), 1, filter=np.array([1.5])), "filter is torch.float64 (1,); expected ids"),
        (lambda index: index.search(torch.zeros(2, 3), 1, exclude=np.array(["a"])), "exclude is an array of <U1; expected ids"),
        (lambda index: index.search(torch.tensor([[0, 0, 0], [0, torch.nan, 0]]), 1), "queries[1] is not finite"),
        (lambda index: index.add(torch.tensor([[0, torch.inf, 0]])), "items[0] is not finite"),
        (lambda index: index.search(torch.full((1, 3), 1e38), 1), "scores of these queries may be above what torch.float32 holds"),
        (lambda index: index.add(torch.zeros(2, 3), torch.tensor([11, 11])), "ids has 11 more than once"),
        (lambda index: index.add(torch.zeros(2, 3), torch.tensor([11, 9])), "ids has 9, which an item of the index has"),
        (lambda index: index.add(torch.zeros(1, 3), torch.tensor([-1])), "ids has -1; an id is at least 0"),
        (lambda index: index.add(torch.zeros(1, 3), torch.tensor([2**63 - 1])), "ids has 9223372036854775807; an id is at most 9223372036854775806"),
        (lambda index: index.add(torch.zeros(2, 3), [-5, 11]), "ids has -5; an id is at least 0"),
        (lambda index: index.add(torch.zeros(2, 3), {11, 12}), "ids is a set, without an order; expected one id for each item"),
        (lambda index: index.add(torch.zeros(1, 3), 11), "Index.add: ids has 11; expected ids: ints in a list, array or tensor"),
        (lambda index: index.add(torch.zeros(1, 3), [11.0]), "Index.add: ids has 11.0; expected ids, which are ints"),
        (lambda index: index.add(torch.zeros(1, 3), np.array([11.0])), "Index.add: ids is torch.float64 (1,); expected ids, one integer each"),
        (lambda index: index.search(torch.zeros(2, 3), 1, exclude=[1.5]), "Index.search: exclude has 1.5; expected ids, which are ints"),
        (lambda index: index.search(torch.zeros(2, 3), 1, exclude=1.5), "Index.search: exclude has 1.5; expected ids, which are ints"),
        (lambda index: index.search(torch.zeros(2, 3), 1, exclude="12"), "Index.search: exclude has '12'; expected ids: ints in a list, array or tensor"),
        (lambda index: index.remove([1.5]), "Index.remove: ids has 1.5; expected ids, which are ints"),
        (lambda index: index.add(torch.zeros(1, 3, device="meta")), "items is on the device meta, without numbers; expected a dense tensor of states"),
        (lambda index: index.search(torch.zeros(1, 3).to_sparse(), 1), "queries is torch.sparse_coo; expected a dense tensor"),
        (lambda index: index.remove(torch.tensor([3, 12])), "no item has the id 12"),
        (lambda index: index.remove([3, -1]), "no item has the id -1"),
        (lambda index: index.remove({3, 2**70}), "no item has the id 9223372036854775807"),
        (lambda index: index.remove(torch.tensor(2.0)), "Index.remove: ids is torch.float32 (1,); expected ids, one integer each"),
        (lambda index: index.remove([3, True]), "Index.remove: ids has True; expected ids, which are ints"),
        (lambda index: index.all_pairs(), "give threshold, k, or both"),
        (lambda index: index.all_pairs(k=10), "k (10) must be from 1 to 9, the number of other items"),
        (lambda index: index.all_pairs(threshold=float("nan")), "threshold is NaN"),
    ],
)  # fmt: skip
def test_what_is_refused(call, message: str):
    index = index_of(exact_model(), exact_states(10))
    with pytest.raises(ValueError, match=re.escape(message)):
        call(index)
    assert len(index) == 10


def test_an_empty_index_is_not_searched():
    with pytest.raises(ValueError, match="the index is empty; add items first"):
        Index(plain_model()).search(torch.zeros(1, 3), 1)
    with pytest.raises(ValueError, match=r"k \(1\) has no pairs to choose from: the index has 0 items"):
        Index(plain_model()).all_pairs(k=1)


def test_the_largest_id():
    index = index_of(plain_model(), torch.randn(2, 3), torch.tensor([2**63 - 2, 7]))
    with pytest.raises(ValueError, match="no ids follow 9223372036854775806, which an item has or had; give ids"):
        index.add(torch.randn(1, 3))
    assert set(index.search(torch.randn(1, 3), 2, exclude=[2**70])[1][0].tolist()) == {2**63 - 2, 7}
    assert len(index.all_pairs(k=1)[0]) == 2


def test_a_folder_is_no_index(tmp_path: Path):
    index = Index(plain_model())
    with pytest.raises(IsADirectoryError, match=re.escape(f"{tmp_path} is a folder; name a file, such as {tmp_path}")):
        index.save(tmp_path)
    with pytest.raises(IsADirectoryError, match=re.escape(f"{tmp_path} is a folder; towers.scale.Shards.load reads")):
        Index.load(tmp_path, plain_model())


@pytest.mark.parametrize("call", ["add", "search"])
def test_a_wrong_width_is_a_broken_contract(call: str):
    index = index_of(plain_model(), torch.zeros(4, 3))
    arguments = (torch.zeros(2, 5),) if call == "add" else (torch.zeros(2, 5), 1)
    with pytest.raises(ShapeContractError, match=rf"Index.{call}: .*: hidden is 5; expected 3 \(self.hidden\)"):
        getattr(index, call)(*arguments)


def test_one_id_for_each_item():
    with pytest.raises(ShapeContractError, match="items is 1; expected 2"):
        Index(plain_model()).add(torch.zeros(2, 3), torch.tensor([1]))
    with pytest.raises(ShapeContractError, match="items is 3; expected 2"):
        Index(plain_model()).add(torch.zeros(2, 3), range(3))


def test_models_that_cannot_be_searched():
    with pytest.raises(ValueError, match="side is 'both'"):
        Index(plain_model(), "both")
    with pytest.raises(ValueError, match="Forgetful has a compare of its own"):
        Index(forgetful_model())
    with pytest.raises(ValueError, match="the model is on the device meta, without weights"):
        Index(plain_model().to("meta"))
    model = plain_model()
    torch.nn.init.constant_(model.logit.weight, torch.nan)
    with pytest.raises(ValueError, match="is not finite"):
        Index(model)


def test_an_index_of_another_model_is_refused(tmp_path: Path):
    index_of(plain_model(), torch.randn(4, 3)).save(tmp_path / "index")
    with pytest.raises(ValueError, match="is an index of another model"):
        Index.load(tmp_path / "index", plain_model())


def test_what_a_file_says_about_itself(tmp_path: Path):
    model, path = plain_model(), tmp_path / "index"
    index = index_of(model, torch.randn(4, 3))
    index.save(path)
    assert Index.load(path, model).about == {}
    index.save(path, about={"corpus": "texts"})
    assert index.about == {"corpus": "texts"}
    again = Index.load(path, model)
    again.save(path)
    assert Index.load(path, model).about == {"corpus": "texts"}
    old = without_checksums(path.read_bytes())
    old = old.replace(b"about", b"abbot").replace(b"abbot", b"about", 1)  # of a version without it
    path.write_bytes(old)
    assert Index.load(path, model).about == {}
    with pytest.raises(ValueError, match=r"Index.save: about is \{'size': 4\}; expected texts by name"):
        index.save(path, about={"size": 4})
    assert path.read_bytes() == old


def without_checksums(file: bytes) -> bytes:
    """As the first versions wrote it."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    del header["__metadata__"]["checksums"]
    first, last = header.pop("checksums")["data_offsets"]
    assert end + last == len(file)
    text = json.dumps(header).encode().ljust(end - 8)
    return file[:8] + text + file[end : end + first]


def test_a_file_without_checksums_is_loaded(tmp_path: Path):
    model, path, queries = plain_model(), tmp_path / "index", torch.randn(2, 3)
    index = index_of(model, torch.randn(40, 3))
    index.save(path)
    path.write_bytes(without_checksums(path.read_bytes()))
    assert all(map(torch.equal, Index.load(path, model).search(queries, 9), index.search(queries, 9)))
    with pytest.raises(
        ValueError, match="index: has no checksums, as an older towers wrote it; load it without verify"
    ):
        Index.load(path, model, verify=True)


def test_a_flipped_bit_is_noticed(tmp_path: Path, monkeypatch):
    """In the header and in what follows."""
    monkeypatch.setattr("towers.search.items.FEWEST", 100)
    model, path, count = plain_model(hidden=1, dense=2), tmp_path / "index", 300
    index_of(model, torch.randn(count, 1)).save(path, about={"corpus": "texts"})
    whole = bytearray(path.read_bytes())
    start, numbers = 8 + int.from_bytes(whole[:8], "little"), random.Random(count)
    assert len(Index.load(path, model, verify=True)) == count
    for at in (
        *range(0, start, 1 if count == 40 else 9),
        *numbers.sample(range(start, len(whole)), 60),
        len(whole) - 1,
    ):
        bit = 1 << numbers.randrange(8)
        whole[at] ^= bit
        path.write_bytes(whole)
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: (is damaged|is no index|has format)"):
            Index.load(path, model)
        whole[at] ^= bit


def test_states_of_a_large_file_are_verified_by_calls_that_read_all(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("towers.search.index_file.VERIFIED", 1000)
    monkeypatch.setattr("towers.search.items.FEWEST", 100)
    model, path, queries = plain_model(), tmp_path / "index", torch.randn(2, 3)
    index_of(model, torch.randn(500, 3)).save(path)
    damaged = bytearray(path.read_bytes())
    damaged[8 + int.from_bytes(damaged[:8], "little") + 3] ^= 1  # in the states, which are the first tensor
    path.write_bytes(damaged)
    calls: list[Callable[[Index], object]] = [
        lambda index: index.all_pairs(k=1),
        lambda index: index.remove(torch.tensor([4])),
        lambda index: index.save(tmp_path / "again"),
        lambda index: (index.add(torch.zeros(1, 3)), index.search(queries, 1)),
        lambda index: Index.load(path, model, verify=True),
        copy.deepcopy,
    ]
    if Index.load(path, model)._items.boxes is None:  # then a search reads all of them
        calls.append(lambda index: index.search(queries, 1))
    else:
        assert Index.load(path, model).search(queries, 1)[1].shape == (2, 1)
    for call in calls:
        with pytest.raises(
            ValueError, match="index: is damaged: its blocks are not what was written; copy it again, or"
        ):
            call(Index.load(path, model))
    assert not (tmp_path / "again").exists()


def test_damaged_files_are_refused(tmp_path: Path):
    model, path = plain_model(), tmp_path / "index"
    index_of(model, torch.randn(40, 3)).save(path)
    whole = path.read_bytes()
    for size in (0, 7, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: is .*(cut off|no index)"):
            Index.load(path, model)
    path.write_bytes(whole.replace(b'"towers_index": "2"', b'"towers_index": "9"'))
    with pytest.raises(ValueError, match="has format 9; this version of towers reads up to 2: update towers"):
        Index.load(path, model)
    path.write_bytes(whole.replace(b'"F32"', b'"F99"'))
    with pytest.raises(ValueError, match="is damaged"):
        Index.load(path, model)
    path.write_bytes(whole.replace(b'"side', b'"sode').replace(b"side", b"sode"))
    with pytest.raises(ValueError, match="is damaged"):
        Index.load(path, model)
    with pytest.raises(FileNotFoundError, match="nothing"):
        Index.load(tmp_path / "nothing", model)


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    with pytest.raises(OSError, match="missing"):
        index_of(plain_model(), torch.randn(4, 3)).save(tmp_path / "missing" / "index")


CHANGES: dict[str, Callable[[TwoTowers], object]] = {
    "a step": lambda model: torch.optim.SGD(model.parameters(), 1.0).step(),
    "a part": lambda model: setattr(model.dense, "bias", torch.nn.Parameter(model.dense.bias + 1)),
    "data": lambda model: setattr(model.logit.weight, "data", model.logit.weight + 1),
    "a tower": lambda model: model.right.load_state_dict(plain_model().right.state_dict()),
    "dtype": lambda model: model.double(),
    "another layer": lambda model: setattr(model, "dense", torch.nn.Linear(*model.dense.weight.T.shape)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_noticed(change: str):
    model = plain_model()
    index = Index(model)
    index.add(torch.rand(9, 3))
    before = index.search(torch.rand(2, 3), 3)
    model.load_state_dict(model.state_dict())  # the same weights again
    model.eval().requires_grad_(False).requires_grad_(True)
    index.search(torch.rand(2, 3), 3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    CHANGES[change](model)
    calls: dict[str, Callable[[], object]] = {
        "search": lambda: index.search(torch.rand(2, 3), 3),
        "add": lambda: index.add(torch.rand(2, 3)),
        "all_pairs": lambda: index.all_pairs(k=1),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"Index.{name}: the weights of the model have changed since the index"):
            call()
    assert len(index) == 9
    assert len(before) == 2


def test_threads_that_search_at_once_find_all_items(monkeypatch):
    """What was added is laid out by the first search; one that begins meanwhile waits for it."""
    model, items, queries = plain_model(), torch.rand(30, 3), torch.rand(2, 3)
    expected, index, found = index_of(model, items).search(queries, k=30), index_of(model, items), list[object]()
    other = Thread(target=lambda: found.append(index.search(queries, k=30)))

    def slowly(*args, **kwargs):
        monkeypatch.setattr("towers.search.index.lay_out", lay_out)
        other.start()
        other.join(0.05)
        return lay_out(*args, **kwargs)

    monkeypatch.setattr("towers.search.index.lay_out", slowly)
    found.append(index.search(queries, k=30))
    other.join()
    assert all(torch.equal(ids, expected[1]) for _, ids in found)
    assert len(found) == 2


@pytest.mark.parametrize("read", [0, 1])
def test_an_interrupted_search_loses_no_item_silently(monkeypatch, read: int):
    """Parts that were copied are given back to the system, so that they cannot be copied again."""
    items, queries = torch.rand(30, 3), torch.rand(2, 3)
    index = index_of(plain_model(), items)

    def interrupted(parts, *_, **__):
        assert len(list(islice(parts, read))) == read
        raise KeyboardInterrupt

    monkeypatch.setattr("towers.search.index.lay_out", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index.search(queries, k=3)
    monkeypatch.setattr("towers.search.index.lay_out", lay_out)
    if not read:
        assert index.search(queries, k=30)[1].shape == (2, 30)
        return
    for call in (lambda: index.search(queries, k=3), lambda: index.remove(torch.tensor([1]))):
        with pytest.raises(ValueError, match="interrupted while it laid out the items, and some are lost; make a new"):
            call()


def test_copies_of_an_index_find_the_same():
    index, queries = index_of(plain_model(), torch.rand(30, 3)), torch.rand(2, 3)
    for copied in (pickle.loads(pickle.dumps(index)), copy.deepcopy(index)):
        copied.remove(torch.tensor([0]))
        copied.add(torch.rand(1, 3), torch.tensor([0]))
        assert torch.equal(copied.search(queries, k=30)[1].sort().values[0], torch.arange(30))
    assert len(index) == 30


def test_a_file_that_is_written_over_is_refused(tmp_path):
    """It would give the new numbers, or end the process; a file that is replaced or removed stays as it was."""
    model, queries = plain_model(), torch.rand(2, 3)
    index_of(model, torch.rand(30, 3)).save(tmp_path / "index")
    index_of(model, torch.rand(20, 3)).save(tmp_path / "other")
    index = Index.load(tmp_path / "index", model)
    expected = index.search(queries, k=30)
    index_of(model, torch.rand(30, 3)).save(tmp_path / "index")
    assert agrees(index.search(queries, k=30), (expected[0].tolist(), expected[1].tolist()))
    index = Index.load(tmp_path / "index", model)
    copied = pickle.loads(pickle.dumps(index))
    (tmp_path / "index").write_bytes((tmp_path / "other").read_bytes())
    for call in (lambda: index.search(queries, k=3), lambda: index.add(torch.rand(1, 3), torch.tensor([3]))):
        with pytest.raises(ValueError, match="was written over since it was loaded; load it again, and replace files"):
            call()
    assert len(copied.search(queries, k=30)[1]) == 2
    index = Index.load(tmp_path / "other", model)
    (tmp_path / "other").unlink()
    assert len(index.search(queries, k=20)[1]) == 2


@pytest.mark.parametrize("preset", [False, True])
@pytest.mark.parametrize(
    "setting", [torch.autocast("cpu", torch.bfloat16), torch.device("meta")], ids=["autocast", "device"]
)
def test_autocast_and_the_default_device_change_nothing(setting, preset: bool, tmp_path):
    model = build(PRESETS["small"], vector_width=4) if preset else plain_model()
    items, queries = torch.randn(300, model.hidden) * 3, torch.randn(9, model.hidden) * 3
    some, numbers = torch.arange(0, 300, 3), [[number] for number in range(9)]

    def found():
        index = index_of(model, items)
        each = [index.search(queries, k=9, exclude=numbers, filter=some)]
        each.append(index.search(queries, k=9, candidates=90))
        index.save(tmp_path / "index")
        index.remove(some)
        return [*each, index.all_pairs(k=2), Index.load(tmp_path / "index", model).search(queries, k=9)]

    expected = found()
    with setting:
        again = found()
    assert all(map(torch.equal, chain(*expected), chain(*again)))


def test_ids_of_one_query_that_are_none_are_refused():
    index = index_of(plain_model(), torch.rand(20, 3))
    with (
        checks("off"),
        pytest.raises(ValueError, match="exclude has None; expected ids: ints in a list, array or tensor"),
    ):
        index.search(torch.rand(2, 3), k=1, exclude=[{1}, None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("k", "best", "count"), [(17, 2, 100), (20, 3, 1000), (100, 5, 9000), (100, 99, 9000)])
def test_few_best_items_and_many_whose_scores_are_the_next_lower_numbers(
    k: int, best: int, count: int, dtype: torch.dtype
):
    model = TwoTowers().to(dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.dense.weight[0, 0] = model.logit.weight[0, 0] = 1
    items = torch.zeros(count, 6, dtype=dtype)
    items[:, 0] = -1 + torch.finfo(dtype).eps / 2
    items[-best:, 0] = -1
    index = Index(model)
    index.add(items)
    scores, ids = index.search(torch.zeros(5, 6, dtype=dtype), k)
    wanted = [*range(count - best, count), *range(k - best)]
    assert ids.tolist() == [wanted] * 5
    torch.testing.assert_close(scores[:, best:], torch.full_like(scores[:, best:], 1 - torch.finfo(dtype).eps / 2),
                               rtol=0, atol=0)  # fmt: skip
    assert (scores[:, :best] == 1).all()


@pytest.mark.parametrize("preset", [False, True])
def test_states_whose_signs_are_still_to_be_turned_are_those_states(preset: bool):
    model = build(PRESETS["small"], vector_width=4) if preset else TwoTowers()
    states, queries = torch.randn(50, model.hidden), torch.randn(3, model.hidden)
    one, other = Index(model), Index(model)
    one.add(-states)
    other.add(torch._neg_view(states))
    for wanted, found in zip(one.search(-queries, 5), other.search(torch._neg_view(queries), 5), strict=True):
        assert torch.equal(wanted, found)
