"""`Index.search(…, candidates=n)`: scores are exact, most of the best are found, and the index says it is not exact."""

import pytest
import torch
from tests.helpers.searching import plain_model
from tests.search.test_other_heads import CASES, model

from towers import TwoTowers
from towers.search import Index, candidates
from towers.training.presets import PRESETS, build

pytestmark = pytest.mark.usefixtures("backend")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", CASES)
def test_scores_are_exact(case: str, side: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(candidates, "ITEMS", 256)
    make, output = CASES[case]
    one = make()
    items, queries, ids = torch.randn(2000, one.hidden), torch.randn(6, one.hidden), torch.randperm(5000)[:2000]
    index = Index(one, side, output=output)
    index.add(items, ids)
    unwanted = [set(torch.randperm(5000)[:1000].tolist()) for _ in range(6)]
    for options in ({}, {"exclude": unwanted}, {"filter": torch.arange(5000) % 3 > 0}):
        every, order = index.search(queries, 1000, **options)
        assert index.exact
        scores, found = index.search(queries, 10, candidates=100, **options)
        assert not index.exact
        assert index.pairs_computed == 6 * (1024 + 100)
        ranks = (order[:, None] == found[:, :, None]).int().argmax(2)
        assert torch.equal(every.gather(1, ranks), scores)
        assert torch.equal(order.gather(1, ranks), found)
        assert (ranks.diff() > 0).all(), "best first, and each once"


@pytest.mark.parametrize(("outputs", "output"), [(1, None), (5, None), (5, 2)])
def test_most_of_the_best_are_found(outputs: int, output: int | None):
    one = build(PRESETS["small"], vector_width=4, outputs=outputs)
    items, queries = torch.randn(4000, one.hidden), torch.randn(20, one.hidden)
    index = Index(one, output=output)
    index.add(items)
    exact, found = index.search(queries, 10)[1], index.search(queries, 10, candidates=200)[1]
    assert (exact[:, None] == found[:, :, None]).any(2).float().mean() > 0.9


def test_where_no_relu_bends_the_cheap_scores_have_the_order_of_the_exact_ones():
    one = model(0, features=("absolute difference", "product"))
    torch.nn.init.constant_(one.dense.bias, 100.0)
    items, queries = torch.randn(3000, 5), torch.randn(70, 5)
    index = Index(one)
    index.add(items)
    exact, cheap = index.search(queries, 10), index.search(queries, 10, candidates=12)
    assert torch.equal(exact[0], cheap[0])
    assert torch.equal(exact[1], cheap[1])


def test_fewer_items_than_candidates_and_no_query():
    one = model(0, 3)
    items, queries = torch.randn(300, 5), torch.randn(2, 5)
    index = Index(one)
    index.add(items)
    with torch.inference_mode():
        scores, ids = index.search(queries, 20, candidates=250, filter=set(range(40)))
    assert not index.exact
    again = index.search(queries, 20, candidates=300, filter=set(range(40)))
    assert index.exact
    assert torch.equal(scores, again[0])
    assert torch.equal(ids, again[1])
    assert index.search(queries[:0], 7, candidates=20)[1].shape == (0, 7)


@pytest.mark.parametrize("one", [plain_model(5, 4), model(0)], ids=["difference", "others"])
def test_candidates_are_at_least_k(one: TwoTowers):
    index = Index(one)
    index.add(torch.randn(30, 5))
    with pytest.raises(ValueError, match=r"Index.search: candidates \(9\) must be at least k \(10\)"):
        index.search(torch.randn(1, 5), 10, candidates=9)


def test_the_head_of_one_difference_stays_exact():
    index, query = Index(plain_model(5, 4)), torch.randn(3, 5)
    index.add(torch.randn(500, 5))
    assert torch.equal(index.search(query, 5, candidates=5)[1], index.search(query, 5)[1])
    assert index.exact
