"""Two towers and their head in one call, with gradients: what the towers and layers give when they are called."""

import pytest
import torch
from torch import nn

from towers import Ragged, Tower, TwoTowers
from towers.contracts import ShapeContractError
from towers.kernels import cpu
from towers.kernels.cpu import tower_call

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=f"the C code cannot run: {cpu.why_not()}")


def pair(*, shared: bool = False, dtype=torch.float64, dense: int = 5, hidden: int = 3) -> TwoTowers:
    left, right = (Tower(vector_width=4, filters=4, pool=2, hidden=hidden, dtype=dtype) for _ in range(2))
    return TwoTowers(left, left if shared else right, dense=dense)


def given(kind: str, dtype=torch.float64) -> tuple:
    left, right = torch.randn(3, 6, 4, dtype=dtype), torch.randn(3, 5, 4, dtype=dtype)
    if kind == "alike":
        return left, right
    lengths = torch.tensor([6, 2, 4])
    if kind == "lengths":
        return left, right, lengths, torch.tensor([2, 5, 3])
    if kind == "ragged":
        return Ragged.from_padded(left, lengths), right
    offsets = torch.tensor([0, 3, 7, 9])
    return Ragged(torch.randint(0, 6, (9,)), offsets, table=torch.randn(6, 4, dtype=dtype)), right


KINDS = ("alike", "lengths", "ragged", "ids")


def by_layers(model: TwoTowers, *sentences) -> torch.Tensor:
    handle = model.logit.register_forward_hook(lambda *_: None)
    try:
        return model(*sentences)
    finally:
        handle.remove()


def keep_from_kinks(model: TwoTowers, *sentences) -> None:
    """Move the biases of the dense units until none is near 0, where relu has no derivative."""
    found = []
    handle = model.dense.register_forward_hook(lambda _, __, units: found.append(units.detach().abs().min()))
    try:
        with torch.no_grad():
            while not found or found[-1] < 1e-4:
                model.dense.bias += 1e-3 * bool(found)
                model(*sentences)
    finally:
        handle.remove()


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The calls of C for pairs with gradients."""
    seen, forward, backward = [], tower_call.logits_and_kept, tower_call.pair_backward
    monkeypatch.setattr(tower_call, "logits_and_kept", lambda *args: (seen.append("forward"), forward(*args))[1])
    monkeypatch.setattr(tower_call, "pair_backward", lambda *args: (seen.append("backward"), backward(*args))[1])
    return seen


def close(found, wanted, tolerance):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [False, True], ids=["two towers", "one tower"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["float", "double"]
)
def test_logits_and_every_gradient_are_those_of_the_layers(kind, shared, dtype, tolerance, calls):
    model, sentences = pair(shared=shared, dtype=dtype, dense=19, hidden=17), given(kind, dtype)
    with torch.no_grad():
        model.dense.bias.normal_()
        model.logit.bias.normal_()
    for name in ("alike", "lengths"):
        if kind == name:
            sentences[0].requires_grad_()
    wanted = [part for part in (*model.parameters(), *sentences[:1]) if isinstance(part, torch.Tensor)]
    wanted = [part for part in wanted if part.requires_grad]
    results = []
    for call in (model, lambda *args: by_layers(model, *args)):
        logits = call(*sentences)
        results.append([logits.detach(), *torch.autograd.grad(logits.square().sum(), wanted)])
    close(*results, tolerance)
    assert calls == ["forward", "backward"]


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind, calls):
    model, sentences = pair(), given(kind)
    keep_from_kinks(model, *sentences)
    names = [name for name, _ in model.named_parameters()]
    weights = tuple(part.detach().clone().requires_grad_() for part in model.parameters())

    def logits(*weights):
        for name, weight in zip(names, weights, strict=True):
            owner, _, own = name.rpartition(".")
            vars(model.get_submodule(owner))["_parameters"][own] = weight
        return model(*sentences)

    assert torch.autograd.gradcheck(logits, weights, fast_mode=True)
    assert {"forward", "backward"} == set(calls)


def test_gradcheck_of_the_sentences(calls):
    model, (left, right, *lengths) = pair(), given("lengths")
    keep_from_kinks(model, left, right, *lengths)
    checked = left.requires_grad_(), right.requires_grad_()
    assert torch.autograd.gradcheck(lambda *sentences: model(*sentences, *lengths), checked)
    assert "backward" in calls


def test_a_frozen_tower_gets_no_gradient_and_the_others_get_theirs(calls):
    model, sentences = pair(), given("alike")
    for parameter in model.left.parameters():
        parameter.requires_grad_(False)
    model.logit.bias.requires_grad_(False)
    wanted = [part for part in model.parameters() if part.requires_grad]
    found = torch.autograd.grad(model(*sentences).sum(), wanted)
    close(found, torch.autograd.grad(by_layers(model, *sentences).sum(), wanted), 1e-12)
    model(*sentences).sum().backward()
    assert all(part.grad is None for part in (*model.left.parameters(), model.logit.bias))
    assert calls == ["forward", "backward"] * 2


@pytest.mark.parametrize("shared", [False, True], ids=["two towers", "one tower"])
def test_gradients_have_gradients(shared):
    model, sentences = pair(shared=shared), given("lengths")
    weights = list(model.parameters())

    def second(call):
        slopes = torch.autograd.grad(call(*sentences).square().sum(), weights, create_graph=True)
        return [*slopes, *torch.autograd.grad(sum(slope.square().sum() for slope in slopes), weights)]

    close(second(model), second(lambda *args: by_layers(model, *args)), 1e-9)


def test_gradients_in_batches_of_functions_and_forward_mode():
    model, sentences = pair(), given("alike")
    left = sentences[0].requires_grad_()
    logits, directions = model(*sentences), torch.randn(4, 3, dtype=torch.float64)
    (found,) = torch.autograd.grad(logits, left, directions, is_grads_batched=True, retain_graph=True)
    close(found, [torch.autograd.grad(logits, left, one, retain_graph=True)[0] for one in directions], 1e-12)
    weights = dict(model.named_parameters())

    def loss(weights):
        return torch.func.functional_call(model, weights, sentences).square().sum()

    wanted = torch.autograd.grad(model(*sentences).square().sum(), list(weights.values()))
    close(torch.func.grad(loss)(weights).values(), wanted, 1e-12)
    slope = torch.randn_like(left)
    _, found = torch.func.jvp(lambda left: model(left, sentences[1]), (left.detach(),), (slope,))
    close([found.sum()], [(torch.autograd.grad(logits.sum(), left)[0] * slope).sum()], 1e-9)


def test_an_empty_batch_gives_every_weight_a_gradient_of_zero():
    model = pair()
    model(torch.randn(0, 6, 4).double(), torch.randn(0, 5, 4).double()).sum().backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())


def test_whoever_listens_to_gradients_hears_them(calls):
    model, sentences = pair(), [part.requires_grad_() for part in given("alike")]
    for layer in (model.left, model.right, model.dense, model.logit, model.pair_features):
        heard = []
        handle = layer.register_full_backward_hook(lambda *_, heard=heard: heard.append(1))
        model(*sentences).sum().backward()
        handle.remove()
        assert heard == [1], layer
    handle = nn.modules.module.register_module_full_backward_hook(lambda *_: heard.append(2))
    model(*sentences).sum().backward()
    handle.remove()
    assert heard.count(2) > 1
    assert calls == []


def test_hooks_that_change_what_was_saved_are_refused():
    for change in (lambda s: s.float(), lambda s: s[:1].clone()):
        with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, change):
            result = pair()(*given("lengths")).sum()
        with pytest.raises(RuntimeError, match="came back from torch's graph"):
            result.backward()


def test_a_weight_that_changed_before_the_backward_pass_is_refused():
    for name in ("left.conv.weight", "dense.weight", "logit.bias"):
        model = pair()
        result = model(*given("alike")).sum()
        with torch.no_grad():
            model.get_parameter(name).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            result.backward()


def test_a_not_a_number_stays_one():
    model, (left, right) = pair(), given("alike")
    left[1, 0, 0] = torch.nan
    logits = model(left, right)
    assert logits.isnan().tolist() == [False, True, False]
    for part, slope in zip(
        model.parameters(), torch.autograd.grad(logits.sum(), list(model.parameters())), strict=True
    ):
        (wanted,) = torch.autograd.grad(by_layers(model, left, right).sum(), part)
        assert torch.equal(slope.isnan(), wanted.isnan())


def test_batches_of_two_sizes_are_refused():
    with pytest.raises(ShapeContractError, match="batch"):
        pair()(torch.randn(3, 6, 4).double(), torch.randn(2, 5, 4).double())


@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "with gradients"])
def test_a_tower_of_five_words_refuses_other_lengths(gradients):
    model = TwoTowers(Tower(vector_width=4), Tower(words=5, vector_width=4))
    with torch.set_grad_enabled(gradients), pytest.raises(ValueError, match=r"lengths\[1\] is 4; this tower needs"):
        model(torch.randn(2, 6, 4), torch.randn(2, 5, 4), None, torch.tensor([5, 4]))
