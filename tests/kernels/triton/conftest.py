"""Where the fused kernels' tests run.

In plain torch, which stands in the launchers' place, and on the GPU if there is one; or in Triton's interpreter, which
has to be chosen before Triton is imported and so has a process of its own (`test_interpreter.py` starts it).
"""

import os

import pytest
import torch

pytest.importorskip("triton")


def replace_language_once() -> None:
    """In each call of a device function, Triton's interpreter replaces what its module sees of triton.language.

    Until the launch ends, nothing is left to replace after the first call, but to look for it takes 60 % of the time.
    What Triton's own modules see is never put back.
    """
    from triton.runtime.interpreter import InterpretedFunction

    whole, seen = InterpretedFunction.__call__, set[str]()

    def call(self: InterpretedFunction, *args: object, **kwargs: object) -> object:
        if self.fn.__module__ in seen:
            return self.rewrite()(*args, **kwargs)
        seen.add(self.fn.__module__)
        return whole(self, *args, **kwargs)

    InterpretedFunction.__call__ = call


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    replace_language_once()

BACKENDS = ["interpreted"] if INTERPRETED else ["plain", pytest.param("cuda", marks=pytest.mark.cuda)]


def replace_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators compute in plain torch from here on."""
    from towers.kernels.triton import best_items, lstm_narrow, lstm_wide, phrase_features

    from . import plain_lstm, plain_phrases, plain_search

    monkeypatch.setattr(lstm_narrow, "launch_forward", plain_lstm.narrow_forward)
    monkeypatch.setattr(lstm_narrow, "launch_backward", plain_lstm.narrow_backward)
    monkeypatch.setattr(lstm_wide, "launch_forward", plain_lstm.wide_forward)
    monkeypatch.setattr(lstm_wide, "launch_backward", plain_lstm.wide_backward)
    monkeypatch.setattr(phrase_features, "launch_forward", plain_phrases.forward)
    monkeypatch.setattr(phrase_features, "launch_lookup", plain_phrases.lookup)
    monkeypatch.setattr(phrase_features, "launch_backward", plain_phrases.backward)
    monkeypatch.setattr(best_items, "launch", plain_search.launch)


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
        from towers.layers import fused, lstm

        monkeypatch.setattr(lstm, "run_plain", lambda *_, **__: None)
        monkeypatch.setattr(fused, "_tensors", lambda _: None)
        monkeypatch.setattr(fused, "_compiled", lambda tower, sentences, lengths: None)
        monkeypatch.setattr(support, "runs_on", lambda device: True)
        monkeypatch.setattr(dispatch, "_on_device", lambda batch: True)
    return device
