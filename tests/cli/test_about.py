"""`towers about` says what runs, and what does not and why; nothing that is broken ends it."""

from importlib.metadata import version

import pytest
import torch

import towers
from towers.cli import main
from towers.kernels.cpu import library, threads

from ..helpers.native import loaded_anew


def about(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert main(["about"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return dict(line.split(": ", 1) for line in out.splitlines())


def test_what_runs_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("TOWERS_NATIVE", raising=False)
    told = about(capsys)
    assert towers.__file__.startswith(told["towers"].split(", ")[1])
    assert f"torch {version('torch')}" in told["packages"].split(", ")
    assert "lightning 2" in told["packages"]
    assert told["threads"] == "1 of torch; C code runs on them"
    assert told["environment"].startswith("OMP_NUM_THREADS=1")
    if library.level() is not None:
        assert told["native code"].startswith(f"{library.level()} (compiled by ")


def test_why_native_code_does_not_run_is_said(capsys: pytest.CaptureFixture[str]):
    with loaded_anew() as patch:
        patch.setenv("TOWERS_NATIVE", "off")
        assert about(capsys)["native code"] == "none: TOWERS_NATIVE is off"
    with loaded_anew() as patch:
        patch.setenv("TOWERS_NATIVE", "v9")
        assert about(capsys)["native code"].startswith("none: TOWERS_NATIVE is 'v9'; expected off, v2, v3 or v4")


def test_a_library_of_other_sources_is_said(capsys: pytest.CaptureFixture[str]):
    if library.why_not() is not None:
        pytest.skip(f"the C code cannot run: {library.why_not()}")
    with loaded_anew() as patch:
        patch.setattr(library, "digest", lambda: "0123456789abcdef")
        assert "was built from other C sources" in about(capsys)["native code"]
        with pytest.raises(ImportError, match="built from other C sources"):
            towers.RaggedLSTM(2, 2)(torch.zeros(1, 1, 2))


def test_a_torch_without_threads_for_others_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(threads, "parallel_for", lambda: None)
    assert about(capsys)["threads"].endswith("C code runs on one: this torch shares none")
