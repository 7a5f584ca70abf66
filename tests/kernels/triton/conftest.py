"""Where the fused kernels' tests run.

In plain torch, which stands in the launchers' place, and on the GPU if there is one; or in Triton's interpreter, which
has to be chosen before Triton is imported and so has a process of its own (`test_interpreter.py` starts it).
"""

import os
from typing import Any

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


def remember_types() -> None:
    """Triton's interpreter makes the type of each result anew, and reads from it its shape and its dtype of NumPy.

    They follow from the element type and the sizes alone; to find them again takes a third of the time.
    """
    from triton.language import core, semantic
    from triton.runtime import interpreter

    type_of, tensor_of, numpy_type = core.block_type.__init__, core.tensor.__init__, interpreter._get_np_dtype
    broadcast = semantic.TritonSemantic.broadcast_impl_value
    known: dict[tuple[int, ...], dict[str, Any]] = {}  # the element types stay alive in it: no other gets their id

    def make_type(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = (*(getattr(size, "value", size) for size in shape),)
        key = (id(element_ty), *sizes)
        if key not in known:
            type_of(self, element_ty, shape)
            known[key] = {**vars(self), "sizes": sizes}
        self.__dict__ = known[key]

    def make_tensor(self: Any, handle: Any, type: Any) -> None:
        facts = vars(type)
        if "of_tensors" not in facts:
            tensor_of(self, handle, type)
            facts["of_tensors"] = {name: vars(self)[name] for name in ("shape", "numel", "dtype")}
        vars(self).update(facts["of_tensors"], handle=handle, type=type)

    def make_alike(self: Any, lhs: Any, rhs: Any) -> Any:
        one, other = vars(lhs.type).get("sizes"), vars(rhs.type).get("sizes")
        return (lhs, rhs) if one == other else broadcast(self, lhs, rhs)

    def in_numpy(type: Any) -> Any:
        facts = vars(type)
        if "in_numpy" not in facts:
            facts["in_numpy"] = numpy_type(type)
        return facts["in_numpy"]

    core.block_type.__init__, core.tensor.__init__ = make_type, make_tensor
    semantic.TritonSemantic.broadcast_impl_value = make_alike
    interpreter._get_np_dtype = in_numpy


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    replace_language_once()
    remember_types()

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
    """Layers take the fused kernels' operators, on the CPU as they do on a GPU; `test_eager` has the other way."""
    from towers.layers import fused, lstm

    monkeypatch.setattr(lstm, "run_on_gpu", lambda *_, **__: None)
    monkeypatch.setattr(fused, "tower_states", lambda *_: None)
    if device.type == "cpu":
        from towers.kernels import dispatch
        from towers.kernels.triton import support

        monkeypatch.setattr(lstm, "run_plain", lambda *_, **__: None)
        monkeypatch.setattr(fused, "_tensors", lambda _: None)
        monkeypatch.setattr(fused, "_compiled", lambda tower, sentences, lengths: None)
        monkeypatch.setattr(support, "runs_on", lambda device: True)
        monkeypatch.setattr(dispatch, "_on_device", lambda batch: True)
    return device
