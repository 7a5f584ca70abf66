"""What the tests of the command share."""

import pytest


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """To draw them is most of a small run. Runs in processes of their own draw them, and so does tests/training."""
    monkeypatch.setattr("towers.training.run.draw_curves", lambda history, path: path.write_bytes(b"\x89PNG"))
