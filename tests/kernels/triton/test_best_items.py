"""The search kernel through `towers.search.Index`, against sorting all scores and against the search on the CPU."""

import pytest
import torch
from tests.helpers.searching import all_scores, exact_model, exact_states, plain_model, sorted_search

from towers.kernels.triton import best_items, support
from towers.search import Index
from towers.search import items as laid_out


@pytest.fixture
def searched(device, monkeypatch):
    """The device of queries that are searched by the kernel, in several spans."""
    if device.type == "cpu":
        monkeypatch.setattr(support, "runs_on", lambda device: True)
    monkeypatch.setattr(best_items, "PROGRAMS", 4)
    return device


CASES = {  # items, queries, k
    "less than a tile": (7, 3, 7),
    "a whole tile": (128, 1, 1),
    "uneven spans": (390, 9, 10),
}


@pytest.mark.parametrize(("count", "asked", "k"), CASES.values(), ids=CASES.keys())
def test_any_search_is_that_of_sorting(count, asked, k, searched):
    """No operation rounds, and most scores are tied."""
    model, items, queries = exact_model(seed=2), exact_states(count), exact_states(asked, seed=1)
    ids = torch.randperm(3 * count, generator=torch.Generator().manual_seed(count))[:count]
    index = Index(model)
    index.add(items, ids)
    found = index.search(queries.to(searched), k)
    assert found[0].device.type == searched.type
    wanted = sorted_search(all_scores(model, queries, items), ids.tolist(), k)
    assert (found[0].tolist(), found[1].tolist()) == wanted


def test_items_that_a_query_may_not_find(searched):
    model, items, queries = exact_model(seed=2), exact_states(300), exact_states(3, seed=1)
    index, ids = Index(model), torch.arange(599, -1, -2)
    index.add(items, ids)
    some, own = set(range(0, 600, 3)), [set(range(first, 600, 7)) for first in range(3)]
    own[1].clear()
    found = index.search(queries.to(searched), 6, exclude=own, filter=set(range(600)) - some)
    scores, unwanted = all_scores(model, queries, items), [some | one for one in own]
    assert (found[0].tolist(), found[1].tolist()) == sorted_search(scores, ids.tolist(), 6, unwanted)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_search_finds_what_one_on_the_cpu_does(side, searched, monkeypatch):
    """In the order of boxes, which is not that of ids; after items were removed; with a score that is wanted at least."""
    monkeypatch.setattr(laid_out, "FEWEST", 128)
    torch.manual_seed(0)
    index, queries = Index(plain_model(), side), torch.randn(5, 3)
    index.add(torch.randn(400, 3))
    found = index.search(queries.to(searched), 12)
    index.remove(torch.arange(0, 400, 3))
    again = index.search(queries.to(searched), 12)
    assert not (again[1] % 3 == 0).any()
    assert index.pairs_computed == 5 * 266
    monkeypatch.setattr(support, "runs_on", lambda device: False)
    wanted = index.search(queries, 12)
    assert torch.equal(again[1].cpu(), wanted[1])
    assert (again[0].cpu() - wanted[0]).abs().max() < 2e-6
    assert not torch.equal(found[1], again[1])


def test_where_nothing_reaches_the_least_score(searched):
    rows, ids = torch.zeros(3, 4).to(searched), torch.tensor([2, 5, 9]).to(searched)
    rows[1] = -1.0
    given = (rows[:1], torch.tensor([1.0, -1.0, 0.5, -0.5]).to(searched), -0.0, best_items.tiles_of(rows), ids)
    scores, found = best_items.search(*given, 5, least=0.0, keep=ids > 2, hidden=None)
    assert found.tolist() == [[5, 9, best_items.NONE, best_items.NONE, best_items.NONE]], "0.0 and -0.0 are equal"
    assert scores.tolist() == [[0.0, 0.0] + 3 * [-torch.inf]]
    scores, found = best_items.search(*given, 1, least=0.5, keep=None, hidden=None)
    assert (scores.tolist(), found.tolist()) == ([[-torch.inf]], [[best_items.NONE]])
    scores, found = best_items.search(rows[:0], *given[1:], 2, least=0.5, keep=None, hidden=None)
    assert scores.shape == found.shape == (0, 2)


def test_what_the_kernel_serves(monkeypatch):
    cpu = torch.device("cpu")
    assert not support.serves_search(cpu, torch.float32, 100, 10)
    monkeypatch.setattr(support, "runs_on", lambda device: True)
    assert support.serves_search(cpu, torch.float32, 2000, 1024)
    for dtype, items, k in ((torch.float64, 100, 10), (torch.float32, 2000, 1025), (torch.float32, 1 << 31, 10)):
        assert not support.serves_search(cpu, dtype, items, k)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype, searched, monkeypatch):
    """float64 is searched on the CPU; bfloat16 is converted to float32."""
    calls, launch = [], best_items.launch
    monkeypatch.setattr(best_items, "launch", lambda *given, **options: calls.append(1) or launch(*given, **options))
    model, items, queries = exact_model().to(dtype), exact_states(50).to(dtype), exact_states(2, seed=1).to(dtype)
    index = Index(model)
    index.add(items)
    found = index.search(queries.to(searched), 4)
    wanted = sorted_search(all_scores(model.float(), queries.float(), items.float()), list(range(50)), 4)
    assert (found[0].tolist(), found[1].tolist()) == wanted
    assert len(calls) == (dtype == torch.bfloat16)
