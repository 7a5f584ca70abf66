"""Towers and heads with other parts than the usual ones, against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from towers import PairFeatures, PairHead, Ragged, ShapeContractError, Tower, TwoTowers, keras
from towers.contracts import verify
from towers.ensemble import Ensemble

from .helpers import reference

PARTS = {
    "similarity": {"filters": None, "bidirectional": True, "reduce": "max", "word_maximum": 4},
    "small": {"filters": None, "hidden": None, "word_maximum": 4, "word_mean": 3},
    "the seed's with words": {"reduce": "max", "word_maximum": 4},
    "both directions, last": {"bidirectional": True},
    "mean": {"reduce": "mean"},
    "a map": {"word_map": 6},
    "no LSTM": {"hidden": None, "reduce": "max"},
    "no convolution": {"filters": None, "word_map": 4},
}
HEADS = {
    "bins": {"features": ("absolute difference", "product"), "outputs": 5},
    "classes": {"features": ("positive difference", "negative difference", "difference"), "outputs": 3},
}


def tower(parts, **more):
    sizes = {"vector_width": 5, "filters": 12, "pool": 3, "hidden": 4} | PARTS[parts] | more
    if sizes["filters"] is None:
        del sizes["pool"]
    return reference.number_weights(Tower(**sizes, dtype=torch.float64))


def shared(parts="similarity", head="bins", **more):
    one = tower(parts)
    return reference.number_weights(TwoTowers(one, one, dense=7, **HEADS[head], **more))


def close(found, wanted, tolerance=1e-11):
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("parts", PARTS)
@settings(max_examples=6)
@given(lengths=st.lists(st.integers(2, 7), min_size=1, max_size=5))
def test_every_sentence_is_as_if_it_were_alone(parts, lengths):
    module, rows = tower(parts), reference.sentences(lengths, 5)
    wanted = torch.stack([reference.tower(row, module) for row in rows])
    padded, found_lengths = reference.pad(rows, words=9)
    ragged = Ragged.from_list(rows)
    table, ids = ragged.values.unique(dim=0, return_inverse=True)
    close(module(padded, found_lengths), wanted)
    close(module(ragged), wanted)
    close(module(Ragged(ids, ragged.offsets, table=table)), wanted)
    with torch.no_grad():
        close(module.encode(Ragged(ids, ragged.offsets, table=table)), wanted)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("head", HEADS)
def test_every_gradient_by_name(parts, head):
    model, slow = shared(parts, head), shared(parts, head)
    left, right = reference.sentences([3, 6, 2], 5), reference.sentences([4, 2, 5], 5, seed=1)
    logits = model(Ragged.from_list(left), Ragged.from_list(right))
    wanted = torch.stack([reference.two_towers(a, b, slow) for a, b in zip(left, right, strict=True)])
    close(logits, wanted)
    logits.square().sum().backward()
    wanted.square().sum().backward()
    grads = dict(slow.named_parameters())
    for name, parameter in model.named_parameters():
        close(parameter.grad, grads[name].grad, 1e-9)


@pytest.mark.parametrize(
    "parts",
    [parts if parts in ("similarity", "small") else pytest.param(parts, marks=pytest.mark.slow) for parts in PARTS],
)
def test_parts_are_proven(parts):
    assert str(verify(Tower(vector_width=5, **PARTS[parts]))).startswith("Tower: proven")


@pytest.mark.parametrize("parts", PARTS)
def test_parts_are_saved(parts, tmp_path):
    one = Tower(vector_width=5, **PARTS[parts])
    second = PairHead(one.width, ("absolute difference",), dense=4, outputs=3, dropout=0.1)
    model = TwoTowers(one, one, **HEADS["bins"], dropout=0.1, word_dropout=0.1, second=second).eval()
    assert model.has_other_parts
    model.save(tmp_path)
    again = TwoTowers.load(tmp_path).eval()
    left, right = torch.randn(3, 4, 5), torch.randn(3, 6, 5)
    assert torch.equal(model(left, right), again(left, right))
    assert torch.equal(model.second(*(model.encode_left(side) for side in (left, right))),
                       again.second(*(again.encode_left(side) for side in (left, right))))  # fmt: skip
    assert (again.word_dropout.p, again.dropout.p, again.second.dropout.p) == (0.1, 0.1, 0.1)
    assert '"format": 3' in (tmp_path / "config.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_two_towers_with_other_heads_are_proven(head):
    one = Tower(vector_width=5, filters=None, hidden=None, word_mean=3)
    model = TwoTowers(one, one, **HEADS[head], dropout=0.1)
    assert str(verify(model, seconds=120)).startswith("TwoTowers: proven")


def test_heads_are_proven():
    assert str(verify(PairFeatures(4, ("difference", "product")))).startswith("PairFeatures: proven")
    assert str(verify(PairHead(4, outputs=3))).startswith("PairHead: proven")


def test_the_usual_network_is_as_it_was(tmp_path):
    model = TwoTowers()
    assert not model.has_other_parts
    names = [f"{side}.{name}" for side in ("left", "right") for name in (
        "conv.weight", "conv.bias", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0")]  # fmt: skip
    assert list(model.state_dict()) == [*names, "dense.weight", "dense.bias", "logit.weight", "logit.bias"]
    model.save(tmp_path)
    assert '"format": 2' in (tmp_path / "config.json").read_text(), "older versions read it"


def test_shared_towers_with_symmetric_features_are_symmetric():
    model = shared()
    left, right = (Ragged.from_list(reference.sentences([3, 6, 2], 5, seed=seed)) for seed in (0, 1))
    assert model.symmetric
    assert torch.equal(model(left, right), model(right, left))
    assert not shared(head="classes").symmetric
    assert not TwoTowers(tower("mean"), tower("mean"), **HEADS["bins"]).symmetric


def test_states_are_compared_over_leading_axes():
    model = shared("small")
    left, right = torch.randn(4, 7).double(), torch.randn(3, 7).double()
    table = model.compare(left[:, None], right)
    assert table.shape == (4, 3, 5)
    close(table[2, 1], reference.head(left[2], right[1], model))
    close(model.probability(torch.ones(2, 3, 5).double(), torch.ones(2, 2, 5).double()).sum(1), torch.ones(2).double())


@pytest.mark.parametrize("head", ["binary", "bins", "ensemble"])
def test_every_pair_of_states_has_its_logits_in_blocks(head, monkeypatch):
    model = TwoTowers(tower("mean"), tower("a map")) if head == "binary" else shared()
    if head == "ensemble":
        model = Ensemble([model, shared(head="bins")])
    model.eval()
    left, right = (torch.randn(count, model.hidden).double() for count in (7, 5))
    wanted, sizes, compare = model.compare(left[:, None], right), [], type(model).compare
    assert torch.equal(model.similarity(left, right), wanted)
    monkeypatch.setattr("towers.model.WORKING_BYTES", 1 << 12)
    monkeypatch.setattr(type(model), "compare", lambda *given: sizes.append(len(given[1])) or compare(*given))
    with torch.no_grad():
        close(model.similarity(left, right), wanted)
        for some, others in ((left[:0], right), (left, right[:0])):
            assert model.similarity(some, others).shape == (len(some), len(others), *wanted.shape[2:])
    assert len(sizes) > 4
    assert max(sizes) < 7
    with pytest.raises(ShapeContractError, match="similarity: right_state: hidden is 5; expected"):
        model.similarity(left, torch.zeros(7, 5).double())


def test_dropout_is_for_training_only():
    one = Tower(vector_width=5, **PARTS["similarity"])
    model = TwoTowers(one, one, **HEADS["bins"], dropout=0.5, word_dropout=0.5)
    same = torch.randn(3, 6, 5)
    assert not torch.equal(model(same, same), model(same, same))
    plain = TwoTowers(one, one, word_dropout=0.5)
    assert plain(same, same).tolist() == [0.0, 0.0, 0.0], "the words of one pair have one mask: u - v stays 0"
    model.eval()
    assert torch.equal(model(same, same), model(same, same))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Tower(filters=None, hidden=None), ValueError, r"Tower: has no part: give filters, hidden"),
        (lambda: Tower(reduce="sum"), ValueError, r"reduce \('sum'\) must be one of 'last', 'max', 'mean'"),
        (lambda: Tower(chunk=2, reduce="max"), ValueError, r"chunk \(2\) goes with an LSTM in one direction"),
        (lambda: Tower(hidden=None, bidirectional=True), ValueError, r"bidirectional goes with an LSTM"),
        (lambda: Tower(filters=None, pool=2), ValueError, r"pool \(2\) go with filters, which is None"),
        (lambda: Tower(filters=None, kernel_words=3), ValueError, r"kernel_words \(3\) and pool \(4\) go with filters"),
        (lambda: Tower(word_maximum=-1), ValueError, r"word_maximum \(-1\) must be an int of at least 1"),
        (lambda: TwoTowers(features=("ratio",)), ValueError, r"features has 'ratio'; known are 'difference'"),
        (lambda: TwoTowers(features="difference"), ValueError, r"features \('difference'\) must be a tuple of names"),
        (lambda: TwoTowers(features=()), ValueError, r"must be at least one, each once"),
        (lambda: PairFeatures(3, ("product", "product")), ValueError, r"must be at least one, each once"),
        (lambda: TwoTowers(outputs=0), ValueError, r"outputs \(0\) must be an int of at least 1"),
        (lambda: TwoTowers(dropout=1), ValueError, r"dropout \(1\) must be a probability"),
        (lambda: TwoTowers(word_dropout=-0.1), ValueError, r"word_dropout \(-0.1\) must be a probability"),
        (lambda: TwoTowers(second=PairHead(5)), ValueError, r"second is for states of 5 numbers; the towers' have 6"),
        (lambda: PairHead(4)(torch.zeros(2, 3), torch.zeros(2, 3)), ShapeContractError, r"is 3; expected 4"),
        (lambda: keras.save(shared(), "x.keras"), ValueError, r"x.keras: the model has parts that the network of Keras"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()
