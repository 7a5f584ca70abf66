"""The searches by C code and those in torch."""

import pytest

from towers.kernels.cpu import heads_call, topk_call, why_not


@pytest.fixture(params=["native", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each backend that a search has on the CPU, in turn."""
    if request.param == "torch":
        for kernel in (topk_call, heads_call):
            monkeypatch.setattr(kernel, "serves", lambda _: False)
    elif why_not() is not None:
        pytest.skip(f"the C code cannot run: {why_not()}")
    return request.param
