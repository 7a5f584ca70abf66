"""What every test shares: its seed, the options, the number of processes, the markers, and the reference data."""

import atexit
import faulthandler
import gc
import importlib
import math
import os
import random
import signal
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, core, settings

from .helpers.forked import Forks

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"

HANGS, AGAIN = 300.0, 20.0  # seconds: a test may take the first, less at most the second
STANDARD_ERROR = pytest.StashKey[int]()
CLOCK_SET = pytest.StashKey[float]()
FORKS = pytest.StashKey[Forks]()

# Of a device that it has not started yet, torch.manual_seed notes the stack, which takes a millisecond for each test.
SEED_TORCH = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed

ANY_MACHINE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}  # however busy it is
settings.register_profile("here", **ANY_MACHINE)
settings.register_profile("ci", **ANY_MACHINE, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests with long counts too")
    parser.addoption("--seed", type=int, default=0, help="of all random numbers, those of hypothesis too (default 0)")
    parser.addoption("--random-order", action="store_true", help="shuffle the tests, in an order that --seed chooses")


@pytest.hookimpl(tryfirst=True)  # before xdist reads its options
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite runs in a process for each core, where pytest-xdist is installed and -n says nothing else."""
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS
    worker = "PYTEST_XDIST_WORKER" in os.environ  # it runs what it is given, and starts no processes of its own
    if whole and not worker and config.pluginmanager.has_plugin("xdist") and config.option.numprocesses is None:
        config.option.numprocesses, config.option.maxprocesses = "logical", config.option.maxprocesses or 8
        config.option.dist = "worksteal"


def seed_everything(config: pytest.Config, name: str) -> None:
    """Random numbers depend on what asks for them and on --seed, not on what ran before."""
    seed = zlib.crc32(f"{config.getoption('--seed')} {name}".encode())
    random.seed(seed)
    np.random.seed(seed)
    SEED_TORCH(seed)


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    seed_everything(request.config, request.node.name)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """A test that hangs ends its process, and says where it hung: the others run on in the next one.

    The clock is not set anew for each test: that starts a thread, which takes a millisecond.
    """
    if time.monotonic() - item.config.stash.get(CLOCK_SET, -math.inf) > AGAIN:
        faulthandler.dump_traceback_later(HANGS, exit=True, file=item.config.stash[STANDARD_ERROR])
        item.config.stash[CLOCK_SET] = time.monotonic()


def pytest_sessionfinish() -> None:
    faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> Iterator[None]:
    """A fixture that several tests share has a seed of its own: any of them may be the first."""
    if fixturedef.scope != "function":
        seed_everything(request.config, fixturedef.argname)
    return (yield)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """What a module draws when it is imported."""
    seed_everything(collector.config, collector.name)


def refuse_an_unbuilt_checkout() -> None:
    """Half of the tests would be skipped, or fail one by one, for a reason that has one remedy."""
    from towers.kernels.cpu import library

    try:
        if library.why_not() == library.NEVER_BUILT:
            pytest.exit(f"{library.NEVER_BUILT}: {library.BUILD_AGAIN}", returncode=4)
    except ImportError as other_sources:
        pytest.exit(str(other_sources), returncode=4)
    with warnings.catch_warnings():  # without a compiler the suite runs, with torch alone: it need not be warned
        warnings.simplefilter("ignore")
        library.code(torch.float32)


def pytest_configure(config: pytest.Config) -> None:
    refuse_an_unbuilt_checkout()
    config.stash[STANDARD_ERROR] = os.dup(2)  # what is not captured
    # Python takes apart what is left at its end, or libraries say that it leaks; pytest looks for garbage before.
    atexit.register(gc.unfreeze)
    with suppress(ImportError):
        importlib.import_module("setuptools")  # torch.compile does; it fails where Python's distutils came first
    core.global_force_seed = config.getoption("--seed")
    # One thread, here and in the processes that tests start: their tensors are small, and more threads than free
    # cores wait for each other, tens of times slower.
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    # A job in the background inherits an ignored Ctrl-C; the tests that press it need what a person has.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """The processes of xdist have one server for all, which imports while they collect."""
    stash = node.config.stash
    if FORKS not in stash:
        stash[FORKS] = server = Forks()
        server.start()
        node.config.add_cleanup(server.stop)
    node.workerinput["forks"] = str(stash[FORKS].folder)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """What is imported stays: to look for garbage in it, then and while tests run, takes longer than many tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # Python takes apart what is left at its end, or libraries say that it leaks
        gc.enable()
        gc.set_threshold(10_000)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--random-order"):
        random.Random(config.getoption("--seed")).shuffle(items)
    elif "PYTEST_XDIST_WORKER" in os.environ:  # else one process would be left with a long test at the end
        items.sort(key=lambda item: "long" not in item.keywords)
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


@pytest.fixture(scope="session")
def forks(request: pytest.FixtureRequest) -> Iterator[Forks]:
    """Runs of the command and of scripts, in processes of their own that need not import torch."""
    started = getattr(request.config, "workerinput", {}).get("forks")
    if started is not None:
        yield Forks(Path(started)).wait()
    else:
        with Forks() as server:
            yield server


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
