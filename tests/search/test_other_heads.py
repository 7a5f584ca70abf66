"""`Index` of presets' heads, classes, bins and ensembles: what their scores by hand, sorted, are."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.searching import sorted_search
from torch import Tensor

from towers import Tower, TwoTowers
from towers.ensemble import Ensemble
from towers.search import Index, compared, scan
from towers.training.objectives import log_odds, mean_bin

pytestmark = pytest.mark.usefixtures("backend")

HIDDEN = 5
DIRECTED = ("difference", "absolute difference", "product", "positive difference", "negative difference")


def model(seed: int, outputs: int = 1, features: tuple[str, ...] = DIRECTED) -> TwoTowers:
    torch.manual_seed(seed)
    tower = Tower(vector_width=4, filters=None, hidden=None, word_maximum=HIDDEN)
    return TwoTowers(tower, tower, features=features, outputs=outputs, dropout=0.5, dense=7)


def logits(one: TwoTowers, u: Tensor, v: Tensor) -> Tensor:
    """Of one pair of states, by the formulas of the docstrings, in float64."""
    by_name = {
        "difference": u - v,
        "absolute difference": abs(u - v),
        "product": u * v,
        "positive difference": (u - v).clamp(min=0),
        "negative difference": (v - u).clamp(min=0),
    }
    features = torch.cat([by_name[name] for name in one.pair_features.features])
    dense, logit = (
        {name: x.detach().double() for name, x in layer.named_parameters()} for layer in (one.dense, one.logit)
    )
    return logit["weight"] @ (dense["weight"] @ features + dense["bias"]).clamp(min=0) + logit["bias"]


def probabilities(one: TwoTowers, u: Tensor, v: Tensor) -> Tensor:
    if isinstance(one, Ensemble):
        sides = zip(one.members, u.split(HIDDEN), v.split(HIDDEN), strict=True)
        return torch.stack([probabilities(member, *pair) for member, *pair in sides]).mean(0)
    found = logits(one, u, v)
    return found.sigmoid() if one.outputs == 1 else found.softmax(0)


def wanted(one: TwoTowers, u: Tensor, v: Tensor, output: int | None) -> float:
    found = probabilities(one, u.double(), v.double())
    if one.outputs > 1 and output is None:
        return float((found * torch.arange(one.outputs)).sum() / (one.outputs - 1))
    p = found[output or 0]
    return float(torch.log(p / (1 - p)))


CASES = {
    "one output": (lambda: model(0), None),
    "bins": (lambda: model(1, 5, ("absolute difference", "product")), None),
    "a class": (lambda: model(2, 3), 2),
    "an ensemble": (lambda: Ensemble([model(seed) for seed in range(2)]), None),
    "an ensemble of classes": (lambda: Ensemble([model(seed, 3) for seed in range(2)]), 0),
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_by_hand_and_sorted(case, side, monkeypatch):
    make, output = CASES[case]
    one = make().train()
    monkeypatch.setattr(compared, "NUMBERS", 3 * one.hidden)  # tiles of 16
    items, queries = torch.randn(20, one.hidden), torch.randn(3, one.hidden)
    index = Index(one, side, output=output)
    index.add(items[:10])
    index.add(items[10:])
    scores, ids = index.search(queries, 20)
    for query, own, found in zip(queries, scores, ids, strict=True):
        pairs = [(query, item) if side == "right" else (item, query) for item in items]
        expected = torch.tensor([wanted(one, *pair, output) for pair in pairs])
        torch.testing.assert_close(own, expected.sort(descending=True).values, rtol=1e-5, atol=1e-6)
        assert found.tolist() == expected.argsort(descending=True).tolist()
    assert one.training, "the model is not changed"


def exact_scores(one: TwoTowers, queries: Tensor, items: Tensor, side: str, output: int | None) -> Tensor:
    """Each pair by the model's own `compare` in float64, "queries items"."""
    sides = (queries[:, None], items) if side == "right" else (items, queries[:, None])
    found = deepcopy(one).double().eval().compare(*(states.double() for states in sides)).detach()
    if one.outputs == 1:
        return found
    if output is not None:
        return log_odds(found, output)
    return mean_bin(found.softmax(-1))


@settings(max_examples=25)
@given(st.sampled_from([*CASES]), st.sampled_from(["left", "right"]), st.integers(0, 9), st.sampled_from([0.01, 1, 30]))
def test_quick_scores_are_as_near_as_they_say(case: str, side: str, seed: int, scale: float):
    torch.manual_seed(seed)
    make, output = CASES[case]
    one = make()
    items, queries = torch.randn(50, one.hidden) * scale, torch.randn(4, one.hidden) * scale
    index = Index(one, side, output=output)
    index.add(items)
    scores, error = index._head.quick(queries, index._laid_out().blocks, 50)
    exact = exact_scores(one, queries, items, side, output)
    assert ((scores - exact).abs() <= error[:, None]).all()
    assert (error < 2e-4 * (1 + scale * scale)).all()
    pairs = torch.arange(4).repeat_interleave(50), items.repeat(4, 1)
    found = index._head.exact(queries, *pairs).view(4, 50)
    torch.testing.assert_close(found, exact.float(), rtol=2e-7, atol=1e-13)


@settings(max_examples=20)
@given(st.sampled_from([*CASES]), st.integers(1, 150), st.integers(0, 9), st.sampled_from([0.0, 1e-7, 1e-6, 1e-4]))
def test_what_quick_scores_confuse_is_told_apart(case: str, k: int, seed: int, apart: float):
    torch.manual_seed(seed)
    make, output = CASES[case]
    one = make()
    items = torch.randn(3, one.hidden)[torch.arange(150) % 3] + apart * torch.randn(150, one.hidden)
    queries, ids = torch.randn(3, one.hidden), torch.randperm(400)[:150]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "ITEMS", 16)  # tiles of 32
        index = Index(one, output=output)
        index.add(items, ids)
        scores, found = index.search(queries, k)
    exact = exact_scores(one, queries, items, "right", output).float()
    expected = sorted_search(exact, ids.tolist(), k)
    torch.testing.assert_close(scores, torch.tensor(expected[0]), rtol=2e-7, atol=1e-13)
    if torch.equal(scores, torch.tensor(expected[0])):  # else the last bit of a score differs, and with it the order
        assert found.tolist() == expected[1]


def test_tiles_and_batches_of_queries_change_no_bit(monkeypatch: pytest.MonkeyPatch):
    one = model(5, 3)
    items, queries, order = torch.randn(200, HIDDEN), torch.randn(7, HIDDEN), torch.randperm(200)
    index = Index(one, output=2)
    index.add(items)
    scores, ids = index.search(queries, 30)
    monkeypatch.setattr(scan, "ITEMS", 32)
    monkeypatch.setattr(scan, "QUERIES", 3)
    parts = Index(one, output=2)
    for first in range(0, 200, 70):
        parts.add(items[order[first : first + 70]], order[first : first + 70])
    again = [parts.search(query[None], 30) for query in queries]
    assert torch.equal(scores, torch.cat([score for score, _ in again]))
    assert torch.equal(ids, torch.cat([id for _, id in again]))


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 40), st.integers(0, 2**31), st.data())
def test_ties_go_to_the_smaller_id_whatever_the_blocks(distinct, seed, data):
    one = model(3, 5)
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(distinct, HIDDEN, generator=generator)
    items = states[torch.randint(distinct, (60,), generator=generator)]
    k = data.draw(st.integers(1, 60))
    index = Index(one)
    order = torch.randperm(60, generator=generator)
    index.add(items[order], order)
    scores, ids = index.search(states[:1], k)
    ranked = sorted(zip((-scores[0]).tolist(), ids[0].tolist(), strict=True))
    assert ids[0].tolist() == [id for _, id in ranked]
    everything, all_ids = index.search(states[:1], 60)
    assert (scores.tolist(), ids.tolist()) == (everything[:, :k].tolist(), all_ids[:, :k].tolist())


def test_an_index_of_other_heads_is_kept_removed_from_and_compared_with_itself(tmp_path):
    one, items = model(4, 3), torch.randn(40, HIDDEN)
    index = Index(one, output=1)
    index.add(items)
    index.remove(torch.tensor([7]))
    index.save(tmp_path / "index")
    again = Index.load(tmp_path / "index", one, output=1)
    query = torch.randn(2, HIDDEN)
    assert torch.equal(again.search(query, 39)[0], index.search(query, 39)[0])
    other = Index.load(tmp_path / "index", one, output=0)
    assert not torch.equal(other.search(query, 39)[1], index.search(query, 39)[1])
    scores, pairs = index.all_pairs(k=1)
    assert len(pairs) == 39
    assert float(scores[0]) == pytest.approx(wanted(one, *items[pairs[0]], 1), abs=1e-5)
    with pytest.raises(ValueError, match="is an index of another model"):
        Index.load(tmp_path / "index", model(4, 3, tuple(reversed(DIRECTED))))


@pytest.mark.parametrize(
    ("outputs", "output", "text"),
    [
        (1, 0, "output is 0; the model has one output"),
        (3, 3, "output is 3; the model has outputs 0 to 2"),
        (3, -1, "output is -1; the model has outputs 0 to 2"),
    ],
)
def test_an_output_that_is_none_of_the_models_is_refused(outputs, output, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        Index(model(0, outputs), output=output)
    Index(model(0, outputs)).save(tmp_path / "index")
    with pytest.raises(ValueError, match=text):
        Index.load(tmp_path / "index", model(0, outputs), output=output)


def test_states_and_weights_that_are_not_finite_are_refused():
    one = model(0, 3)
    with pytest.raises(ValueError, match=r"Index.add: items\[1\] is not finite"):
        Index(one).add(torch.tensor([[0.0] * HIDDEN, [torch.nan] * HIDDEN]))
    torch.nn.init.constant_(one.logit.weight, torch.inf)
    with pytest.raises(ValueError, match="a weight of the model's head is not finite"):
        Index(one)


def test_states_whose_scores_are_above_what_a_dtype_holds_are_refused():
    index, state = Index(model(0)), torch.full((1, HIDDEN), 1e20)
    index.add(torch.cat([state, state]))
    with pytest.raises(ValueError, match=r"scores of these queries may be above what torch.float32 holds"):
        index.search(state, 1)
    with pytest.raises(ValueError, match=r"scores of these items may be above what torch.float32 holds"):
        index.all_pairs(k=1)
