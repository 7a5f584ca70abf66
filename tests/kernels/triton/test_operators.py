"""The operators as compile, export and autograd see them."""

import warnings
from typing import Any

import pytest
import torch

from towers.kernels.triton import lstm_narrow, lstm_wide, phrase_features

BACKENDS = {"narrow": (lstm_narrow.narrow_lstm, lstm_narrow.narrow_lstm_backward)}
BACKENDS["wide"] = (lstm_wide.wide_lstm, lstm_wide.wide_lstm_backward)
kinds = pytest.mark.parametrize("kind", BACKENDS)


def opcheck(operator: Any, arguments: tuple[object, ...]) -> None:
    """torch's own check of an operator, which warns about itself: it reads .grad of tensors that are not leaves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("default", "The .grad attribute of a Tensor that is not a leaf", module="torch")
        torch.library.opcheck(operator, arguments)


def random(*shape: int, device: torch.device, gradient: bool = True) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(device).requires_grad_(gradient)


def lstm_arguments(kind: str, state: bool, device: torch.device, gaps: bool = False) -> tuple[object, ...]:
    """Without the last four, precision (of the wide ones), keep, outputs, gaps: the tensors.

    Few steps, each of which the interpreter walks some seventy times: test_lstm.py has many. The wide ones leave rows
    of no sentence as they were in all but the outputs, and `opcheck` compares every row: here there are none.
    """
    hidden, width, rows, batch = (6, 8, 4, 3) if kind == "narrow" else (18, 5, 4, 3)
    lengths = torch.tensor([1, 0, 2] if gaps and kind == "narrow" else [2, 0, 2], device=device)
    starts = torch.tensor([0, 2, 2], device=device)
    weight_ih, bias = random(2, 4 * hidden, width, device=device), random(2, 4 * hidden, device=device)
    weight_hh = random(2, 4 * hidden, hidden, device=device)
    inputs = (random(rows, width, device=device), weight_ih, weight_hh, bias)
    how = (*(["ieee"] if kind == "wide" else []), True, True, gaps)
    start = [random(2, batch, hidden, device=device) if state else None for _ in range(2)]
    return (*inputs, starts, lengths, *start, *how)


@pytest.mark.parametrize("gaps", [False, True], ids=["end to end", "gaps"])
@pytest.mark.parametrize("state", [False, True], ids=["from zero", "from a state"])
@kinds
def test_the_lstm(kind, state, gaps, device):
    opcheck(BACKENDS[kind][0], lstm_arguments(kind, state, device, gaps))


def test_the_wide_lstm_compiled_with_poisoned_rows_of_no_sentence(device):
    """What opcheck compares last, for which it takes every row of all results: outputs and states here, and gradients."""
    *tensors, starts, lengths, h_0, c_0 = lstm_arguments("wide", True, device)[:-4]
    lengths, inputs = torch.tensor([1, 0, 2], device=device), [*tensors, h_0, c_0]
    forward = BACKENDS["wide"][0]

    def call(*given):
        output, *_, h_n, c_n = forward(*given[:4], starts, lengths, *given[4:], "ieee", True, True, True)
        return output, h_n, c_n

    def all_of(function):
        results = function(*inputs)
        return [*results, *torch.autograd.grad(sum(part.square().sum() for part in results), inputs)]

    torch.use_deterministic_algorithms(True)  # memory that was not written yet is NaN
    try:
        found, wanted = (all_of(one) for one in (torch.compile(call, backend="aot_eager", dynamic=True), call))
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(found, wanted, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(forward, (*tensors, starts, lengths, h_0, c_0, "ieee", True, True, True), test_utils=checks)


@kinds
def test_outputs_and_gradients_in_rows_of_no_sentence_are_0(kind, device):
    *tensors, starts, lengths, h_0, c_0 = lstm_arguments(kind, False, device)[: -3 - (kind == "wide")]
    lengths = torch.tensor([1, 0, 2], device=device)
    how = (*(["ieee"] if kind == "wide" else []), True, True, True)
    torch.use_deterministic_algorithms(True)  # memory that was not written yet is NaN
    try:
        output, *_, h_n, c_n = BACKENDS[kind][0](*tensors, starts, lengths, h_0, c_0, *how)
        found = torch.autograd.grad(output.sum() + h_n.sum() + c_n.sum(), tensors)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(part.isfinite().all() for part in (output, h_n, c_n, *found))
    assert not output[1].any()
    assert not found[0][1].any()


@pytest.mark.parametrize("gaps", [False, True], ids=["end to end", "gaps"])
@kinds
def test_the_lstms_backward(kind, gaps, device):
    forward, backward = BACKENDS[kind]
    arguments = lstm_arguments(kind, False, device, gaps)
    with torch.no_grad():
        output, *kept, h_n, c_n = forward(*arguments)
        inputs = [part.detach() if isinstance(part, torch.Tensor) else part for part in arguments]
        *tensors, _, _ = inputs[: -3 - (kind == "wide")]  # without the states before the first step
        how = ["ieee", gaps, True] if kind == "wide" else [gaps]
        opcheck(backward, (*tensors, *kept, output, h_n, c_n, *how))


def phrase_arguments(device: torch.device, gradient: bool = True) -> list[torch.Tensor]:
    return [random(*shape, device=device, gradient=gradient) for shape in ((20, 12), (2, 16, 12), (16,))]


@pytest.mark.parametrize("masked", [False, True], ids=["all real", "padding"])
def test_phrases(masked, device):
    vectors, weight, bias = phrase_arguments(device)
    real = torch.arange(20, device=device) % 5 < 4 if masked else None
    opcheck(phrase_features.phrase_features, (vectors, None, weight, bias, real, 4, "ieee", True))
    ids = torch.arange(30, device=device) % 20
    real = torch.arange(30, device=device) % 5 < 4 if masked else None
    opcheck(phrase_features.phrase_features, (vectors.detach(), ids, weight, bias, real, 4, "ieee", True))
    opcheck(phrase_features.phrase_lookup, (random(20, 2, 16, device=device), ids, bias, real, 4, True))


@pytest.mark.parametrize("vectors", [False, True], ids=["weights only", "vectors too"])
def test_phrases_backward(vectors, device):
    values, weight, bias = phrase_arguments(device, gradient=False)
    features, winners = phrase_features.phrase_features(values, None, weight, bias, None, 4, "ieee", True)
    opcheck(
        phrase_features.phrase_features_backward, (values, None, weight, bias, None, winners, features, "ieee", vectors)
    )
