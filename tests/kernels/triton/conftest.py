"""Where the fused kernels' tests run: plain torch and, if there is one, the GPU; or Triton's interpreter, which has to
be chosen before Triton is imported and so has a process of its own (`test_interpreter.py` starts it)."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
WAYS = ["interpreted"] if INTERPRETED else ["plain", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=WAYS)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Of the tensors; operators on the CPU start the kernels where Triton interprets them."""
    if request.param == "interpreted":
        from towers.kernels.triton import lstm_launch, lstm_ops, phrase_launch, phrase_ops

        monkeypatch.setattr(lstm_ops, "_way", lambda values: lstm_launch)
        monkeypatch.setattr(phrase_ops, "_way", lambda values: phrase_launch)
    return torch.device("cuda" if request.param == "cuda" else "cpu")


@pytest.fixture
def served(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Layers take the fused kernels' operators, on the CPU as they do on a GPU."""
    if device.type == "cpu":
        from towers.kernels import dispatch, triton
        from towers.layers import fused

        monkeypatch.setattr(fused, "_native_serves", lambda *_: False)
        monkeypatch.setattr(triton, "runs_on", lambda device: True)
        monkeypatch.setattr(dispatch, "_on_device", lambda batch: True)
    return device
