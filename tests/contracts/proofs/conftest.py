"""What the tests of proofs share."""

import pytest

from towers.contracts import verify


@pytest.fixture(autouse=True)
def time_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ten seconds that a proof has by default are not enough where ten other programs run."""
    monkeypatch.setitem(verify.__kwdefaults__, "seconds", 30.0)
