"""The GPU tests' own tools, without a GPU."""

import stat
import warnings

import pytest
import torch

from .gpu_tools import no_waiting, sanitizer_refusal


def test_the_warning_of_the_mode_itself_leaves_no_mode_behind(monkeypatch):
    modes = []

    def set_mode(mode: str) -> None:
        modes.append(mode)
        warnings.warn("Synchronization debug mode is a prototype feature and does not yet detect all", stacklevel=2)

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyError), no_waiting():
            raise KeyError
    assert modes == ["error", "default"]


@pytest.mark.parametrize(("exit_code", "refused"), [(0, False), (1, True), (9, True)])
def test_a_sanitizer_that_is_refused_the_device_is_a_reason_to_skip(exit_code, refused, tmp_path):
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\necho '========= Error: Device not supported'\nexit {exit_code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    reason = sanitizer_refusal(str(program), "memcheck")
    assert (reason is not None) is refused
    assert not refused or "Device not supported" in reason
