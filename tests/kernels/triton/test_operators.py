"""The operators as compile, export and autograd see them."""

import pytest
import torch
from torch.library import opcheck

from towers.kernels.triton import lstm_ops, phrase_ops

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
on_devices = pytest.mark.parametrize("device", DEVICES)


def random(*shape: int, device: str, gradient: bool = True) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(device).requires_grad_(gradient)


def lstm_arguments(narrow: bool, state: bool, device: str, gaps: bool = False) -> tuple[object, ...]:
    hidden, width, rows, batch = (6, 8, 9, 4) if narrow else (18, 5, 9, 4)
    lengths = torch.tensor([3, 0, 5, 1] if not gaps else [2, 0, 4, 1], device=device)
    starts = torch.tensor([0, 3, 3, 8], device=device)
    values = random(rows, width if narrow else 8 * hidden, device=device)
    weight_ih, bias = random(2, 4 * hidden, width, device=device), random(2, 4 * hidden, device=device)
    weight_hh = random(2, 4 * hidden, hidden, device=device)
    inputs = (values, weight_ih, weight_hh, bias) if narrow else (values, None, weight_hh, None)
    start = [random(2, batch, hidden, device=device) if state else None for _ in range(2)]
    return (*inputs, starts, lengths, *start, "ieee", True, True, gaps)


@on_devices
@pytest.mark.parametrize("gaps", [False, True], ids=["end to end", "gaps"])
@pytest.mark.parametrize("state", [False, True], ids=["from zero", "from a state"])
@pytest.mark.parametrize("narrow", [True, False], ids=["few units", "many units"])
def test_the_lstm(narrow, state, gaps, device):
    opcheck(lstm_ops.fused_lstm, lstm_arguments(narrow, state, device, gaps))


@on_devices
@pytest.mark.parametrize("narrow", [True, False], ids=["few units", "many units"])
def test_the_lstms_backward(narrow, device):
    *tensors, precision, _, _, gaps = lstm_arguments(narrow, False, device)
    with torch.no_grad():
        output, before_h, before_c, h_n, c_n = lstm_ops.fused_lstm(*tensors, precision, True, True, gaps)
        tensors = [None if tensor is None else tensor.detach() for tensor in tensors]
        arguments = (*tensors, before_h, before_c, output, h_n, c_n, precision, gaps)
        opcheck(lstm_ops.fused_lstm_backward, arguments)


def phrase_arguments(device: str, gradient: bool = True) -> list[torch.Tensor]:
    return [random(*shape, device=device, gradient=gradient) for shape in ((20, 12), (2, 16, 12), (16,))]


@on_devices
@pytest.mark.parametrize("masked", [False, True], ids=["all real", "padding"])
def test_phrases(masked, device):
    vectors, weight, bias = phrase_arguments(device)
    real = torch.arange(20, device=device) % 5 < 4 if masked else None
    opcheck(phrase_ops.phrase_features, (vectors, None, weight, bias, real, 4, "ieee", True))
    ids = torch.arange(30, device=device) % 20
    real = torch.arange(30, device=device) % 5 < 4 if masked else None
    opcheck(phrase_ops.phrase_features, (vectors.detach(), ids, weight, bias, real, 4, "ieee", True))
    opcheck(phrase_ops.phrase_lookup, (random(20, 2, 16, device=device), ids, bias, real, 4, True))


@on_devices
@pytest.mark.parametrize("vectors", [False, True], ids=["weights only", "vectors too"])
def test_phrases_backward(vectors, device):
    values, weight, bias = phrase_arguments(device, gradient=False)
    features, winners = phrase_ops.phrase_features(values, None, weight, bias, None, 4, "ieee", True)
    opcheck(phrase_ops.phrase_features_backward, (values, None, weight, bias, None, winners, features, "ieee", vectors))
