"""Where the fused kernels' tests run.

In plain torch, which stands in the launchers' place, and on the GPU if there is one; or in Triton's interpreter, which
has to be chosen before Triton is imported and so has a process of its own (`test_interpreter.py` starts it).
"""

import os

import pytest
import torch

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    from triton.runtime.interpreter import InterpretedFunction

    # A launch replaces the functions of triton.language. Triton does it again in each call of a device function, and
    # looks through the whole language for what is not yet replaced, which is nothing: 60 % of the interpreter's time.
    InterpretedFunction.__call__ = lambda self, *args, **kwargs: self.rewrite()(*args, **kwargs)

BACKENDS = ["interpreted"] if INTERPRETED else ["plain", pytest.param("cuda", marks=pytest.mark.cuda)]


def replace_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators compute in plain torch from here on."""
    from towers.kernels.triton import lstm_narrow, lstm_wide, phrase_features

    from . import plain_lstm, plain_phrases

    monkeypatch.setattr(lstm_narrow, "launch_forward", plain_lstm.narrow_forward)
    monkeypatch.setattr(lstm_narrow, "launch_backward", plain_lstm.narrow_backward)
    monkeypatch.setattr(lstm_wide, "launch_forward", plain_lstm.wide_forward)
    monkeypatch.setattr(lstm_wide, "launch_backward", plain_lstm.wide_backward)
    monkeypatch.setattr(phrase_features, "launch_forward", plain_phrases.forward)
    monkeypatch.setattr(phrase_features, "launch_lookup", plain_phrases.lookup)
    monkeypatch.setattr(phrase_features, "launch_backward", plain_phrases.backward)


@pytest.fixture(params=BACKENDS)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Of the tensors."""
    if request.param == "plain":
        replace_launchers(monkeypatch)
    return torch.device("cuda" if request.param == "cuda" else "cpu")


@pytest.fixture
def served(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Layers take the fused kernels' operators, on the CPU as they do on a GPU."""
    if device.type == "cpu":
        from towers.kernels import dispatch
        from towers.kernels.triton import support
        from towers.layers import fused

        monkeypatch.setattr(fused, "_native_serves", lambda *_: False)
        monkeypatch.setattr(support, "runs_on", lambda device: True)
        monkeypatch.setattr(dispatch, "_on_device", lambda batch: True)
    return device
