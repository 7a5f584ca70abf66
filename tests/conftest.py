"""What every test shares: the option --slow, the markers, and the folder of reference data beside the repository."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests with long counts too")


def pytest_configure() -> None:
    # One thread, here and in the processes that tests start: their tensors are small, and more threads than free
    # cores wait for each other, tens of times slower.
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    # A job in the background inherits an ignored Ctrl-C; the tests that press it need what a person has.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {}
    if not config.getoption("--slow"):
        reasons["slow"] = "long counts: run with --slow"
    if not torch.cuda.is_available():
        reasons["cuda"] = "no NVIDIA GPU here"
    for item in items:
        for marker in reasons.keys() & item.keywords.keys():
            item.add_marker(pytest.mark.skip(reason=reasons[marker]))


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data too large or not free to copy in: Keras's own files, SICK, word vectors."""
    if not SHARED.is_dir():
        pytest.skip("no folder 'shared' beside the repository")
    return SHARED


@pytest.fixture(params=["native", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each backend that an LSTM has on the CPU, in turn; for "native" what the C code does not run is left to torch."""
    from towers.kernels import cpu
    from towers.kernels.cpu import lstm_autograd

    if request.param == "torch":
        monkeypatch.setattr(lstm_autograd, "refusal", lambda *_: "a test asks for torch")
    elif cpu.why_not() is not None:
        pytest.skip(f"the C code cannot run: {cpu.why_not()}")
    return request.param
