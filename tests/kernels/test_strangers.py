"""What strangers do to a model between calls: each gives what the layers give, or one clear error.

Raw pointers lie in memory that others may resize, share, swap or view; and weights come and go.
"""

import copy
import io
import os
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from towers import Ragged, RaggedLSTM, Tower, TwoTowers
from towers.contracts import ShapeContractError, checks
from towers.kernels import cpu

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=f"the C code cannot run: {cpu.why_not()}")


def pair(**where) -> TwoTowers:
    left, right = Tower(vector_width=8, hidden=3, **where), Tower(5, vector_width=8, hidden=3, **where)
    return TwoTowers(left, right, **where)


def given(dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 6, 8, dtype=dtype), torch.randn(3, 5, 8, dtype=dtype)


def as_layers(model: nn.Module, *sentences) -> None:
    """The results and gradients of a model are those of its layers."""
    sentences = sentences or given(next(model.parameters()).dtype)
    weights, results = [part for part in model.parameters() if part.requires_grad], []
    for hooks in (False, True):
        handles = [m.register_forward_hook(lambda *_: None) for m in model.modules() if hooks and m is not model]
        with torch.no_grad():
            forward = model(*sentences)
        slopes = torch.autograd.grad(model(*sentences).square().sum(), weights, allow_unused=True)
        results.append([forward, *[slope for slope in slopes if slope is not None]])
        for handle in handles:
            handle.remove()
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


# Copies and other storages.


def copied(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.normal_()
    return other


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def shared(model):
    return model.share_memory()


def assigned(model):
    model.load_state_dict(pair().state_dict(), assign=True)
    return model


def in_double(model):
    return model.double()


def swapped(model):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        return model.double().float()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def views_of_one_vector(model):
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()) * 2, model.parameters())
    return model


def averaged(model):
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(pair())
    average.update_parameters(pair())
    return average.module


def set_to_another(model):
    with torch.no_grad():
        model.left.conv.weight.set_(torch.randn(2, 32, 8))
    return model


def of_numpy(model):
    model.left.conv.weight.data = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 32, 8)).astype("float32"))
    return model


def tied(model):
    model.right.conv.weight, model.right.lstm.weight_hh_l0 = model.left.conv.weight, model.left.lstm.weight_hh_l0
    return model


def weight_norm(model):
    nn.utils.parametrizations.weight_norm(model.left.conv, "weight")
    nn.utils.parametrizations.spectral_norm(model.right.lstm, "weight_ih_l0")
    return model.eval()


def imaginary_part(model):
    model.left.conv.bias.data = torch.randn(32, dtype=torch.complex64).conj().imag
    return model


def from_meta(model):
    with torch.device("meta"):
        other = pair()
    other.to_empty(device="cpu").reset_parameters()
    return other


def head_without_bias(model):
    model.dense = nn.Linear(3, 16, bias=False)
    return model


STRANGERS = (
    copied, pickled, saved, shared, assigned, in_double, swapped, views_of_one_vector, averaged, set_to_another,
    of_numpy, tied, weight_norm, imaginary_part, from_meta, head_without_bias,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("change", STRANGERS, ids=lambda change: change.__name__)
def test_a_model_that_was_called_and_then_changed(change):
    model = pair()
    model(*given())
    model.requires_grad_()
    other = change(model)
    as_layers(other)
    if other is not model:
        as_layers(model)


SENTENCES = {
    "permuted": lambda: torch.randn(8, 6, 3).permute(2, 1, 0),
    "expanded": lambda: torch.randn(1, 1, 8).expand(3, 6, 8),
    "every second": lambda: torch.randn(6, 6, 8)[::2],
    "inside a buffer": lambda: torch.randn(1000)[100 : 100 + 3 * 6 * 8].view(3, 6, 8),
    "negative": lambda: torch._neg_view(torch.randn(3, 6, 8)),
    "imaginary": lambda: torch.randn(3, 6, 8, dtype=torch.complex64).imag,
    "made in inference mode": lambda: torch.inference_mode()(torch.randn)(3, 6, 8),
    "not aligned": lambda: torch.from_numpy(np.ones(577, np.uint8)[1:].view(np.float32).reshape(3, 6, 8)),
}


@pytest.mark.parametrize("kind", SENTENCES)
def test_sentences_in_memory_of_another_kind(kind):
    left = SENTENCES[kind]()
    with torch.no_grad():
        torch.testing.assert_close(pair_(left), pair_(left.clone().contiguous().resolve_neg()))
    if kind != "made in inference mode":
        as_layers(pair(), left, given()[1])


def pair_(left: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(3)
    return pair()(left, torch.randn(3, 5, 8))


def test_sentences_of_inference_mode_are_refused_for_gradients_as_torch_does():
    with torch.inference_mode():
        left, right = given()
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        pair()(left, right)


def test_lengths_offsets_and_ids_that_change_before_the_backward_pass():
    model, (left, right), lengths = pair(), given(), torch.tensor([6, 2, 4])
    weights = list(model.parameters())
    wanted = torch.autograd.grad(model(left, right, lengths).sum(), weights)
    result = model(left, right, lengths).sum()
    lengths.fill_(10**6)
    for found, slope in zip(torch.autograd.grad(result, weights), wanted, strict=True):
        assert torch.equal(found, slope)
    ids, offsets = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 2, 4])
    sentences = Ragged(ids, offsets, table=torch.randn(5, 8))
    (wanted,) = torch.autograd.grad(model.left(sentences).sum(), model.left.conv.weight)
    result = model.left(sentences).sum()
    ids.fill_(10**6)
    offsets.fill_(10**6)
    assert torch.equal(torch.autograd.grad(result, model.left.conv.weight)[0], wanted)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_and_saved_tensors_elsewhere(reentrant):
    model, sentences = pair(), given()
    weights = list(model.parameters())
    wanted = torch.autograd.grad(model(*sentences).sum(), weights)
    for sentence in sentences:
        sentence.requires_grad_()
    checkpoint(model, *sentences, use_reentrant=reentrant).sum().backward()
    with torch.autograd.graph.save_on_cpu():
        again = model(*sentences).sum()
    for weight, slope, saved in zip(weights, wanted, torch.autograd.grad(again, weights), strict=True):
        torch.testing.assert_close(weight.grad, slope)
        assert torch.equal(saved, slope)


def test_a_graph_is_gone_after_its_backward_pass():
    result = pair()(*given()).sum()
    result.backward(retain_graph=True)
    result.backward()
    with pytest.raises(RuntimeError, match="second time"):
        result.backward()


def test_another_default_device_and_dtype_change_nothing():
    lengths, sentences, model = torch.tensor([6, 2, 4]), given(), pair()
    ids = Ragged(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 2, 4]), table=torch.randn(5, 8))
    wanted = model(*sentences, lengths), model.left(ids)
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float64)
    try:
        found = model(*sentences, lengths), model.left(ids)
        for result in found:
            torch.autograd.grad(result.sum(), model.left.conv.weight, create_graph=True)
        with torch.no_grad():
            found += model(*sentences, lengths), model.left(ids)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, wanted * 2, strict=True):
        torch.testing.assert_close(one, other)


def test_threads_side_by_side_and_a_forked_child():
    model, sentences, wrong = pair(), given(), []
    wanted = model(*sentences).detach()

    def work():
        for _ in range(40):
            result = model(*sentences)
            torch.autograd.grad(result.sum(), model.left.conv.weight)
            if not torch.equal(result, wanted):
                wrong.append(result)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    if not hasattr(os, "fork"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests' threads; the child calls C and ends
        child = os.fork()
    if child == 0:
        with torch.no_grad():
            os._exit(0 if torch.equal(model(*sentences), wanted) else 3)
    assert os.waitpid(child, 0)[1] == 0


# One clear error.


def test_a_weight_that_was_taken_away_is_named():
    for mode in ("on", "off"):
        with checks(mode):
            model = pair()
            model.left.lstm.bias_ih_l0 = None
            with pytest.raises(ValueError, match=r"RaggedLSTM: bias_ih_l0 is None; .*bias=False"):
                model(*given())
            model = pair()
            model.left.conv.bias = None
            with pytest.raises(ValueError, match="PhraseConv: bias is None"):
                model(*given())
            model = pair()
            del model.left.conv.weight
            with pytest.raises((AttributeError, ValueError), match="weight"):
                model(*given())
    lstm = RaggedLSTM(8, 3)
    lstm.bias_hh_l0 = None
    with pytest.raises(ValueError, match=r"bias_hh_l0 is None"):
        lstm(torch.randn(3, 6, 8))


@pytest.mark.filterwarnings("ignore")  # of torch.ao, about itself
def test_a_quantized_head_compares_states():
    model, sentences = pair(), given()
    smaller = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    with torch.no_grad():
        torch.testing.assert_close(smaller(*sentences), model(*sentences), rtol=0.1, atol=0.1)
        states = torch.randn(2, 3), torch.randn(2, 3)
        torch.testing.assert_close(smaller.compare(*states), model.compare(*states), rtol=0.1, atol=0.1)


def test_complex_sentences_are_refused_and_half_ones_served_by_the_layers():
    with pytest.raises(ShapeContractError, match="complex64"):
        pair()(*given(torch.complex64))
    for dtype in (torch.float16, torch.bfloat16):
        assert pair(dtype=dtype)(*given(dtype)).dtype == dtype
